"""What is known of a partition's sensors, and of its cameras, between two rows: the columns of their `SensorTable`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from detector.arrays import F64, U8, Bools
from detector.detection.kernel.cells import ARRAYS, FIELDS
from detector.detection.prefix import SENTINELS
from detector.detection.profile import Calibration, Profile, peaks_of_suffix
from detector.detection.signals import WINDOW, signal_count
from detector.detection.threshold import HORIZON, LONG_AGO, RESERVOIR, UNLEARNT, first_reservoir
from detector.detection.views import COMPONENTS, several, typical_count

NEVER = np.iinfo(np.int64).min
"""A timestamp before all others."""
SIGNALS = 1
"""A frame has one signal."""


class Column(msgspec.Struct, frozen=True):
    """One array of the table: dtype and shape of a sensor's cell, and what an unknown sensor has in it.

    `newest_last`: a cell holds this many of a sensor's newest rows; one of another length is taken over from its end.
    `added`: state that was stored before there was the column is taken over without it. `early`: meant of a sensor
    without a profile, too; its other cells are zero, so that their memory is not touched, and are not stored.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    empty: float | int | bool
    newest_last: bool = False
    added: bool = False
    early: bool = False


def columns(channels: int, last_scores: int) -> tuple[Column, ...]:
    """The declaration, for C channels and n-of-m over `last_scores` = m rows."""
    signals, machine = signal_count(channels), several(channels)
    return (
        # the window: raw values as they came, a ring: at `head` is the oldest row; `filled` of its rows are valid
        Column("values", "f8", (WINDOW, channels), 0.0),
        Column("times", "i8", (WINDOW,), 0),
        Column("imputed", "u1", (-(-WINDOW // 8),), 0),  # bits, see `flags_of`
        Column("head", "u1", (), 0, added=True),  # 0 in state of before, whose windows have the newest row last
        Column("filled", "i2", (), 0, early=True),
        # order: newest released row, newest row at all, late rows in a row, a restart that waits for its first row
        Column("released", "i8", (), NEVER, early=True),
        Column("newest", "i8", (), NEVER, early=True),
        Column("late_run", "i2", (), 0, early=True),
        Column("restart", "?", (), False, early=True),
        # partition clock at the last accepted reading, its record, and the record of the newest row
        Column("clock", "i8", (), NEVER, early=True),
        Column("heard", "i8", (), -1, added=True, early=True),
        Column("offset", "i8", (), -1, early=True),
        # a silent episode ended, and nothing was heard since (see silence.py)
        Column("unheard", "?", (), False, added=True, early=True),
        # how often the length that it may be silent for was doubled, the partition clock when it last needed that,
        # and the rung of twice what its last message covers (see patience.py)
        Column("patience", "u1", (), 0, added=True, early=True),
        Column("needed", "i8", (), 0, added=True, early=True),
        Column("packet", "u1", (), 0, added=True, early=True),
        # records before this offset are contained already; matters while older state is brought up to date
        Column("known", "i8", (), NEVER, early=True),
        # why it is not watched, and readings without a value one after the other (see watch.py)
        Column("unwatched", "u1", (), 0, added=True, early=True),
        Column("nulls", "i2", (), 0, added=True, early=True),
        # how often it learnt its pace again (see pace.py)
        Column("relearnt", "i2", (), 0, added=True, early=True),
        # the rows of which a warm-up makes a profile, 0: as many as it takes (see prefix.py)
        Column("wanted", "i4", (), 0, added=True, early=True),
        # which rules apply (see rules.py)
        Column("rules", "i2", (), 0, early=True),
        # the profile
        Column("live", "?", (), False, early=True),
        Column("center", "f8", (channels,), 0.0),
        Column("scale", "f8", (channels,), 1.0),
        Column("ridge", "f4", (channels, WINDOW - 1), 0.0),
        Column("bias", "f8", (channels,), 0.0),
        Column("median", "i8", (), 0),
        Column("regular", "?", (), False),
        # of several channels what is usual for each, and their principal components (see views.py); NaN: of before
        Column("typical", "f4", (typical_count(channels),), math.nan, added=True),
        Column("components", "f4", (COMPONENTS, machine), 0.0, added=True),
        Column("worst", "f8", (signals,), 1.0),
        Column("worst_zz", "f8", (), 1.0),
        Column("worst_zz_of_others", "f8", (), math.nan, added=True),
        Column("open_after", "u1", (2,), 0),
        Column("sentinels", "f8", (channels, SENTINELS), math.nan, added=True),
        # how often the window was emptied since it was complete, negative: just after one row (see watch.py)
        Column("restarts", "i2", (), 0, added=True),
        # intervals that do not fit the median, more than do (see pace.py)
        Column("unfit", "i2", (), 0, added=True),
        # rows with a sentinel, one after the other
        Column("stuck", "i2", (), 0, added=True),
        # moving averages (NaN: not started), stride, adaptive scale, last scores (NaN: none)
        Column("prediction", "f8", (channels,), math.nan),
        Column("level", "f8", (channels,), math.nan),
        Column("relation", "f8", (min(machine, 1),), math.nan, added=True),
        Column("held_error", "f8", (), math.nan),
        Column("completions", "i8", (), 0),
        Column("mean", "f8", (signals,), 0.0),
        Column("variance", "f8", (signals,), 1.0),
        Column("count", "f8", (), 0.0),
        Column("recent", "f8", (last_scores - 1,), math.nan, newest_last=True),
        Column("score", "f8", (), math.nan),
        Column("judged", "f8", (), math.nan, added=True),  # ln of the n-th largest of the last m, see `Scored.v`
        # where the sensor usually lies, for those whose deviations are asked for (see deviation.py)
        Column("usual", "f8", (channels,), 0.0),
        Column("lean", "f8", (channels,), math.nan),
        # equal values: the first of the newest ones, how many; of the profile: how many may be, and what is equal
        Column("still_value", "f8", (channels,), math.nan, added=True),
        Column("still_rows", "f4", (channels,), 0.0, added=True),
        Column("still_limit", "f4", (channels,), math.inf, added=True),
        Column("resolution", "f4", (channels,), 0.0, added=True),
        # slow moves: two averages, the running mean and variance of what is between them, and their limits
        Column("drift_quick", "f8", (channels,), 0.0, added=True),
        Column("drift_slow", "f8", (channels,), 0.0, added=True),
        Column("drift_mean", "f8", (channels,), 0.0, added=True),
        Column("drift_variance", "f8", (channels,), 1.0, added=True),
        Column("drift_worst", "f4", (channels,), math.inf, added=True),
        Column("drift_worst_zz", "f4", (channels,), 1.0, added=True),
        # errors of forecasts: two averages; of the profile: what is usual, how calm is too calm
        Column("noise_quick", "f8", (channels,), 1.0, added=True),
        Column("noise_slow", "f8", (channels,), 1.0, added=True),
        Column("noise_usual", "f4", (channels,), 1.0, added=True),
        Column("noise_hush", "f4", (channels,), math.inf, added=True),
        # the adaptive scale as it was before a long fault (see faultmemory.py)
        Column("high", "i2", (), 0),
        Column("cold", "i2", (), 0),
        Column("kept", "?", (), False),
        Column("kept_rows", "i2", (), 0),
        Column("calm", "i2", (), 0),
        Column("kept_mean", "f4", (signals,), 0.0),
        Column("kept_variance", "f4", (signals,), 1.0),
        # threshold (see threshold.py)
        Column("budget", "f8", (), math.inf),
        Column("horizon", "f8", (), math.inf),
        Column("rows", "f8", (), 0.0),
        Column("credit", "f8", (), 0.0),
        Column("peaks", "f8", (RESERVOIR,), -math.inf),
        Column("peaks_kept", "i2", (), 0),
        Column("peaks_seen", "i8", (), 0),
        Column("forgotten", "f8", (), 0.0),
        Column("pending", "f8", (), -math.inf),
        Column("pending_age", "i2", (), 0),
        # peaks that are kept aside (-inf: none), the rows since, before the newest of them, and since it came
        Column("unlearnt", "f4", (UNLEARNT,), -math.inf, added=True),
        Column("unlearnt_age", "i4", (UNLEARNT,), LONG_AGO, added=True),
        Column("unlearnt_rows", "i4", (), 0, added=True),
        # the episode: rows since the last loud one, its time, highest v, closing level; `hold`: wait for a quiet row;
        # `muted`: it lies in a maintenance window; `excused`: a person has judged it (see closed.py)
        Column("open", "?", (), False),
        Column("muted", "?", (), False, added=True),
        Column("hold", "?", (), False),
        Column("excused", "?", (), False, added=True),
        Column("quiet", "i4", (), 0),
        Column("loud_time", "i8", (), NEVER),
        Column("peak", "f8", (), 0.0),
        Column("close_level", "f8", (), 0.0),
        Column("ended", "i8", (), NEVER),
    )


CHANNEL_COLUMNS = frozenset(
    (
        "values", "imputed", "head", "center", "scale", "ridge", "bias", "prediction", "level", "held_error",
        "completions",
        "rules", "open_after", "usual", "lean", "worst_zz_of_others", "unheard", "patience", "needed", "packet",
        "still_value", "still_rows", "still_limit", "resolution", "typical", "components", "relation",
        "drift_quick", "drift_slow", "drift_mean", "drift_variance", "drift_worst", "drift_worst_zz",
        "noise_quick", "noise_slow", "noise_usual", "noise_hush",
        "nulls", "restarts", "unfit", "relearnt", "sentinels", "stuck",
    )
)  # fmt: skip
"""What is only known of a sensor with windows of values; cameras have none of it."""


def flags_of(bits: U8) -> Bools:
    """A window's flags (..., 100) from the bits (..., 13) that a cell keeps of them."""
    return np.unpackbits(bits, axis=-1, count=WINDOW).view(np.bool_)


def bits_of(flags: Bools) -> U8:
    """The bits (..., 13) that a cell keeps of a window's flags (..., 100)."""
    return np.packbits(flags, axis=-1)


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
        Column("frame", "f4", shape, 0.0, early=True),
        *(own.get(column.name, column) for column in shared),
    )


def cells_of(declared: Sequence[Column]) -> np.dtype[np.void]:
    """The record that the kernel works on, of a sensor whose columns are declared so."""
    of = {column.name: column for column in declared}
    return np.dtype([(name, of[name].dtype, of[name].shape) for name in (*FIELDS, *ARRAYS)], align=True)


NO_COPY: Final = {"high": 0, "cold": 0, "kept": False, "kept_rows": 0, "calm": 0}
"""The cells of a sensor whose mean and variance have just been set (see faultmemory.py)."""


def calibration_cells(calibration: Calibration, budget: float) -> dict[str, Any]:
    """The cells that a calibration fills, as they are before the first row; `budget`: rows per allowed false alarm."""
    rows = int(min(calibration.scored_rows, HORIZON * budget))
    return {
        "live": True,
        "median": calibration.median_interval,
        "regular": calibration.regular,
        "worst": calibration.worst,
        "worst_zz": calibration.worst_zz,
        "mean": calibration.mean,
        "variance": calibration.variance,
        "count": calibration.count,
        **NO_COPY,
        **first_reservoir(peaks_of_suffix(calibration, rows), rows, budget),
    }


def profile_cells(profile: Profile, budget: float) -> dict[str, Any]:
    """The same of a sensor's profile."""
    cells = calibration_cells(profile, budget)
    return cells | {
        "center": profile.center,
        "scale": profile.scale,
        "ridge": profile.ridge,
        "bias": profile.bias,
        "usual": profile.center,
        "open_after": profile.open_after,
        "sentinels": profile.sentinels,
        "still_limit": profile.still_limit,
        "resolution": np.minimum(profile.resolution, np.finfo(np.float32).max),
        "drift_mean": profile.drift_mean,
        "drift_variance": profile.drift_variance,
        "drift_worst": profile.drift_worst,
        "drift_worst_zz": profile.drift_worst_zz,
        "noise_quick": profile.noise_usual,
        "noise_slow": profile.noise_usual,
        "noise_usual": profile.noise_usual,
        "noise_hush": profile.noise_hush,
        "worst_zz_of_others": profile.worst_zz_of_others,
        "typical": profile.typical,
        "components": profile.components,
        "contexts": profile.contexts,
        **{name: _widened(cells[name], signal_count(len(profile.center))) for name in ("worst", "mean", "variance")},
    }


def _widened(of_signals: F64, width: int) -> F64:
    """With ones behind: a machine has fewer signals than there are places for those of each of its channels."""
    return np.concatenate([of_signals, np.ones(width - len(of_signals))])


FORGOTTEN: Final[Mapping[str, Any]] = {
    "prediction": math.nan,
    "level": math.nan,
    "relation": math.nan,
    "lean": math.nan,
    "still_value": math.nan,
    "still_rows": 0,
    "drift_quick": 0.0,
    "drift_slow": 0.0,
    "held_error": math.nan,
    "completions": 0,
    "recent": math.nan,
    "pending": -math.inf,
    "pending_age": 0,
}
"""The cells of a sensor that has no moving averages, last scores and pending peak yet, or not any more."""
CAMERA_FORGOTTEN: Final[Mapping[str, Any]] = {"recent": math.nan, "pending": -math.inf, "pending_age": 0, "filled": 0}
"""The same of a camera."""
