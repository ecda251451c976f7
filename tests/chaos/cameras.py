"""Cameras under fire beside the sensors: frames with faults, repeated, late and broken ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.chaos.load import Item
from tests.framemodels import textured_frames
from tests.tinycam import SHAPE

CAMERAS = 6
CAMERA_PARTITIONS = 2
_BLOCK = 256
_HEALTHY = 300
_HEADERS = [("content-type", b"application/octet-stream"), ("shape", b"%d,%d" % SHAPE), ("dtype", b"uint8")]


def camera_name(camera: int) -> str:
    """A camera's id."""
    return f"camera-{camera:02d}"


def camera_items(seed: int, started: int, cameras: int = CAMERAS) -> Iterator[Item]:
    """All frames, without end: one a camera for every second of event time from `started` (epoch s) on."""
    rng = np.random.default_rng([seed, 5])
    period, length = rng.integers(150, 400, cameras), rng.integers(8, 40, cameras)
    block = 0
    while True:
        pictures = [textured_frames(_BLOCK, SHAPE, seed=1000 * block + 10 * camera + seed) for camera in range(cameras)]
        for row in range(_BLOCK):
            tick = block * _BLOCK + row
            odd = rng.random(cameras)
            for camera in range(cameras):
                picture = np.round(pictures[camera][row] * 255).astype(np.uint8)
                if tick > _HEALTHY and tick % period[camera] < length[camera]:
                    picture[3:9, 4:12:2], picture[3:9, 5:12:2] = 255, 0
                yield from _frame(camera, started + tick, picture.tobytes(), odd[camera])
        block += 1


def _frame(camera: int, stamp: int, pixels: bytes, odd: float) -> Iterator[Item]:
    def item(value: bytes, stamp: int) -> Item:
        headers = [*_HEADERS, ("timestamp", str(stamp).encode())]
        return Item(camera % CAMERA_PARTITIONS, camera_name(camera).encode(), value, 1, headers)

    if odd < 0.004:
        yield item(pixels[:-3], stamp)  # cut off
    elif odd < 0.008:
        yield item(pixels, stamp)
        yield item(pixels, stamp)
    elif odd < 0.012:
        yield item(pixels, stamp - 60)
    else:
        yield item(pixels, stamp)
