"""What a camera's alert says: an episode and its newest frame, put into a message."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.arrays import F32, I64
from detector.detection.episodes import Opening
from detector.detection.framerows import FrameBlock
from detector.detection.framesignal import FrameModel, examine, heat_bytes
from detector.detection.table import SensorTable
from detector.engine.alertwriter import EpisodeWriter
from detector.streams.base import Partition
from detector.wire.alerts import Kind

HEATMAP: Final = (28, 28)
"""Height and width of the heat map in an alert, whatever the model's."""
_LEVEL: Final = 9


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
    image = Image.fromarray(heat_bytes(heat))
    if heat.shape != HEATMAP:
        image = image.resize(HEATMAP[::-1], Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=_LEVEL)
    return base64.b64encode(out.getvalue()).decode("ascii")
