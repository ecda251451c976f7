"""Images of every kind, made for tests."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.arrays import U8


def grey(seed: int = 0, height: int = 28, width: int = 28) -> U8:
    """Random pixels (height, width)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def smooth(height: int = 28, width: int = 28) -> U8:
    """Pixels that a lossy format and a change of size leave nearly alone."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels: U8 = (40 + 120 * (rows / height) + 60 * (columns / width)).astype(np.uint8)
    return pixels


def image_bytes(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """An image as a file."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def png(pixels: NDArray[Any], **options: Any) -> bytes:
    return image_bytes(Image.fromarray(pixels), **options)


def jpeg(pixels: NDArray[Any], **options: Any) -> bytes:
    return image_bytes(Image.fromarray(pixels), "JPEG", **{"quality": 95, **options})


def bomb(width: int = 100_000, height: int = 100_000) -> bytes:
    """A PNG of a few hundred bytes that says it has this many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
