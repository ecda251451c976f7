"""What is compiled in this process. Says once which kernel it runs, where that is not the compiled one."""

from __future__ import annotations

import logging
import os
from ctypes import CDLL
from functools import cache

from detector.detection.kernel.build import SCAN_SOURCE
from detector.detection.kernel.choice import INTERPRETED, VARIABLE, choose
from detector.detection.kernel.compiled import UnusableError, opened
from detector.service.logs import event

_log = logging.getLogger(__name__)


@cache
def plain_library() -> CDLL | None:
    """What scans plain readings; None where it is not compiled, or a person asked for nothing that is."""
    if os.environ.get(VARIABLE) == INTERPRETED:
        return None
    try:
        return opened(SCAN_SOURCE.with_suffix(".so"), SCAN_SOURCE)
    except UnusableError:
        return None


@cache
def ready_kernel() -> None:
    """Choose the kernel of this process. Raises UserError if there is a library that calculates otherwise."""
    chosen = choose()
    if chosen.reason is not None:
        event(_log, logging.WARNING, "kernel_interpreted", reason=chosen.reason)
