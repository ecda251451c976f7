"""What a batch came to."""

from __future__ import annotations

from dataclasses import dataclass, field

from detector.arrays import F64
from detector.detection.windows import Tally
from detector.engine.trace import ScoredRows
from detector.streams.base import Message
from detector.wire.alerts import Kind


@dataclass(slots=True)
class Output:
    """What a batch came to: messages to publish in order, and what the metrics count.

    `errors`, `scores`: reconstruction errors and scores of the rows scored. `rejected`: by reason. `events`: alerts
    that are not muted, by (event, severity); `muted`: the others. `opened`, `allowed`: episodes that a person was
    called for, and those that the budget allows for the rows scored. `records`: how many came in, `refused`: which of
    them were rejected in whole or in part. `new_sensors`: sensors not known before. `resized`: accepted frames of
    another size than the model's. `rows`: what was scored, in full, where that was asked for.
    """

    kind: Kind = "readings"
    alerts: list[Message] = field(default_factory=list)
    dead_letters: list[Message] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    excluded: int = 0
    resized: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    errors: list[F64] = field(default_factory=list)
    scores: list[F64] = field(default_factory=list)
    rows: list[ScoredRows] = field(default_factory=list)
    events: dict[tuple[str, str], int] = field(default_factory=dict)
    muted: int = 0
    opened: int = 0
    allowed: float = 0.0
    budgets_limited: int = 0
    records: int = 0
    first_time: int | None = None
    refused: list[int] = field(default_factory=list)
    new_sensors: list[str] = field(default_factory=list)

    def outcomes(self) -> dict[str, int]:
        """How many readings, or frames, ended how."""
        tally = self.tally
        if self.kind == "frames":
            return {
                "accepted": tally.accepted - self.resized,
                "resized": self.resized,
                "late": tally.late,
                "duplicate": tally.duplicate,
                "rejected": sum(self.rejected.values()),
            }
        return {
            "accepted": tally.accepted,
            "missing": tally.missing,
            "late": tally.late,
            "duplicate": tally.duplicate,
            "excluded": self.excluded,
            "rejected": sum(self.rejected.values()),
        }
