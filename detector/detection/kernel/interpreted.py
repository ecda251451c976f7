"""The kernel in plain Python: what runs where nothing is compiled, and what a library is compared with."""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F32, F64, I64, Bools
from detector.detection.columns import bits_of, flags_of
from detector.detection.deviation import deviates
from detector.detection.drifting import drift
from detector.detection.episodes import judge_row
from detector.detection.kernel.cells import (
    CLOSED,
    EVENT,
    LEARNT,
    OPENED,
    Cells,
    Gather,
    Paces,
    Rings,
    Rows,
    Rules,
    Spans,
)
from detector.detection.profile import REGULAR_BAND
from detector.detection.score import fill, score_row, signals_of
from detector.detection.sensor import larger, load, store
from detector.detection.signals import WINDOW, prediction_errors, reconstruction_errors, standardise
from detector.detection.stillness import still
from detector.detection.threshold import NOTHING, begin, smallest_of_recent


class Interpreted:
    """See `kernel.Kernel`."""

    name: ClassVar = "interpreted"

    def uneven(self, paces: Paces, spans: Spans) -> Bools:
        slots, first, last, times = spans
        lengths, median = last - first, paces.median[slots]
        usual = np.repeat(median, lengths)
        gap = np.empty_like(times)
        gap[1:] = times[1:] - times[:-1]
        gap[first] = np.where(paces.filled[slots] > 0, times[first] - _newest(paces, slots), median)
        odd = np.logical_or.reduceat(np.abs(gap - usual) > REGULAR_BAND * usual, first)
        found: Bools = paces.regular[slots] & (median > 0) & (odd | (paces.unfit[slots] > 0))
        return found

    def missing(self, paces: Paces, spans: Spans, restarts: Bools, max_gap: I64, max_fill: I64) -> I64:
        slots, first, last, times = spans
        lengths = last - first
        gap = np.empty_like(times)
        gap[1:] = times[1:] - times[:-1]
        gap[first] = np.where(paces.filled[slots] > 0, times[first] - _newest(paces, slots), 0)
        gap[restarts] = 0
        median = np.repeat(np.where(paces.regular[slots], paces.median[slots], 0), lengths)
        found = np.zeros(len(gap), dtype=np.int64)
        np.floor_divide(2 * gap + median, 2 * median, out=found, where=median > 0)
        found = np.maximum(found - 1, 0)
        rules = np.repeat(paces.rules[slots], lengths)
        restarts |= (found > max_fill[rules]) | (gap > max_gap[rules])
        found[restarts] = 0
        return found

    def windows(self, cells: Cells, rings: Rings, rows: Rows, raw: F64) -> Gather:
        return partial(self._gather, cells, rings, rows, raw)

    def _gather(self, cells: Cells, rings: Rings, rows: Rows, raw: F64, part: slice, inputs: F32) -> None:
        owner, channels = rows.owner[part], rows.values.shape[1]
        place = rows.source[part, None] + np.arange(1 - WINDOW, 1)
        behind = place - rows.begin[owner, None]
        slots = rows.slots[owner]
        of_ring = rings.values[slots[:, None], (rings.head[slots, None] + behind) % WINDOW]
        values = np.where(behind[..., None] < 0, of_ring, rows.values[np.maximum(place, 0)])
        z = standardise(values, cells["center"][owner, None], cells["scale"][owner, None])
        inputs[:] = z
        forecast = np.zeros((len(owner), WINDOW))
        for channel in range(channels):
            one = np.ascontiguousarray(z[:, :, channel])
            forecast[:, :-1] = rings.ridge[slots, channel]
            raw[channel, part] = prediction_errors(one, forecast, rings.bias[slots, channel])
            raw[channels + channel, part] = one[:, -1] * one[:, -1]

    def rebuilt(self, inputs: F32, outputs: F32) -> F64:
        return reconstruction_errors(inputs, outputs)

    def push(self, rings: Rings, rows: Rows) -> None:
        for slot, first, end in zip(rows.slots.tolist(), rows.begin.tolist(), rows.end.tolist(), strict=True):
            newest = np.arange(max(first, end - WINDOW), end)
            place = (int(rings.head[slot]) + newest - first) % WINDOW
            rings.values[slot, place], rings.times[slot, place] = rows.values[newest], rows.times[newest]
            flags = flags_of(rings.imputed[slot])
            flags[place] = rows.imputed[newest]
            rings.imputed[slot] = bits_of(flags)
            rings.head[slot] = (int(rings.head[slot]) + end - first) % WINDOW

    def whitening(self, alike: F64) -> F64:
        known, white = alike.tolist(), np.zeros((len(alike), len(alike)))
        newest_first, left = [1.0], known[0]
        white[0, 0] = 1.0 / math.sqrt(left)
        for row in range(1, len(known)):
            total = 0.0
            for back, part in enumerate(newest_first):
                total += known[row - back] * part
            part = -total / left
            padded = [*newest_first, 0.0]
            newest_first = [newer + part * older for newer, older in zip(padded, reversed(padded), strict=True)]
            left *= 1.0 - part * part
            white[row, row::-1] = np.array(newest_first) / math.sqrt(left)
        return white

    def fill(self, cells: Cells, first: I64, squares: F64) -> None:
        sensors, rows = load(cells), squares.T.tolist()
        for s, begun, end in zip(sensors, first[:-1].tolist(), first[1:].tolist(), strict=True):
            for row in range(begun, end):
                fill(s, rows[row])
        store(sensors, cells)

    def score(
        self,
        cells: Cells,
        rules: Rules,
        first: I64,
        raw: F64,
        errors: F64,
        values: F64,
        inside: Bools | None,
    ) -> tuple[F64, F64, F64]:
        sensors, channels = load(cells), len(raw) // 2
        predictions, squares = raw[:channels].T.tolist(), raw[channels:].T.tolist()
        held, within = errors.tolist(), None if inside is None else inside.tolist()
        u, alarm, eligible = np.empty((3, len(errors)))
        for at, s in enumerate(sensors):
            s.take_rule(rules[at])
            rows = range(int(first[at]), int(first[at + 1]))
            scores: list[float] = []
            alarms: list[float] = []
            counting: list[float] = []
            for row in rows:
                here = within is not None and within[row]
                newest = values[row].tolist()
                signals = signals_of(s, predictions[row], squares[row], held[row], newest)
                held[row] = s.held_error
                one = score_row(s, signals, here)
                s.score = larger(one, larger(still(s, newest), drift(s, newest, here)))
                counts = not s.deviates or deviates(s, newest, here and one >= 1.0)
                scores.append(one)
                alarms.append(s.score)
                counting.append(s.score if counts else 0.0)
            part = slice(rows.start, rows.stop)
            u[part], alarm[part], eligible[part] = scores, alarms, counting
        errors[:] = held
        store(sensors, cells)
        return u, alarm, eligible

    def judge(
        self,
        cells: Cells,
        rules: Rules,
        first: I64,
        eligible: F64,
        times: I64,
        inside: Bools | None,
    ) -> tuple[F64, F64, NDArray[np.void]]:
        sensors = load(cells)
        scores, moments = eligible.tolist(), times.tolist()
        within = None if inside is None else inside.tolist()
        v, limits, events = [], [], []
        for at, s in enumerate(sensors):
            s.take_rule(rules[at])
            begin(s)
            for row in range(int(first[at]), int(first[at + 1])):
                ended, seen = s.ended, s.peaks_seen
                one = smallest_of_recent(s, scores[row])
                what, limit = judge_row(s, one, moments[row], within is not None and within[row])
                v.append(one)
                limits.append(limit)
                if what == OPENED:
                    events.append((at, row, what, ended, limit, *NOTHING))
                elif what == CLOSED:
                    events.append((at, row, what, s.ended, s.peak, *s.lesson))
                elif s.peaks_seen != seen:
                    events.append((at, row, LEARNT, 0, 0.0, *s.lesson))
        store(sensors, cells)
        return np.array(v), np.array(limits), np.array(events, dtype=EVENT)


def _newest(paces: Paces, slots: NDArray[np.intp]) -> I64:
    """The times of the newest rows in the windows of these sensors, ns."""
    newest: I64 = paces.times[slots, (paces.head[slots].astype(np.int64) - 1) % WINDOW]
    return newest
