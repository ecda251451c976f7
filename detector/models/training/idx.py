"""Images in an IDX file, the form in which Fashion-MNIST is published; a `.gz` is read as well."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Final

import numpy as np

from detector.arrays import U8
from detector.errors import UserError

_BYTES: Final = 0x08
_GZIP: Final = b"\x1f\x8b"
_TODO: Final = "Give a file of images with one byte a pixel"


def read_idx(path: Path, dimensions: int = 3) -> U8:
    """The array of bytes in an IDX file: images (n, h, w), or labels (n,) with `dimensions=1`. Raises UserError."""
    try:
        content = path.read_bytes()
        if content[:2] == _GZIP:
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read the file: {error}", where=str(path), todo="Give another one") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _BYTES or content[3] != dimensions:
        raise UserError(f"this is no IDX file of bytes in {dimensions} dimensions", where=str(path), todo=_TODO)
    begin = 4 + 4 * dimensions
    if len(content) < begin:
        raise UserError("the IDX file ends within its header", where=str(path), todo=_TODO)
    shape = struct.unpack(f">{dimensions}I", content[4:begin])
    expected = int(np.prod(shape, dtype=object))
    if len(content) - begin != expected:
        raise UserError(
            f"the IDX file should have {expected} bytes of shape {shape}, it has {len(content) - begin}",
            where=str(path),
            todo="Fetch it again",
        )
    return np.frombuffer(content, dtype=np.uint8, offset=begin).reshape(shape)


def is_idx(path: Path) -> bool:
    """Whether a file begins like an IDX file of images. Raises OSError."""
    with path.open("rb") as file:
        if file.read(2) != _GZIP:
            file.seek(0)
            return file.read(4) == bytes([0, 0, _BYTES, 3])
    try:
        with gzip.open(path) as unpacked:
            return unpacked.read(4) == bytes([0, 0, _BYTES, 3])
    except (EOFError, zlib.error):
        return False
