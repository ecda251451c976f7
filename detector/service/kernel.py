"""Says once a process which kernel it runs, where that is not the compiled one."""

from __future__ import annotations

import logging
from functools import cache

from detector.detection.kernel.choice import choose
from detector.service.logs import event

_log = logging.getLogger(__name__)


@cache
def ready_kernel() -> None:
    """Choose the kernel of this process. Raises UserError if there is a library that calculates otherwise."""
    chosen = choose()
    if chosen.reason is not None:
        event(_log, logging.WARNING, "kernel_interpreted", reason=chosen.reason)
