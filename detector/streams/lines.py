"""Cuts a text that arrives in pieces into records, one a line. No I/O."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, islice, repeat, takewhile
from operator import add
from typing import Any, cast

from detector.errors import UserError
from detector.streams.base import Batch, LongLine, Partition, Record

MAX_LINE = 16 * 1024 * 1024
"""Bytes of the longest line that is taken: room for a camera frame in base64, and a bound on memory."""

KEPT = 1024 * 1024
"""Bytes that are handed out of a longer one: more than a dead letter holds."""

SEEN = 1000
"""Rows of a CSV file by which it is recognised, at most: those that are there when it is read first."""

SEEN_BYTES = 1024 * 1024
"""Bytes of them, at most, but for one row."""

Recognise = Callable[[bytes, Sequence[bytes], str], bytes]
"""What batches get for a header: of the header's line, the first rows, and the file's name. Raises `UserError`."""

_SEPARATOR_LINE = re.compile(rb"sep=.", re.IGNORECASE)
"""What spreadsheets put before a header."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK = frozenset({b"", b"\r"})
_BARE_RETURN = re.compile(rb"\r[^\r\n]")
_LOOKED_THROUGH = 65_536  # bytes of a first line that should show a bare carriage return, if there are any


@dataclass(frozen=True, slots=True)
class Start:
    """Where the reading of a text goes on: byte position of a line's start, data rows before it, CSV header.

    `within_line`: the position lies within a line that is too long and was handed out; what is left of it is skipped.
    """

    position: int = 0
    row: int = 0
    header: bytes | None = None
    within_line: bool = False


class LineCutter:
    """Makes batches out of pieces of one text.

    A record is a line without its line end (`\\n` or `\\r\\n`); its offset is the byte position of the line's start.
    Empty lines and a byte order mark at the start of the text are skipped. With `csv` the first line is the header
    and no record; `csv=None` decides by it: JSON lines begin with ``{`` or ``[``. With `recognise` the header waits for
    rows: for `SEEN` of them, or for `settle`. A quoted CSV field cannot contain a line break. Text that ends without a
    line end waits for more, until `finish`. Of a line above `max_line` bytes a
    `LongLine` is handed out as soon as it is known to be one, and the rest of it is skipped as it comes.

    >>> cutter = LineCutter(Partition("readings", 0), "readings.jsonl", csv=False)
    >>> cutter.feed(b'{"a": 1}' + bytes([10]) + b'{"b"')
    >>> [(record.offset, record.value) for record in cutter.take(10).records]
    [(0, b'{"a": 1}')]
    """

    def __init__(
        self,
        partition: Partition,
        where: str,
        *,
        csv: bool | None,
        start: Start | None = None,
        max_line: int = MAX_LINE,
        recognise: Recognise | None = None,
    ) -> None:
        start = start or Start()
        self._recognise = recognise
        self._partition = partition
        self._where = where
        self._csv = csv
        self._header = start.header
        self._row = start.row
        self._position = start.position  # of the next line that `take` has not passed yet
        self._told = start.position  # the `next_offset` of the last batch
        self._max_line = max_line
        # The header, or the form of the text, is still to be seen; blank lines may have been passed.
        self._at_head = start.row == 0 and start.header is None
        self._lines: list[bytes] = []
        self._taken = 0
        self._carriage_returns = False
        self._unended = 0  # 1 if the last of `_lines` has no line end
        self._long: deque[int] = deque()  # which of `_lines` are too long
        self._rest = bytearray()
        self._within_line = start.within_line  # all of the text so far ends within a line that is too long

    @property
    def position(self) -> int:
        """Byte position of the first line that was not handed out."""
        return self._position

    @property
    def reached(self) -> Start:
        """Where reading goes on after the last batch."""
        return Start(self._told, self._row, self._header, self._within_line and not self._lines)

    @property
    def incomplete(self) -> bool:
        """Whether the text so far ends within a line that was not handed out."""
        return bool(self._rest)

    @property
    def pending(self) -> bool:
        """Whether complete lines wait for `take`, or for `passed` what was passed over."""
        return (self._taken < len(self._lines) and not self._waits_for_rows) or self._position != self._told

    @property
    def undecided(self) -> bool:
        """Whether a header waits for more rows to be recognised by, and has one."""
        return self._at_head and self._taken < len(self._lines) and not self._waits_for_rows

    @property
    def _waits_for_rows(self) -> bool:
        """Whether there is a header, and no row to recognise it by."""
        if self._recognise is None or not self._at_head or self._csv is False:
            return False
        lines = (line for line in islice(self._lines, self._taken, None) if line not in _BLANK)
        first = next(lines, None)
        if first is None or (self._csv is None and first.lstrip().startswith((b"{", b"["))):
            return False
        if _SEPARATOR_LINE.fullmatch(first.rstrip(b"\r")):
            next(lines, None)
        return next(lines, None) is None

    def feed(self, text: bytes) -> None:
        """Add the next piece of the text. Only once everything pending was taken, or while a header is `undecided`."""
        if self._within_line:
            skipped, line_end, text = text.partition(b"\n")
            self._position += len(skipped + line_end)
            self._within_line = not line_end
        if b"\n" not in text:
            self._rest += text  # grows in place: a long line that comes in small pieces takes no time squared
            if len(self._rest) > self._max_line:
                self._offer([], b"")
            return
        data = bytes(self._rest) + text
        lines = data.split(b"\n")
        self._rest[:] = lines.pop()
        self._offer(lines, data)

    def finish(self) -> None:
        """The text ends here: an incomplete last line is complete."""
        if self._rest:
            self._offer([], bytes(self._rest), end=True)

    def take(self, limit: int) -> Batch | None:
        """Hand out up to `limit` records; None if no line waits but blank ones, which are passed over.

        Raises `UserError` if the line that should be a CSV header is too long for one, and as `refuse_bare_returns`.
        """
        if self._at_head:
            self._take_head(settled=False)
        if self._at_head:
            return None
        while self._taken < len(self._lines):
            offset = self._position
            if self._long and self._long[0] == self._taken:
                self._long.popleft()
                (line,), _ = self._advance(1)
                return self._batch([LongLine(offset, None, line[:KEPT])])
            lines, lengths = self._advance(min(limit, self._long[0] - self._taken) if self._long else limit)
            if self._carriage_returns:
                lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
            if not any(lines):
                continue
            offsets = map(add, accumulate(lengths, initial=offset), count())
            records = _records(offsets, lines)
            if not all(lines):
                records = [record for record in records if record.value]
            if records:
                return self._batch(records)
        return None

    def settle(self) -> None:
        """No more rows come for now: recognise the header by those that are there. Raises as `take`."""
        self._take_head(settled=True)

    def refuse_bare_returns(self) -> None:
        """Raise `UserError` if all there is of the text is a first line that has carriage returns within.

        Whoever writes lines so would wait for ever to see one read.
        """
        if self._at_head:
            self._refuse_bare_returns(self._rest)

    def _refuse_bare_returns(self, line: bytes | bytearray) -> None:
        if _BARE_RETURN.search(line, 0, _LOOKED_THROUGH):
            raise UserError(
                "the lines of the input end with carriage returns alone",
                where=self._where,
                todo="Let them end with line feeds, as `tr '\\r' '\\n'` does",
            )

    def passed(self) -> Batch:
        """A batch without records, up to where blank lines and the rest of a long one were passed over."""
        return self._batch(())

    def _batch(self, records: Sequence[Record]) -> Batch:
        batch = Batch(self._partition, records, self._position, self._header, self._row)
        self._row += len(records)
        self._told = self._position
        return batch

    def _offer(self, lines: list[bytes], data: bytes, *, end: bool = False) -> None:
        """Let the `lines` of `data` wait, and the rest, if it is too long or this is the `end`."""
        too_long = len(self._rest) > self._max_line
        if end or too_long:
            lines.append(bytes(self._rest))
            self._rest.clear()
            self._unended = 1
            self._within_line = too_long
        waiting = self._lines[self._taken :]  # with a header that is still to be recognised
        if self._long or too_long or len(data) > self._max_line:
            before = [index - self._taken for index in self._long]
            after = (len(waiting) + index for index, line in enumerate(lines) if len(line) > self._max_line)
            self._long = deque([*before, *after])
        if self._position == 0 and lines and not waiting:
            self._position = len(_BYTE_ORDER_MARK) if lines[0].startswith(_BYTE_ORDER_MARK) else 0
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
        self._carriage_returns = b"\r" in data or (bool(waiting) and self._carriage_returns)
        self._lines = waiting + lines
        self._taken = 0

    def _advance(self, limit: int) -> tuple[list[bytes], list[int]]:
        lines = self._lines[self._taken : self._taken + limit]
        lengths = list(map(len, lines))
        self._taken += len(lines)
        self._position += sum(lengths) + len(lines)
        if self._taken == len(self._lines):
            self._lines = []
            self._taken = 0
            self._position -= self._unended
            self._unended = 0
        return lines, lengths

    def _take_head(self, *, settled: bool) -> None:
        if blank := sum(1 for _ in takewhile(_BLANK.__contains__, islice(self._lines, self._taken, None))):
            self._advance(blank)
        if not self._lines:
            return
        line = self._lines[self._taken].removesuffix(b"\r")
        if self._unended and self._taken + 1 == len(self._lines):
            self._refuse_bare_returns(line)
        if self._csv is None:
            self._csv = not line.lstrip().startswith((b"{", b"["))
        if self._csv and not self._take_header(line, settled=settled):
            return
        self._at_head = False

    def _take_header(self, line: bytes, *, settled: bool) -> bool:
        """Take the line that is the header; False if rows are missing to recognise it by."""
        if self._long and self._long[0] == self._taken:
            raise UserError(
                f"the first line is longer than {self._max_line} bytes, which is no CSV header",
                where=f"{self._where}:1",
                todo="Give a file of lines, CSV or JSON",
            )
        lines = 1
        if self._recognise is not None:
            if self._waits_for_rows:
                return False
            first = self._taken
            if _SEPARATOR_LINE.fullmatch(line):
                first += 1
                line = self._lines[first].removesuffix(b"\r")
            rows, enough = self._rows_behind(first)
            if not (settled or enough):
                return False
            line = self._recognise(line, rows, self._where)
            lines += first - self._taken
        self._header = line
        self._advance(lines)
        return True

    def _rows_behind(self, header: int) -> tuple[list[bytes], bool]:
        """The rows to recognise a file by, and whether there are as many as may be looked at."""
        rows: list[bytes] = []
        room = SEEN_BYTES
        for index, line in enumerate(islice(self._lines, header + 1, None), header + 1):
            if line in _BLANK:
                continue
            if index in self._long or len(rows) == SEEN or (rows and len(line) > room):
                return rows, True
            room -= len(line)
            rows.append(line.removesuffix(b"\r"))
        return rows, len(rows) == SEEN


def _records(offsets: Iterable[int], lines: list[bytes]) -> list[Record]:
    # Some 0.3 us a record; calling `Record` for each costs half as much again.
    new = cast(Any, tuple.__new__)
    fields = zip(offsets, repeat(None), lines, repeat(None), repeat(()))  # ends with `lines`
    return list(map(new, repeat(Record), fields))
