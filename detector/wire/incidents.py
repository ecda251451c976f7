"""Incidents as they go out, and alerts as they are read back for them.

An alert is read with what an incident needs of it, and other fields are passed over: alerts of a release before or
after this one have fewer or more of them.
"""

from __future__ import annotations

import statistics
import uuid
from itertools import pairwise
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from detector.streams.base import Message
from detector.times import EARLIEST, LATEST, recorded_time
from detector.wire.alerts import AlertReason, Event, Kind, Severity
from detector.wire.documents import decoder_of

IncidentEnd = Literal["recovered", "expected", "max_duration"]

# Part of every incident's identity: changing it would make every known incident a new one.
_INCIDENTS: Final = uuid.UUID("0b6a7e0c-58b2-5d7e-9c53-2f1d90a4c7be")
ONSET_ROWS: Final = 10
"""Within this many rows of one another two onsets cannot be told apart."""
_MS: Final = 1_000_000
_MAX_ID: Final = 100
_MAX_TEXT: Final = 200
MAX_NUMBER: Final = 2**53 - 1
"""Sequences and offsets: what every reader of JSON takes, and far more than there are. State holds no larger ones."""
_MAX_SIZE: Final = 1_000_000
"""Episodes of an incident: a state that is made again has an entry for each."""

_Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class What(Struct, kw_only=True, frozen=True):
    """What is unusual: a kind for programs, a text for people."""

    kind: str
    text: str = ""


class IncidentMember(Struct, kw_only=True):
    """One episode of the incident, as its newest alert has it."""

    sensor_id: str
    alert_id: str
    kind: Kind
    channel: Annotated[str | None, Meta(description="The channel with the largest share; null where there is none.")]
    what: Annotated[What | None, Meta(description="What is unusual, where the alert says so.")]
    severity: Severity
    started_at: _Time
    ended_at: Annotated[_Time | None, Meta(description="null while the episode is open.")]
    peak_score: float
    muted: Annotated[bool, Meta(description="Whether it belongs to a maintenance window.")] = False


class Suspect(Struct, kw_only=True):
    """Who was seen first: not necessarily the cause."""

    sensor_id: str
    channel: str | None
    why: Annotated[str, Meta(description="The reason in words.")]


class IncidentSource(Struct, kw_only=True):
    """The alert that led to this message."""

    stream: str
    partition: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]


class Incident(Struct, kw_only=True):
    """One message about episodes that belong together. Subscribers key on (`incident_id`, `sequence`).

    All times are event time.
    """

    schema: Annotated[Literal[1], Meta(description="Version of this form.")] = 1
    incident_id: Annotated[
        str,
        Meta(description="The same in every message about the incident.", extra_json_schema={"format": "uuid"}),
    ]
    sequence: Annotated[int, Meta(ge=0, description="0 for opened, then counting; closed is the last.")]
    event: Annotated[Event, Meta(description="What happened to the incident.")]
    close_reason: Annotated[
        IncidentEnd | None,
        Meta(description="recovered: all episodes are over; expected: a person said so of all; null while open."),
    ] = None
    group: Annotated[str, Meta(description="The part of the plant; also the record's key.")]
    title: Annotated[str, Meta(description="The incident in one line.")]
    severity: Annotated[Severity, Meta(description="The highest of the members'; never falls.")]
    started_at: Annotated[_Time, Meta(description="The earliest onset of a member.")]
    detected_at: Annotated[_Time, Meta(description="When the episode that opened the incident was detected.")]
    ended_at: Annotated[_Time | None, Meta(description="null while the incident is open.")] = None
    size: Annotated[int, Meta(ge=1, description="How many episodes belong to it.")]
    members: Annotated[list[IncidentMember], Meta(description="The episodes, first seen first; at most 100.")]
    suspects: Annotated[list[Suspect], Meta(description="Who was seen first; several where that cannot be told.")]
    source: IncidentSource


class AlertNews(NamedTuple):
    """What an incident needs of an alert. Times are ns; `error`: how far off the onset may be, ns."""

    alert_id: str
    sequence: int
    event: Event
    kind: Kind
    sensor_id: str
    severity: Severity
    started_at: int
    detected_at: int
    ended_at: int | None
    seen_at: int
    """The newest time that the message names."""
    peak_score: float
    channel: str | None = None
    what: What | None = None
    muted: bool = False
    verdict: str | None = None
    error: int = 0
    close_reason: str | None = None
    evidence: Evidence | None = None
    heatmap: str | None = None


class Evidence(Struct):
    """The rows of a message: times (ms), and of each channel, or of one without a name, what came and was expected."""

    timestamps: list[Annotated[int, Meta(ge=EARLIEST // _MS, lt=LATEST // _MS)]] = []
    values: list[float | None] | dict[str, list[float | None]] = []
    expected: list[float | None] | dict[str, list[float | None]] = []

    def channels(self) -> dict[str, tuple[list[float | None], list[float | None]]]:
        """Values and expected values by channel."""
        if isinstance(self.values, dict) and isinstance(self.expected, dict):
            return {name: (values, self.expected.get(name, [])) for name, values in self.values.items()}
        if isinstance(self.values, list) and isinstance(self.expected, list):
            return {"": (self.values, self.expected)}
        return {}


class _Alert(Struct):
    alert_id: Annotated[str, Meta(min_length=1, max_length=_MAX_ID)]
    sequence: Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
    event: Event
    kind: Kind
    sensor_id: Annotated[str, Meta(min_length=1, max_length=256)]
    severity: Severity
    started_at: str
    detected_at: str
    peak_score: float
    reason: AlertReason = "anomaly"
    schema: int = 1
    ended_at: str | None = None
    muted: bool = False
    channels: dict[str, float] = {}
    window: Evidence | None = None
    close_reason: str | None = None
    heatmap: str | None = None
    what: What | None = None
    verdict: str | None = None


_decode: Final = decoder_of(_Alert)
_decode_incident: Final = decoder_of(Incident)
_encode: Final = msgspec.json.Encoder().encode


def incident_id(group: str, alert_id: str) -> str:
    """Name an incident by its group and the episode that opened it.

    >>> incident_id("line-2", "51ea1379-75b1-5b96-8a83-34724075373a")
    'fe06132e-6dd5-501a-a5a4-30b026b37a34'
    """
    return str(uuid.uuid5(_INCIDENTS, f"{group}|{alert_id}"))


def read_alert(data: bytes) -> AlertNews:
    """What an incident needs of the alert that `data` is. Raises ValueError where it is none, or of another schema.

    So it does for numbers and times that no detector writes: what is read here is kept, and a state does not hold them.
    """
    alert = _decode(data)
    if alert.schema != 1:
        raise ValueError(f"this is an alert of schema {alert.schema}, and 1 is known")
    started, detected = recorded_time(alert.started_at), recorded_time(alert.detected_at)
    ended = None if alert.ended_at is None else recorded_time(alert.ended_at)
    times = [] if alert.window is None else alert.window.timestamps
    what = alert.what
    if what is None and alert.reason == "silent":
        what = What(kind="silent", text="silent")
    return AlertNews(
        alert.alert_id,
        alert.sequence,
        alert.event,
        alert.kind,
        alert.sensor_id,
        alert.severity,
        started,
        detected,
        ended,
        max(started, detected, ended or detected, times[-1] * _MS if times else detected),
        float(f"{alert.peak_score:.6g}"),
        max(alert.channels, key=lambda name: alert.channels[name])[:_MAX_TEXT] if alert.channels else None,
        None if what is None else What(kind=what.kind[:_MAX_TEXT], text=what.text[:_MAX_TEXT]),
        alert.muted,
        alert.verdict,
        _onset_error(times),
        alert.close_reason,
        alert.window,
        alert.heatmap,
    )


def _onset_error(times: list[int]) -> int:
    """How far off the onset in a window may be, ns; 0 without a window."""
    steps = [after - before for before, after in pairwise(times)]
    return min(max(round(statistics.median(steps)), 0) * _MS * ONSET_ROWS, LATEST - EARLIEST) if steps else 0


def encode_incident(incident: Incident) -> bytes:
    """Write an incident as JSON."""
    return _encode(incident)


def decode_incident(data: bytes) -> Incident:
    """Read an incident. Raises ValueError where it is not one; fields that are not known are passed over.

    So it does for numbers and times that no detector writes, and for an id that no header can carry.
    """
    incident = _decode_incident(data)
    name = incident.incident_id
    if not (0 < len(name) <= _MAX_ID and name.isascii() and name.isprintable() and name == name.strip()):
        raise ValueError(f"`incident_id` is not 1 to {_MAX_ID} visible characters of ASCII")
    source = incident.source
    if max(incident.sequence, source.partition, source.offset) > MAX_NUMBER or incident.size > _MAX_SIZE:
        raise ValueError(f"a number is larger than {MAX_NUMBER}, or the size than {_MAX_SIZE}")
    times = [incident.started_at, incident.detected_at, incident.ended_at]
    for one in incident.members:
        times += (one.started_at, one.ended_at)
    for time in times:
        if time is not None:
            recorded_time(time)
    return incident


def incident_message(stream: str, incident: Incident) -> Message:
    """The message for `stream`, keyed by the group."""
    return Message(stream, incident.group.encode("utf-8", "surrogatepass"), encode_incident(incident))
