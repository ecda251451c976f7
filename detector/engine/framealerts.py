"""What an alert of a camera says: its newest frame, and where in it the fault is."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F32, F64, I64
from detector.detection.episodes import Opening, closing_level
from detector.detection.finding import Finding
from detector.detection.framerows import FrameBlock
from detector.detection.framesignal import FrameModel, examine, heat_bytes, region_of
from detector.detection.opened import Episode
from detector.detection.table import SensorTable
from detector.engine.alertwriter import EpisodeWriter, score_before
from detector.engine.wording import image
from detector.streams.base import Partition
from detector.wire.alerts import Event, Kind, What

HEATMAP: Final = (28, 28)
"""Height and width of the heat map in an alert, whatever the model's."""
_LEVEL: Final = 9


@dataclass(slots=True)
class FrameMoment:
    """A camera at one frame: its last frames, at most m, newest last: times (ns), own scores; the frame, score, offset.

    A frame's own score is NaN where it is not known any more.
    """

    times: I64
    scores: F64
    frame: F32
    budget: float
    score: float
    offset: int


class FrameAlertWriter(EpisodeWriter[FrameMoment, FrameBlock]):
    """Writes the alerts of cameras."""

    kind: ClassVar[Kind] = "frames"
    every: ClassVar[int] = 1

    def __init__(self, stream: str, partition: Partition, model: FrameModel) -> None:
        super().__init__(stream, partition, model)
        self._frames = model

    def now(self, table: SensorTable, slot: int) -> FrameMoment:
        times, filled = table["times"][slot], int(table["filled"][slot])
        last = slice(len(times) - filled, None)
        scores = np.concatenate([[np.nan], table["recent"][slot]])
        return FrameMoment(
            times[last], scores[last], table["frame"][slot], float(table["budget"][slot]),
            score_before(table, slot), int(table["offset"][slot]),
        )  # fmt: skip

    def after(
        self, table: SensorTable, block: FrameBlock, at: int, tick: int, score: float, offset: int
    ) -> FrameMoment:
        budget = float(table["budget"][block.slots[at]])
        return FrameMoment(*block.frame_at(at, tick), budget, score, offset)

    def _first_look(self, opening: Opening, moment: FrameMoment, least: int) -> tuple[int, Finding | None]:
        """The first of the m frames that is too bad by itself, but not before the last episode's end."""
        after = moment.times > opening.ended
        after[-1] = True
        loud = after & (moment.scores >= math.exp(opening.ln_threshold))
        return int(moment.times[(loud if loud.any() else after).argmax()]), None

    def look(self, episode: Episode, moment: FrameMoment) -> bool:
        """The last frame that is too bad by itself, as long as enough of those around it are."""
        level = math.exp(closing_level(episode.ln_threshold))
        loud = np.flatnonzero(moment.scores >= level)
        if moment.score < level or not len(loud):
            return False
        before, episode.until = episode.until, int(moment.times[loud[-1]])
        return before != episode.until

    def _content(self, episode: Episode, moment: FrameMoment, event: Event) -> dict[str, Any]:
        examined = examine(self._frames, moment.frame)
        region = region_of(examined.heat)
        return {
            "heatmap": heatmap(examined.heat),
            "frame": examined.summary,
            "region": list(region),
            "channels": {"grey": 1.0},
            "what": What("image", image(region, moment.frame.shape)),
        }


def heatmap(heat: NDArray[Any]) -> str:
    """A heat map (h, w) as a grey PNG of 28 x 28 pixels in base64; equal maps give equal text."""
    from PIL import Image  # 2 MB and 30 ms; who watches no cameras is spared them

    image = Image.fromarray(heat_bytes(heat))
    if heat.shape != HEATMAP:
        image = image.resize(HEATMAP[::-1], Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=_LEVEL)
    return base64.b64encode(out.getvalue()).decode("ascii")
