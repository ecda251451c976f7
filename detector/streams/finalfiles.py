"""An input that another process of ours writes: only what its checkpoint says is final is read.

What lies beyond may be cut back after a crash, and written again. A writer that starts over empties its file: what was
read is waited for until it is there again, byte for byte.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from detector.streams.base import Partition
from detector.streams.checkpoint import CheckpointFile
from detector.streams.inputfiles import TailedFile
from detector.streams.lines import MAX_LINE, Start
from detector.streams.sources import CHUNK

_log = logging.getLogger(__name__)


class FinalFile(TailedFile):
    """A file that is an output of a process whose checkpoint lies in one of `writers`; without one all is final."""

    def __init__(
        self,
        partition: Partition,
        path: Path,
        *,
        writers: Sequence[Path],
        until_end: bool,
        chunk: int = CHUNK,
        max_line: int = MAX_LINE,
    ) -> None:
        super().__init__(partition, path, until_end=until_end, chunk=chunk, max_line=max_line)
        self._checkpoints = [CheckpointFile(writer) for writer in writers]
        self._looked: list[
            tuple[int, int, int] | None
        ] = []  # what told the checkpoints from others when they were read
        self._final: int | None = None
        self._told = False  # that it is waited for
        self._expected: tuple[int, bytes | None] | None = None  # what is waited for: position and fingerprint

    def open(self, start: Start, fingerprint: bytes | None) -> None:
        self._looked, self._expected = [], None
        super().open(start, fingerprint)
        final = self._length()
        self._end = self._end if final is None else min(self._end, final)

    def fingerprint(self, position: int) -> bytes | None:
        if self._expected is not None:
            return self._expected[1]
        return super().fingerprint(position)

    def lag(self) -> int:
        final = self._length()
        return super().lag() if final is None else max(0, min(self._size(), final) - self._lines.position)

    def _attach(self, position: int, fingerprint: bytes | None) -> bool:
        if self._expected is not None:
            position, fingerprint = self._expected
        if self._cut_back(position):
            self._expected = position, fingerprint
            return False
        self._expected = None
        return super()._attach(position, fingerprint)

    def _next(self, length: int) -> bytes:
        final = self._length()
        if final is None:
            return super()._next(length)
        room = final - self._position
        return super()._next(min(length, room)) if room > 0 else b""

    def _replaced(self) -> bool:
        return False if self._cut_back(self._position) else super()._replaced()

    def _refuse_another(self) -> None:
        if not self._cut_back(self._position):
            super()._refuse_another()

    def _cut_back(self, position: int) -> bool:
        final = self._length()
        cut = final is not None and final < position
        if cut and not self._told:
            _log.warning(
                "%s was read up to byte %d, and %d are final: waiting until its writer is as far again",
                self._path, position, final,
            )  # fmt: skip
        self._told = cut
        return cut

    def _length(self) -> int | None:
        """Bytes of the file that are final; None where nothing says so."""
        found = [_identity(checkpoint.path) for checkpoint in self._checkpoints]
        if found != self._looked:
            lengths = [checkpoint.lengths().get(self.partition.stream) for checkpoint in self._checkpoints]
            self._final = next((length for length in lengths if length is not None), None)
            self._looked = found
        return self._final


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
