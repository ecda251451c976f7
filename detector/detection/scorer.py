"""One block of rows through the stages: windows, signals, scores, thresholds, episodes. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, I64
from detector.config.rules import RuleBook
from detector.detection import signals
from detector.detection.deviation import deviations, matters
from detector.detection.episodes import Closing, Opening, follow
from detector.detection.faultmemory import FAULT_MEMORY, FaultMemory
from detector.detection.profile import Profile, Reconstruct
from detector.detection.table import SensorTable
from detector.detection.threshold import nth_largest_log
from detector.detection.windows import Block, Span

_FROZEN: Final = ("center", "scale", "ridge", "bias", "worst", "worst_zz")
_MOVING: Final = (
    "prediction", "level", "held_error", "completions", "mean", "variance", "count", *FAULT_MEMORY,
)  # fmt: skip
THRESHOLD: Final = (
    "budget", "horizon", "rows", "credit", "peaks", "peaks_kept", "peaks_seen", "forgotten", "pending", "pending_age",
)  # fmt: skip
CHUNK: Final = 512
"""Windows scored together: 400 KB of them, which a processor's cache holds."""
EPISODE: Final = ("open", "muted", "hold", "quiet", "loud_time", "peak", "close_level", "ended")
_JUDGED: Final = (*THRESHOLD, *EPISODE, "recent", "score")


@dataclass(frozen=True, slots=True)
class Model:
    """An autoencoder ready to score, and the profiles that were made with it."""

    name: str
    version: str
    digest: str
    scaler: str
    stride: int
    reconstruct: Reconstruct
    profiles: Mapping[str, Profile]


@dataclass(frozen=True, slots=True)
class Scored:
    """What a block's rows came to. Matrices are (T, n); a cell is meaningful where the sensor has a t-th row.

    `u`: scores; `eligible`: what of them counts towards n of m; `v`, `limits`: ln of the n-th largest of those, and of
    the threshold.
    `earlier_score`, `earlier_peak` (n,): as they stood before the block. `expected` (N, C), if it was asked for: what
    the autoencoder makes of the newest value of each real row's window, in the unit of the values, NaN where a stride
    left the row out. `cells`: the state after the block, for `SensorTable.put`.
    """

    u: F64
    eligible: F64
    v: F64
    limits: F64
    errors: F64
    transitions: list[Opening | Closing]
    earlier_score: F64
    earlier_peak: F64
    cells: dict[str, NDArray[Any]]
    expected: F64 | None = None


class ScoreBlock(Protocol):
    """Scores the real rows of a block: `score_block`, or what stands in for it or listens to it."""

    def __call__(self, table: SensorTable, block: Block, model: Model, book: RuleBook) -> Scored:
        """Score every real row of a block whose windows are complete. Writes nothing: see `Scored.cells`."""
        ...


def score_block(table: SensorTable, block: Block, model: Model, book: RuleBook, *, explain: bool = False) -> Scored:
    """Score every real row of a block whose windows are complete. Writes nothing: see `Scored.cells`.

    `explain` asks for `Scored.expected`.
    """
    frozen = table.take(block.slots, _FROZEN)
    moving = table.take(block.slots, _MOVING)
    z = signals.standardise(block.values, frozen["center"][:, None], frozen["scale"][:, None])
    newest = np.full((len(block.sensor), z.shape[2]), np.nan) if explain else None
    raw, errors = _window_errors(block, model, z, frozen, moving, newest)
    u = scores_of(block, _averages(block, raw, errors, moving), frozen, moving)
    eligible, levels = _eligible(table, block, u, frozen["scale"], book)
    expected = None if newest is None else newest * frozen["scale"][block.sensor] + frozen["center"][block.sensor]
    rules = table["rules"][block.slots]
    open_after, close_after = book.open_after[rules], book.close_after[rules]
    scored = judge_block(table, block, u, errors, open_after, close_after, eligible=eligible, expected=expected)
    scored.cells.update(moving | levels)
    return scored


def judge_block(
    table: SensorTable,
    block: Span,
    u: F64,
    errors: F64,
    open_after: I64,
    close_after: I64,
    *,
    eligible: F64,
    expected: F64 | None = None,
) -> Scored:
    """What follows from the scores u (T, n) of a block: thresholds, openings, closings. Writes nothing.

    `open_after` (n, 2): n and m of n of m; `close_after` (n,); `eligible` (T, n): what of the scores counts towards it.
    """
    judged = table.take(block.slots, _JUDGED)
    earlier_score, earlier_peak = judged["score"], judged["peak"].copy()
    judged["score"] = u[block.ticks - 1, np.arange(len(block.slots))]
    v = _smallest_of_recent(block, eligible, judged, open_after)
    times = block.by_tick(block.times[block.sensor, block.newest])
    transitions, limits = follow(judged, v, times, block.active, close_after, block.inside)
    return Scored(u, eligible, v, limits, errors, transitions, earlier_score, earlier_peak, judged, expected)


def fill_block(table: SensorTable, block: Block) -> None:
    """Let rows that complete no window yet move the level average, which needs none."""
    cells = table.take(block.slots, ("center", "scale", "level"))
    z = signals.standardise(block.values, cells["center"][:, None], cells["scale"][:, None])
    newest = z[block.sensor, block.newest]
    squares = np.stack([block.by_tick(column * column) for column in newest.T], axis=1)
    level = _started(cells["level"].T, squares)
    for tick, k in enumerate(block.active):
        level[:, :k] += signals.LEVEL_RATE * (squares[tick, :, :k] - level[:, :k])
    table.put(block.slots, {"level": level.T})


def _started(average: NDArray[Any], x: F64) -> F64:
    """A moving average (K, n) that starts at its first element where it has none yet (NaN); x is (T, K, n)."""
    if not len(x):
        return np.ascontiguousarray(average)
    return np.ascontiguousarray(np.where(np.isnan(average), x[0], average))


def _window_errors(
    block: Block,
    model: Model,
    z: F64,
    frozen: dict[str, NDArray[Any]],
    moving: dict[str, NDArray[Any]],
    newest: F64 | None,
) -> tuple[F64, F64]:
    """What each row's window says by itself: (T, 2 C, n) prediction errors and squared values, (T, n) reconstruction.

    Windows are built and used a few hundred at a time, while they are in the processor's cache. With a stride the
    autoencoder sees every so-manyeth window of a sensor, and its last error is held in between. `newest` (N, C) is
    filled with what the autoencoder makes of each window's last row.
    """
    channels, rows = z.shape[2], len(block.sensor)
    forecast = np.zeros((channels, len(block.slots), signals.WINDOW))
    forecast[:, :, :-1] = frozen["ridge"].transpose(1, 0, 2)
    flat = np.empty((2 * channels, rows))
    rebuilt = np.full(rows, np.nan)
    due = (moving["completions"][block.sensor] + block.tick) % model.stride == 0
    for begin in range(0, rows, CHUNK):
        part = slice(begin, begin + CHUNK)
        sensor = block.sensor[part]
        windows = [block.windows(z, channel, part) for channel in range(channels)]
        for channel, one in enumerate(windows):
            bias = frozen["bias"][sensor, channel]
            flat[channel, part] = signals.prediction_errors(one, forecast[channel][sensor], bias)
            np.multiply(one[:, -1], one[:, -1], out=flat[channels + channel, part])
        inputs = block.model_windows(windows)
        if model.stride == 1:
            outputs = model.reconstruct(inputs)
            rebuilt[part] = signals.reconstruction_errors(inputs, outputs)
            if newest is not None:
                newest[part] = outputs[:, -1]
        elif due[part].any():
            chosen = np.ascontiguousarray(inputs[due[part]])
            outputs = model.reconstruct(chosen)
            rebuilt[part][due[part]] = signals.reconstruction_errors(chosen, outputs)
            if newest is not None:
                newest[part][due[part]] = outputs[:, -1]
    raw = np.stack([block.by_tick(row) for row in flat], axis=1)
    errors = block.by_tick(rebuilt)
    if model.stride > 1:
        held = moving["held_error"]
        for row in errors:
            np.copyto(row, held, where=np.isnan(row))
            held = row
    moving["held_error"] = errors[block.ticks - 1, np.arange(len(block.slots))]
    moving["completions"] = moving["completions"] + block.ticks
    return raw, errors


def _eligible(
    table: SensorTable, block: Block, u: F64, scale: F64, book: RuleBook
) -> tuple[F64, dict[str, NDArray[Any]]]:
    """The scores (T, n), 0 where a row deviates too little, or to the side nobody asked for; and the levels after."""
    rules = table["rules"][block.slots]
    asked = np.flatnonzero(book.need_deviation[rules])
    if not len(asked):
        return u, {}
    own = rules[asked]
    newest = block.values[block.sensor, block.newest]
    values = np.stack([block.by_tick(column)[:, asked] for column in newest.T], axis=2)
    active = np.searchsorted(asked, block.active).tolist()
    levels = table.take(block.slots, ("usual", "lean"))
    moving = {name: cells[asked] for name, cells in levels.items()}
    unlearnt = None if block.inside is None else (block.inside & (u >= 1.0))[:, asked]
    off, leaning = deviations(values, active, moving["usual"], moving["lean"], scale[asked], unlearnt)
    for name, cells in moving.items():
        levels[name][asked] = cells
    enough = matters(values, off, leaning, scale[asked], book.direction[own], book.absolute[own], book.relative[own])
    eligible = u.copy()
    eligible[:, asked] *= enough
    return eligible, levels


def _averages(block: Block, raw: F64, errors: F64, moving: dict[str, NDArray[Any]]) -> F64:
    """The K signals of every row (T, K, n)."""
    channels = raw.shape[1] // 2
    rates = np.repeat([signals.PREDICTION_RATE, signals.LEVEL_RATE], channels)[:, None]
    begun = moving["prediction"]
    if channels > 1:
        # With each channel it grows likelier that one of the first errors, alone, is an alarm: see docs/detection.md.
        begun = np.where(np.isnan(begun), moving["mean"][:, :channels], begun)
    average = _started(np.concatenate([begun.T, moving["level"].T]), raw)
    out = np.zeros((block.height, 2 * channels + 1, len(block.slots)))
    for tick, k in enumerate(block.active):
        now = average[:, :k]
        now += rates * (raw[tick, :, :k] - now)
        out[tick, :channels, :k] = now[:channels]
        out[tick, channels + 1 :, :k] = now[channels:]
    out[:, channels] = errors
    moving["prediction"], moving["level"] = average[:channels].T, average[channels:].T
    return out


def scores_of(block: Span, values: F64, frozen: dict[str, NDArray[Any]], moving: dict[str, NDArray[Any]]) -> F64:
    """Scores u (T, n) of the signals (T, K, n); the adaptive scale learns each row after scoring it.

    But for rows in a maintenance window that are as bad as the worst of training: they teach it nothing.
    """
    mean = np.ascontiguousarray(moving["mean"].T)
    variance = np.ascontiguousarray(moving["variance"].T)
    count, worst_zz = moving["count"], frozen["worst_zz"]
    mute = signals.mute_of(np.ascontiguousarray(frozen["worst"].T))
    recovery = FaultMemory(moving, worst_zz, mute)
    on_frozen = signals.frozen_scale(values.transpose(1, 0, 2), frozen["worst"].T[:, None])
    may_be_high = np.any(on_frozen >= 1.0, axis=1).tolist()
    deviations = np.zeros_like(values)
    for tick, k in enumerate(block.active):
        now, learnt_mean, learnt_variance = values[tick, :, :k], mean[:, :k], variance[:, :k]
        silent = None if mute is None else mute[:, :k]
        zz, unit = signals.deviation(now, learnt_mean, learnt_variance, silent)
        deviations[tick, :, :k] = zz
        high = None
        if may_be_high[tick] or recovery.active:
            high = np.minimum(on_frozen[tick, :k], signals.adaptive_scale(zz, worst_zz[:k])) >= 1.0
            if recovery.row(high, now, learnt_mean, learnt_variance):
                zz, unit = signals.deviation(now, learnt_mean, learnt_variance, silent)
        if high is None or block.inside is None or not (unlearnt := high & block.inside[tick, :k]).any():
            signals.learn(zz, unit, learnt_mean, learnt_variance, count[:k])
        else:
            _learn_some(np.flatnonzero(~unlearnt), zz, unit, learnt_mean, learnt_variance, count)
    moving["mean"], moving["variance"] = mean.T, variance.T
    recovery.store()
    u = np.minimum(on_frozen, signals.adaptive_scale(deviations.transpose(1, 0, 2), worst_zz))
    return u


def _learn_some(at: NDArray[np.intp], zz: F64, unit: F64, mean: F64, variance: F64, count: F64) -> None:
    """`signals.learn` for some of the sensors, by their place."""
    some = mean[:, at], variance[:, at], count[at]
    signals.learn(zz[:, at], unit[:, at], *some)
    mean[:, at], variance[:, at], count[at] = some


def _smallest_of_recent(block: Span, u: F64, moving: dict[str, NDArray[Any]], open_after: I64) -> F64:
    """v (T, n); where fewer than m scores exist the first one stands for the missing. `open_after` (n, 2): n and m."""
    recent = moving["recent"].T
    joined = np.concatenate([np.where(np.isnan(recent), u[0], recent), u])
    at = block.ticks[:, None] + np.arange(len(recent))
    moving["recent"] = joined[at, np.arange(len(block.slots))[:, None]]
    kinds = np.unique(open_after, axis=0).tolist()
    v = np.empty_like(u)
    for n, m in kinds:
        alike = slice(None) if len(kinds) == 1 else np.flatnonzero((open_after == (n, m)).all(axis=1))
        v[:, alike] = nth_largest_log(joined[len(recent) - (m - 1) :, alike], n, m)
    return v
