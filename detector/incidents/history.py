"""The incidents and episodes of the last days, for people who look: bounded, and nothing depends on it.

One thread adds to it and others read: what a reader is given never changes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from detector.wire.incidents import AlertNews, Incident

EPISODES: Final = 1_000
INCIDENTS: Final = 500
ROWS: Final = 600
"""Of an episode; of a longer one the first half and the last half."""
CHANNELS: Final = 4
_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Track:
    """One channel of an episode: what came, and what was expected, at the times of the episode."""

    name: str
    values: tuple[float | None, ...]
    expected: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class PastEpisode:
    """An episode as its newest alert has it, with the rows of all its messages that are kept. Times of rows are ms.

    `said` is the last verdict that was acknowledged.
    """

    news: AlertNews
    times: tuple[int, ...] = ()
    tracks: tuple[Track, ...] = ()
    heatmap: str | None = None
    incident_id: str | None = None
    said: str | None = None

    @property
    def verdict(self) -> str | None:
        """What a person has said of it."""
        return self.said or self.news.verdict


@dataclass(slots=True)
class History:
    """Takes alerts and incidents in any order; of each the newest message counts."""

    _episodes: dict[str, PastEpisode] = field(default_factory=dict)
    _incidents: dict[str, Incident] = field(default_factory=dict)
    _member_of: dict[str, str] = field(default_factory=dict)
    _said: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def alert(self, news: AlertNews) -> None:
        """An alert was read."""
        with self._lock:
            known = self._episodes.pop(news.alert_id, None)
            if known is not None and news.sequence <= known.news.sequence:
                self._episodes[news.alert_id] = known
                return
            self._episodes[news.alert_id] = _joined(known or PastEpisode(news), news)
            while len(self._episodes) > EPISODES:
                del self._episodes[next(iter(self._episodes))]

    def verdict(self, alert_id: str, said: str) -> None:
        """A verdict on an alert took effect."""
        with self._lock:
            self._said.pop(alert_id, None)
            self._said[alert_id] = said
            while len(self._said) > EPISODES:
                del self._said[next(iter(self._said))]

    def incident(self, incident: Incident) -> None:
        """A message about an incident was published."""
        with self._lock:
            known = self._incidents.pop(incident.incident_id, None)
            newer = known is None or incident.sequence > known.sequence
            self._incidents[incident.incident_id] = incident if known is None or newer else known
            while len(self._incidents) > INCIDENTS:
                gone = self._incidents.pop(next(iter(self._incidents)))
                for member in gone.members:
                    self._member_of.pop(member.alert_id, None)
            self._member_of |= {member.alert_id: incident.incident_id for member in incident.members}

    def episodes(self, sensor_id: str | None = None) -> list[PastEpisode]:
        """Those of a sensor, or all, the one detected last first."""
        with self._lock:
            found = [one for one in self._episodes.values() if sensor_id in (None, one.news.sensor_id)]
        return sorted(map(self._placed, found), key=lambda one: one.news.detected_at, reverse=True)

    def episode(self, alert_id: str) -> PastEpisode | None:
        """The episode of that id; the beginning of an id is enough if there is one such."""
        with self._lock:
            found = [one for key, one in self._episodes.items() if key == alert_id or key.startswith(alert_id)]
            exact = self._episodes.get(alert_id)
        if exact is None and (len(found) != 1 or len(alert_id) < 4):
            return None
        return self._placed(exact or found[0])

    def incidents(self) -> list[Incident]:
        """All, those that are open first, then the one detected last."""
        with self._lock:
            found: Sequence[Incident] = list(self._incidents.values())
        found = sorted(found, key=lambda one: one.detected_at, reverse=True)
        return sorted(found, key=lambda one: one.event == "closed")

    def _placed(self, one: PastEpisode) -> PastEpisode:
        alert_id = one.news.alert_id
        return replace(one, incident_id=self._member_of.get(alert_id), said=self._said.get(alert_id))


def _joined(known: PastEpisode, news: AlertNews) -> PastEpisode:
    """The episode with one more message: its rows behind those that are known."""
    bare = news._replace(evidence=None, heatmap=None, verdict=news.verdict or known.news.verdict)
    heatmap = news.heatmap or known.heatmap
    evidence = news.evidence
    if evidence is None:
        return replace(known, news=bare, heatmap=heatmap)
    last = known.times[-1] if known.times else -1
    first = next((at for at, time in enumerate(evidence.timestamps) if time > last), len(evidence.timestamps))
    channels = dict(list(evidence.channels().items())[:CHANNELS])
    before = {track.name: track for track in known.tracks}
    if before and before.keys() != channels.keys():
        return replace(known, news=bare, heatmap=heatmap)
    empty: tuple[float | None, ...] = ()
    tracks = tuple(
        Track(
            name,
            _cut((*(before[name].values if name in before else empty), *values[first:])),
            _cut((*(before[name].expected if name in before else empty), *expected[first:])),
        )
        for name, (values, expected) in channels.items()
    )
    times = _cut((*known.times, *evidence.timestamps[first:]))
    whole = all(len(track.values) == len(track.expected) == len(times) for track in tracks)
    return PastEpisode(bare, times, tracks, heatmap) if whole else replace(known, news=bare, heatmap=heatmap)


def _cut(rows: tuple[_Row, ...]) -> tuple[_Row, ...]:
    return rows if len(rows) <= ROWS else rows[: ROWS // 2] + rows[-ROWS // 2 :]
