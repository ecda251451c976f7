"""After a long fault: the adaptive scale forgets what the fault has taught it, once the signals are back.

The running mean and variance learn every row, faulty ones too; a fault of thousands of rows would so become the normal
case, and the next one like it pass unnoticed. So where scores have been high for long, a copy of mean and variance is
kept from then on. If the signals come back to what the copy calls normal, the copy is put back; if they do not within
`PATIENCE` rows, what looked like a fault is the new normal, and what was learnt stays. Scoring uses the running values
throughout, so that an episode over a lasting new level closes as if there were no copy.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, Bools
from detector.detection.signals import adaptive_scale, deviation

LEARNT_ROWS: Final = 300
"""A fault teaches this many rows for good."""
COLD_ROWS: Final = 50
"""So many rows in a row with a score below 1 end the count of high ones."""
CALM_ROWS: Final = 50
"""So many rows in a row that the copy calls normal end a fault."""
PATIENCE: Final = 8000
"""Rows after which a copy is given up."""

FAULT_MEMORY: Final = ("high", "cold", "kept", "kept_rows", "calm", "kept_mean", "kept_variance")
"""State columns: high rows counted, low ones since, whether there is a copy, its age, calm rows, the copy itself."""
NO_COPY: Final = {"high": 0, "cold": 0, "kept": False, "kept_rows": 0, "calm": 0}
"""The cells of a sensor whose mean and variance have just been set."""


class FaultMemory:
    """The fault memory of n sensors with K signals, advanced row by row for the first k of them.

    `cells`: the columns named by `FAULT_MEMORY`, compact; changed in place, but for the copy (in single precision, to
    save memory), which `store` writes back.
    `worst_zz` (n,) as in the profile; `mute` (K, n): the signals that do not count, if there are any.
    """

    def __init__(self, cells: dict[str, NDArray[Any]], worst_zz: F64, mute: Bools | None = None) -> None:
        self._cells = cells
        self._worst_zz = worst_zz
        self._mute = mute
        self._mean = cells["kept_mean"].T.astype(np.float64)
        self._variance = cells["kept_variance"].T.astype(np.float64)
        self.active = False
        self._look()

    def row(self, high: Bools, signals: F64, mean: F64, variance: F64) -> bool:
        """Take in a row that is scored and not learnt yet; returns whether some mean and variance were put back.

        `high` (k,): whether the score is at least 1. `signals`, and `mean` and `variance` before the row is learnt
        (K, k); the latter two are changed in place where a copy is put back. While `active` is False, a row without
        any `high` changes nothing and need not come here.
        """
        k, cells = len(high), self._cells
        kept, count, cold = cells["kept"][:k], cells["high"][:k], cells["cold"][:k]
        held = np.flatnonzero(kept)
        count += high & ~kept
        cold += 1
        cold[high | kept | (count == 0)] = 0
        over = cold >= COLD_ROWS
        count[over] = 0
        cold[over] = 0
        restored = self._watch(held, signals, mean, variance) if len(held) else False
        long = np.flatnonzero(count > LEARNT_ROWS)
        if len(long):
            # Rounded at once, not when it is stored, so that it does not matter where a batch ends.
            self._mean[:, long] = mean[:, long].astype(np.float32)
            self._variance[:, long] = variance[:, long].astype(np.float32)
            kept[long] = True
            for column in ("high", "cold", "kept_rows", "calm"):
                cells[column][long] = 0
        self._look()
        return restored

    def store(self) -> None:
        """Write the copies back into the cells."""
        self._cells["kept_mean"] = self._mean.T.astype(np.float32)
        self._cells["kept_variance"] = self._variance.T.astype(np.float32)

    def _watch(self, at: NDArray[np.intp], signals: F64, mean: F64, variance: F64) -> bool:
        """Sensors with a copy: is the fault over, or has it become the normal case?"""
        cells = self._cells
        mute = None if self._mute is None else self._mute[:, at]
        zz, _ = deviation(signals[:, at], self._mean[:, at], self._variance[:, at], mute)
        calm = np.where(adaptive_scale(zz, self._worst_zz[at]) < 1.0, cells["calm"][at] + 1, 0)
        age = cells["kept_rows"][at] + 1
        cells["calm"][at], cells["kept_rows"][at] = calm, age
        over = calm >= CALM_ROWS
        back = at[over]
        mean[:, back], variance[:, back] = self._mean[:, back], self._variance[:, back]
        cells["kept"][at[over | (age >= PATIENCE)]] = False
        return len(back) > 0

    def _look(self) -> None:
        self.active = bool(self._cells["kept"].any() or self._cells["high"].any())
