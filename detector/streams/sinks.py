"""Where messages go: an append-only file, standard output, the log."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import select
from abc import ABC, abstractmethod
from pathlib import Path
from typing import BinaryIO

from detector.errors import OperationError, UserError
from detector.streams.files import (
    failing_as,
    failure,
    make_directory,
    refuse_link,
    size_of_regular,
    sync_directory,
    write_all,
)

_TAIL_BYTES = 4096
_PUT_BACK = "Put the file back, or start over with --fresh"

_log = logging.getLogger(__name__)


class Sink(ABC):
    """One output of lines. What is added is held until `flush`."""

    def __init__(self) -> None:
        self._held: list[bytes] = []

    def check(self, length: int | None, ending: bytes | None = None) -> None:  # noqa: B027 - most have nothing to check
        """Make sure that the output can go on after `length` bytes; None: it must be new. Changes nothing.

        `ending` is what `ending` gave there, None if that is not known. Raises `UserError`.
        """

    def open(self, length: int) -> None:  # noqa: B027 - most sinks have nothing to open
        """Be ready for more after `length` bytes, durably without anything beyond them."""

    def add(self, line: bytes) -> None:
        """Hold one line (without its line end) for the next `flush`."""
        self._held.append(line + b"\n")

    def flush(self) -> bool:
        """Pass on what is held, so that readers see it; whether there was anything. Raises `OperationError`.

        What could not be passed on stays held, and no part of it is left behind where that can be helped.
        """
        if not self._held:
            return False
        self._pass_on(b"".join(self._held))
        self._held = []
        return True

    def reopen(self) -> bool:
        """Look whether what was written to is still in its place, and go on there if it is not; whether that was so.

        Then what was passed on is final where it is, and the `length` counts the file in its place. Raises
        `DetectorError`.
        """
        return False

    def sync(self) -> None:  # noqa: B027 - only a file can be durable
        """Make what was passed on durable. Raises `OperationError`."""

    @property
    def length(self) -> int | None:
        """Bytes passed on, where they can be cut back; None elsewhere."""
        return None

    @property
    def ending(self) -> bytes | None:
        """Digest of the last of them; None where there are none."""
        return None

    def close(self) -> None:
        """Let go. What is held is dropped. Never raises."""
        self._held = []

    @abstractmethod
    def _pass_on(self, text: bytes) -> None:
        """Write `text`."""


class FileSink(Sink):
    """An append-only file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._fd: int | None = None
        self._length = 0
        self._synced = 0
        self._tail = b""  # the last bytes passed on

    @property
    def length(self) -> int:
        return self._length

    @property
    def ending(self) -> bytes | None:
        return hashlib.sha256(self._tail).digest() if self._length else None

    def check(self, length: int | None, ending: bytes | None = None) -> None:
        refuse_link(self._path)
        size = size_of_regular(self._path) or 0
        if length is None and size:
            raise UserError(
                "the output exists, and there is no checkpoint that says up to where it is right",
                where=str(self._path),
                todo="Name another output, or overwrite this one with --fresh",
            )
        if length is not None and size < length:
            raise UserError(
                f"the output has {size} bytes, and {length} were written to it: it was cut or removed",
                where=str(self._path),
                todo=_PUT_BACK,
            )
        if length and ending is not None:
            with failing_as("read the output", self._path), open(self._path, "rb", buffering=0) as file:
                tail = _tail_at(file.fileno(), length)
            if hashlib.sha256(tail).digest() != ending:
                raise UserError(
                    f"the output is not the file that {length} bytes were written to: its content differs",
                    where=str(self._path),
                    todo=_PUT_BACK,
                )

    def open(self, length: int) -> None:
        make_directory(self._path.parent)
        with failing_as("write the output", self._path):
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o644)
            if os.fstat(self._fd).st_size > length:
                os.ftruncate(self._fd, length)
            os.fsync(self._fd)
            sync_directory(self._path.parent)
            self._begin_at(length)

    def reopen(self) -> bool:
        if self._fd is None:
            return False
        with failing_as("look at the output", self._path):
            ours = os.fstat(self._fd)
            try:
                there = os.lstat(self._path)
            except FileNotFoundError:
                there = None
        if there is None or not os.path.samestat(there, ours):
            self._begin_anew()
        elif ours.st_size < self._length:
            self._go_on_after_a_cut(ours.st_size)
        else:
            return False
        return True

    def _begin_anew(self) -> None:
        """Another file, or none, has the name: what was written stays where it is, and the rest goes to a new one."""
        refuse_link(self._path)
        if size_of_regular(self._path):
            raise UserError(
                "the output was replaced by a file with something in it while it was written to",
                where=str(self._path),
                todo=_PUT_BACK,
            )
        with failing_as("write the output", self._path):
            assert self._fd is not None  # noqa: S101
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = None
        self.open(0)
        _log.warning("%s was renamed or removed while it was written to; a new file of that name goes on", self._path)

    def _go_on_after_a_cut(self, size: int) -> None:
        with failing_as("read the output", self._path):
            assert self._fd is not None  # noqa: S101
            self._begin_at(size)
        if self._tail[-1:] not in (b"", b"\n"):
            raise UserError(
                f"the output was cut to {size} bytes, within a line, while it was written to",
                where=str(self._path),
                todo=_PUT_BACK,
            )
        _log.warning("%s was cut to %d bytes while it was written to; the next lines follow there", self._path, size)

    def _begin_at(self, length: int) -> None:
        assert self._fd is not None  # noqa: S101
        self._tail = _tail_at(self._fd, length)
        self._length = self._synced = length

    def sync(self) -> None:
        if self._fd is None or self._synced == self._length:
            return
        with failing_as("write the output", self._path):
            os.fsync(self._fd)
        self._synced = self._length

    def close(self) -> None:
        super().close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _pass_on(self, text: bytes) -> None:
        if self._fd is None:
            raise ValueError("the output is not open")
        try:
            write_all(self._fd, text)
        except OSError as error:
            self._cut_back()
            raise failure("write the output", self._path, error) from error
        self._length += len(text)
        self._tail = (self._tail + text[-_TAIL_BYTES:])[-_TAIL_BYTES:]

    def _cut_back(self) -> None:
        """After a failed write: a reader shall not see half a line."""
        if self._fd is not None:
            try:
                os.ftruncate(self._fd, self._length)
            except OSError:
                _log.warning("%s ends within a line; the next start cuts it back", self._path)


def _tail_at(fd: int, length: int) -> bytes:
    """The last bytes of a file's first `length`."""
    count = min(_TAIL_BYTES, length)
    return os.pread(fd, count, length - count)


class StandardOutput(Sink):
    """A pipe or terminal: flushed at once, never cut back. A reader that goes is noticed without anything to say."""

    def __init__(self, handle: BinaryIO) -> None:
        super().__init__()
        self._handle = handle
        self._errors = select.poll()
        with contextlib.suppress(io.UnsupportedOperation):  # a text in memory has no reader
            self._errors.register(handle.fileno(), 0)

    def flush(self) -> bool:
        # Nothing is asked for, so all that is told is that the other end is closed.
        if not self._held and self._errors.poll(0):
            raise self._deserted()
        return super().flush()

    def _pass_on(self, text: bytes) -> None:
        try:
            view = memoryview(text)
            while view:
                view = view[self._handle.write(view) :]  # an unbuffered handle may take a part only
            self._handle.flush()
        except BrokenPipeError as error:
            raise self._deserted() from error
        except OSError as error:
            raise failure("write", Path("standard output"), error) from error

    def _deserted(self) -> OperationError:
        return OperationError(
            "whoever read the output has stopped", where="standard output", todo="Start again with a reader"
        )


class LogSink(Sink):
    """Lines for the log, where an output has no file of its own."""

    def __init__(self, stream: str) -> None:
        super().__init__()
        self._stream = stream

    def _pass_on(self, text: bytes) -> None:
        for line in text.splitlines():
            _log.warning("%s: %s", self._stream, line.decode("utf-8", "replace"))
