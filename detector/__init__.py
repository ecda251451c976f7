"""Streaming anomaly detection: sensor readings and camera frames in, alert episodes out."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector.api import Detector

__all__ = ["Detector", "__version__"]

# A profile is solved with LAPACK, and its bits must not depend on how many threads that uses. The libraries read
# these once, when numpy is imported, so they are set before anything in this package can import it.
for _limit in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_limit] = "1"

__version__ = "0.9.0"


def __getattr__(name: str) -> Any:
    """`detector.Detector`, imported when it is asked for: commands that do not need it do not pay for it."""
    if name == "Detector":
        return importlib.import_module("detector.api").Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
