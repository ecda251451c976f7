"""What a sensor's open episodes have beyond its columns: of bad scores, and of silence."""

from __future__ import annotations

import msgspec

from detector.detection.finding import Finding
from detector.wire.alerts import Severity
from detector.wire.readings import Word


class Episode(msgspec.Struct):
    """What an open episode has beyond its columns. Times are ns; deadlines are partition clocks, None: never.

    `verdict`: what a person has said of it; `called`: the clock at which one was called for it, None: none was.
    Of readings: `until`: the last row that is unusual by itself; `finding`: what fault it is; `shown`: the newest row
    that a message had. None: not known.
    """

    alert_id: str
    sequence: int
    started_at: int
    detected_at: int
    ln_threshold: float
    severity: Severity
    opened_offset: int
    update_at: int | None
    close_at: int | None
    muted: bool = False
    until: int | None = None
    finding: Finding | None = None
    shown: int | None = None
    verdict: Word | None = None
    called: int | None = None


class Silence(msgspec.Struct):
    """An open silent episode. Times are ns of the partition clock; deadlines None: never.

    `since`: from when on the sensor is missed, moved by time that counts for no timer; `after`: so long it may be so.
    """

    alert_id: str
    sequence: int
    started_at: int
    detected_at: int
    since: int
    after: int
    severity: Severity
    opened_offset: int
    update_at: int | None
    close_at: int | None
    muted: bool
    verdict: Word | None = None
