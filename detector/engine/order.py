"""Whether a finite recording is in the order of time, sensor by sensor: what is not would lose most of its readings."""

from __future__ import annotations

from collections import Counter
from typing import Final

from detector.detection.windows import BACKWARDS
from detector.engine.output import Output

LATE_SHARE: Final = 0.5
"""More readings than this share may not be older than the ones before."""
JUDGED_FROM: Final = 20


class Order:
    """What is seen of the order of a recording's readings."""

    def __init__(self) -> None:
        self._set_back: Counter[str] = Counter()
        self._readings = self._late = 0

    def take(self, output: Output) -> None:
        """Take in what a batch came to."""
        self._set_back.update(output.set_back)
        self._late += output.tally.late
        self._readings += output.tally.late + output.tally.accepted

    @property
    def fault(self) -> str | None:
        """What is wrong; None: nothing so far."""
        backwards = [sensor_id for sensor_id, times in self._set_back.items() if times >= BACKWARDS]
        if backwards:
            more = f" and {len(backwards) - 1} more" if len(backwards) > 1 else ""
            return f"the readings of {backwards[0]}{more} run backwards in time"
        if self._readings >= JUDGED_FROM and self._late > LATE_SHARE * self._readings:
            return f"{self._late} of {self._readings} readings are older than others of their sensor before them"
        return None
