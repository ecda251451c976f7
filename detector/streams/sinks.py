"""Where messages go: an append-only file, standard output, the log."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
from abc import ABC, abstractmethod
from pathlib import Path
from typing import BinaryIO

from detector.errors import OperationError, UserError
from detector.streams.files import failing_as, failure, make_directory, size_of_regular, sync_directory, write_all

_log = logging.getLogger(__name__)


class Sink(ABC):
    """One output of lines. What is added is held until `flush`."""

    def __init__(self) -> None:
        self._held: list[bytes] = []

    def check(self, length: int | None) -> None:  # noqa: B027 - most sinks have nothing to check
        """Make sure that the output can go on after `length` bytes; None: it must be new. Changes nothing.

        Raises `UserError`.
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

    def sync(self) -> None:  # noqa: B027 - only a file can be durable
        """Make what was passed on durable. Raises `OperationError`."""

    @property
    def length(self) -> int | None:
        """Bytes passed on, where they can be cut back; None elsewhere."""
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

    @property
    def length(self) -> int:
        return self._length

    def check(self, length: int | None) -> None:
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
                todo="Put the file back, or start over with --fresh",
            )

    def open(self, length: int) -> None:
        make_directory(self._path.parent)
        with failing_as("write the output", self._path):
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            if os.fstat(self._fd).st_size > length:
                os.ftruncate(self._fd, length)
            os.fsync(self._fd)
            sync_directory(self._path.parent)
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

    def _cut_back(self) -> None:
        """After a failed write: a reader shall not see half a line."""
        if self._fd is not None:
            try:
                os.ftruncate(self._fd, self._length)
            except OSError:
                _log.warning("%s ends within a line; the next start cuts it back", self._path)


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
