"""Which rows may count towards an alert by how far the value lies from where it usually is, and on which side.

Scores say how unusual a row is; a person may know from where on, and in which direction, it matters at all. What the
models expect is no measure for that, because they see a fault's own rows: ten rows after a step the autoencoder
reproduces 92 % of it, and the linear forecast has taken up 29 to 83 % (see docs/detection.md). So deviations are
counted from the sensor's *usual level*: the training mean, which follows slow drift at the pace of the adaptive scale.

The function of a `Sensor` is a twin of that in recurrences.c; see sensor.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from detector.detection.sensor import Sensor, moved, within
from detector.detection.signals import ADAPTIVE_RATE, LEARNING_LIMIT, WINDOW

LEAN_RATE = 2 / (WINDOW + 1)


def deviates(s: Sensor, values: Sequence[float], unlearnt: bool) -> bool:
    """Whether a row of C values deviates enough to count; the usual level then learns it, unless it is `unlearnt`.

    NaN is the value of a channel that the row lacks: it does not count.
    A row moves the level `usual` by no more than five times the sensor's `scale` would. The average `lean` of how far
    values lie off is as long as a window: while a fault that is over still keeps scores high, it says on which side
    that fault was, and ordinary swings cancel out in it. Of several channels the one counts that leans most in units
    of its scale; of equal ones the first. If a `direction` is asked for (1 above, -1 below), it has to lean to that
    side. Its newest value must lie off by at least `absolute`, and by at least `relative` times the usual level.
    """
    most, off, side, usual = -1.0, 0.0, 0.0, 0.0
    for i, value in enumerate(values):
        if value != value:
            continue
        now = value - s.usual[i]
        s.lean[i] = moved(s.lean[i], now, now, LEAN_RATE)
        if not unlearnt:
            s.usual[i] += ADAPTIVE_RATE * within(now, LEARNING_LIMIT * s.scale[i])
        leaning = abs(s.lean[i]) / s.scale[i]
        if leaning > most:
            most, off, side, usual = leaning, abs(now), s.lean[i], abs(value - now)
    enough = off >= s.absolute and off >= s.relative * usual
    return enough and (s.direction == 0.0 or s.direction * side > 0.0)
