"""Which rows may count towards an alert by how far the value lies from where it usually is, and on which side.

Scores say how unusual a row is; a person may know from where on, and in which direction, it matters at all. What the
models expect is no measure for that, because they see a fault's own rows: ten rows after a step the autoencoder
reproduces 92 % of it, and the linear forecast has taken up 29 to 83 % (see docs/detection.md). So deviations are
counted from the sensor's *usual level*: the training mean, which follows slow drift at the pace of the adaptive scale.
"""

from __future__ import annotations

import numpy as np

from detector.arrays import F64, Bools
from detector.detection.signals import ADAPTIVE_RATE, LEARNING_LIMIT, WINDOW

LEAN_RATE = 2 / (WINDOW + 1)


def deviations(
    values: F64, active: list[int], usual: F64, lean: F64, scale: F64, unlearnt: Bools | None = None
) -> tuple[F64, F64]:
    """How far values (T, n, C) lie from the usual level, and the recent average of that, after each row.

    Row t concerns the first `active[t]` sensors. The level `usual` (n, C), as it is before the row, and the average
    `lean` (n, C; NaN: not started) learn in place. A row moves the level by no more than five times `scale` (n, C)
    would; of the rows `unlearnt` (T, n) it learns nothing. The average is as long as a window: while a fault that is
    over still keeps scores high, it says on which side that fault was, and ordinary swings cancel out in it.
    """
    off, leaning = np.zeros_like(values), np.zeros_like(values)
    lean[:] = np.where(np.isnan(lean), values[0] - usual, lean)
    for tick, k in enumerate(active):
        now = values[tick, :k] - usual[:k]
        limit = LEARNING_LIMIT * scale[:k]
        step = ADAPTIVE_RATE * np.minimum(np.maximum(now, -limit), limit)
        if unlearnt is not None:
            step[unlearnt[tick, :k]] = 0.0
        usual[:k] += step
        lean[:k] += LEAN_RATE * (now - lean[:k])
        off[tick, :k], leaning[tick, :k] = now, lean[:k]
    return off, leaning


def matters(values: F64, off: F64, leaning: F64, scale: F64, direction: F64, absolute: F64, relative: F64) -> Bools:
    """Which rows (T, n) deviate enough; values and what `deviations` found (T, n, C), `scale` (n, C), limits (n,).

    Of several channels the one counts that leans most in units of its scale; of equal ones the first. `direction`: it
    has to lean to that side: 1 above, -1 below, 0 either. Its newest value must lie off by at least `absolute`, and by
    at least `relative` times the usual level.
    """
    worst = np.argmax(np.abs(leaning) / scale, axis=2)[:, :, None]
    side = np.take_along_axis(leaning, worst, axis=2)[:, :, 0]
    size = np.abs(np.take_along_axis(off, worst, axis=2)[:, :, 0])
    usual = np.abs(np.take_along_axis(values - off, worst, axis=2)[:, :, 0])
    enough = (size >= absolute) & (size >= relative * usual)
    found: Bools = enough & ((direction == 0.0) | (direction * side > 0.0))
    return found
