"""Where records come from: one text each, cut into batches. None ever waits while it reads."""

from __future__ import annotations

import io
import os
import select
from abc import ABC, abstractmethod
from pathlib import Path
from typing import BinaryIO

from detector.errors import UserError
from detector.streams.base import Batch, Partition
from detector.streams.files import failure
from detector.streams.lines import MAX_LINE, LineCutter, Recognise, Start

CHUNK = 1024 * 1024
"""Bytes read at once, and so the bytes a poll may hold (plus one line) and the work it may do, blank lines or not."""


class Source(ABC):
    """One input text. `place` is its name in a checkpoint."""

    def __init__(
        self,
        partition: Partition,
        where: str,
        place: str,
        csv: bool | None,
        chunk: int,
        max_line: int,
        recognise: Recognise | None,
    ) -> None:
        self.partition = partition
        self.place = place
        self._where = where
        self._csv = csv
        self._chunk = chunk
        self._max_line = max_line
        self._recognise = recognise
        self._lines = self._cutter(Start())

    @abstractmethod
    def open(self, start: Start, fingerprint: bytes | None) -> None:
        """Begin to read at `start`. `fingerprint` is what `fingerprint` gave for that position, None if unknown.

        A file that does not exist yet is waited for. Raises `UserError` if the text is shorter than the position, is
        another one, or may not be read.
        """

    def read(self, limit: int) -> Batch | None:
        """The next batch of up to `limit` records, or None if there is none now. Raises `DetectorError`.

        It looks at one chunk of text, or little more. A batch without records says that there may be more to look at.
        """
        room = self._chunk
        while (batch := self._lines.take(limit)) is None:
            if room <= 0:
                return self._lines.passed()
            filled = self._fill()
            if not filled and self._lines.undecided:
                self._lines.settle()
                continue
            if not filled:
                self._lines.refuse_bare_returns()
                return self._lines.passed() if self._lines.pending else None
            room -= filled
        return batch

    @abstractmethod
    def at_end(self) -> bool:
        """Whether all that was there at `open` has been handed out."""

    @property
    def reached(self) -> Start:
        """Where reading goes on after the last batch."""
        return self._lines.reached

    @abstractmethod
    def lag(self) -> int:
        """Bytes that are there and not handed out."""

    @abstractmethod
    def fingerprint(self, position: int) -> bytes | None:
        """What tells this text from another, by the bytes before `position` (handed out already)."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file. Never raises."""

    @abstractmethod
    def _fill(self) -> int:
        """Give the next piece of text to the cutter, of which no line waits; how much work that was, 0 if none is left.

        Work is counted in bytes, and at most one chunk at once.
        """

    def _finish(self) -> int:
        """The text has ended: hand out what it has of a last line without a line end; 0 if it has none."""
        incomplete = self._lines.incomplete
        self._lines.finish()
        return int(incomplete)

    @property
    def _drained(self) -> bool:
        return not self._lines.pending and not self._lines.incomplete

    def _cutter(self, start: Start) -> LineCutter:
        return LineCutter(
            self.partition, self._where, csv=self._csv, start=start, max_line=self._max_line, recognise=self._recognise
        )


class StandardInput(Source):
    """A pipe, read to its end. There is no going back in it, so it is read from its start always."""

    def __init__(
        self,
        partition: Partition,
        handle: BinaryIO,
        *,
        chunk: int = CHUNK,
        max_line: int = MAX_LINE,
        recognise: Recognise | None = None,
    ) -> None:
        super().__init__(partition, "standard input", "-", None, chunk, max_line, recognise)
        self._handle = handle
        self._fd: int | None = None
        self._ended = False

    def open(self, start: Start, fingerprint: bytes | None) -> None:
        if start.position or fingerprint:
            raise ValueError("standard input can only be read from its start")
        self._lines = self._cutter(start)
        self._ended = False
        try:
            self._fd = self._handle.fileno()
        except io.UnsupportedOperation:
            self._fd = None  # a text in memory: always ready
        except ValueError as error:
            raise UserError(
                "standard input is closed", where="standard input", todo="Pipe something into it, or name a file"
            ) from error

    def wait(self, seconds: float) -> None:
        """Return when there is something to read or `seconds` have passed."""
        if self._fd is not None and not self._ended:
            self._ready(seconds)

    def at_end(self) -> bool:
        return self._ended and self._drained

    def lag(self) -> int:
        """0: what waits in a pipe is not known."""
        return 0

    def fingerprint(self, position: int) -> bytes | None:
        return None

    def close(self) -> None:
        """Leaves the handle open: it is not ours."""

    def _fill(self) -> int:
        """Gather what is there, up to a chunk: a pipe gives 64 KB at a time, too few for a good batch."""
        pieces: list[bytes] = []
        room = self._chunk
        while room > 0 and not self._ended and self._ready(0.0):
            try:
                piece = self._handle.read(room) if self._fd is None else os.read(self._fd, room)
            except OSError as error:
                raise failure("read", Path("standard input"), error) from error
            if not piece:
                self._ended = True
            pieces.append(piece)
            room -= len(piece)
        text = b"".join(pieces)
        if text:
            self._lines.feed(text)
            return len(text)
        return self._finish() if self._ended else 0

    def _ready(self, seconds: float) -> bool:
        if self._fd is None:
            return True
        poll = select.poll()  # knows regular files (`< file`), which epoll refuses
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000.0))
