"""What both runtimes hold a model and its input to."""

from __future__ import annotations

import numpy as np

from detector.arrays import F32


def check_windows(windows: F32, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `windows` is float32 (n, *shape); the message names both shapes."""
    if windows.shape[1:] != shape or windows.dtype != np.float32:
        what = "windows" if len(shape) == 2 else "frames"
        raise ValueError(
            f"the model takes float32 {what} of shape (n, {', '.join(map(str, shape))}), "
            f"these are {windows.dtype} of shape {windows.shape}"
        )
