"""Files of the commands that are there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from detector.errors import unwritable
from detector.streams.files import open_anew


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Where to write what becomes `path` when the block is over; nothing of it stays if the block fails.

    The file is there, and empty. Raises OSError, UserError where a symbolic link stands in its place.
    """
    part = path.with_name(f".{path.name}.part")
    os.close(open_anew(part, 0o666))
    try:
        yield part
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):  # gone when it was renamed
            part.unlink()


def write_file(directory: Path, name: str, content: bytes) -> None:
    """Write a file into a directory, which is made if need be; whole or not at all. Raises DetectorError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with atomic_write(directory / name) as part:
            part.write_bytes(content)
    except OSError as error:
        raise unwritable(error, name, where=str(directory), todo="Make room, or name another --out") from error
