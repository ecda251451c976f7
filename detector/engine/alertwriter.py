"""What an alert says: an episode and its sensor's window, or its camera's newest frame, put into a message."""

from __future__ import annotations

import base64
import io
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F32, F64, I64, Bools
from detector.detection import signals
from detector.detection.columns import flags_of
from detector.detection.episodes import Opening
from detector.detection.framerows import FrameBlock
from detector.detection.framesignal import FrameModel, examine, heat_bytes
from detector.detection.scorer import Model
from detector.detection.table import Episode, SensorTable, Silence
from detector.detection.windows import Block
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
    alert_id,
    encode_alert,
)

BACK_DATE = 50
"""An episode is taken to have started this many rows before it was noticed."""
HEATMAP: Final = (28, 28)
"""Height and width of the heat map in an alert, whatever the model's."""
_LEVEL: Final = 9


class AnyMoment(Protocol):
    """A sensor at one row, whatever is watched there: the times of its last rows (ns, newest last), score, offset."""

    @property
    def times(self) -> I64: ...
    @property
    def score(self) -> float: ...
    @property
    def offset(self) -> int: ...


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
    """A sensor at one row: its window (times (100,) ns, values (100, C), imputed (100,)), scaling, score, offset."""

    times: I64
    values: F64
    imputed: Bools
    center: F64
    scale: F64
    score: float
    offset: int


M = TypeVar("M", bound=AnyMoment)
B = TypeVar("B")


def critical_level(ln_threshold: float, critical_ratio: float) -> float:
    """The ln score from which on an episode with this ln threshold is critical."""
    return ln_threshold + math.log(critical_ratio)


class EpisodeWriter(ABC, Generic[M, B]):
    """Writes the alerts of one partition; M is a sensor at one row, B a block of rows. Scores are ln inside."""

    kind: ClassVar[Kind]

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
    def _started(self, opening: Opening, moment: M) -> int:
        """Where an episode that opens at this row began, ns."""

    @abstractmethod
    def _content(self, moment: M) -> dict[str, Any]:
        """What the alert shows of the row: the fields of `Alert` that depend on what is watched."""

    def begin(
        self, sensor_id: str, opening: Opening, moment: M, v: float, critical_ratio: float, *, muted: bool
    ) -> Episode:
        """The episode that an opening begins; its deadlines are the caller's."""
        detected = int(moment.times[-1])
        return Episode(
            alert_id=alert_id(self.kind, "anomaly", sensor_id, detected),
            sequence=0,
            started_at=self._started(opening, moment),
            detected_at=detected,
            ln_threshold=opening.ln_threshold,
            severity="critical" if v >= critical_level(opening.ln_threshold, critical_ratio) else "warning",
            opened_offset=moment.offset,
            update_at=None,
            close_at=None,
            muted=muted,
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
        """The last message of an episode."""
        episode.sequence += 1
        return self._message(sensor_id, episode, moment, peak, "closed", ended=ended, reason=reason)

    def abandoned(self, sensor_id: str, episode: Episode, now: int, offset: int) -> Message:
        """The last message of an episode whose sensor is set aside at the partition clock `now`."""
        episode.sequence += 1
        threshold = math.exp(episode.ln_threshold)
        return self._write(
            sensor_id, episode, "closed", offset,
            reason="anomaly", ended=now, close_reason="evicted",
            score=threshold, peak_score=threshold, threshold=threshold, channels={},
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
            score=moment.score, peak_score=math.exp(peak), threshold=math.exp(episode.ln_threshold),
            **self._content(moment),
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

    def __init__(self, stream: str, partition: Partition, model: Model, channels: tuple[str, ...]) -> None:
        super().__init__(stream, partition, model)
        self._reconstruct = model.reconstruct
        self._channels = channels

    def now(self, table: SensorTable, slot: int) -> Moment:
        return Moment(
            table["times"][slot], table["values"][slot], flags_of(table["imputed"][slot]), table["center"][slot],
            table["scale"][slot], float(table["score"][slot]), int(table["offset"][slot]),
        )  # fmt: skip

    def after(self, table: SensorTable, block: Block, at: int, tick: int, score: float, offset: int) -> Moment:
        slot = block.slots[at]
        return Moment(*block.window_at(at, tick), table["center"][slot], table["scale"][slot], score, offset)

    def _started(self, opening: Opening, moment: Moment) -> int:
        # Not always ascending: a clock may have been set back in the warm-up.
        candidates = moment.times[-1 - BACK_DATE :]
        after = candidates > opening.ended
        return int(candidates[after.argmax() if after.any() else -1])

    def _content(self, moment: Moment) -> dict[str, Any]:
        z = signals.standardise(moment.values, moment.center, moment.scale)
        reconstructed = self._reconstruct(z.astype(np.float32)[None])[0].astype(np.float64)
        errors = (z - reconstructed) ** 2
        weighted = (errors * signals.NEWEST_FIRST[:, None]).sum(axis=0)
        total = float(weighted.sum())
        shares = weighted / total if total > 0 else np.full(len(weighted), 1 / len(weighted))
        window = AlertWindow(
            timestamps=(moment.times // MILLISECOND).tolist(),
            values=self._per_channel(moment.values),
            expected=self._per_channel(reconstructed * moment.scale + moment.center),
            errors=self._per_channel(errors),
            imputed=moment.imputed.tolist(),
        )
        return {"window": window, "channels": dict(zip(self._channels, shares.tolist(), strict=True))}

    def _per_channel(self, values: F64) -> Any:
        """A list for one channel, an object of lists for several."""
        if len(self._channels) == 1:
            return values[:, 0].tolist()
        return {name: values[:, i].tolist() for i, name in enumerate(self._channels)}


@dataclass(slots=True)
class FrameMoment:
    """A camera at one frame: the times of its last frames, at most m, newest last (ns), the frame, score, offset."""

    times: I64
    frame: F32
    score: float
    offset: int


class FrameAlertWriter(EpisodeWriter[FrameMoment, FrameBlock]):
    """Writes the alerts of cameras."""

    kind: ClassVar[Kind] = "frames"

    def __init__(self, stream: str, partition: Partition, model: FrameModel) -> None:
        super().__init__(stream, partition, model)
        self._frames = model

    def now(self, table: SensorTable, slot: int) -> FrameMoment:
        filled = int(table["filled"][slot])
        times = table["times"][slot]
        return FrameMoment(
            times[len(times) - filled :], table["frame"][slot], float(table["score"][slot]), int(table["offset"][slot])
        )

    def after(
        self, table: SensorTable, block: FrameBlock, at: int, tick: int, score: float, offset: int
    ) -> FrameMoment:
        return FrameMoment(*block.frame_at(at, tick), score, offset)

    def _started(self, opening: Opening, moment: FrameMoment) -> int:
        """The first of the m frames, but not before the last episode's end."""
        candidates = moment.times
        return int(candidates[np.searchsorted(candidates[:-1], opening.ended, side="right")])

    def _content(self, moment: FrameMoment) -> dict[str, Any]:
        examined = examine(self._frames, moment.frame)
        return {"heatmap": heatmap(examined.heat), "frame": examined.summary, "channels": {"grey": 1.0}}


def heatmap(heat: NDArray[Any]) -> str:
    """A heat map (h, w) as a grey PNG of 28 x 28 pixels in base64; equal maps give equal text."""
    from PIL import Image  # 2 MB and 30 ms; who watches no cameras is spared them

    image = Image.fromarray(heat_bytes(heat))
    if heat.shape != HEATMAP:
        image = image.resize(HEATMAP[::-1], Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=_LEVEL)
    return base64.b64encode(out.getvalue()).decode("ascii")
