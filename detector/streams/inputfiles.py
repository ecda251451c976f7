"""Inputs that are files: one that grows, read like a log, and one that has to be converted, read to its end."""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from abc import abstractmethod
from pathlib import Path
from typing import BinaryIO

from detector.errors import UserError
from detector.streams.base import Partition
from detector.streams.files import failing_as, failure, legible, size_of_regular
from detector.streams.gzipped import GzipText
from detector.streams.lines import MAX_LINE, Recognise, Start
from detector.streams.sources import CHUNK, Source
from detector.streams.texts import TABLES, UTF_16_MARKS, PlainText, TableText, Text, Utf8Text

_FINGERPRINT_BYTES = 4096
_PUT_BACK = "Put the file back, with what is new behind what was read, or start over with --fresh"

_log = logging.getLogger(__name__)


def is_csv(path: Path) -> bool | None:
    """What the name of a file says about its records: CSV, JSON lines, or None for no opinion."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    if kind == ".csv" or kind in TABLES:
        return True
    return False if kind in {".jsonl", ".ndjson", ".json"} else None


def source_for(
    partition: Partition,
    path: Path,
    *,
    until_end: bool,
    chunk: int = CHUNK,
    max_line: int = MAX_LINE,
    recognise: Recognise | None = None,
) -> Source:
    """The source that reads the file `path`, by its name, or the mark at its beginning.

    `recognise` makes what batches of a CSV file have for a header. Raises `UserError` if the file may not be read.
    """
    if path.suffix.lower() in {".gz", *TABLES} or (until_end and _is_utf16(path)):
        return ConvertedFile(partition, path, chunk=chunk, max_line=max_line, recognise=recognise)
    return TailedFile(partition, path, until_end=until_end, chunk=chunk, max_line=max_line, recognise=recognise)


def _is_utf16(path: Path) -> bool:
    if size_of_regular(path) is None:
        return False
    with failing_as("read the input", path), open(path, "rb") as file:
        return file.read(2) in UTF_16_MARKS


class _FileSource(Source):
    def __init__(
        self, partition: Partition, path: Path, chunk: int, max_line: int, recognise: Recognise | None
    ) -> None:
        super().__init__(partition, str(path), legible(path.name), is_csv(path), chunk, max_line, recognise)
        self._path = path
        self._file: BinaryIO | None = None
        self._absent = False  # at `open`

    def open(self, start: Start, fingerprint: bytes | None) -> None:
        self._lines = self._cutter(start)
        self._absent = not self._attach(start.position, fingerprint)
        if self._absent:
            _log.info("waiting for the input %s", self._path)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @abstractmethod
    def _attach(self, position: int, fingerprint: bytes | None) -> bool:
        """Open the file and make sure of what lies before `position`. False if there is none yet."""

    def _open_file(self, position: int) -> BinaryIO | None:
        """The file, unbuffered, if it exists; it has to if something was read of it before."""
        if size_of_regular(self._path) is None:
            if position:
                raise self._missing(position)
            return None
        try:
            return open(self._path, "rb", buffering=0)
        except OSError as error:
            raise failure("read the input", self._path, error) from error

    def _missing(self, position: int) -> UserError:
        return UserError(
            f"the input is not there any more, and was already read up to byte {position}",
            where=self._where,
            todo=_PUT_BACK,
        )

    def _shorter(self, size: int, position: int) -> UserError:
        held = f"{size} byte{'s' * (size != 1)}"
        return UserError(
            f"the input has {held} and was already read up to byte {position}: it was cut or replaced",
            where=self._where,
            todo=_PUT_BACK,
        )

    def _changed(self, position: int) -> UserError:
        return UserError(
            f"the input is not the file that was read up to byte {position}: its content differs before that byte",
            where=self._where,
            todo=_PUT_BACK,
        )


class TailedFile(_FileSource):
    """A file that others append to; with `until_end` only the lines that begin before its end at `open`.

    With `until_end` a last line without a line end is taken as it is: what is appended to it later is another line.
    A file that is replaced by another while it is read goes on if the new one has the same bytes up to here, which
    is how editors and copying programs append. At each read the first bytes of the file and those just before the
    position are compared with what was read: a file that was rewritten, or cut and grown beyond the position since,
    would lose what lies before the position.
    """

    def __init__(
        self,
        partition: Partition,
        path: Path,
        *,
        until_end: bool,
        chunk: int = CHUNK,
        max_line: int = MAX_LINE,
        recognise: Recognise | None = None,
    ) -> None:
        super().__init__(partition, path, chunk, max_line, recognise)
        self._until_end = until_end
        self._position = 0  # of the next byte to read
        self._end = 0  # of the file when it was opened
        self._identity = (0, 0)
        self._head = b""  # the first bytes as they were read
        self._tail = b""  # the last ones before the position

    def open(self, start: Start, fingerprint: bytes | None) -> None:
        self._position = start.position
        super().open(start, fingerprint)
        self._end = self._size()
        if not start.within_line:
            self._tell_of_half_a_line()

    def _tell_of_half_a_line(self) -> None:
        """What was handed out last may have been the beginning of a line that was still written."""
        if self._file is None or self._tail[-1:] in (b"", b"\n"):
            return
        with failing_as("read the input", self._path):
            following = os.pread(self._file.fileno(), 1, self._position)
        if following not in (b"", b"\r", b"\n"):
            _log.warning(
                "%s: the line before byte %d was read when only that much of it was there, and what follows is read as "
                "another line; follow a file that is still written without --until-end",
                self._path, self._position,
            )  # fmt: skip

    def at_end(self) -> bool:
        drained = self._drained if self._until_end else not self._lines.pending
        return self._position >= self._end and drained

    def lag(self) -> int:
        end = self._end if self._until_end else self._size()
        return max(0, end - self._lines.position)

    def fingerprint(self, position: int) -> bytes | None:
        if self._file is None or not position:
            return None
        with failing_as("read the input", self._path):
            found = _fingerprint(*_evidence(self._file.fileno(), position))
        self._refuse_another()  # of which the fingerprint would be, and be believed by the next process
        return found

    def _attach(self, position: int, fingerprint: bytes | None) -> bool:
        file = self._open_file(position)
        if file is None:
            return False
        try:
            with failing_as("read the input", self._path):
                status = os.fstat(file.fileno())
                if status.st_size < position:
                    raise self._shorter(status.st_size, position)
                head, tail = _evidence(file.fileno(), position)
                if fingerprint is not None and _fingerprint(head, tail) != fingerprint:
                    raise self._changed(position)
        except BaseException:
            file.close()
            raise
        self.close()
        self._file = file
        self._identity = (status.st_dev, status.st_ino)
        self._head, self._tail = head, tail
        return True

    def _fill(self) -> int:
        if self._file is None:
            if self._until_end or not self._attach(0, None):
                return 0
            _log.info("the input %s is there", self._path)
        if self._until_end and self._position >= self._end:
            return self._fill_last_line()
        text = self._next(min(self._chunk, self._end - self._position) if self._until_end else self._chunk)
        if not text:
            return int(self._replaced())
        self._feed(text)
        return len(text)

    def _fill_last_line(self) -> int:
        """Read on to the end of a line that began before the end: whoever appends may have been within it."""
        if not self._lines.incomplete:
            return 0
        text, line_end, _ = self._next(self._chunk).partition(b"\n")
        if not text and not line_end:
            return self._finish()
        self._feed(text + line_end)
        return len(text + line_end)

    def _feed(self, text: bytes) -> None:
        if not self._position and text.startswith(UTF_16_MARKS):
            raise UserError(
                "a file in UTF-16 is read as a whole only",
                where=self._where,
                todo="Give --until-end, or save it as UTF-8",
            )
        self._position += len(text)
        self._head += text[: _FINGERPRINT_BYTES - len(self._head)]
        self._tail = (self._tail + text[-_FINGERPRINT_BYTES:])[-_FINGERPRINT_BYTES:]
        self._lines.feed(text)

    def _next(self, length: int) -> bytes:
        assert self._file is not None  # noqa: S101
        with failing_as("read the input", self._path):
            text = os.pread(self._file.fileno(), length, self._position)
        self._refuse_another()  # afterwards: what comes in between is seen, too
        return text

    def _refuse_another(self) -> None:
        """Raise unless what lies before the position is what was read."""
        assert self._file is not None  # noqa: S101
        size = self._size()
        if size < self._position:
            raise self._shorter(size, self._position)
        with failing_as("read the input", self._path):
            found = _evidence(self._file.fileno(), self._position)
        if found != (self._head, self._tail):
            raise self._changed(self._position)

    def _size(self) -> int:
        return 0 if self._file is None else os.fstat(self._file.fileno()).st_size

    def _replaced(self) -> bool:
        """Nothing more to read: is this still the file it was? Whether another took its place and goes on."""
        if self._until_end:
            raise UserError(
                f"the input was cut from {self._end} to {self._size()} bytes while it was read",
                where=self._where,
                todo="Put the file back and start again",
            )
        with failing_as("look at the input", self._path):
            try:
                status = os.stat(self._path)
            except FileNotFoundError:
                if self._position:
                    raise self._missing(self._position) from None
                return False
        if (status.st_dev, status.st_ino) == self._identity:
            return False
        return self._attach(self._position, _fingerprint(self._head, self._tail))


class ConvertedFile(_FileSource):
    """A file of gzip, UTF-16 or a table, read to its end and not beyond. Positions are those of its text in UTF-8.

    A position can only be reached by converting what lies before it, which is done a chunk a read, too.
    """

    def __init__(
        self,
        partition: Partition,
        path: Path,
        *,
        chunk: int = CHUNK,
        max_line: int = MAX_LINE,
        recognise: Recognise | None = None,
    ) -> None:
        super().__init__(partition, path, chunk, max_line, recognise)
        self._text: Text | None = None
        self._head = b""
        self._reached = 0  # of the text
        self._begin = 0  # where the first line begins that is ours
        self._known: bytes | None = None  # the fingerprint of what lies before
        self._ended = False

    def at_end(self) -> bool:
        return self._absent or (self._ended and self._drained)

    def lag(self) -> int:
        """Bytes of the file that are left; how many they are as text only reading tells."""
        if self._file is None or self._text is None:
            return 0
        return max(0, os.fstat(self._file.fileno()).st_size - self._file.tell()) + self._text.held

    def fingerprint(self, position: int) -> bytes | None:
        if self._reached < self._begin:
            return self._known
        return _fingerprint(self._head[:position]) if position else None

    def _attach(self, position: int, fingerprint: bytes | None) -> bool:
        self._file = self._open_file(position)
        if self._file is None:
            return False
        self._text = self._converted(self._file)
        self._head = b""
        self._ended = False
        self._reached, self._begin, self._known = 0, position, fingerprint
        if position:
            self._go_on()  # tells other files by their beginning, before anything else is opened
        return True

    def _fill(self) -> int:
        if self._file is None and not self._attach(0, None):
            return 0
        if self._reached < self._begin:
            return self._go_on()
        text = self._next(self._chunk)
        if text:
            self._lines.feed(text)
        elif self._text is not None and self._text.ended:
            self._ended = True
            return self._finish()
        return len(text) or self._chunk  # a file may be read for long and give no text

    def _go_on(self) -> int:
        """Convert a chunk of what was dealt with by an earlier process; how much work that was."""
        assert self._text is not None  # noqa: S101
        text = self._next(min(self._chunk, self._begin - self._reached))
        head = self._head[: self._begin]
        if len(head) >= min(_FINGERPRINT_BYTES, self._begin) and self._known not in (None, _fingerprint(head)):
            raise self._changed(self._begin)
        if self._reached < self._begin and self._text.ended:
            raise self._shorter(self._reached, self._begin)
        return len(text) or self._chunk

    def _converted(self, file: BinaryIO) -> Text:
        suffix = self._path.suffix.lower()
        if suffix in TABLES:
            return TableText(file, self._path)
        return Utf8Text(GzipText(file) if suffix == ".gz" else PlainText(file))

    def _next(self, length: int) -> bytes:
        assert self._text is not None  # noqa: S101
        try:
            text = self._text.read(length)
        except (EOFError, zlib.error) as error:
            raise UserError(
                f"the compressed input is damaged or incomplete: {error}",
                where=self._where,
                todo="Copy or compress it again",
            ) from error
        except UnicodeDecodeError as error:
            raise UserError(
                f"the input is no UTF-16, as its first bytes say: {error.reason}",
                where=self._where,
                todo="Save it as UTF-8",
            ) from error
        except OSError as error:
            raise failure("read the input", self._path, error) from error
        if len(self._head) < _FINGERPRINT_BYTES:
            self._head += text[: _FINGERPRINT_BYTES - len(self._head)]
        self._reached += len(text)
        return text


def _evidence(fd: int, position: int) -> tuple[bytes, bytes]:
    """The first bytes of a file, and the last ones before `position`."""
    length = min(_FINGERPRINT_BYTES, position)
    return os.pread(fd, length, 0), os.pread(fd, length, position - length)


def _fingerprint(*pieces: bytes) -> bytes:
    return hashlib.sha256(b"".join(pieces)).digest()
