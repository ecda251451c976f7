"""What a person says of an alert takes effect: between its record and the next, on the sensor as it stands there.

`real` and `expected` are no false alarms: what the episode has taught the threshold is taken back, or is not learnt
where it is still open (detection/closed.py). What is `expected` is muted while it is open, and the adaptive scale is
as it was before, where there is a copy of it (detection/faultmemory.py). The last verdict on an alert counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from detector.detection.closed import EXCUSING, REMEMBERED, LastEpisodes, Reservoir
from detector.detection.columns import NO_COPY
from detector.detection.table import SensorTable
from detector.engine.announcer import Announcer
from detector.engine.budget import note_verdict
from detector.engine.silence import Silences
from detector.wire.readings import Reject, Verdict, Word


@dataclass(slots=True)
class Verdicts:
    """The verdicts of a batch by record, and those that could not take effect."""

    given: Mapping[int, Verdict] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)


class Judgement:
    """Lets verdicts take effect on the sensors of a partition."""

    def __init__(self, table: SensorTable, announcer: Announcer, silences: Silences) -> None:
        self._table = table
        self._announcer = announcer
        self._silences = silences

    def take(self, slot: int, verdict: Verdict, record: int) -> str | None:
        """Let a verdict take effect on the sensor in a slot at a record of the batch; returns why it cannot."""
        table = self._table
        episode, silence = table.episodes.get(slot), table.silences.get(slot)
        if episode is not None and episode.alert_id == verdict.alert_id:
            self._judge_open(slot, verdict.word, record)
        elif silence is not None and silence.alert_id == verdict.alert_id:
            self._silences.judge(slot, verdict.word, record)
        else:
            last = table.last_episodes.get(slot, LastEpisodes())
            at = last.find(verdict.alert_id)
            if at is None:
                return f"the sensor has no such alert, neither open nor among the last {REMEMBERED}"
            self._judge_closed(slot, last, at, verdict.word, int(self._announcer.clocks[record]))
        return None

    def _judge_open(self, slot: int, word: Word, record: int) -> None:
        table, episode = self._table, self._table.episodes[slot]
        before, episode.verdict = episode.verdict, word
        table["excused"][slot] = word in EXCUSING
        episode.muted = word == "expected" or bool(table["muted"][slot])
        note_verdict(table.called, slot, episode.called, before, word, int(self._announcer.clocks[record]))
        if word == "expected" != before:
            self._unlearn(slot, goes_on=True)
        self._announcer.judged(slot, record)

    def _judge_closed(self, slot: int, last: LastEpisodes, at: int, word: Word, clock: int) -> None:
        table, one = self._table, last.episodes[at]
        # What was put in place last is taken first: so a verdict that is taken back finds its place again.
        order = np.argsort(table["unlearnt_age"][slot], kind="stable")
        cells = Reservoir(
            table["peaks"][slot].tolist(), int(table["peaks_seen"][slot]), float(table["credit"][slot]),
            table["unlearnt"][slot][order].tolist(),
        )  # fmt: skip
        table.last_episodes[slot], after = last.judged(at, word, cells)
        note_verdict(table.called, slot, one.called, one.verdict, word, clock)
        if not table["live"][slot]:
            return  # a profile that is still to be made begins with a reservoir of its own
        if after != cells:
            table["peaks"][slot], table["peaks_seen"][slot], table["credit"][slot], aside = after
            table["unlearnt"][slot][order] = aside
            table["peaks_kept"][slot] = np.isfinite(after.peaks).sum()
        if word == "expected" != one.verdict and at == len(last.episodes) - 1 and slot not in table.episodes:
            self._unlearn(slot, goes_on=False)

    def _unlearn(self, slot: int, *, goes_on: bool) -> None:
        """The adaptive scale is as it was before the fault, if that was long enough for a copy, and may be again."""
        table = self._table
        if not table["kept"][slot]:
            return
        for name in ("mean", "variance"):
            table[name][slot] = table[f"kept_{name}"][slot]
        table.set(slot, {"kept_rows": 0, "calm": 0} if goes_on else NO_COPY)
