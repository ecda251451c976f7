"""What an alert says: an episode and its sensor's window, put into a message. Of cameras: framealerts.py."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import msgspec
import numpy as np

from detector.arrays import F32, F64, I64, Bools
from detector.config.load import AlertsConfig
from detector.detection import signals
from detector.detection.block import Block
from detector.detection.columns import NEVER
from detector.detection.episodes import Opening
from detector.detection.finding import LOOK, Finding, Window, first_look, next_look, until
from detector.detection.opened import Episode, Silence
from detector.detection.scorer import Model
from detector.detection.stillness import newest_run
from detector.detection.table import SensorTable
from detector.detection.tail import chance
from detector.detection.windows import window_of
from detector.engine.wording import in_words, silent_for
from detector.streams.base import Message, Partition
from detector.times import MILLISECOND, rfc3339
from detector.wire.alerts import (
    Alert,
    AlertModel,
    AlertReason,
    AlertSource,
    AlertWindow,
    CloseReason,
    Event,
    Kind,
    What,
    alert_id,
    encode_alert,
)

BACK_DATE = 50
"""A fault may have been there for this many rows before it was noticed."""


class AnyMoment(Protocol):
    """A sensor at one row, whatever is watched there: the times of its last rows (ns, newest last), score, offset.

    `score`: the n-th largest of the last m scores. `budget`: rows per allowed false alarm, infinity: no budget.
    """

    @property
    def times(self) -> I64: ...
    @property
    def score(self) -> float: ...
    @property
    def offset(self) -> int: ...
    @property
    def budget(self) -> float: ...


class Names(Protocol):
    """What a model is called."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def digest(self) -> str: ...


@dataclass(slots=True)
class Moment:
    """A sensor at one row: its window (times (100,) ns, values (100, C), imputed (100,)), scaling, score, offset.

    `ridge` (C, 99), `bias` (C,): the forecasts; `budget`: see `AnyMoment`; `patched` (100, C): values that stand for
    missing ones, None: none does. `still_limit`, `resolution` (C,): see `stillness`; `noise_hush`
    (C,): see `quietness`. `seen` and `window` are the writer's, which fills them when they are needed.
    """

    times: I64
    values: F64
    imputed: Bools
    center: F64
    scale: F64
    ridge: F32
    bias: F64
    still_limit: F64
    resolution: F64
    noise_hush: F64
    budget: float
    score: float
    offset: int
    patched: Bools | None = None
    seen: Seen | None = field(default=None, compare=False)
    window: Window | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Seen:
    """The rows of a window as the model sees them: z, what it makes of them, and squared errors, each (100, C)."""

    z: F64
    reconstructed: F64
    errors: F64


M = TypeVar("M", bound=AnyMoment)
B = TypeVar("B")


def critical_level(ln_threshold: float, critical_ratio: float) -> float:
    """The ln score from which on an episode with this ln threshold is critical."""
    return ln_threshold + math.log(critical_ratio)


class EpisodeWriter(ABC, Generic[M, B]):
    """Writes the alerts of one partition; M is a sensor at one row, B a block of rows. Scores are ln inside."""

    kind: ClassVar[Kind]
    every: ClassVar[int]
    """Rows from one look at an open episode to the next."""

    def __init__(self, stream: str, partition: Partition, model: Names) -> None:
        self._stream = stream
        self._partition = partition
        self._model = AlertModel(name=model.name, version=model.version, digest=model.digest)

    @abstractmethod
    def now(self, table: SensorTable, slot: int) -> M:
        """A sensor as its cells have it."""

    @abstractmethod
    def after(self, table: SensorTable, block: B, at: int, tick: int, score: float, offset: int) -> M:
        """Sensor `at` of a block as it stood after its row `tick`; -1: before the block."""

    @abstractmethod
    def _first_look(self, opening: Opening, moment: M, least: int) -> tuple[int, Finding | None]:
        """Since when, ns, and what there is about an episode that opens at this row, the `least`-th that is too bad."""

    @abstractmethod
    def look(self, episode: Episode, moment: M) -> bool:
        """Look at an open episode again after a row; returns whether something changed of what is held of it."""

    @abstractmethod
    def _content(self, episode: Episode, moment: M, event: Event) -> dict[str, Any]:
        """What the alert shows of the row: the fields of `Alert` that depend on what is watched."""

    def begin(
        self, sensor_id: str, opening: Opening, moment: M, v: float, alerts: AlertsConfig, *, muted: bool
    ) -> Episode:
        """The episode that an opening begins; its deadlines are the caller's."""
        detected = int(moment.times[-1])
        started, finding = self._first_look(opening, moment, alerts.open_after.n)
        return Episode(
            alert_id=alert_id(self.kind, "anomaly", sensor_id, detected),
            sequence=0,
            started_at=started,
            detected_at=detected,
            ln_threshold=opening.ln_threshold,
            severity="critical" if v >= critical_level(opening.ln_threshold, alerts.critical_ratio) else "warning",
            opened_offset=moment.offset,
            update_at=None,
            close_at=None,
            muted=muted,
            until=None if finding is None or finding.kind.name == "context" else detected,
            finding=finding,
        )

    def opened(self, sensor_id: str, episode: Episode, moment: M, peak: float) -> Message:
        """The first message of an episode."""
        return self._message(sensor_id, episode, moment, peak, "opened")

    def updated(self, sensor_id: str, episode: Episode, moment: M, peak: float) -> Message:
        """The next message of an open episode."""
        episode.sequence += 1
        return self._message(sensor_id, episode, moment, peak, "updated")

    def closed(
        self, sensor_id: str, episode: Episode, moment: M, peak: float, ended: int, reason: CloseReason
    ) -> Message:
        """The last message of an episode. `ended`: its last loud row, ns, for where nothing better is known."""
        episode.sequence += 1
        last = ended if episode.until is None else max(episode.until, episode.started_at)
        return self._message(sensor_id, episode, moment, peak, "closed", ended=last, reason=reason)

    def abandoned(self, sensor_id: str, episode: Episode, now: int, offset: int) -> Message:
        """The last message of an episode whose sensor is set aside at the partition clock `now`."""
        episode.sequence += 1
        threshold = math.exp(episode.ln_threshold)
        return self._write(
            sensor_id, episode, "closed", offset,
            reason="anomaly", ended=now, close_reason="evicted",
            score=threshold, peak_score=threshold, threshold=threshold, channels={},
            what=What("unusual", "set aside: it could not be judged any more"),
        )  # fmt: skip

    def silent(
        self, sensor_id: str, silence: Silence, event: Event, now: int, offset: int, reason: CloseReason | None
    ) -> Message:
        """A message of a silent episode at the partition clock `now`, caused by the record at `offset`.

        The score is the silence so far, in units of what is allowed.
        """
        score = (now - silence.since) / silence.after
        return self._write(
            sensor_id, silence, event, offset,
            reason="silent", ended=now if event == "closed" else None, close_reason=reason,
            score=score, peak_score=score, threshold=1.0, channels={},
            what=What("silent", silent_for(silence.started_at, now, ended=event == "closed")),
        )  # fmt: skip

    def _message(
        self,
        sensor_id: str,
        episode: Episode,
        moment: M,
        peak: float,
        event: Event,
        *,
        ended: int | None = None,
        reason: CloseReason | None = None,
    ) -> Message:
        return self._write(
            sensor_id, episode, event, moment.offset,
            reason="anomaly", ended=ended, close_reason=reason,
            score=min(moment.score, math.exp(peak)), peak_score=math.exp(peak),
            threshold=math.exp(episode.ln_threshold),
            p_value=chance(episode.ln_threshold, peak) if math.isfinite(moment.budget) else None,
            **self._content(episode, moment, event),
        )  # fmt: skip

    def _write(
        self,
        sensor_id: str,
        episode: Episode | Silence,
        event: Event,
        offset: int,
        *,
        reason: AlertReason,
        ended: int | None,
        close_reason: CloseReason | None,
        **content: Any,
    ) -> Message:
        """What messages of either sort of episode have in common, with the `content` of the one at hand."""
        alert = Alert(
            alert_id=episode.alert_id,
            sequence=episode.sequence,
            event=event,
            kind=self.kind,
            reason=reason,
            close_reason=close_reason,
            muted=episode.muted,
            verdict=episode.verdict,
            sensor_id=sensor_id,
            severity=episode.severity,
            started_at=rfc3339(episode.started_at),
            detected_at=rfc3339(episode.detected_at),
            ended_at=None if ended is None else rfc3339(ended),
            model=self._model,
            source=AlertSource(
                stream=self._partition.stream,
                partition=self._partition.number,
                opened_offset=episode.opened_offset,
                last_offset=offset,
            ),
            **content,
        )
        return Message(self._stream, sensor_id.encode(), encode_alert(alert))


class AlertWriter(EpisodeWriter[Moment, Block]):
    """Writes the alerts of readings."""

    kind: ClassVar[Kind] = "readings"
    every: ClassVar[int] = LOOK

    def __init__(self, stream: str, partition: Partition, model: Model, channels: tuple[str, ...]) -> None:
        super().__init__(stream, partition, model)
        self._reconstruct = model.reconstruct
        self._channels = channels

    def now(self, table: SensorTable, slot: int) -> Moment:
        patched = table.patches.get(slot)
        before = score_before(table, slot)
        return self._moment(table, slot, window_of(table, slot), patched, before, int(table["offset"][slot]))

    def after(self, table: SensorTable, block: Block, at: int, tick: int, score: float, offset: int) -> Moment:
        window, patched = block.window_at(table, at, tick), block.patched_at(at, tick)
        return self._moment(table, int(block.slots[at]), window, patched, score, offset)

    def _moment(
        self,
        table: SensorTable,
        slot: int,
        window: tuple[I64, F64, Bools],
        patched: Bools | None,
        score: float,
        offset: int,
    ) -> Moment:
        return Moment(
            *window, center=table["center"][slot], scale=table["scale"][slot], ridge=table["ridge"][slot],
            bias=table["bias"][slot], still_limit=table["still_limit"][slot], resolution=table["resolution"][slot],
            noise_hush=table["noise_hush"][slot],
            budget=float(table["budget"][slot]), score=score, offset=offset,
            patched=patched,
        )  # fmt: skip

    def _first_look(self, opening: Opening, moment: Moment, least: int) -> tuple[int, Finding | None]:
        limits = moment.still_limit
        if moment.patched is not None:  # who lacks the channel has not opened it
            limits = np.where(moment.patched[-1], np.inf, limits)
        run = newest_run(moment.values, limits, moment.resolution) if opening.ruled and not opening.calm else None
        calm = np.isfinite(moment.noise_hush) if opening.calm else None
        found = first_look(self._window(moment), opening.ended, least, run, opening.hours, calm)
        return found.onset, found

    def look(self, episode: Episode, moment: Moment) -> bool:
        before = episode.started_at, episode.until, episode.finding
        window = self._window(moment)
        if episode.finding is None:
            # Of a release that held nothing of it: since when it is stands.
            found = msgspec.structs.replace(first_look(window, NEVER, 1), onset=episode.started_at, gain=math.inf)
        else:
            found = next_look(episode.finding, window, episode.detected_at)
        last, taken_back = until(found, window), episode.finding is not None and episode.finding.over is not None
        if taken_back and found.over is None:
            episode.until = None  # it was no step that was taken back, or there is another one
        episode.started_at, episode.finding = found.onset, found
        episode.until = episode.until if last is None else last
        return before != (episode.started_at, episode.until, episode.finding)

    def _content(self, episode: Episode, moment: Moment, event: Event) -> dict[str, Any]:
        """`updated` has the rows since the last message; nobody needs to be sent the others again."""
        seen = self._seen(moment)
        since = episode.shown if event == "updated" and episode.shown is not None else NEVER
        new = moment.times > since
        window = AlertWindow(
            timestamps=(moment.times[new] // MILLISECOND).tolist(),
            values=self._per_channel(_without(moment.values, moment.patched, np.nan)[new]),
            expected=self._per_channel((seen.reconstructed * moment.scale + moment.center)[new]),
            errors=self._per_channel(seen.errors[new]),
            imputed=moment.imputed[new].tolist(),
        )
        episode.shown = int(moment.times[-1])
        return {"window": window, **self._claims(episode, moment)}

    def _claims(self, episode: Episode, moment: Moment) -> dict[str, Any]:
        """Where the fault is and what it is, as far as it is known."""
        found = episode.finding or first_look(self._window(moment), NEVER, 1)
        return {
            "channels": dict(zip(self._channels, found.shares, strict=True)),
            "what": in_words(found, episode, moment.scale, moment.center, self._channels),
        }

    def _window(self, moment: Moment) -> Window:
        if moment.window is None:
            seen = self._seen(moment)
            moment.window = Window(moment.times, seen.z, seen.errors, moment.ridge.astype(np.float64), moment.bias)
        return moment.window

    def _seen(self, moment: Moment) -> Seen:
        if moment.seen is None:
            z = signals.standardise(moment.values, moment.center, moment.scale)
            holes = None if moment.patched is None else moment.patched[None]
            reconstructed = signals.rebuild(z.astype(np.float32)[None], holes, self._reconstruct)[0].astype(np.float64)
            moment.seen = Seen(z, reconstructed, _without((z - reconstructed) ** 2, moment.patched, 0.0))
        return moment.seen

    def _per_channel(self, values: F64) -> Any:
        """A list for one channel, an object of lists for several."""
        if len(self._channels) == 1:
            return values[:, 0].tolist()
        return {name: values[:, i].tolist() for i, name in enumerate(self._channels)}


def score_before(table: SensorTable, slot: int) -> float:
    """What a sensor's newest row was judged by: the n-th largest of its last m scores."""
    judged = float(table["judged"][slot])
    # State of the release before has the newest score alone.
    return float(table["score"][slot]) if math.isnan(judged) else math.exp(judged)


def _without(numbers: F64, patched: Bools | None, other: float) -> F64:
    """The numbers (100, C), another one in place of those of values that stand for missing ones."""
    return numbers if patched is None else np.where(patched, other, numbers)
