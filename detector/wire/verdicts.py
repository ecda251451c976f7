"""What a person says of an alert: a record of the stream that led to it, and the message that acknowledges it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeGuard, get_args

import msgspec
from msgspec import Meta, Struct

from detector.streams.base import Message, Partition, Record
from detector.wire.documents import Rejected, checked_sensor, decoder_of
from detector.wire.readings import Verdict, Word, kind_of, show

WORDS: Final[tuple[Word, ...]] = get_args(Word)
VERDICT_KEY: Final = "verdict"
MAX_BY: Final = 256
MAX_NOTE: Final = 2_000
_MAX_ALERT_ID: Final = 64


class VerdictBody(Struct, kw_only=True, forbid_unknown_fields=True, rename={"word": "is"}):
    """What is said of an alert."""

    alert_id: Annotated[str, Meta(max_length=_MAX_ALERT_ID, description="The alert it is about.")]
    word: Annotated[
        Word,
        Meta(
            description="real: a true fault; false: a false alarm; expected: unusual, but known beforehand. "
            "The last verdict on an alert wins."
        ),
    ]
    by: Annotated[str, Meta(max_length=MAX_BY, description="Who says so.")] | None = None
    note: Annotated[str, Meta(max_length=MAX_NOTE, description="Why, or what was found.")] | None = None


class VerdictRecord(Struct, kw_only=True):
    """A verdict: a record of the readings stream, keyed by the sensor; of a camera, one of the frames stream."""

    sensor_id: (
        Annotated[str, Meta(min_length=1, max_length=256, description="The sensor; by default the record's key.")]
        | None
    ) = None
    camera_id: Annotated[str, Meta(min_length=1, max_length=256, description="The camera.")] | None = None
    verdict: VerdictBody


class VerdictSource(Struct, kw_only=True, forbid_unknown_fields=True):
    """Where the verdict stands, which took effect there."""

    stream: str
    partition: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]


class Acknowledgement(Struct, kw_only=True, forbid_unknown_fields=True, rename={"word": "is"}):
    """A verdict that took effect. Of several on one alert the last counts; they come in the order of their records."""

    schema: Annotated[Literal[1], Meta(description="Version of this form.")] = 1
    alert_id: str
    sensor_id: Annotated[str, Meta(min_length=1, max_length=256, description="The sensor; also the record's key.")]
    word: Annotated[Word, Meta(description="What was said of the alert.")]
    by: str | None = None
    note: str | None = None
    source: VerdictSource


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = decoder_of(Acknowledgement)


def is_verdict(document: object) -> TypeGuard[dict[str, Any]]:
    """Whether a document that holds no reading is meant as a verdict."""
    return isinstance(document, dict) and VERDICT_KEY in document


def read_verdict(document: dict[str, Any], record: Record, *, named: tuple[str, ...] = ("sensor_id",)) -> Verdict:
    """The verdict of a document. Raises Rejected.

    The sensor stands under one of the names `named`, or it is the record's key.

    >>> document = {"verdict": {"alert_id": "4f1c", "is": "real", "by": "Ann"}}
    >>> read_verdict(document, Record(0, b"pump-7", None))
    Verdict(sensor_id='pump-7', alert_id='4f1c', word='real', by='Ann', note=None)
    """
    sensor = next((document[name] for name in named if document.get(name) is not None), None)
    if sensor is None:
        if not record.key:
            raise Rejected("missing_sensor_id", f"no `{named[0]}`, and the record has no key")
        sensor = record.key.decode(errors="surrogateescape")
    sensor_id = checked_sensor(sensor)
    body = document[VERDICT_KEY]
    if not isinstance(body, dict):
        raise Rejected("bad_verdict", f"`{VERDICT_KEY}` is {kind_of(body)}, not an object")
    if "is" in body and body["is"] not in WORDS:
        raise Rejected("bad_verdict", f"`is` is {show(body['is'])}, none of {', '.join(WORDS)}")
    try:
        found = msgspec.convert(body, VerdictBody)
        for text in (found.alert_id, found.by, found.note):
            (text or "").encode()
    except (ValueError, msgspec.ValidationError) as error:
        raise Rejected("bad_verdict", f"not a verdict: {str(error)[:200]}") from None
    return Verdict(sensor_id, found.alert_id, found.word, found.by, found.note)


def encode_verdict(verdict: Verdict, *, camera: bool) -> bytes:
    """The record that says so.

    >>> encode_verdict(Verdict("pump-7", "4f1c", "real"), camera=False)
    b'{"sensor_id":"pump-7","verdict":{"alert_id":"4f1c","is":"real"}}'
    """
    body = {"alert_id": verdict.alert_id, "is": verdict.word, "by": verdict.by, "note": verdict.note}
    said = {name: text for name, text in body.items() if text is not None}
    return _encode({"camera_id" if camera else "sensor_id": verdict.sensor_id, VERDICT_KEY: said})


def acknowledgement(stream: str, verdict: Verdict, partition: Partition, offset: int) -> Message:
    """The message for `stream` that acknowledges a verdict, whose record is at this offset."""
    source = VerdictSource(stream=partition.stream, partition=partition.number, offset=offset)
    said = Acknowledgement(
        alert_id=verdict.alert_id,
        sensor_id=verdict.sensor_id,
        word=verdict.word,
        by=verdict.by,
        note=verdict.note,
        source=source,
    )
    return Message(stream, verdict.sensor_id.encode(), _encode(said))


def decode_acknowledgement(data: bytes) -> Acknowledgement:
    """Read an acknowledgement. Raises ValueError where it is none."""
    return _decode(data)
