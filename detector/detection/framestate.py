"""All that is known of a partition's cameras between two frames: the columns of their `SensorTable`."""

from __future__ import annotations

import math

from detector.detection.table import CHANNEL_COLUMNS, Column, SensorTable, columns

SLICE_BYTES = 200_000
"""The size of a slice of state, about."""
CAMERA_BYTES = 9_000
"""What a camera takes beside its newest frame, at most: while it warms up."""
SIGNALS = 1
"""A frame has one signal."""


def frame_columns(shape: tuple[int, int], last_scores: int) -> tuple[Column, ...]:
    """The declaration, for frames of `shape` (h, w) and n-of-m over `last_scores` = m frames."""
    shared = [column for column in columns(1, last_scores) if column.name not in CHANNEL_COLUMNS]
    own = {
        # the times of the last m frames, newest last, of which `filled` are valid, and the newest frame
        "times": Column("times", "i8", (last_scores,), 0),
        "worst": Column("worst", "f8", (SIGNALS,), 1.0),
        "mean": Column("mean", "f8", (SIGNALS,), 0.0),
        "variance": Column("variance", "f8", (SIGNALS,), 1.0),
        "kept_mean": Column("kept_mean", "f4", (SIGNALS,), 0.0),
        "kept_variance": Column("kept_variance", "f4", (SIGNALS,), 1.0),
    }
    return (
        Column("frame", "f4", shape, 0.0),
        *(own.get(column.name, column) for column in shared),
    )


def camera_table(shape: tuple[int, int], last_scores: int) -> SensorTable:
    """An empty table of cameras; what warms up keeps one number a frame, its signal."""
    table = SensorTable(SIGNALS, last_scores, frame_columns(shape, last_scores))
    table.slice_limit = max(1, SLICE_BYTES // (4 * shape[0] * shape[1] + CAMERA_BYTES))
    return table


FORGOTTEN = {"recent": math.nan, "pending": -math.inf, "pending_age": 0, "filled": 0}
"""The cells of a camera that starts anew: last scores, the pending peak."""
