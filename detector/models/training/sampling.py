"""Which windows of which sensor a model is trained on, and which are held back to judge it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from detector.arrays import F32, F64, I64
from detector.detection.profile import MIN_ROWS, scale_of
from detector.detection.signals import standardise
from detector.models.bundle.spec import WINDOW

Series = Mapping[str, tuple[I64, F64]]
"""By sensor id: times (L,) in ns and values (L, C), oldest first."""

SENSOR_LIMIT: Final = 8000
"""No sensor contributes more windows than this."""
CLIP: Final = 10.0
"""Standardised values are limited to this in training, so that a few outliers do not decide the weights."""
TAIL_SHARE: Final = 0.1
TAIL_LEAST: Final = 50
"""A smaller tail would choose weights by chance: then all windows are trained on."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The training material: windows are `rows[start : start + 100]`.

    `rows` (N, C) float32: standardised values of all sensors, one after another. `train`, `tail`: window starts.
    """

    sensors: int
    rows: F32
    train: I64
    tail: I64

    @property
    def size(self) -> int:
        """Rows of all sensors."""
        return len(self.rows)

    def picker(self, tf: Any) -> Callable[[Any], Any]:
        """A function inside TensorFlow: window starts (n,) -> windows (n, 100, C)."""
        rows, offsets = tf.constant(self.rows), tf.range(WINDOW, dtype=tf.int64)
        return lambda starts: tf.gather(rows, starts[:, None] + offsets[None])


def share_out(available: Sequence[int], limit: int) -> list[int]:
    """How many windows each sensor gives, `limit` in all: equal shares, and what one lacks goes to the others."""
    shares = [0] * len(available)
    left = limit
    # Fewest first, so that whoever cannot fill a share is known before the rest is divided.
    for rank, i in enumerate(sorted(range(len(available)), key=lambda i: available[i])):
        shares[i] = min(available[i], SENSOR_LIMIT, left // (len(available) - rank))
        left -= shares[i]
    return shares


def sample(series: Series, *, scaler: str, limit: int) -> Sample:
    """Standardise every sensor by its own scale and choose its windows, evenly spaced.

    At most 8 000 windows a sensor and `limit` in all. The newest tenth of each sensor's windows is held back where
    that makes at least 50 in all. Raises ValueError if there is no sensor, or one with fewer than 150 rows.
    """
    if not series or min(len(times) for times, _ in series.values()) < MIN_ROWS:
        raise ValueError(f"training needs sensors with at least {MIN_ROWS} rows each")
    shares = share_out([len(times) - WINDOW + 1 for times, _ in series.values()], limit)
    blocks: list[F32] = []
    train: list[I64] = []
    tail: list[I64] = []
    offset = 0
    for (_, values), share in zip(series.values(), shares, strict=True):
        z = standardise(values, *scale_of(values, scaler))
        blocks.append(np.clip(z, -CLIP, CLIP).astype(np.float32))
        last = len(values) - WINDOW
        starts = offset + np.linspace(0, last, share).round().astype(np.int64)
        kept = share - int(share * TAIL_SHARE)
        train.append(starts[:kept])
        tail.append(starts[kept:])
        offset += len(values)
    if sum(map(len, tail)) < TAIL_LEAST:
        train, tail = [np.concatenate(pair) for pair in zip(train, tail, strict=True)], []
    return Sample(
        sensors=len(series),
        rows=np.concatenate(blocks),
        train=np.concatenate(train),
        tail=np.concatenate([*tail, np.empty(0, np.int64)]),
    )
