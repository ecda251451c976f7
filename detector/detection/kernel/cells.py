"""How the kernel lays out in memory what it knows of a sensor, what is asked of it, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F32, F64, I16, I64, U8, Bools

Cells = NDArray[Any]
"""Records (n,) of the dtype that `columns.cells_of` makes."""

FIELDS: Final = (
    "worst_zz", "held_error", "count", "score", "budget", "horizon", "rows", "credit", "peaks",
    "forgotten", "pending", "peak", "close_level",
    "completions", "peaks_seen", "loud_time", "ended",
    "quiet", "unlearnt_rows", "unlearnt_age", "unlearnt",
    "high", "cold", "kept_rows", "calm", "peaks_kept", "pending_age",
    "kept", "open", "muted", "hold", "excused",
)  # fmt: skip
"""The struct `cells` of recurrences.c."""
ARRAYS: Final = (
    "worst", "mean", "variance", "prediction", "level", "center", "scale", "usual", "lean",
    "still_value", "drift_quick", "drift_slow", "drift_mean", "drift_variance", "noise_quick", "noise_slow", "recent",
    "relation",
    "kept_mean", "kept_variance", "still_rows", "still_limit", "resolution", "drift_worst", "drift_worst_zz",
    "noise_usual", "noise_hush", "typical", "components",
)  # fmt: skip
"""What lies behind it and is as long as there are signals, channels or earlier scores."""


class Rings(NamedTuple):
    """The columns, by slot, of windows and of what is forecast from them (see columns.py): RINGS of recurrences.c."""

    values: F64
    times: I64
    imputed: U8
    head: U8
    ridge: F32
    bias: F64


class Paces(NamedTuple):
    """The columns, by slot, of what tells when a sensor's next row is due: `paces` of recurrences.c."""

    times: I64
    head: U8
    filled: I16
    regular: Bools
    median: I64
    unfit: I16
    rules: I16


class Spans(NamedTuple):
    """Rows of n sensors: those of `slots` (n,) are first .. last - 1 (n,) of `times` (N,) ns, in order."""

    slots: NDArray[np.intp]
    first: I64
    last: I64
    times: I64


class Rows(NamedTuple):
    """Rows of n sensors, one sensor after the other, in order of time.

    `slots`, `begin`, `end` (n,): whose rows begin .. end - 1 are. `values` (R, C), `times` (R,) ns, `imputed` (R,): of
    all rows; `imputed` were filled in. `owner`, `source` (N,): of each row that completes a window, ascending: its
    sensor's place among the n, and its own among the R.
    """

    slots: NDArray[np.intp]
    begin: I64
    end: I64
    values: F64
    times: I64
    imputed: Bools
    owner: I64
    source: I64


Gather = Callable[[slice, F32], None]
"""Puts the windows of a part of `Rows.source`, standardised, where there is room for them: (k, 100, C)."""


class Scores(NamedTuple):
    """What rows are worth, each (N,): the score `u`; what the rule of noise that dies down says (`calm`); the `alarm`,
    the most of these and of other rules; and what of that counts towards n of m (`eligible`).
    """

    u: F64
    calm: F64
    alarm: F64
    eligible: F64


Rules = NDArray[np.void]
"""Rules (n,) of the dtype `RULE`."""
RULE: Final = np.dtype(
    [
        ("n", "i8"), ("m", "i8"), ("close_after", "i8"), ("deviates", "i8"),
        ("direction", "f8"), ("absolute", "f8"), ("relative", "f8"),
    ]
)  # fmt: skip
"""What a person asked for of a sensor; `deviates`: whether any of the three after it is."""
EVENT: Final = np.dtype(
    [
        ("at", "i8"), ("row", "i8"), ("kind", "i8"), ("ended", "i8"), ("level", "f8"),
        ("entered", "f8"), ("aside", "f8"), ("charged", "f8"), ("shift", "f8"), ("habit", "f8"), ("most", "f8"),
        ("left_out", "f8", (4,)),
    ]
)  # fmt: skip
"""What a row did, `row` among all: an opening, whose `level` is the ln threshold; a closing, whose `level` is the peak;
or a peak of quiet rows that was taken in. From `entered` on it is a `threshold.Lesson`."""
OPENED, CLOSED, LEARNT = 1, 2, 3


def rules_for(n: int, open_after: tuple[int, int] | NDArray[np.int64], close_after: Any) -> Rules:
    """The rules (n,) of sensors of which nobody asked how far they deviate.

    `open_after`: n and m of n of m, of all of them or (n, 2); `close_after`: of all or (n,).
    """
    rules = np.zeros(n, dtype=RULE)
    rules["n"], rules["m"] = np.asarray(open_after).T
    rules["close_after"] = close_after
    return rules
