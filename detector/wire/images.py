"""Bytes into frames: PNG, JPEG and raw pixels, as grey (h, w) float32 in [0, 1].

What comes in is not trusted: the size in bytes and in pixels is looked at before anything is decoded, and whatever the
decoder says is damaged is refused. A frame depends on its bytes alone, so it may be decoded on any thread.

- A colour image becomes grey (ITU-R 601 luma); what is transparent lies on black; 16-bit grey keeps its depth.
- Another size than the model's is resized, without regard to proportions. Orientation tags are not followed.
- Of an animated image the first frame is taken.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from threading import Condition
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from detector.arrays import F32
from detector.config.settings import LimitsConfig
from detector.wire.readings import FrameReason, Reason, show

# Pillow's own limit warns or raises depending on the size; ours is looked at for every image, before it is decoded.
Image.MAX_IMAGE_PIXELS = None

_FORMATS: Final = ("PNG", "JPEG")
_DTYPES: Final = {
    "uint8": "u1", "u1": "u1", "|u1": "u1", "uint16": "<u2", "<u2": "<u2", ">u2": ">u2",
    "float32": "<f4", "<f4": "<f4", ">f4": ">f4", "float64": "<f8", "<f8": "<f8", ">f8": ">f8",
}  # fmt: skip
_SHAPE: Final = re.compile(r"[\[(]?\s*(\d{1,9})\s*[,x]\s*(\d{1,9})\s*(?:[,x]\s*(\d{1,9})\s*)?,?\s*[\])]?", re.ASCII)
_WHITE: Final = {"u1": np.float32(255), "<u2": np.float32(65535), ">u2": np.float32(65535)}
_LUMA: Final = (0.299, 0.587, 0.114)
_SCAN: Final = b"\xff\xda"
MAX_SCANS: Final = 200
"""A progressive JPEG has some ten scans. One of thousands is small and takes minutes to decode."""
_SCANNED: Final = 16
"""Scans of the largest image allowed; smaller ones may have more of them."""
_STRIP: Final = 64
"""Rows laid on black at a time, so that a large image is not copied whole."""
_DRAFT: Final = 2
"""A JPEG is decoded at a reduced scale where that leaves this many times the model's size, to be resized from there."""


class PixelBudget:
    """Bounds the pixels that threads decode at the same time. One image above the budget is decoded alone."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._taken = 0
        self._free = Condition()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Wait until this many pixels may be decoded, and hold them."""
        with self._free:
            self._free.wait_for(lambda: not self._taken or self._taken + pixels <= self._pixels)
            self._taken += pixels
        try:
            yield
        finally:
            with self._free:
                self._taken -= pixels
                self._free.notify_all()


class Refused(Exception):  # noqa: N818  (an outcome, not an error)
    """What came is no frame."""

    def __init__(self, reason: Reason | FrameReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class RawForm:
    """How raw pixels lie: `shape` (h, w) or (h, w, channels), rows from the top; `dtype` as numpy names it."""

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    @lru_cache(maxsize=64)  # a camera's headers are the same every time
    def of(cls, shape: str | None, dtype: str | None) -> RawForm:
        """What the headers `shape` and `dtype` say. Raises Refused."""
        if shape is None or dtype is None:
            missing = "shape" if shape is None else "dtype"
            raise Refused("malformed", f"raw pixels need the headers shape and dtype; there is no {missing}")
        match = _SHAPE.fullmatch(shape.strip())
        if match is None:
            raise Refused("malformed", f"shape {show(shape)} is not height,width or height,width,channels")
        known = _DTYPES.get(dtype.strip())
        if known is None:
            raise Refused("malformed", f"dtype {show(dtype)} is none of uint8, uint16, float32, float64")
        return cls(tuple(int(number) for number in match.groups() if number is not None), known)


def decode(
    value: bytes,
    shape: tuple[int, int],
    limits: LimitsConfig,
    raw: RawForm | None = None,
    budget: PixelBudget | None = None,
) -> tuple[F32, bool]:
    """The frame (h, w) of `shape`, and whether it had another size. `raw`: the value is pixels of that form.

    `budget` bounds what several threads decode together. Raises Refused.
    """
    budget = budget or PixelBudget(limits.pixels)
    if not value:
        raise Refused("empty", "the record has no value")
    if len(value) > limits.bytes:
        raise Refused("too_many_bytes", f"{len(value)} bytes; frames.limits.bytes allows {limits.bytes}")
    if raw is not None:
        with budget.of(math.prod(raw.shape[:2])):
            return _from_pixels(_raw_pixels(value, raw, limits), shape)
    try:
        with Image.open(io.BytesIO(value), formats=_FORMATS) as image:
            pixels = _check_size(image.height, image.width, limits)
            if isinstance(image, JpegImageFile):
                _check_scans(value, pixels, limits)
            with budget.of(pixels):
                return _from_image(image, shape)
    except UnidentifiedImageError:
        raise Refused("malformed", "neither PNG nor JPEG") from None
    except (Refused, MemoryError):
        raise
    except Exception as error:
        # Its decoders raise what they like: OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, ...
        raise Refused("damaged", f"the image cannot be decoded: {str(error)[:100]}") from None


def _check_scans(value: bytes, pixels: int, limits: LimitsConfig) -> None:
    """Every scan goes over the whole image, so a small file can take minutes. The marker stands nowhere else."""
    scans = value.count(_SCAN)
    if scans > MAX_SCANS or scans * pixels > _SCANNED * max(limits.pixels, pixels):
        raise Refused("damaged", f"a JPEG of {scans} scans; some ten are usual")


def _check_size(height: int, width: int, limits: LimitsConfig) -> int:
    """The number of pixels."""
    if height * width > limits.pixels:
        raise Refused("too_many_pixels", f"{width} x {height} pixels; frames.limits.pixels allows {limits.pixels}")
    if height * width == 0:
        raise Refused("empty", f"{width} x {height} pixels")
    return height * width


def _from_image(image: Image.Image, shape: tuple[int, int]) -> tuple[F32, bool]:
    height, width = shape
    resized = image.size != (width, height)
    if isinstance(image, JpegImageFile) and image.mode in ("L", "RGB"):
        image.draft("L", (_DRAFT * width, _DRAFT * height))
    image.load()
    if image.mode.startswith("I"):  # 16 bits a pixel; `I` is how they come out of some files
        pixels = np.asarray(image).astype(np.float32)
        if isinstance(transparent := image.info.get("transparency"), int):
            pixels[pixels == transparent] = 0
        pixels /= np.float32(65535)
        return _from_pixels(pixels, shape)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        grey = _on_black(image)
    else:
        grey = image if image.mode == "L" else image.convert("L")
    if grey.size != (width, height):
        grey = grey.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(grey).astype(np.float32) / np.float32(255), resized


def _on_black(image: Image.Image) -> Image.Image:
    """A transparent image as grey, a strip at a time."""
    grey = Image.new("L", image.size)
    for top in range(0, image.height, _STRIP):
        strip = (0, top, image.width, min(top + _STRIP, image.height))
        colours = image.crop(strip).convert("RGBA")
        ground = Image.new("RGBA", colours.size, (0, 0, 0, 255))
        ground.alpha_composite(colours)
        grey.paste(ground.convert("L"), strip)
    return grey


def _raw_pixels(value: bytes, raw: RawForm, limits: LimitsConfig) -> F32:
    """Pixels (h, w) in [0, 1], as large as they came."""
    channels = raw.shape[2] if len(raw.shape) == 3 else 1
    if channels not in (1, 3):
        raise Refused("channel_mismatch", f"{channels} channels; expected 1 (grey) or 3 (red, green, blue)")
    _check_size(raw.shape[0], raw.shape[1], limits)
    dtype = np.dtype(raw.dtype)
    expected = math.prod(raw.shape) * dtype.itemsize
    if len(value) != expected:
        shape = " x ".join(map(str, raw.shape))
        raise Refused("shape_mismatch", f"{len(value)} bytes; {shape} of {dtype.name} are {expected}")
    numbers = np.frombuffer(value, dtype=dtype).reshape(*raw.shape[:2], channels)
    if dtype.kind == "f":
        if not ((numbers >= 0) & (numbers <= 1)).all():  # NaN is neither
            raise Refused("bad_value", f"a pixel of {dtype.name} lies outside 0 to 1")
        pixels = numbers.astype(np.float32)
    else:
        pixels = numbers.astype(np.float32)
        pixels /= _WHITE[raw.dtype]
    if channels == 1:
        return pixels[:, :, 0]
    red, green, blue = (pixels[:, :, i] * np.float32(weight) for i, weight in enumerate(_LUMA))
    grey: F32 = red + green + blue
    return grey


def _from_pixels(pixels: F32, shape: tuple[int, int]) -> tuple[F32, bool]:
    if pixels.shape == shape:
        return np.ascontiguousarray(pixels), False
    resized = Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32).clip(0, 1), True
