"""What is known of one sensor before it is judged: built from a prefix of its readings, by one function.

The prefix is either training data or the warm-up of a sensor met for the first time; both come through
`build_profile`, so that a sensor is judged alike whichever way it became known. One sensor is built at a time, which
is why BLAS and LAPACK (held to one thread by the package) are allowed here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from detector.arrays import F32, F64, I64, Bools
from detector.detection.context import NONE, Contexts, contexts_of
from detector.detection.drifting import drift_of
from detector.detection.hours import Hours
from detector.detection.peaks import declustered, standing_maxima, usual_worst
from detector.detection.prefix import (
    complete_windows,
    examine,
    taken_as_it_is,
    wild_rows,
)
from detector.detection.quietness import noise_of
from detector.detection.signals import (
    LEVEL_RATE,
    PREDICTION_RATE,
    TINY,
    WINDOW,
    combine,
    deviation,
    ewma_path,
    prediction_errors,
    rebuild,
    reconstruction_errors,
    standardise,
    unforeseen,
)
from detector.detection.stillness import limits_of
from detector.detection.threshold import nth_largest_log
from detector.detection.views import (
    COMPONENTS,
    components_of,
    final_error,
    relation_errors,
    several,
    typical_of,
    views,
)

Reconstruct = Callable[[F32], F32]
"""An autoencoder: float32 windows (n, 100, C) in, the same shape out, each row's bits independent of the others."""
Scaling = Literal["standard", "minmax", "symmetric"]

MIN_ROWS = 150
"""A shorter prefix makes no profile."""
RIDGE = 1e-4
RIDGE_WINDOWS = 8000
REGULAR_SHARE = 0.9
REGULAR_BAND = 0.2
CHUNK = 512
_ROUNDING: Final = 8 * float(np.finfo(np.float64).eps)
"""What moves less than this share of its size is constant."""
_NEVER_REACHED: Final = 1e12
"""No signal of standardised values is as large."""
_TINIEST: Final = 1e-300
_SQUARED_AWAY: Final = 1e-150


@dataclass(frozen=True, slots=True)
class Calibration:
    """What scores from K signals mean, frozen at the end of a prefix. Of a camera (K = 1) nothing else is known.

    `median_interval`: ns between rows; `regular`: whether intervals keep to it. `worst` (K,): the signals' maxima on
    the prefix; `worst_zz`: the largest deviation there, at least 1. `mean`, `variance` (K,), `count`: where the
    adaptive scale starts. `scored_rows`: prefix rows that have a score. `peak_first`, `peak_last`, `peak_v` (p,): runs
    of scored rows that nothing in the 100 rows after them exceeds, and their ln score; see `peaks_of_suffix`.
    """

    median_interval: int
    regular: bool
    worst: F64
    worst_zz: float
    mean: F64
    variance: F64
    count: float
    scored_rows: int
    peak_first: I64
    peak_last: I64
    peak_v: F64


@dataclass(frozen=True, slots=True)
class Profile(Calibration):
    """Everything frozen about a sensor with C channels: of one K = 3 signals, of several the K = 2 of views.py.

    `center`, `scale` (C,): z = (value - center) / scale. `ridge` (C, 99) float32, `bias` (C,): the one-step forecast of
    z. `worst_zz_of_others`: as `worst_zz`, of all signals but the reconstruction. `open_after`: (n, m) of the n-of-m
    scores whose peaks these are. `sentinels` (C, 3): values that stand for none, NaN where there are fewer.
    `still_limit` (C,): how many equal values are plausible, infinity: any number; `resolution` (C,): what is equal.
    `drift_worst`, `drift_worst_zz`, `drift_mean`, `drift_variance` (C,): of slow moves, see `drifting.Drift`.
    `noise_usual`, `noise_hush` (C,): of the errors of forecasts, see `quietness.Noise`. Of several
    channels `typical` (2 C + 2,) and `components` (4, C) are what views.py makes of the prefix, else they are empty.
    Where `typical` is NaN, the profile is of a release that had 2 C + 1 signals. `contexts` (k,): the hours of channels
    that go by them (see context.py), by the clocks of `zone`.
    """

    center: F64
    scale: F64
    ridge: F32
    bias: F64
    worst_zz_of_others: float
    open_after: tuple[int, int]
    sentinels: F64
    still_limit: F64
    resolution: F64
    drift_worst: F64
    drift_worst_zz: F64
    drift_mean: F64
    drift_variance: F64
    noise_usual: F64
    noise_hush: F64
    typical: F32
    components: F32
    contexts: Contexts = field(default_factory=lambda: NONE)
    zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Carry:
    """The moving state at the end of the prefix, for a sensor that carries on from its warm-up.

    `prediction`, `level` (C,), `relation` (1,), of one channel (0,): moving averages. `recent_u` (99,): the newest
    scores, oldest first; where there were not this many the first one stands for the missing. `held_error`: the newest
    reconstruction error; `completions`: window-completing rows so far, the phase of the stride. `drift_quick`,
    `drift_slow` (C,): see `drifting`; `noise_quick`, `noise_slow` (C,): see `quietness`.
    """

    prediction: F64
    level: F64
    relation: F64
    drift_quick: F64
    drift_slow: F64
    noise_quick: F64
    noise_slow: F64
    recent_u: F64
    held_error: float
    completions: int


def scale_of(values: F64, scaler: str) -> tuple[F64, F64]:
    """Center and scale (C,), (C,) of prefix values (L, C): what becomes 0 and what becomes 1.

    standard: mean and standard deviation; minmax: onto [0, 1]; symmetric: onto [-1, 1]. A channel is constant if it
    moves by no more than what float64 rounds off a value of its size. It gets a thousandth of its magnitude (of 1 if it
    is 0) as its unit, so that a later move shows. Wild rows (see prefix.py) do not count.

    >>> scale_of(np.array([[1.0], [3.0]]), "standard")
    (array([2.]), array([1.]))
    """
    if scaler not in get_args(Scaling):
        raise ValueError(f"unknown scaler {scaler!r}")
    if (wild := wild_rows(values)).any():
        values = values[~wild]
    columns = [np.ascontiguousarray(column) for column in values.T]
    low = np.array([column.min() for column in columns])
    high = np.array([column.max() for column in columns])
    if scaler == "standard":
        center = np.array([column.mean() for column in columns])
        # The mean of equal values is rounded: their deviation need not be 0, and is no unit.
        scale = np.array([_deviation_of(column) for column in columns]) * (low < high)
    else:
        center, scale = (low, high - low) if scaler == "minmax" else ((low + high) / 2, (high - low) / 2)
    size = np.maximum(np.abs(low), np.abs(high))
    flat = np.maximum(1e-3 * np.where(size > 0, size, 1.0), _TINIEST)
    return center, np.where(scale > np.maximum(_ROUNDING * size, _TINIEST), scale, flat)


def _deviation_of(column: F64) -> float:
    """The standard deviation, of values whose squares are 0 as well."""
    deviation = float(column.std())
    if deviation >= _SQUARED_AWAY:
        return deviation
    span = float(column.max() - column.min())
    return float(((column - column.min()) / span).std() * span) if span > 0 else 0.0


def typical_interval(times: I64) -> tuple[int, bool]:
    """Median interval in ns, and whether at least 90 % of the intervals lie within 20 % of it.

    >>> typical_interval(np.array([0, 10, 20, 30]) * 10**9)
    (10000000000, True)
    """
    intervals = np.diff(times)
    median = float(np.median(intervals))
    near = np.abs(intervals - median) <= REGULAR_BAND * median
    return int(median), bool(median > 0 and near.mean() >= REGULAR_SHARE)


def build_profile(
    times: I64,
    values: F64,
    reconstruct: Reconstruct,
    *,
    scaler: str = "standard",
    stride: int = 1,
    open_after: tuple[int, int] = (10, 10),
    least: int = MIN_ROWS,
    hours: tuple[Hours, str] | None = None,
) -> tuple[Profile, Carry]:
    """Build a sensor's profile from its prefix: times (L,) ns, strictly increasing, and values (L, C), all finite.

    A row may lack channels, NaN: its value is that of the row before, and none of the channel's signals is of that row.
    The prefix begins where each channel has come, and none may be gone for nearly all of it.
    `stride` thins the autoencoder as it does live; `open_after` = (n, m) of the alerts: peaks are peaks of the n-th
    largest of the last m scores. What is left of the prefix without sentinels and a regime that is over has to be
    `least` rows (see prefix.py); 0: take all of it as it is. Raises ValueError under 150 rows, and `NotYetError` under
    `least`. `hours`: the clocks that the sensor goes by, and its id; None: by none.
    """
    _check_length(len(values), "rows")
    prefix = examine(times, values, least=max(least, MIN_ROWS)) if least else taken_as_it_is(times, values)
    times, values, wild, lacks = prefix.times, prefix.values, prefix.wild, prefix.lacking
    patched = lacks if lacks.any() else None
    channels = values.shape[1]
    center, scale = scale_of(values, scaler)
    z = np.ascontiguousarray(standardise(values, center, scale).T)
    clean = complete_windows(wild) if wild.any() else np.ones(len(values) - WINDOW + 1, dtype=bool)
    fits = [_forecast(column, clean) for column in z]
    ridge = np.array([fit[0] for fit in fits], dtype=np.float32)
    bias = np.array([fit[1] for fit in fits])

    blind = lacks[WINDOW - 1 :] if patched is None else _unforeseen(patched)
    missed = np.array([_prediction_path(z[c], ridge[c], bias[c])[clean] for c in range(channels)])
    prediction = np.array([_held_path(missed[c], blind[clean, c], PREDICTION_RATE) for c in range(channels)])
    level = np.array([_held_path(z[c] * z[c], wild | lacks[:, c], LEVEL_RATE) for c in range(channels)])
    errors = _reconstruction_path(z, reconstruct, stride, patched)[clean]
    signals = np.concatenate([prediction, errors[None], level[:, WINDOW - 1 :][:, clean]])[:, 1:]
    signals[:channels][blind[clean][1:].T] = np.nan
    signals[channels + 1 :][lacks[WINDOW - 1 :][clean][1:].T] = np.nan

    typical, components = np.empty(0, dtype=np.float32), np.empty((COMPONENTS, 0), dtype=np.float32)
    relation = np.empty(0)
    if several(channels):
        components = components_of(z[:, ~wild & ~lacks.any(axis=1)])
        distance = relation_errors(z[:, WINDOW - 1 :][:, clean], components, lacks[WINDOW - 1 :][clean].T)
        relation = _held_path(distance, np.isnan(distance), PREDICTION_RATE)
        of_rows = np.where(np.isnan(distance), np.nan, relation)[1:]
        typical = typical_of(values, signals, of_rows)
        signals = views(signals, of_rows, typical)
        typical[:channels] *= final_error(min(int(clean.sum()), RIDGE_WINDOWS), WINDOW - 1)
    calibration, u, zz = calibrate(times, signals, open_after, machine=bool(several(channels)))
    still_limit, resolution = limits_of(values, ~lacks)
    moves = drift_of(z, ~(wild[:, None] | lacks).T)
    noise = noise_of(missed, ~blind[clean].T)
    profile = Profile(
        **asdict(calibration), center=center, scale=scale, ridge=ridge, bias=bias, open_after=open_after,
        worst_zz_of_others=calibration.worst_zz if several(channels) else worst_deviation(np.delete(zz, 1, axis=0)),
        sentinels=prefix.sentinels, still_limit=still_limit, resolution=resolution, drift_worst=moves.worst,
        drift_worst_zz=moves.worst_zz, drift_mean=moves.mean, drift_variance=moves.variance,
        noise_usual=noise.usual, noise_hush=noise.hush, typical=typical, components=components,
        **_contexts(times, z, ~(wild[:, None] | lacks).T, calibration.median_interval, hours),
    )  # fmt: skip
    carry = Carry(
        prediction=prediction[:, -1],
        level=level[:, -1],
        relation=relation[-1:],
        drift_quick=moves.quick,
        drift_slow=moves.slow,
        noise_quick=noise.quick,
        noise_slow=noise.slow,
        recent_u=np.concatenate([np.full(WINDOW - 1, u[0]), u])[1 - WINDOW :],
        held_error=float(errors[-1]),
        completions=len(clean),
    )
    return profile, carry


def _contexts(times: I64, z: F64, there: Bools, interval: int, hours: tuple[Hours, str] | None) -> dict[str, Any]:
    """What a prefix says of the hours of its channels."""
    if hours is None or hours[0].zone is None:
        return {}
    return {"contexts": contexts_of(times, z, there, hours[0].of(times, hours[1]), interval), "zone": hours[0].zone}


def _windows_of(flags: Bools) -> Bools:
    """The windows (L - 99, 100, C) of flags (L, C)."""
    return sliding_window_view(flags, WINDOW, axis=0).transpose(0, 2, 1)


def _unforeseen(patched: Bools) -> Bools:
    """`unforeseen` of the windows of (L, C)."""
    windows = _windows_of(patched)
    return np.concatenate([unforeseen(windows[i : i + CHUNK]) for i in range(0, len(windows), CHUNK)])


def _held_path(x: F64, left_out: Bools, rate: float) -> F64:
    """The average after each row of x (L,); rows that are left out leave it where it is."""
    if left_out.all():
        return np.zeros_like(x)
    path = ewma_path(x[~left_out], rate)
    return path[np.maximum(np.cumsum(~left_out) - 1, 0)] if left_out.any() else path


def build_frame_profile(times: I64, signal: F64, *, open_after: tuple[int, int] = (3, 5)) -> tuple[Calibration, F64]:
    """Build a camera's profile from its prefix: times (L,) ns, strictly increasing, and the signal (L,).

    `open_after` = (n, m) of the alerts. Returns also the newest m - 1 scores, oldest first, for a camera that carries
    on from its warm-up. Raises ValueError under 150 frames.
    """
    _check_length(len(signal), "frames")
    calibration, u, _ = calibrate(times, signal[None], open_after)
    return calibration, u[len(u) - (open_after[1] - 1) :]


def _check_length(rows: int, what: str) -> None:
    if rows < MIN_ROWS:
        raise ValueError(f"a profile needs at least {MIN_ROWS} {what}, these are {rows}")


def calibrate(
    times: I64, signals: F64, open_after: tuple[int, int], *, machine: bool = False
) -> tuple[Calibration, F64, F64]:
    """Calibrate by the signals (K, R) of a prefix's scored rows, NaN: it has none; `times` (L,) ns: of all its rows.

    Peaks are peaks of the n-th largest of the last m scores, `open_after` = (n, m). The worst of a `machine` is
    `usual_worst`. Returns also the rows' scores (R,) and deviations (K, R).
    """
    if np.isnan(signals).any():
        worst, mean, variance = _of_those_there(signals)
    else:
        worst, mean, variance = signals.max(axis=1) + TINY, signals.mean(axis=1), signals.var(axis=1)
    if machine:
        usual = np.array([usual_worst(signal) for signal in signals]) + TINY
        worst = np.where(np.isnan(usual), worst, usual)
    zz, _ = deviation(signals, mean[:, None], variance[:, None])
    worst_zz = max(1.0, usual_worst(np.fmax.reduce(zz, axis=0))) if machine else worst_deviation(zz)
    u = combine(signals, zz, worst[:, None], worst_zz)
    n, m = open_after
    v = nth_largest_log(np.concatenate([np.full(m - 1, u[0]), u])[:, None], n, m)[:, 0]
    median_interval, regular = typical_interval(times)
    first, last, peak_v = standing_maxima(v)
    calibration = Calibration(
        median_interval=median_interval, regular=regular, worst=worst, worst_zz=worst_zz, mean=mean, variance=variance,
        count=float(len(u)), scored_rows=len(u), peak_first=first, peak_last=last, peak_v=peak_v,
    )  # fmt: skip
    return calibration, u, zz


def worst_deviation(zz: F64) -> float:
    """The largest of the deviations (K, R) on a prefix, at least 1."""
    return max(1.0, float(np.nanmax(zz)))


def _of_those_there(signals: F64) -> tuple[F64, F64, F64]:
    """Maximum, mean and variance (K,) of signals (K, R). A signal that no row has will never be the worst one."""
    there = ~np.isnan(signals)
    count = there.sum(axis=1)
    worst = np.where(count > 0, np.fmax.reduce(signals, axis=1) + TINY, _NEVER_REACHED)
    mean = np.where(there, signals, 0.0).sum(axis=1) / np.maximum(count, 1)
    off = np.where(there, signals - mean[:, None], 0.0)
    return worst, mean, (off * off).sum(axis=1) / np.maximum(count, 1)


def peaks_of_suffix(profile: Calibration, rows: int) -> list[float]:
    """Declustered ln peaks of the prefix's last `rows` scored rows, oldest first, the pending one included."""
    end = profile.scored_rows
    return declustered(profile.peak_first, profile.peak_last, profile.peak_v, end - rows, end)


def _forecast(z: F64, clean: Bools) -> tuple[F64, float]:
    """Ridge regression of the newest of 100 values on the 99 before it, from the `clean` windows of one z (L,)."""
    windows = sliding_window_view(z, WINDOW)
    windows = windows if clean.all() else windows[clean]
    windows = windows[:: max(1, len(windows) // RIDGE_WINDOWS)][:RIDGE_WINDOWS]
    middle = windows.mean(axis=0)
    centred = windows - middle
    covariance = centred.T @ centred / len(windows)
    ridge = np.linalg.solve(covariance[:-1, :-1] + RIDGE * np.eye(WINDOW - 1), covariance[:-1, -1])
    return ridge, float(middle[-1] - middle[:-1] @ ridge)


def _prediction_path(z: F64, ridge: F32, bias: float) -> F64:
    windows = sliding_window_view(z, WINDOW)
    forecast = np.zeros((min(CHUNK, len(windows)), WINDOW))
    forecast[:, :-1] = ridge
    biases = np.full(len(forecast), bias)
    parts = []
    for i in range(0, len(windows), CHUNK):
        chunk = np.ascontiguousarray(windows[i : i + CHUNK])
        parts.append(prediction_errors(chunk, forecast[: len(chunk)], biases[: len(chunk)]))
    return np.concatenate(parts)


def _reconstruction_path(z: F64, reconstruct: Reconstruct, stride: int, patched: Bools | None) -> F64:
    """The reconstruction error at every window-completing row of z (C, L); between strides the last one is held.

    What is `patched` (L, C) does not count.
    """
    windows = sliding_window_view(z, WINDOW, axis=1).transpose(1, 2, 0)
    parts = []
    for i in range(0, len(windows), stride * CHUNK):
        chosen = slice(i, i + stride * CHUNK, stride)
        chunk = np.ascontiguousarray(windows[chosen], dtype=np.float32)
        left_out = None if patched is None else _windows_of(patched)[chosen]
        parts.append(reconstruction_errors(chunk, rebuild(chunk, left_out, reconstruct), left_out))
    return np.repeat(np.concatenate(parts), stride)[: len(windows)]
