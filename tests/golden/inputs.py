"""The inputs of the golden cases, made once from `detector simulate` and from numpy with seeds.

The committed files are what counts: other versions of numpy or of the simulation may make others.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

END_MS: Final = 1_772_323_200_000
"""When the simulation ends."""
STEP_MS: Final = 10_000
"""Between two readings of a sensor of the plant, whatever its interval was in the simulation."""
PLANT_ROWS: Final = 6000
_INTERVALS_MS: Final = (1_000, 5_000, 10_000, 60_000)
_LATE_STARTERS: Final = {"temperature-11": 3300, "pressure-12": 1800}
"""Sensors of the plant that begin later, and how many rows they have."""
_SILENT: Final = {"vibration-03": (2100, 2250), "pressure-02": (650, 840)}
"""Sensors of the plant that are not heard for a while, in rows before the end."""
UNKNOWN: Final = ("vibration-08", *_LATE_STARTERS)
"""Sensors of the plant that the model is not trained on."""
CHANNELS: Final = ("temperature", "pressure", "flow")

_Rows = list[tuple[int, float | None]]


class Line(NamedTuple):
    """A record. `time`: ms, when it reached the broker."""

    time: int
    partition: int
    key: str | None
    text: str


# -- a plant of sensors ----------------------------------------------------------------------------------------------


def plant(simulated: bytes) -> list[Line]:
    """Single readings, lists and arrays of several sensors, and what goes wrong on the way, in the order of arrival."""
    sensors = _sensors(simulated)
    rng = np.random.default_rng(71)
    spoilt = [_spoilt(rows, rng) for rows in sensors.values()]
    names = list(sensors)
    lines: list[Line] = []
    for index, name in enumerate(names):
        if index % 3 == 0:
            lines += _singles(index % 2, name, spoilt[index], rng)
        elif index % 3 == 1:
            lines += _lists(index % 2, name, spoilt[index])
    # Arrays have readings of two sensors of one partition.
    for one, other in ((2, 8), (5, 11)):
        lines += _arrays(one % 2, {names[index]: spoilt[index] for index in (one, other)}, 8)
    lines += _tags(rng)
    lines.sort(key=lambda line: line.time)
    return list(_with_rejects(lines, rng))


def _sensors(simulated: bytes) -> dict[str, _Rows]:
    """The readings by sensor, all with the same interval."""
    found: dict[str, _Rows] = {}
    for line in simulated.splitlines():
        reading = json.loads(line)
        at = round(datetime.fromisoformat(reading["timestamp"]).timestamp() * 1000)
        found.setdefault(reading["sensor_id"], []).append((at, reading["value"]))
    sensors = {}
    for name in sorted(found, key=lambda name: name[-2:]):
        interval = _INTERVALS_MS[(int(name[-2:]) - 1) % len(_INTERVALS_MS)]
        rows = [(END_MS - (END_MS - at) * STEP_MS // interval, value) for at, value in found[name]]
        first = END_MS - _LATE_STARTERS.get(name, PLANT_ROWS + 1) * STEP_MS
        heard, lost = (END_MS - rows_before * STEP_MS for rows_before in _SILENT.get(name, (0, 0)))
        sensors[name] = [row for row in rows if row[0] >= first and not lost < row[0] < heard]
    return sensors


def _spoilt(rows: _Rows, rng: np.random.Generator) -> _Rows:
    """Some values are missing, some readings are there twice."""
    made: _Rows = []
    for (at, value), odd in zip(rows, rng.random(len(rows)), strict=True):
        made.append((at, None if odd < 0.004 else value))
        if odd > 0.997:
            made.append((at, value))
    return made


def _singles(partition: int, name: str, rows: _Rows, rng: np.random.Generator) -> Iterator[Line]:
    """One reading a message, some of which are overtaken by others."""
    for (at, value), odd in zip(rows, rng.random(len(rows)), strict=True):
        arrival = at + (round(rng.uniform(8_000, 35_000)) if odd < 0.006 else 50)
        reading = {"sensor_id": name, "timestamp": _rfc3339(at), "value": value}
        yield Line(arrival, partition, name, json.dumps(reading))


def _lists(partition: int, name: str, rows: _Rows) -> Iterator[Line]:
    for part in _parts(rows, 12):
        reading = {
            "sensor_id": name, "timestamps": [at for at, _ in part], "values": [value for _, value in part]
        }  # fmt: skip
        yield Line(part[-1][0] + 50, partition, name, json.dumps(reading, separators=(",", ":")))


def _arrays(partition: int, sensors: dict[str, _Rows], size: int) -> Iterator[Line]:
    rows = sorted((at, name, value) for name, found in sensors.items() for at, value in found if value is not None)
    for part in _parts(rows, size):
        readings = [{"sensor_id": name, "timestamp": at / 1000, "value": value} for at, name, value in part]
        yield Line(part[-1][0] + 50, partition, part[0][1], json.dumps(readings, separators=(",", ":")))


def _tags(rng: np.random.Generator) -> Iterator[Line]:
    """Many sensors with a few readings, so that the state of a partition has several slices."""
    span = PLANT_ROWS * STEP_MS
    for group in range(18):
        begin = END_MS - span + round(span * (0.02 + 0.43 * group / 18))
        sensors: dict[str, _Rows] = {
            f"tag-{group * 10 + i:03d}": [
                (begin + row * 300_000 + i, round(float(rng.normal(20 + i, 1)), 2)) for row in range(12)
            ]
            for i in range(10)
        }
        yield from _arrays(group % 2, sensors, 10)


def _with_rejects(lines: Sequence[Line], rng: np.random.Generator) -> Iterator[Line]:
    """What is no reading, spread among the others; and a few whose arrival says that they are of the future."""
    name, at = "temperature-01", END_MS // 1000 - 40_000
    bad: list[tuple[str | None, Any]] = [
        (name, '{"sensor_id": "temperature-01", "timest'),
        (None, ""),
        (None, {"timestamp": at, "value": 1.0}),
        (None, {"sensor_id": "x" * 300, "timestamp": at, "value": 1.0}),
        (name, {"sensor_id": name, "timestamp": "yesterday", "value": 1.0}),
        (name, {"sensor_id": name, "timestamp": "1999-01-01T00:00:00Z", "value": 1.0}),
        (name, {"sensor_id": name, "timestamp": at, "value": "12.5"}),
        (name, {"sensor_id": name, "timestamp": at, "values": {"value": 1.0, "other": 2.0}}),
        (name, {"sensor_id": name, "timestamps": [at, at + 1], "values": [1.0]}),
        (name, []),
        (name, [
            {"sensor_id": name, "timestamp": at, "value": True},
            {"sensor_id": "tag-000", "timestamp": END_MS // 1000 - 50_000, "value": 21.5},
            {"sensor_id": name, "timestamp": None, "value": 1.0},
        ]),
    ]  # fmt: skip
    places = sorted(rng.choice(len(lines), 2 * len(bad), replace=False).tolist())
    future = set(rng.choice(len(lines), 8, replace=False).tolist())
    rejects = dict(zip(places, itertools.cycle(bad), strict=False))
    for number, line in enumerate(lines):
        if number in rejects:
            key, value = rejects[number]
            yield Line(line.time, number % 2, key, value if isinstance(value, str) else json.dumps(value))
        yield line._replace(time=line.time - 600_000) if number in future else line


def _parts(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


# -- machines of three channels --------------------------------------------------------------------------------------


def channels() -> str:
    """A CSV of four machines, each with a fault of one channel or of how the channels go together."""
    rows, first = 3000, END_MS // 1000 - 3000
    machines = [_machine(number, rows) for number in range(4)]
    machines[0][2100:2350, 1] += 4 * 900
    machines[1][2200:2600, 2] = _machine(11, rows)[2200:2600, 2]
    machines[2][2400:2700, 0] = machines[2][2400, 0]
    machines[3][2300:2600, 2] = 240 - machines[3][2300:2600, 2]
    rng = np.random.default_rng(72)
    text = [f"sensor_id,timestamp,{','.join(CHANNELS)},remark"]
    for row in range(rows):
        for number, values in enumerate(machines):
            cells = [f"{value:.3f}" for value in values[row]]
            odd = rng.random()
            if odd < 0.002:
                cells[int(rng.integers(3))] = ""
            elif odd < 0.003:
                cells[int(rng.integers(3))] = "n/a"
            elif odd < 0.004:
                cells.append("one cell more")
            line = f"m-{number},{_rfc3339((first + row) * 1000)},{','.join(cells)},"
            text.append(line)
            if odd > 0.998:
                text.append(line)
    return "\n".join(text) + "\n"


def _machine(number: int, rows: int) -> NDArray[np.float64]:
    """(rows, 3): temperature follows the load with a delay, pressure and flow at once."""
    rng = np.random.default_rng([73, number])
    row = np.arange(rows)
    load = np.sin(2 * np.pi * (row / 61 + rng.uniform())) + 0.5 * np.sin(2 * np.pi * (row / 233 + rng.uniform()))
    load += _smooth(rng.normal(0, 0.25, rows), 0.95)
    driven = np.stack([_smooth(0.1 * load, 0.9), load, load], axis=1)
    noise = rng.normal(size=driven.shape) * [0.3, 150.0, 2.0]
    made: NDArray[np.float64] = np.array([68.0, 101_325.0, 120.0]) + driven * [3.0, 900.0, 8.0] + noise
    return made


def _smooth(driver: NDArray[np.float64], kept: float) -> NDArray[np.float64]:
    path = itertools.accumulate(driver.tolist(), lambda state, x: kept * state + x)
    return np.fromiter(path, np.float64, len(driver))


# -- cameras -----------------------------------------------------------------------------------------------------------


def cameras(simulated: bytes) -> list[Line]:
    """Frames of four cameras in several forms, two of which begin later, and what is no frame."""
    rng = np.random.default_rng(74)
    lines: list[Line] = []
    seen = 0
    for text in simulated.splitlines():
        frame = json.loads(text)
        camera = frame["camera_id"]
        at = round(datetime.fromisoformat(frame["timestamp"]).timestamp() * 1000)
        seen += camera == "camera-02"
        if camera == "camera-02" and seen <= 250:
            continue
        odd = rng.random()
        if odd < 0.05:
            frame |= _in_another_form(frame["value_base64"], odd < 0.025)
        elif odd < 0.06:
            frame["timestamp"] = _rfc3339(at - 60_000)  # older than the last one
        lines.append(Line(at + 50, 0, camera, json.dumps(frame)))
        if camera == "camera-02" and seen > 560:  # another one that sees the same
            lines.append(Line(at + 60, 0, "camera-04", json.dumps({**frame, "camera_id": "camera-04"})))
        if odd > 0.99:
            lines.append(Line(at + 50, 0, camera, _no_frame(frame, int(rng.integers(6)))))
    return lines


def _in_another_form(value: str, raw: bool) -> dict[str, Any]:
    """The picture as raw pixels, or as a larger file in colour."""
    picture = Image.open(io.BytesIO(base64.b64decode(value)))
    if raw:
        return {
            "value_base64": base64.b64encode(picture.tobytes()).decode(),
            "shape": [picture.height, picture.width],
            "dtype": "uint8",
        }
    out = io.BytesIO()
    picture.resize((42, 42)).convert("RGB").save(out, "PNG")
    return {"value_base64": base64.b64encode(out.getvalue()).decode()}


def _no_frame(frame: dict[str, Any], kind: int) -> str:
    value = base64.b64decode(frame["value_base64"])
    bad: dict[str, Any] = [
        {**frame, "value_base64": base64.b64encode(b"text").decode()},
        {**frame, "value_base64": base64.b64encode(value[:150]).decode()},
        {**frame, "value_base64": ""},
        {"timestamp": frame["timestamp"], "value_base64": frame["value_base64"]},
        {**frame, "value_base64": "AAAA", "shape": [28, 28], "dtype": "uint8"},
        {**frame, "timestamp": "noon"},
    ][kind]
    return json.dumps(bad)


def _rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
