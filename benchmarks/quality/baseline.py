"""The plain rival: principal components of the training windows, the newest errors, and the worst of training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.quality.data import Interval, runs
from detector.arrays import F64
from detector.detection.profile import MIN_ROWS, scale_of

WINDOW = 100
FIT_WINDOWS = 8_000
OPEN_AFTER, CLOSE_AFTER, BACK_DATE = 10, 100, 50
_AT_ONCE = 20_000


def pca_scores(values: F64, train_rows: int, components: int, newest: int) -> F64:
    """The mean squared error of the newest rows of each window's projection onto principal components (L,).

    Values (L,) are standardised by the training rows, and the components are those of the training windows. Rows of
    the training prefix, and rows that complete no window, score 0.
    """
    train_rows = max(train_rows, MIN_ROWS)
    errors = _errors(values, train_rows, components, newest)
    errors[:train_rows] = 0.0
    return errors


def pca_episodes(values: F64, train_rows: int, components: int, newest: int) -> list[tuple[Interval, int]]:
    """Alert episodes where ten rows in a row are worse than the worst of training: interval and opening row."""
    train_rows = max(train_rows, MIN_ROWS)
    errors = _errors(values, train_rows, components, newest)
    above = errors > errors[:train_rows].max()
    above[:train_rows] = False
    episodes: list[tuple[Interval, int]] = []
    for first, last in runs(above):
        if episodes and first - episodes[-1][0][1] <= CLOSE_AFTER:
            interval, opened = episodes[-1]
            episodes[-1] = (interval[0], last), opened
        elif last - first + 1 >= OPEN_AFTER:
            opened = first + OPEN_AFTER - 1
            episodes.append(((max(opened - BACK_DATE, 0), last), opened))
    return episodes


def _errors(values: F64, train_rows: int, components: int, newest: int) -> F64:
    return WindowPca.of(values[:train_rows], components).errors(values, newest)


@dataclass(frozen=True, slots=True)
class WindowPca:
    """The principal components of training windows: `center`, `scale` of the values, `middle` (100,) and
    `components` (100, k) of the standardised windows.
    """

    center: float
    scale: float
    middle: F64
    components: F64

    @classmethod
    def of(cls, training: F64, components: int) -> WindowPca:
        """From training rows (L,)."""
        center, scale = scale_of(training[:, None], "standard")
        windows = sliding_window_view(np.nan_to_num((training - center[0]) / scale[0]), WINDOW)
        fitted = windows[:: max(1, len(windows) // FIT_WINDOWS)][:FIT_WINDOWS]
        middle = fitted.mean(axis=0)
        centred = fitted - middle
        _, vectors = np.linalg.eigh(centred.T @ centred)
        return cls(float(center[0]), float(scale[0]), middle, vectors[:, ::-1][:, :components])

    def errors(self, values: F64, newest: int) -> F64:
        """The mean squared error of the newest rows of the window that each row of values (L,) completes; else 0."""
        windows = sliding_window_view(np.nan_to_num((values - self.center) / self.scale), WINDOW)
        errors = np.zeros(len(values))
        for begin in range(0, len(windows), _AT_ONCE):
            part = windows[begin : begin + _AT_ONCE] - self.middle
            rest = part - part @ self.components @ self.components.T
            errors[WINDOW - 1 + begin : WINDOW - 1 + begin + len(part)] = (rest[:, -newest:] ** 2).mean(axis=1)
        return errors
