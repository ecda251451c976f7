"""From episodes to alert messages: what is published when, in the order of the input.

Every message carries a key (record, 0, deadline, sensor id) if a timer caused it, (record, 1, element, "") if a reading
did. Sorted by it, output comes in the order of the records that led to it, timers before the record that passed them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detector.arrays import I64, Bools
from detector.config.load import AlertsConfig
from detector.detection.block import Span
from detector.detection.closed import EXCUSING, ClosedEpisode, LastEpisodes
from detector.detection.episodes import Closing, Learning, Opening, closing_level, end_from_outside
from detector.detection.opened import Episode, Silence
from detector.detection.scorer import Scored
from detector.detection.table import SensorTable, Slots
from detector.detection.threshold import NOTHING, Lesson
from detector.engine.alertwriter import AnyMoment, EpisodeWriter, critical_level, score_before
from detector.engine.budget import note_call
from detector.streams.base import Message
from detector.wire.alerts import CloseReason

Key = tuple[int, int, int, str]
Saved = tuple[int, dict[int, Episode], dict[int, tuple[int, ...]], dict[int, LastEpisodes]]


@dataclass(frozen=True, slots=True)
class Announcement:
    """A message with its place in the order, and what it says.

    `notifies`: the first one of an episode that is not muted, which a person is called for.
    """

    key: tuple[int, int, int, str, int]
    message: Message
    event: str
    severity: str
    muted: bool
    notifies: bool


class Announcer:
    """Keeps the open episodes of a table up to date and collects what is to be published of them.

    `alerts_of` gives the settings of the sensor in a slot. `pulse` is called between sensors, since thousands may have
    something to tell at once. `begin_batch` gives it the offset of each record of the batch and the partition clock
    after it.
    """

    def __init__(
        self,
        table: SensorTable,
        writer: EpisodeWriter[Any, Any],
        alerts_of: Callable[[int], AlertsConfig],
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        self.table = table
        self.writer = writer
        self.alerts_of = alerts_of
        self._pulse = pulse
        self._announcements: list[Announcement] = []
        self.offsets: I64 = np.empty(0, dtype=np.int64)
        self.clocks: I64 = np.empty(0, dtype=np.int64)
        self._begin = self._end = 0

    def begin_batch(self, offsets: I64, clocks: I64) -> None:
        """Start collecting for a batch."""
        self.begin_run(0, len(offsets))
        self.offsets, self.clocks, self._announcements = offsets, clocks, []

    def begin_run(self, begin: int, end: int) -> None:
        """Go on with the records begin .. end - 1, through which the clock only rises."""
        self._begin, self._end = begin, end

    def passing(self, deadline: int) -> int:
        """The first record of the run after which the clock is beyond the deadline."""
        return self._begin + int(np.searchsorted(self.clocks[self._begin : self._end], deadline, side="right"))

    def save(self, slots: Slots) -> Saved:
        """What `undo` goes back to after something was done with these sensors."""
        open_now = dict(self.table.episodes)
        open_now |= {slot: copy(open_now[slot]) for slot in (open_now.keys() & slots.tolist() if open_now else ())}
        return len(self._announcements), open_now, dict(self.table.called), dict(self.table.last_episodes)

    def undo(self, saved: Saved) -> None:
        """Take back what was announced since."""
        count, self.table.episodes, self.table.called, self.table.last_episodes = saved
        del self._announcements[count:]

    def abandon(self, slot: int, key: Key) -> None:
        """Close the episode of a sensor that is set aside, with a message that shows nothing of it."""
        episode, sensor_id = self.table.episodes.pop(slot), self.table.name(slot)
        offset, now = int(self.offsets[key[0]]), int(self.clocks[key[0]])
        message = self.writer.abandoned(sensor_id, episode, now, offset)
        self.publish(key, sensor_id, message, "closed", episode)

    def collected(self) -> list[Announcement]:
        """What the batch led to, in order."""
        return sorted(self._announcements, key=lambda one: one.key)

    def follow(self, block: Span, scored: Scored) -> None:
        """Follow the episodes of a scored block."""
        episodes = self.table.episodes
        if not scored.transitions and not episodes and not scored.learnings:
            return
        by_sensor: dict[int, list[Opening | Closing | Learning]] = {}
        for transition in sorted((*scored.transitions, *scored.learnings), key=lambda one: one.tick):
            by_sensor.setdefault(transition.at, []).append(transition)
        for at in self._due(block, scored):
            by_sensor.setdefault(at, [])
        for at, transitions in by_sensor.items():
            rows = slice(int(block.first[at]), int(block.first[at + 1]))
            _Sensor(self, block, scored, at, rows).follow(transitions)
            self._pulse()

    def _due(self, block: Span, scored: Scored) -> Iterator[int]:
        """The sensors of the block with an open episode that has something to look at or to tell over its rows.

        Of thousands that are open at once, hardly any has after a single row.
        """
        if not self.table.episodes:
            return
        at = np.flatnonzero(np.isin(block.slots, list(self.table.episodes)))
        slots, rows = block.slots[at], np.column_stack([block.first[at], block.first[at + 1]])
        looks = self.to_look(slots) < rows[:, 1] - rows[:, 0]
        clocks = self.clocks[block.records[rows[:, 1] - 1]]
        peaks = np.maximum.reduceat(np.append(scored.v, -np.inf), rows.ravel())[::2]
        columns = (column.tolist() for column in (at, slots, looks, clocks, peaks))
        for one, slot, look, clock, peak in zip(*columns, strict=True):
            episode = self.table.episodes[slot]
            timed = episode.update_at is not None and clock > episode.update_at
            rises = episode.severity == "warning" and peak >= self.critical(slot, episode)
            if look or timed or rises or episode.muted:
                yield one

    def to_look(self, slots: Slots) -> I64:
        """How many rows of sensors to skip before the next one at which an episode is looked at.

        Looks fall on the same rows however they come in batches: by the rows since the window was complete.
        """
        every = self.writer.every
        if every == 1:  # cameras have no windows
            return np.zeros(len(slots), dtype=np.int64)
        left: I64 = -(self.table["completions"][slots] + 1) % every
        return left

    def critical(self, slot: int, episode: Episode) -> float:
        """The ln score from which on a sensor's open episode is critical."""
        return critical_level(episode.ln_threshold, self.alerts_of(slot).critical_ratio)

    def update(self, slot: int, record: int) -> None:
        """Publish a due update of a sensor none of whose rows came since; `record` is the one that passed the time."""
        episode = self.table.episodes[slot]
        sensor_id = self.table.name(slot)
        key = record, 0, episode.update_at or 0, sensor_id
        episode.update_at = deadline_after(int(self.clocks[record]), self.alerts_of(slot).update_every)
        peak = float(self.table["peak"][slot])
        self.publish(
            key,
            sensor_id,
            self.writer.updated(sensor_id, episode, self.writer.now(self.table, slot), peak),
            "updated",
            episode,
        )

    def judged(self, slot: int, record: int) -> None:
        """Say that there is a verdict, the record, on the open episode of a sensor."""
        episode, sensor_id = self.table.episodes[slot], self.table.name(slot)
        moment = replace(self.writer.now(self.table, slot), offset=int(self.offsets[record]))
        message = self.writer.updated(sensor_id, episode, moment, float(self.table["peak"][slot]))
        self.publish((record, 1, 0, ""), sensor_id, message, "updated", episode)

    def update_until(self, slot: int, now: int) -> None:
        """Publish every update of a sensor that came due by `now`, a partition clock of the batch; see `update`."""
        episode = self.table.episodes[slot]
        while episode.update_at is not None and now > episode.update_at:
            self.update(slot, self.passing(episode.update_at))

    def end(self, slot: int, reason: CloseReason, key: Key) -> None:
        """Close an episode from outside: gap, eviction, longest duration."""
        at = np.array([slot])
        records = self.table.records(at)
        (closing,) = end_from_outside(records, hold=reason == "max_duration")
        self.table.put_records(at, records)
        self.close(slot, self.writer.now(self.table, slot), closing, reason, key)

    def open(
        self, slot: int, opening: Opening, moment: AnyMoment, v: float, clock: int, key: Key, *, muted: bool
    ) -> None:
        """Publish a new episode."""
        sensor_id, alerts = self.table.name(slot), self.alerts_of(slot)
        episode = self.writer.begin(sensor_id, opening, moment, v, alerts, muted=muted)
        episode.update_at = deadline_after(clock, alerts.update_every)
        episode.close_at = deadline_after(clock, alerts.max_duration)
        self.table.episodes[slot] = episode
        message = self.writer.opened(sensor_id, episode, moment, v)
        self.publish(key, sensor_id, message, "opened", episode, notifies=not muted)

    def close(self, slot: int, moment: AnyMoment, closing: Closing, reason: CloseReason, key: Key) -> None:
        """Publish the end of an episode and forget it."""
        episode, sensor_id = self.table.episodes.pop(slot), self.table.name(slot)
        message = self.writer.closed(sensor_id, episode, moment, closing.peak, closing.ended, reason)
        self.publish(key, sensor_id, message, "closed", episode)
        self.remember(slot, episode, closing.lesson)

    def learnt(self, slot: int, lesson: Lesson) -> None:
        """The threshold of a sensor took in a peak of quiet rows."""
        if (last := self.table.last_episodes.get(slot)) is not None:
            self.table.last_episodes[slot] = last.learnt(lesson)

    def remember(self, slot: int, episode: Episode | Silence, lesson: Lesson = NOTHING) -> None:
        """Keep what a verdict on an episode that ended may have to take back."""
        called = episode.called if isinstance(episode, Episode) else None
        kept = ClosedEpisode(
            episode.alert_id, counted=episode.verdict not in EXCUSING, called=called, verdict=episode.verdict
        )
        last = self.table.last_episodes.get(slot, LastEpisodes())
        self.table.last_episodes[slot] = last.closed(kept, lesson)

    def publish(
        self,
        key: Key,
        sensor_id: str,
        message: Message,
        event: str,
        episode: Episode | Silence,
        *,
        notifies: bool = False,
    ) -> None:
        """Collect a message."""
        self.table.changed.add(sensor_id)
        if notifies:
            self._call(self.table.slots[sensor_id], episode, int(self.clocks[key[0]]))
        self._announcements.append(
            Announcement((*key, len(self._announcements)), message, event, episode.severity, episode.muted, notifies)
        )
        self._pulse()

    def _call(self, slot: int, episode: Episode | Silence, clock: int) -> None:
        """A person is called; what is said of it by then may be that it is no false alarm."""
        if isinstance(episode, Episode):
            episode.called = clock
        if episode.verdict not in EXCUSING:
            note_call(self.table.called, slot, clock)


class _Sensor:
    """One sensor's rows within a scored block, and what its episodes do over them."""

    def __init__(self, owner: Announcer, block: Span, scored: Scored, at: int, rows: slice) -> None:
        self._owner, self._block, self._scored, self._at = owner, block, scored, at
        self._slot = int(block.slots[at])
        self._records, self._elements = block.records[rows], block.elements[rows]
        self._row_clocks = owner.clocks[self._records]
        self._v = scored.v[rows]
        self._inside = None if block.inside is None else block.inside[rows]
        self._to_look = int(owner.to_look(block.slots[at : at + 1])[0])

    def follow(self, transitions: list[Opening | Closing | Learning]) -> None:
        owner, episodes = self._owner, self._owner.table.episodes
        begin, peak = 0, float(self._scored.earlier_peak[self._at])
        for transition in transitions:
            if isinstance(transition, Learning):
                owner.learnt(self._slot, transition.lesson)
                continue
            tick = transition.tick
            if slot_episode := episodes.get(self._slot):
                self._while_open(slot_episode, begin, tick, peak, closing=isinstance(transition, Closing))
            moment, key = self._moment(tick), self._key(tick)
            if isinstance(transition, Opening):
                peak = float(self._v[tick])
                muted = self._inside is not None and bool(self._inside[tick])
                owner.open(self._slot, transition, moment, peak, int(self._row_clocks[tick]), key, muted=muted)
            else:
                owner.writer.look(episodes[self._slot], moment)
                owner.close(self._slot, moment, transition, "recovered", key)
            begin = tick + 1
        if slot_episode := episodes.get(self._slot):
            self._while_open(slot_episode, begin, len(self._records), peak, closing=False)

    def _while_open(self, episode: Episode, begin: int, stop: int, peak: float, *, closing: bool) -> None:
        """Updates over rows begin .. stop - 1, all of them within the episode; `closing`: row `stop` closes it.

        A timer fires before the row that passes it, the closing one included; severity rises on a row, and on a row a
        muted episode outlives the maintenance.
        """
        owner = self._owner
        alerts, critical = owner.alerts_of(self._slot), owner.critical(self._slot, episode)
        clocks = self._row_clocks[: stop + closing]
        while True:
            timer = len(clocks)
            if episode.update_at is not None:
                timer = begin + int(np.searchsorted(clocks[begin:], episode.update_at, side="right"))
            rise = unmute = stop
            if episode.severity == "warning":
                rise = _first(self._v[begin:stop] >= critical, begin)
            if episode.muted and episode.verdict != "expected":
                unmute = _first(self._outlives(episode, slice(begin, stop)), begin)
            event = min(rise, unmute)
            on_time = timer < len(clocks) and timer <= event
            if not on_time and event >= stop:
                self._look(episode, begin, stop)
                return
            tick = timer - 1 if on_time else event
            self._look(episode, begin, tick + 1)
            peak = max(peak, float(self._v[begin : tick + 1].max(initial=-np.inf)))
            if on_time:
                record = owner.passing(episode.update_at or 0)
                key = record, 0, episode.update_at or 0, owner.table.name(self._slot)
            else:
                record, key = int(self._records[tick]), self._key(tick)
                owner.writer.look(episode, self._moment(tick))
                episode.severity = "critical" if tick == rise else episode.severity
                episode.muted = episode.muted and tick != unmute
            episode.update_at = deadline_after(int(owner.clocks[record]), alerts.update_every)
            name = owner.table.name(self._slot)
            message = owner.writer.updated(name, episode, self._moment(tick), peak)
            owner.publish(key, name, message, "updated", episode, notifies=not on_time and tick == unmute)
            begin = tick + 1

    def _look(self, episode: Episode, begin: int, stop: int) -> None:
        """Look at the episode after those of the rows begin .. stop - 1 that it is time for."""
        writer, every = self._owner.writer, self._owner.writer.every
        changed = False
        for tick in range(begin + (self._to_look - begin) % every, stop, every):
            changed |= writer.look(episode, self._moment(tick))
        if changed:
            self._owner.table.changed.add(self._owner.table.name(self._slot))

    def _outlives(self, episode: Episode, rows: slice) -> Bools:
        """On which rows the fault of a muted episode is there outside of the maintenance (see `episodes`)."""
        loud = self._v[rows] >= closing_level(episode.ln_threshold)
        return loud if self._inside is None else loud & ~self._inside[rows]

    def _key(self, tick: int) -> Key:
        return int(self._records[tick]), 1, int(self._elements[tick]), ""

    def _moment(self, tick: int) -> AnyMoment:
        """The sensor after its row `tick`; -1: before the block."""
        table, slot = self._owner.table, self._slot
        if tick >= 0:
            score, offset = float(np.exp(self._v[tick])), self._owner.offsets[self._records[tick]]
        else:
            record = self._block.record_before(self._at)
            offset = table["offset"][slot] if record < 0 else self._owner.offsets[record]
            score = score_before(table, slot)
        moment: AnyMoment = self._owner.writer.after(table, self._block, self._at, tick, score, int(offset))
        return moment


def _first(rows: Bools, begin: int) -> int:
    """The first of the rows from `begin` on; where they end if there is none."""
    return begin + (int(rows.argmax()) if rows.any() else len(rows))


def deadline_after(now: int, duration: int | None) -> int | None:
    """The deadline a duration from now; None: never."""
    return None if duration is None else now + duration


def postpone(episode: Episode | Silence, jump: int) -> None:
    """Move the deadlines of an open episode by time that counts for no timer."""
    if episode.update_at is not None:
        episode.update_at += jump
    if episode.close_at is not None:
        episode.close_at += jump
