"""Records into frames: whose, when, and in which of the forms."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from detector.config.settings import LimitsConfig
from detector.streams.base import LongLine, Record
from detector.wire.frames import Frame, FrameDecoder, NoFrame
from detector.wire.readings import REASONS
from tests.pictures import grey, jpeg, png, smooth

SHAPE = (28, 28)
STAMP = 1_790_000_000_000
NS = STAMP * 10**6
DECODER = FrameDecoder(SHAPE, LimitsConfig(), max_future=10**9)


def record(
    value: bytes | None = None, *, key: bytes | None = b"door", stamp: int | None = STAMP, **headers: str
) -> Record:
    named = [(name.replace("_", "-"), text.encode()) for name, text in headers.items()]
    return Record(0, key, png(grey()) if value is None else value, stamp, named)


def line(by: bytes | None = None, /, **parts: Any) -> Record:
    message = {"camera_id": "door", "timestamp": STAMP, "value_base64": base64.b64encode(png(grey())).decode(), **parts}
    return Record(0, by, json.dumps({k: v for k, v in message.items() if v is not None}).encode())


def frame_of(one: Record, decoder: FrameDecoder = DECODER) -> Frame:
    found = decoder.decode(one)
    assert isinstance(found, Frame), found
    return found


def reason_of(one: Record, decoder: FrameDecoder = DECODER) -> str:
    found = decoder.decode(one)
    assert isinstance(found, NoFrame)
    assert found.message
    return found.reason


def test_the_key_is_the_camera_and_the_record_has_the_time() -> None:
    frame = frame_of(record())
    assert (frame.camera, frame.time, frame.resized) == ("door", NS, False)
    assert np.array_equal(frame.pixels, grey().astype(np.float32) / np.float32(255))


@pytest.mark.parametrize(
    "text", ["2026-09-21T13:33:20.5Z", "2026-09-21 14:33:20.500+01:00", "1789997600.5", "1789997600500"]
)
def test_the_header_has_the_time_if_it_is_there(text: str) -> None:
    assert frame_of(record(timestamp=text)).time == 1_789_997_600_500_000_000


def test_headers_speak_of_raw_pixels() -> None:
    raw = record(grey().tobytes(), content_type="application/octet-stream", shape="28,28", dtype="uint8")
    assert np.array_equal(frame_of(raw).pixels, frame_of(record()).pixels)
    # What is encoded says so itself, whatever the headers say of it.
    assert frame_of(record(content_type="image/png", shape="9,9", dtype="uint8")).camera == "door"
    assert frame_of(record(jpeg(smooth()), content_type="image/png")).camera == "door"
    # A raw frame may begin like JSON.
    brace = b"{" + grey().tobytes()[1:]
    assert frame_of(record(brace, shape="28,28", dtype="uint8")).pixels[0, 0] == np.float32(123) / np.float32(255)


@pytest.mark.parametrize("name", ["camera_id", "sensor_id", "key"])
def test_a_json_line(name: str) -> None:
    frame = frame_of(line(**({"camera_id": None, "extra": [1]} | {name: "gate"})))
    assert (frame.camera, frame.time) == ("gate", NS)
    assert frame.pixels.tobytes() == frame_of(record()).pixels.tobytes()


def test_a_json_line_of_raw_pixels() -> None:
    value = base64.b64encode(grey().tobytes()).decode()
    for shape in ([28, 28], "28,28"):
        frame = frame_of(line(value_base64=value, shape=shape, dtype="uint8", content_type="image/x-raw"))
        assert frame.pixels.tobytes() == frame_of(record()).pixels.tobytes()


def test_a_json_record_may_leave_key_and_time_to_the_record() -> None:
    frame = frame_of(line(b"gate", camera_id=None, timestamp=None)._replace(timestamp=STAMP))
    assert (frame.camera, frame.time) == ("gate", NS)


def test_a_camera_by_option() -> None:
    decoder = FrameDecoder(SHAPE, LimitsConfig(), default_camera="stdin")
    assert frame_of(record(key=None), decoder).camera == "stdin"
    assert frame_of(record(), decoder).camera == "door"


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (record(b""), "empty"),
        (Record(0, b"door", None, STAMP), "empty"),
        (record(b"no picture"), "malformed"),
        (record(png(grey())[:-100]), "damaged"),
        (record(key=None), "missing_sensor_id"),
        (record(key=b"\x00"), "bad_sensor_id"),
        (record(key=b"\xff"), "bad_sensor_id"),
        (record(key=b"x" * 257), "bad_sensor_id"),
        (record(stamp=None), "bad_timestamp"),
        (record(stamp=-1), "bad_timestamp"),
        (record(timestamp="yesterday"), "bad_timestamp"),
        (record(timestamp="1990-01-01T00:00:00Z"), "timestamp_out_of_range"),
        (record(stamp=1), "bad_timestamp"),
        (record(timestamp="9" * 5000), "bad_timestamp"),
        (record(timestamp="0." + "9" * 5000), "bad_timestamp"),
        (record(timestamp="1790000001001"), "timestamp_in_future"),
        (record(shape="28,28"), "malformed"),
        (record(bytes(9), shape="28,28", dtype="uint8"), "shape_mismatch"),
        (record(bytes(56), shape="2,14,2", dtype="uint8"), "channel_mismatch"),
        (record(b"{"), "malformed"),
        (record(b"{}"), "malformed"),
        (record(b'{"value_base64": 5}'), "malformed"),
        (line(value_base64="%%%"), "malformed"),
        (line(value_base64=""), "empty"),
        (line(timestamp=None), "bad_timestamp"),
        (line(timestamp=True), "malformed"),
        (line(camera_id=None), "missing_sensor_id"),
        (line(camera_id=""), "bad_sensor_id"),
    ],
)
def test_what_is_no_frame(one: Record, reason: str) -> None:
    assert reason_of(one) == reason


def test_the_limits_hold_for_decoded_bytes() -> None:
    decoder = FrameDecoder(SHAPE, LimitsConfig(bytes=len(png(grey()))))
    assert frame_of(line(), decoder).camera == "door"
    decoder = FrameDecoder(SHAPE, LimitsConfig(bytes=len(png(grey())) - 1))
    assert reason_of(line(), decoder) == "too_many_bytes"


def test_a_line_that_was_cut_is_no_frame_though_its_beginning_is_one() -> None:
    assert reason_of(LongLine(*line())) == "line_too_long"


def test_reasons_are_told_apart() -> None:
    assert not REASONS & {"damaged", "too_many_bytes", "too_many_pixels", "shape_mismatch"}
