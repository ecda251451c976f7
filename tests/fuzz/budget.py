"""How long a fuzz test looks: short with the other tests, longer by `make fuzz`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from hypothesis import HealthCheck, settings

LONGER: Final = int(os.environ.get("FUZZ_TIMES", "1"))
"""By this much longer; with more than one the examples are others each time."""


def examples(count: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Try this many examples, the same ones in every short run."""
    return settings(
        max_examples=count * LONGER,
        derandomize=LONGER == 1,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
