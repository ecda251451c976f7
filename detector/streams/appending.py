"""One line for a file that others append to, too."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from detector.errors import OperationError, UserError
from detector.streams.files import failing_as, refuse_link
from detector.streams.inputfiles import is_csv

PATIENCE: Final = 5.0
"""Seconds in which whoever is within a line may end it."""
_STEP: Final = 0.05
_LOOK: Final = 4096


def append_line(
    path: Path,
    line: bytes,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Append a line of JSON, without its end, behind the last complete line of a file, in one piece and durably.

    Who else appends through this waits. Raises UserError for a file that has no lines of JSON, OperationError where the
    last line has no end and gets none.
    """
    refuse_link(path)
    _refuse_others(path)
    deadline = clock() + PATIENCE
    with failing_as("write to the stream", path):
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            while not _ends_a_line(fd):
                if clock() >= deadline:
                    raise OperationError(
                        "its last line has no end, somebody may be writing it",
                        where=str(path),
                        todo="Try again; if nobody writes there any more, end the line",
                    )
                sleep(_STEP)
            before = os.fstat(fd).st_size
            data = line + b"\n"
            if os.write(fd, data) != len(data):
                os.ftruncate(fd, before)
                raise OperationError("there is no room for the line", where=str(path), todo="Make room on the disk")
            os.fsync(fd)
        finally:
            os.close(fd)


def _ends_a_line(fd: int) -> bool:
    size = os.fstat(fd).st_size
    return not size or os.pread(fd, 1, size - 1) == b"\n"


def _refuse_others(path: Path) -> None:
    with failing_as("read the stream", path), open(path, "rb") as file:
        begin = file.read(_LOOK).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    packed = path.suffix.lower() == ".gz"
    if packed or is_csv(path) or begin not in (b"", b"{", b"["):
        raise UserError(
            f"{'a compressed file' if packed else 'a CSV file'} cannot carry a verdict",
            where=str(path),
            todo="Use a stream of JSON lines",
        )
