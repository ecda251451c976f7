"""The kernel in plain Python: what runs where nothing is compiled, and what a library is compared with."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, I64, Bools
from detector.detection.deviation import deviates
from detector.detection.episodes import judge_row
from detector.detection.kernel.cells import CLOSED, EVENT, LEARNT, OPENED, Cells, Rules
from detector.detection.score import fill, score_row, signals_of
from detector.detection.sensor import load, store
from detector.detection.threshold import NOTHING, begin, smallest_of_recent


class Interpreted:
    """See `kernel.Kernel`."""

    name: ClassVar = "interpreted"

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
    ) -> tuple[F64, F64]:
        sensors, channels = load(cells), len(raw) // 2
        predictions, squares = raw[:channels].T.tolist(), raw[channels:].T.tolist()
        held, within = errors.tolist(), None if inside is None else inside.tolist()
        u, eligible = np.empty(len(errors)), np.empty(len(errors))
        for at, s in enumerate(sensors):
            s.take_rule(rules[at])
            rows = range(int(first[at]), int(first[at + 1]))
            scores: list[float] = []
            counting: list[float] = []
            for row in rows:
                here = within is not None and within[row]
                signals = signals_of(s, predictions[row], squares[row], held[row])
                held[row] = s.held_error
                one = score_row(s, signals, here)
                scores.append(one)
                if s.deviates and not deviates(s, values[row].tolist(), here and one >= 1.0):
                    one = 0.0
                counting.append(one)
            u[rows.start : rows.stop], eligible[rows.start : rows.stop] = scores, counting
        errors[:] = held
        store(sensors, cells)
        return u, eligible

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
