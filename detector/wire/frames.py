"""Records into frames: which camera, when, and its picture. A record by itself, so it may be done on any thread."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from detector.arrays import F32
from detector.config.settings import LimitsConfig
from detector.streams.base import LongLine, Record
from detector.times import LATEST, OK, instants, rfc3339
from detector.wire.documents import Rejected, parse_document
from detector.wire.images import PixelBudget, RawForm, Refused, decode
from detector.wire.readings import (
    LINE_TOO_LONG,
    MAX_SENSOR_ID,
    FrameReason,
    Reason,
    Verdict,
    explain_time,
    is_sensor_id,
    plausible,
    show,
)
from detector.wire.verdicts import VERDICT_KEY, is_verdict, read_verdict

_MILLISECOND: Final = 1_000_000
_NUMBER: Final = re.compile(r"-?\d{1,40}(\.\d{0,40})?", re.ASCII)  # Python refuses integers of thousands of digits
_QUOTED_VERDICT: Final = f'"{VERDICT_KEY}"'.encode()
_ENCODED: Final = ("image/png", "image/jpeg", "image/jpg")


class Frame(NamedTuple):
    """One frame: `time` in ns, `pixels` (h, w) float32 in [0, 1]; `resized`: it had another size."""

    camera: str
    time: int
    pixels: F32
    resized: bool


class NoFrame(NamedTuple):
    """Why a record holds no frame."""

    reason: Reason | FrameReason
    message: str


class FrameLine(msgspec.Struct, kw_only=True):
    """A frame as a JSON line. Other keys are ignored."""

    camera_id: str | None = None
    sensor_id: str | None = None
    key: str | None = None
    timestamp: str | int | float | None = None
    value_base64: bytes
    content_type: str | None = None
    shape: str | list[int] | None = None
    dtype: str | None = None


class FrameDecoder:
    """Decodes records of frames to pictures of `shape` (h, w). Keeps nothing, so threads may share it.

    `default_camera` names the camera of records that name none, `max_future` (ns) is how far a frame may lie beyond
    its record's own timestamp.

    >>> decoder = FrameDecoder((2, 2), LimitsConfig())
    >>> headers = [("shape", b"2,2"), ("dtype", b"uint8"), ("timestamp", b"2026-01-01T00:00:00Z")]
    >>> frame = decoder.decode(Record(0, b"camera-01", bytes([0, 255, 255, 0]), None, headers))
    >>> frame.camera, frame.pixels.tolist()
    ('camera-01', [[0.0, 1.0], [1.0, 0.0]])
    """

    def __init__(
        self,
        shape: tuple[int, int],
        limits: LimitsConfig,
        *,
        default_camera: str | None = None,
        max_future: int | None = None,
    ) -> None:
        self.shape = shape
        self._limits = limits
        self._budget = PixelBudget(limits.pixels)
        self._default_camera = default_camera
        self._max_future = max_future

    def decode(self, record: Record) -> Frame | Verdict | NoFrame:
        """The frame of a record, or the verdict on an alert of a camera, or why it has none."""
        try:
            return self._frame(record)
        except (Refused, Rejected) as refused:
            return NoFrame(refused.reason, refused.message)

    def _frame(self, record: Record) -> Frame | Verdict:
        if isinstance(record, LongLine):
            raise Refused("line_too_long", LINE_TOO_LONG)
        value = record.value or b""
        present = ((name, text) for name, text in record.headers if text is not None)
        headers = {name.lower(): text.decode("latin-1").strip() for name, text in present}
        key = record.key.decode(errors="surrogateescape") if record.key else None
        raw = _raw_form(headers)
        if raw is None and value[:1] == b"{":
            if _QUOTED_VERDICT in value and (verdict := _verdict(record)) is not None:
                return verdict
            line = _parse(value)
            camera = next((name for name in (line.camera_id, line.sensor_id, line.key, key) if name is not None), None)
            time = self._time(headers.get("timestamp", "") if line.timestamp is None else line.timestamp, record)
            value, raw = line.value_base64, _raw_form(_headers_of(line))
        else:
            camera = key
            time = self._time(headers.get("timestamp", ""), record)
        camera = self._camera(camera)
        pixels, resized = decode(value, self.shape, self._limits, raw, self._budget)
        return Frame(camera, time, pixels, resized)

    def _camera(self, camera: str | None) -> str:
        if camera is None:
            camera = self._default_camera
        if camera is None:
            raise Refused("missing_sensor_id", "the record has no key, which names the camera")
        if not is_sensor_id(camera):
            raise Refused("bad_sensor_id", f"{show(camera)} is no camera id: 1 to {MAX_SENSOR_ID} printable characters")
        return camera

    def _time(self, raw: str | int | float, record: Record) -> int:
        """When the frame was taken, ns: `raw`, or if that is empty the record's time."""
        known = plausible(record.timestamp)
        stamp = None if known is None else known * _MILLISECOND
        if raw == "":
            if stamp is None:
                raise Refused("bad_timestamp", _no_time(record.timestamp))
            if stamp < LATEST:
                return stamp
            raw = stamp
        elif isinstance(raw, str) and _NUMBER.fullmatch(raw):
            raw = float(raw) if "." in raw else int(raw)  # a header is text
        times, codes = instants([raw])
        if codes[0] != OK:
            raise Refused(*explain_time(raw, int(codes[0])))
        time = int(times[0])
        if stamp is not None and self._max_future is not None and time > stamp + self._max_future:
            raise Refused(
                "timestamp_in_future",
                f"timestamp {rfc3339(time)} is further beyond the record's than max_future allows",
            )
        return time


def _no_time(stamp: int | None) -> str:
    if stamp is None or stamp < 0:
        return "neither the frame nor the record says when it was taken"
    return f"the frame does not say when it was taken, and the record's own time, {stamp} ms, lies before the year 2000"


def _parse(value: bytes) -> FrameLine:
    try:
        return msgspec.json.decode(value, type=FrameLine)
    except (ValueError, RecursionError) as error:
        raise Refused("malformed", f"not the JSON of a frame: {str(error)[:100]}") from None


def _verdict(record: Record) -> Verdict | None:
    """The verdict in a record of JSON; None if it has a frame, or is none. Raises Rejected."""
    document = parse_document(record.value)
    if not is_verdict(document) or "value_base64" in document:
        return None
    return read_verdict(document, record, named=("camera_id", "sensor_id", "key"))


def _headers_of(line: FrameLine) -> dict[str, str]:
    shape = ",".join(map(str, line.shape)) if isinstance(line.shape, list) else line.shape
    found = {"content-type": line.content_type, "shape": shape, "dtype": line.dtype}
    return {name: text for name, text in found.items() if text is not None}


def _raw_form(headers: Mapping[str, str]) -> RawForm | None:
    """How raw pixels lie; None where the headers do not speak of raw pixels."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() in _ENCODED:
        return None
    if "shape" not in headers and "dtype" not in headers:
        return None
    return RawForm.of(headers.get("shape"), headers.get("dtype"))
