"""What all runtimes have in common, and what they hold a model and its input to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from detector.arrays import F32
from detector.detection.signals import Z_LIMIT
from detector.errors import UserError


class Runtime(Protocol):
    """A model ready to score: a `profile.Reconstruct`, with a name for people."""

    @property
    def name(self) -> str: ...

    def __call__(self, windows: F32, /) -> F32: ...


def check_windows(windows: F32, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `windows` is float32 (n, *shape); the message names both shapes."""
    if windows.shape[1:] != shape or windows.dtype != np.float32:
        raise ValueError(
            f"the model takes float32 {_kind_of(shape)} of shape (n, {', '.join(map(str, shape))}), "
            f"these are {windows.dtype} of shape {windows.shape}"
        )


def check_shape(takes: tuple[int, ...], wanted: tuple[int, ...] | None, where: str | None) -> None:
    """Raise UserError unless the windows, or frames, that a model takes have the shape wanted (None: any)."""
    if wanted is not None and takes != wanted:
        raise UserError(
            f"the model takes {_kind_of(takes)} of shape {takes}, its manifest says {wanted}",
            where=where,
            todo="Train the model again",
        )


def check_output(run: Callable[[F32], F32], shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `run` makes numbers of windows, or frames, also of extreme ones, in their own shape."""
    windows = np.random.default_rng(0).normal(0, Z_LIMIT, size=(2, *shape)).astype(np.float32)
    found = run(windows)
    if found.shape != windows.shape or found.dtype != np.float32:
        raise ValueError(f"it makes {found.dtype} of shape {found.shape} of {_kind_of(shape)} of shape {windows.shape}")
    if not np.isfinite(found).all():
        raise ValueError("what it makes of some windows are no numbers")


def _kind_of(shape: tuple[int, ...]) -> str:
    return "windows" if len(shape) == 2 else "frames"
