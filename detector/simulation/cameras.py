"""Simulated cameras: what a fixed camera above a machine sees, with faults that are labelled. No data set, seeded.

A healthy picture is a lit scene with a gauge whose hand moves, a belt whose marks pass by, and a lamp; brightness
wanders with the day, and there is noise. Cameras differ in where things are. The first part of every camera is free of
faults, to train on; all cameras end when the plant does. The same arguments give the same bytes.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image

from detector.arrays import F64, I64, U8
from detector.simulation.plant import Label, healthy_rows
from detector.times import rfc3339

CAMERA_FAULTS: Final = ("stain", "foreign-object", "shifted", "dark", "broken-gauge")
SIZE: Final = 28
INTERVAL: Final = 10 * 10**9
"""ns between two frames of a camera."""
MAX_FRAMES: Final = 1_000_000
_NOISE: Final = 0.02
_ROWS_PER_FAULT: Final = 250
_DURATION: Final = (25, 70)
"""Frames that a fault lasts."""
_LEAST_FRAMES_FOR_A_FAULT: Final = 200


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera: `times` (n,) ns; frame i is `picture(i)`. The first `healthy_frames` have no fault."""

    camera_id: str
    times: I64
    healthy_frames: int
    labels: tuple[Label, ...]
    faults: tuple[tuple[str, int, int], ...]
    seed: tuple[int, ...]

    def picture(self, number: int) -> U8:
        """The frame (28, 28), 8-bit grey; its random numbers are its own."""
        rng = np.random.default_rng((*self.seed, number))
        kind = next((name for name, start, stop in self.faults if start <= number < stop), None)
        return _scene_of(self.seed).frame(number, kind, rng)


class _Scene:
    """What stands before a camera."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._y, self._x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
        self._gauge = rng.uniform(8, 11, 2)
        self._belt = float(rng.uniform(20, 24))
        self._period = float(rng.uniform(6, 9))
        self._lamp = rng.uniform((3, 20), (6, 24))
        self._light = rng.uniform(0, 2 * math.pi)
        self._spot = rng.uniform((12, 6), (18, 20))
        gradient = (self._x * math.cos(self._light) + self._y * math.sin(self._light)) / SIZE
        self._ground = 0.42 + 0.12 * gradient

    def frame(self, number: int, fault: str | None, rng: np.random.Generator) -> U8:
        picture = self._ground.copy()
        broken = fault == "broken-gauge"  # its light is out, and the hand hangs down
        self._disc(picture, self._gauge, 6.0, 0.45 if broken else 0.75)
        self._hand(picture, rng.uniform(-0.9, 0.9) + (math.pi if broken else 0.0))
        marks = np.sin((self._x + rng.uniform(0, self._period)) * 2 * math.pi / self._period) > 0
        belt = np.abs(self._y - self._belt) < 2.5
        picture[belt] = np.where(marks, 0.65, 0.25)[belt]
        self._disc(picture, self._lamp, 1.8, 0.95)
        if fault == "stain":
            self._disc(picture, self._spot, 4.0, 0.12)
        elif fault == "foreign-object":
            top, left = (int(place) for place in self._spot)
            picture[top - 3 : top + 3, left - 4 : left + 4] = 0.9
        elif fault == "shifted":
            picture = np.roll(picture, (4, 5), axis=(0, 1))
        elif fault == "dark":
            picture *= 0.45
        picture *= 1.0 + 0.06 * math.sin(number / 200.0) + rng.normal(0, 0.01)
        picture += rng.normal(0, _NOISE, picture.shape)
        pixels: U8 = (picture.clip(0, 1) * 255).round().astype(np.uint8)
        return pixels

    def _disc(self, picture: F64, centre: Sequence[float] | F64, radius: float, level: float) -> None:
        distance = np.hypot(self._y - centre[0], self._x - centre[1])
        cover = (radius + 0.5 - distance).clip(0, 1)
        picture += cover * (level - picture)

    def _hand(self, picture: F64, angle: float) -> None:
        """A dark hand from the gauge's middle to its rim; upwards at 0."""
        dy, dx = self._y - self._gauge[0], self._x - self._gauge[1]
        along = -dy * math.cos(angle) + dx * math.sin(angle)
        across = np.abs(dy * math.sin(angle) + dx * math.cos(angle))
        cover = (1.5 - across).clip(0, 1) * ((along > -0.5) & (along < 5.5))
        picture += cover * (0.1 - picture)


@lru_cache(maxsize=64)
def _scene_of(seed: tuple[int, ...]) -> _Scene:
    return _Scene(np.random.default_rng(seed))


def simulate_cameras(*, cameras: int, frames: int, end: int, seed: int, faults: bool = True) -> tuple[Camera, ...]:
    """Simulate `frames` frames of each of `cameras` cameras, the last ones just before `end` (ns).

    Kinds of fault take turns over cameras. Raises ValueError for arguments out of range.

    >>> (camera,) = simulate_cameras(cameras=1, frames=3, end=10**18, seed=0)
    >>> camera.camera_id, camera.picture(0).shape, camera.picture(0).dtype
    ('camera-01', (28, 28), dtype('uint8'))
    """
    if cameras < 0 or frames < 1 or cameras * frames > MAX_FRAMES:
        raise ValueError(f"{cameras} cameras of {frames} frames are not between 0 and {MAX_FRAMES} frames")
    width = max(2, len(str(cameras)))
    turn = itertools.cycle(CAMERA_FAULTS)
    return tuple(
        _camera(f"camera-{index + 1:0{width}d}", index, frames, end, seed, turn if faults else None)
        for index in range(cameras)
    )


def _camera(name: str, index: int, frames: int, end: int, seed: int, turn: Iterator[str] | None) -> Camera:
    rng = np.random.default_rng([seed, 2, index])
    times = end - (index + 1) * 10**8 - np.arange(frames - 1, -1, -1, dtype=np.int64) * INTERVAL
    healthy = healthy_rows(frames)
    room = frames - healthy
    planned: list[tuple[str, int, int]] = []
    if turn is not None and room >= _LEAST_FRAMES_FOR_A_FAULT:
        slots = max(1, room // _ROWS_PER_FAULT)
        length = room // slots
        for slot in range(slots):
            duration = int(rng.integers(*_DURATION))
            start = healthy + slot * length + int(rng.integers(length // 10, length * 9 // 10 - duration))
            planned.append((next(turn), start, start + duration))
    labels = tuple(Label(name, int(times[start]), int(times[stop - 1]), kind) for kind, start, stop in planned)
    return Camera(name, times, healthy, labels, tuple(planned), (seed, 3, index))


def frame_lines(cameras: Sequence[Camera]) -> Iterator[bytes]:
    """Yield every frame as a JSON line with a PNG, all cameras together in the order of time."""
    times = [
        (time, index, number) for index, one in enumerate(cameras) for number, time in enumerate(one.times.tolist())
    ]
    for time, index, number in sorted(times):
        camera = cameras[index]
        frame = {
            "camera_id": camera.camera_id,
            "timestamp": rfc3339(time),
            "value_base64": base64.b64encode(_png(camera.picture(number))).decode("ascii"),
        }
        yield json.dumps(frame).encode() + b"\n"


def _png(pixels: U8) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
