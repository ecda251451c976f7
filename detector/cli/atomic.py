"""Files of the commands that are there in whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Where to write what becomes `path` when the block is over; nothing of it stays if the block fails.

    Raises OSError.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):  # gone when it was renamed
            part.unlink()
