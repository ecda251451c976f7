"""What is held of an open episode's fault, from one look at the window to the next.

The first look is at the row that opened the episode, the others at every `LOOK`-th row and at every message. While the
opening row and enough rows before it are in the window, a look may better what was found: rows say more, the more of
them are of the fault. Then it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import numpy as np

from detector.arrays import F64, I64, Bools
from detector.detection.episodes import OffHours
from detector.detection.evidence import (
    LAGS,
    NEWEST,
    OLDER,
    UNUSUAL,
    Onset,
    find_onset,
    innovations,
    last_of_run,
    last_unusual,
    shares,
    usual_errors,
)
from detector.detection.faultkind import Kind, kind_of
from detector.detection.quietness import Calm, calmest
from detector.detection.stillness import Run
from detector.detection.usual import usual_level, usual_of

T = TypeVar("T")
_MEDIAN: Final = 0.4549
"""Of squares of normal numbers whose mean is 1."""
LOOK: Final = 20
"""Rows from one look to the next."""


class Window(NamedTuple):
    """A sensor's newest rows: times (100,) ns, z and the autoencoder's squared errors (100, C).

    `ridge` (C, 99), `bias` (C,): the forecasts of its channels. `known`: what was found in these rows, for others who
    look at them; None: nobody else does.
    """

    times: I64
    z: F64
    errors: F64
    ridge: F64
    bias: F64
    known: dict[tuple[int, ...], Any] | None = None


class Finding(msgspec.Struct, frozen=True):
    """A fault as it looks so far. `onset`: ns; `gain`: how much likelier it is than none, see `evidence.Onset`.

    `earliest`: it began after this, ns. `least`: the rows that were too bad when the episode opened. `usual`, `shares`:
    by channel, the usual error, and the part of what is unusual. `kind`: what fault the channel `channel` has. `over`:
    of a step that was taken back, the time of its last row, ns.
    """

    onset: int
    gain: float
    earliest: int
    least: int
    usual: list[float]
    shares: list[float]
    channel: int
    kind: Kind
    over: int | None = None


def first_look(
    window: Window, earliest: int, least: int, run: Run | None = None, hours: OffHours | None = None,
    calm: Bools | None = None,
) -> Finding:  # fmt: skip
    """What the window says whose newest row opened an episode: the n-th too bad of m, `least` = n.

    The fault began after `earliest`, ns. `run`: a rule of evidence opened it; where this is no run that sticks, that of
    slow moves. `hours`: it was opened by what is usual at other hours. `calm` (C,): it was opened by noise that dies
    down, in one of these channels.
    """
    found = _onset(window, max(len(window.z) - least, OLDER))
    usual = usual_errors(window.errors, found.row)
    parts = shares(window.errors, usual, found.row)
    channel = int(parts.argmax())
    if hours is not None:
        kind, channel = _of_hours(window, hours), hours.channel
        parts = np.eye(len(parts))[channel]
    elif calm is not None:
        calmer = _calmest(window, calm)
        kind, channel = Kind("noise", row=calmer.row, size=calmer.size), calmer.channel
        parts = np.eye(len(parts))[channel]
    elif run is None:
        kind = _kind(window, channel, found.row)
    else:
        kind, channel = _ruled(window, run)
        parts = parts if int(parts.argmax()) == channel else np.eye(len(parts))[channel]
    row, gain = (found.row, found.gain) if kind.row is None else (kind.row, math.inf)
    onset = _since(window.times, row, earliest) if hours is None else max(hours.since, earliest + 1)
    return Finding(onset, gain, earliest, least, usual.tolist(), parts.tolist(), channel, kind, _over(window, kind))


def next_look(before: Finding, window: Window, detected: int) -> Finding:
    """What is known with the rows that came since. `detected`: the time of the row that opened the episode, ns."""
    usual, earliest = np.array(before.usual), before.earliest
    onset, gain, kind, over = before.onset, before.gain, before.kind, before.over
    at = np.flatnonzero(window.times == detected)
    last = int(at[-1]) + 1 - before.least if len(at) else -1
    if last >= OLDER:
        if math.isfinite(gain) and (better := _onset(window, last)).gain > gain:
            onset, gain = _since(window.times, better.row, earliest), better.gain
        row = int(np.searchsorted(window.times, onset))
        # What one channel usually does is in its profile; how several go together is seen in the rows before alone.
        if kind.row is None and (row >= OLDER or len(usual) == 1 or kind.name == "unusual"):
            again = _kind(window, before.channel, row)
            # What began after the rows that opened the episode has not opened it.
            if again.row is None or again.row <= last:
                if again.row is not None:
                    onset, gain = _since(window.times, again.row, earliest), math.inf
                if again.name != "unusual" and not _goes_back(kind, again):
                    kind, over = again, _over(window, again)
    if over is not None and not _as_usual(window, over):
        over = None
    if kind.name == "drift" and kind.row is not None:
        kind = replace(kind, size=max(kind.size, _off(window, before.channel), key=abs))
    parts = before.shares
    if float((window.errors[-NEWEST:].mean(axis=0) / usual).max()) > UNUSUAL:
        now = shares(window.errors, usual, int(np.searchsorted(window.times, onset)))
        # The channel that an episode blames is the one of its first look, where the others were still as usual.
        parts = now.tolist() if int(now.argmax()) == before.channel else parts
    return Finding(onset, gain, earliest, before.least, before.usual, parts, before.channel, kind, over)


def until(found: Finding, window: Window) -> int | None:
    """The time of the last row of the window, ns, that is unusual by itself; None where it has none."""
    row: int | None
    if found.kind.name == "context":
        return None  # the rows themselves are as usual
    if found.kind.name == "stuck":
        row = last_of_run(window.z[:, found.channel])
    elif found.kind.name == "noise" and found.kind.row is not None:
        now = _calmest(window, np.arange(window.z.shape[1]) == found.channel)
        row = len(window.z) - 1 if 4 * now.size * now.size < 1 else None
    elif found.kind.name == "drift" and found.kind.row is not None:
        size = found.kind.size
        row = len(window.z) - 1 if 2 * _off(window, found.channel) * size >= size * size else None
    elif found.over is not None:
        return max(found.over, found.onset)
    else:
        row = last_unusual(window.errors, np.array(found.usual))
    return None if row is None else max(int(window.times[row]), found.onset)


def _ruled(window: Window, run: Run) -> tuple[Kind, int]:
    """What a rule of evidence has found, and in which channel. A drift began before the window."""
    if run.sticks:
        return Kind("stuck", row=run.row, level=float(window.z[run.row, run.channel])), run.channel
    there = window.errors[-1] > 0.0  # not what stands for a missing value
    channel = int(np.where(there, np.abs(window.z.mean(axis=0)), 0.0).argmax())
    return Kind("drift", row=0, size=_off(window, channel)), channel


def _over(window: Window, kind: Kind) -> int | None:
    return int(window.times[kind.last]) if kind.last >= 0 else None


def _as_usual(window: Window, since: int) -> bool:
    """Whether the rows since the last look, behind the time `since`, are what few rows before them let expect.

    The autoencoder, which sees the window as a whole, errs in such rows as long as there are rows of the fault.
    """
    behind = int(np.searchsorted(window.times, since, side="right")) + LAGS
    begin = max(behind, len(window.z) - LOOK)
    if len(window.z) - begin < NEWEST // 2:
        return True
    for channel in range(window.z.shape[1]):
        squares = np.square(innovations(window.z, channel, len(window.z)))[LAGS:]
        if float(squares[begin - LAGS :].mean()) > UNUSUAL * float(np.median(squares)) / _MEDIAN:
            return False
    return True


def _white(window: Window, channel: int) -> F64:
    return usual_of(window.ridge[channel]).whiten @ (window.z[:, channel] - _level(window, channel))


def _calmest(window: Window, asked: Bools) -> Calm:
    white = np.zeros_like(window.z)
    for channel in np.flatnonzero(asked).tolist():
        white[:, channel] = _white(window, channel)
    return calmest(white, asked)


def _of_hours(window: Window, hours: OffHours) -> Kind:
    """A value of other hours, since before the window or since a row of it."""
    level = float(window.z[-1, hours.channel])
    row = int(np.searchsorted(window.times[:-1], hours.since))
    weekday = -1 if hours.weekday is None else hours.weekday
    return Kind("context", row=row, size=level - hours.usual, level=level, hour=hours.hour, weekday=weekday)


def _off(window: Window, channel: int) -> float:
    """How far from the usual level of a channel its window lies."""
    return float(window.z[:, channel].mean()) - _level(window, channel)


def _level(window: Window, channel: int) -> float:
    return usual_level(window.ridge[channel], float(window.bias[channel]))


def _onset(window: Window, last: int) -> Onset:
    return _once(window, (last,), lambda: find_onset(window.z, last))


def _kind(window: Window, channel: int, row: int) -> Kind:
    def kind() -> Kind:
        return kind_of(window.z, channel, row, window.ridge[channel], _level(window, channel))

    return _once(window, (channel, row), kind)


def _once(window: Window, question: tuple[int, ...], answer: Callable[[], T]) -> T:
    if window.known is None:
        return answer()
    if question not in window.known:
        window.known[question] = answer()
    found: T = window.known[question]
    return found


def _goes_back(kind: Kind, again: Kind) -> bool:
    """Whether a step seems to lead the other way than the one that was found: so a fault ends, and none begins."""
    return kind.name == again.name == "level-shift" and kind.size * again.size < 0


def _since(times: I64, row: int, earliest: int) -> int:
    """The time of a row, but after `earliest`. Times need not ascend: a clock may have been set back in a warm-up."""
    candidates = times[row:]
    after = candidates > earliest
    return int(candidates[after.argmax() if after.any() else -1])
