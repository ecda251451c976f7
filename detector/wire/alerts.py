"""What goes out: alerts, dead letters, scores.

`detector.wire.json_readings` reads what comes in, `detector.wire.schemas` has both.

The structs here are the wire form: their fields, in this order, are the keys of the JSON.
"""

from __future__ import annotations

import base64
import math
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from detector.arrays import F64
from detector.streams.base import LongLine, Message, Partition, Record
from detector.wire.readings import Reject, Word

Event = Literal["opened", "updated", "closed"]
Kind = Literal["readings", "frames"]
AlertReason = Literal["anomaly", "silent"]
CloseReason = Literal["recovered", "gap", "evicted", "max_duration"]
Severity = Literal["warning", "critical"]

# Part of every alert's identity: changing it would make every known alert a new one.
_ALERTS: Final = uuid.UUID("6f0c1e5a-3d0b-5c53-9a41-9d1f7a2c8e64")
MAX_DEAD_VALUE: Final = 900_000
MAX_DEAD_KEY: Final = 16_384
MAX_DEAD_HEADERS: Final = 65_536
"""Bytes of a dead letter's value, key, and headers that came with the record: a record may have 1 MiB together."""
_HEADER_BYTES: Final = 16
"""What a header takes beside its name and value, at most."""
_MAX_RANGES: Final = 100
_TENS: Final = np.array([float(f"1e{power}") for power in range(304)])
_PREFIX: Final = "detector."
_HEADERS: Final = frozenset(
    _PREFIX + name
    for name in ("reason", "message", "elements", "topic", "partition", "offset", "timestamp", "truncated")
)

_Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class AlertWindow(Struct, kw_only=True, forbid_unknown_fields=True):
    """The last 100 rows; of `updated` those since the last message. Several channels: objects of one list a channel."""

    timestamps: Annotated[list[int], Meta(description="Event times, ms since the epoch.")]
    values: Annotated[
        list[float | None] | dict[str, list[float | None]],
        Meta(description="The readings; null where one is missing or was filled in without a value."),
    ]
    expected: Annotated[
        list[float | None] | dict[str, list[float | None]],
        Meta(description="What the model expected, in the sensor's own unit."),
    ]
    errors: Annotated[
        list[float | None] | dict[str, list[float | None]],
        Meta(description="The squared difference of the two, in scaled units."),
    ]
    imputed: Annotated[list[bool], Meta(description="Which rows were filled in, because no reading came.")]


class AlertModel(Struct, kw_only=True, forbid_unknown_fields=True):
    """The model bundle that scored the sensor."""

    name: str
    version: str
    digest: Annotated[str, Meta(description="SHA-256 of the bundle's manifest.")]


class AlertSource(Struct, kw_only=True, forbid_unknown_fields=True):
    """Where the readings of the episode are found."""

    stream: str
    partition: Annotated[int, Meta(ge=0)]
    opened_offset: Annotated[int, Meta(ge=0, description="Offset of the record that opened the episode.")]
    last_offset: Annotated[int, Meta(ge=0, description="Offset of the record that caused this message.")]


FaultKind = Literal[
    "stuck",
    "level-shift",
    "spike",
    "drift",
    "noise",
    "oscillation",
    "relation",
    "silent",
    "image",
    "context",
    "unusual",
]


class What(Struct, forbid_unknown_fields=True):
    """What seems to be wrong: an estimate."""

    kind: Annotated[FaultKind, Meta(description="unusual: none of the others.")]
    text: Annotated[str, Meta(description="The same in words, in the sensor's own unit; times are UTC.")]


class Alert(Struct, kw_only=True, forbid_unknown_fields=True):
    """One message about one episode of one sensor. Subscribers key on (`alert_id`, `sequence`).

    All times are event time. The floats are written with 6 significant digits. Of a silent sensor the times are since
    when it is missed, when that became too long, and when it was heard; the scores are how long, in units of what is
    allowed.
    """

    schema: Annotated[Literal[1], Meta(description="Version of this form.")] = 1
    alert_id: Annotated[
        str,
        Meta(
            description="Names the episode: the same in every message about it, on every run over the same data.",
            extra_json_schema={"format": "uuid"},
        ),
    ]
    sequence: Annotated[int, Meta(ge=0, description="0 for opened, then counting; closed is the last.")]
    event: Annotated[Event, Meta(description="What happened to the episode.")]
    kind: Annotated[Kind, Meta(description="What was watched: sensor readings or camera frames.")]
    reason: Annotated[
        AlertReason,
        Meta(description="anomaly: the readings are unusual; silent: there are none while others have some."),
    ]
    close_reason: Annotated[CloseReason | None, Meta(description="Why the episode ended; null while it is open.")] = (
        None
    )
    muted: Annotated[
        bool, Meta(description="Whether the episode belongs to a maintenance window, or is said to be expected.")
    ] = False
    sensor_id: Annotated[str, Meta(min_length=1, max_length=256, description="The sensor; also the record's key.")]
    severity: Annotated[Severity, Meta(description="Never falls within an episode.")]
    started_at: Annotated[
        _Time,
        Meta(description="Where the anomaly probably began. Later messages may know it better, until it is long ago."),
    ]
    detected_at: Annotated[_Time, Meta(description="Time of the row that opened the episode.")]
    ended_at: Annotated[
        _Time | None, Meta(description="The last row that was unusual by itself; null while it is open.")
    ] = None
    score: Annotated[
        float,
        Meta(
            description="The newest score, held by n of m rows. 1.0 is as bad as the worst of training; more is worse."
        ),
    ]
    peak_score: Annotated[float, Meta(description="The highest `score` of the episode so far.")]
    threshold: Annotated[float, Meta(description="The score that opened the episode, in the same unit.")]
    p_value: Annotated[
        float | None,
        Meta(
            description="Probability that a healthy sensor reaches such a peak within one budget; "
            "null without a budget and for a silent sensor."
        ),
    ] = None
    what: Annotated[
        What | None, Meta(description="What seems to be wrong. New in this form: older messages have none.")
    ] = None
    verdict: Annotated[
        Word | None,
        Meta(description="What a person has said of the alert by now. New in this form: older messages have none."),
    ] = None
    window: Annotated[
        AlertWindow | None,
        Meta(description="The rows up to this message; null for a silent sensor, absent for a frame."),
    ] = None
    heatmap: Annotated[
        str | None,
        Meta(
            description="Frames only: where the newest frame is unusual, a grey PNG of 28 x 28 pixels; white is worst.",
            extra_json_schema={"contentEncoding": "base64", "contentMediaType": "image/png"},
        ),
    ] = None
    frame: Annotated[dict[str, float] | None, Meta(description="Frames only: the newest frame's error in numbers.")] = (
        None
    )
    region: Annotated[
        Annotated[list[int], Meta(min_length=4, max_length=4)] | None,
        Meta(
            description="Frames only: the box around what is unusual, [x, y, width, height] in the model's pixels.",
        ),
    ] = None
    channels: Annotated[
        dict[str, float],
        Meta(
            description="Each channel's part of what is unusual: of the error beyond its usual one; empty where silent."
        ),
    ]
    model: AlertModel
    source: AlertSource


class DeadLetterLine(Struct, kw_only=True, forbid_unknown_fields=True):
    """A rejected record, as one JSON line."""

    reason: Annotated[str, Meta(description="Why it was rejected; the reasons are listed in docs/messages.md.")]
    message: Annotated[str, Meta(description="The same in a sentence.")]
    elements: Annotated[
        str | None, Meta(description="Which readings of the message were rejected, as in `0,4-9`; null: all of it.")
    ]
    stream: Annotated[str, Meta(description="The input stream.")]
    partition: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]
    timestamp: Annotated[int | None, Meta(description="The broker's, ms since the epoch; null without a broker.")]
    truncated: Annotated[bool, Meta(description="Whether value, key or headers are cut: above 900 kB, 16 KiB, 64 KiB.")]
    key: Annotated[str | None, Meta(description="The record's key; bytes that are no UTF-8 are written as \\xNN.")]
    value_base64: Annotated[
        str | None,
        Meta(description="The record's value; null if it had none.", extra_json_schema={"contentEncoding": "base64"}),
    ]


class SensorScores(Struct, kw_only=True, forbid_unknown_fields=True):
    """Scored rows of one sensor, in the order of their times. With several channels: objects of one list a channel.

    The floats are written with 6 significant digits.
    """

    schema: Annotated[Literal[1], Meta(description="Version of this form.")] = 1
    sensor_id: Annotated[str, Meta(min_length=1, max_length=256, description="The sensor; also the record's key.")]
    timestamps: Annotated[list[int], Meta(description="Event times, ms since the epoch.")]
    values: Annotated[list[float] | dict[str, list[float]], Meta(description="The readings.")]
    expected: Annotated[
        list[float | None] | dict[str, list[float | None]],
        Meta(description="What the model expected, in the sensor's own unit; null where a stride left the row out."),
    ]
    scores: Annotated[
        list[float], Meta(description="1.0 is as bad as the worst of training; more is worse. Of single rows.")
    ]
    thresholds: Annotated[
        list[float], Meta(description="An episode opens when n of the last m scores lie above it, in the same unit.")
    ]


_decode_alert: Final = msgspec.json.Decoder(Alert).decode
_encode: Final = msgspec.json.Encoder().encode


def alert_id(kind: Kind, reason: AlertReason, sensor_id: str, time: int) -> str:
    """Name an episode by its sensor and the time (ns) of the row that opened it.

    >>> alert_id("readings", "score", "pump-1", 0)
    '51ea1379-75b1-5b96-8a83-34724075373a'
    """
    return str(uuid.uuid5(_ALERTS, f"{kind}|{reason}|{sensor_id}|{time}"))


def encode_alert(alert: Alert) -> bytes:
    """Write an alert as JSON, floats with 6 significant digits.

    What is not finite in the window, or a `p_value` that is not, is written as null. Raises ValueError where a score,
    the threshold or a channel's share is not finite.
    """
    for number in (alert.score, alert.peak_score, alert.threshold, *alert.channels.values()):
        if not math.isfinite(number):
            raise ValueError(f"an alert of {alert.sensor_id} has the score, threshold or share {number}")
    fields = _rounded(msgspec.to_builtins(alert))
    for name in ("window",) if alert.kind == "frames" else ("heatmap", "frame", "region"):
        del fields[name]
    return _encode(fields)


def decode_alert(data: bytes) -> Alert:
    """Read an alert. Raises ValueError where it is not one, or has fields this version does not know."""
    return _decode_alert(data)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, list):
        types = set(map(type, value))  # windows have hundreds of elements: a call for each is slow
        if types <= {int, bool}:
            return value
        if types == {float} and all(map(math.isfinite, value)):
            return list(map(float, ("%.6g " * len(value) % tuple(value)).split()))
        return [_rounded(item) for item in value]
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value


def encode_scores(scores: SensorScores) -> bytes:
    """Write scored rows as JSON; what is not finite as null. The numbers are written as they are: see `rounded`."""
    return _encode(scores)


def rounded(numbers: F64) -> F64:
    """Many numbers with 6 significant digits each; what is not finite stays as it is."""
    size = np.abs(numbers)
    known = (size > 0) & np.isfinite(size)
    power = 5 - np.floor(np.log10(np.where(known, size, 1.0))).astype(np.int64)
    up, down = _TENS[np.clip(power, 0, 300)], _TENS[np.clip(-power, 0, 303)]
    return np.where(known, np.rint(numbers * up / down) * down / up, numbers)


def dead_letter(stream: str, partition: Partition, record: Record, reject: Reject) -> Message:
    """The message for `stream` that keeps a rejected record: as it came, with what was wrong in its headers.

    Headers of that name from an earlier rejection are replaced. It always fits into a record of a topic: a value above
    900 kB, a key above 16 KiB and headers above 64 KiB are cut, and `truncated` says so. A header without a value gets
    an empty one.
    """
    value, key = record.value or b"", record.key
    theirs = [(name, text or b"") for name, text in record.headers if name not in _HEADERS]
    kept = _fitting(theirs)
    cut = len(value) > MAX_DEAD_VALUE or len(key or b"") > MAX_DEAD_KEY or kept != theirs
    truncated = cut or isinstance(record, LongLine)
    details = {
        "reason": reject.reason,
        "message": reject.message,
        "topic": partition.stream,
        "partition": str(partition.number),
        "offset": str(record.offset),
        "timestamp": "" if record.timestamp is None else str(record.timestamp),
        "truncated": "true" if truncated else "false",
    }
    if reject.elements is not None:
        details["elements"] = _ranges(reject.elements)
    ours = {_PREFIX + name: text.encode() for name, text in details.items()}
    return Message(
        stream,
        None if key is None else key[:MAX_DEAD_KEY],
        value[:MAX_DEAD_VALUE],
        (*kept, *ours.items()),
        null=record.value is None,
    )


def _fitting(headers: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The first headers, as many as there is room for; the last of them may be cut."""
    kept, room = [], MAX_DEAD_HEADERS
    for name, text in headers:
        room -= len(name.encode(errors="surrogatepass")) + _HEADER_BYTES
        if room < 0:
            break
        kept.append((name, text[:room]))
        room -= len(text)
        if room < 0:
            break
    return kept


def dead_letter_line(message: Message) -> bytes:
    """The JSON line (without the line feed) for a `dead_letter`, where a stream has no headers."""
    ours = filter(lambda header: header[0] in _HEADERS, message.headers)
    header = {name.removeprefix(_PREFIX): value.decode() for name, value in ours}
    line = DeadLetterLine(
        reason=header["reason"],
        message=header["message"],
        elements=header.get("elements"),
        stream=header["topic"],
        partition=int(header["partition"]),
        offset=int(header["offset"]),
        timestamp=int(header["timestamp"]) if header["timestamp"] else None,
        truncated=header["truncated"] == "true",
        key=None if message.key is None else message.key.decode(errors="backslashreplace"),
        value_base64=None if message.null else base64.b64encode(message.value).decode("ascii"),
    )
    return _encode(line)


def _ranges(elements: list[int]) -> str:
    """Write ascending indices as `0,4-9`; beyond 100 ranges with an ellipsis, as headers must stay short."""
    ranges: list[list[int]] = []
    for element in elements:
        if ranges and ranges[-1][1] == element - 1:
            ranges[-1][1] = element
        else:
            ranges.append([element, element])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:_MAX_RANGES]]
    return ",".join([*texts, "…"] if len(ranges) > _MAX_RANGES else texts)
