"""Files that are not the text they hold: UTF-16, and tables of Parquet and Arrow, read piece by piece as UTF-8 text.

Each reader has the interface of `detector.streams.gzipped.GzipText`: `read`, `ended`, `held`.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from detector.errors import UserError, in_brief

UTF_16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
TABLES: Final = frozenset({".parquet", ".pq", ".arrow", ".feather", ".ipc"})
"""Endings of files that hold a table."""
_PARQUET: Final = frozenset({".parquet", ".pq"})
_ROWS: Final = 4096


class Text(Protocol):
    """A text that is read piece by piece."""

    @property
    def ended(self) -> bool:
        """Whether the file was read to its end."""
        ...

    @property
    def held(self) -> int:
        """Bytes of the file that were read and not turned into text yet."""
        ...

    def read(self, length: int) -> bytes:
        """The next `length` bytes of text, or about as many; less or nothing does not say that it has ended."""
        ...


class PlainText:
    """A file as it is."""

    held = 0

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.ended = False

    def read(self, length: int) -> bytes:
        """The next bytes. Raises OSError."""
        text = self._file.read(length)
        self.ended = not text
        return text


class Utf8Text:
    """A text in UTF-8, whichever of UTF-8 and UTF-16 the mark at its beginning says it is in."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._begun = b""
        self._decoder: codecs.IncrementalDecoder | None = None
        self._known = False
        self._rest = b""
        """Text beyond what was asked for: a mark is two bytes, and a letter of UTF-16 may take three in UTF-8."""

    @property
    def held(self) -> int:
        """What the text below holds."""
        return self._text.held

    @property
    def ended(self) -> bool:
        """Whether the text was read to its end."""
        return self._text.ended and not self._rest

    def read(self, length: int) -> bytes:
        """The next piece. Raises what the text below raises, and UnicodeDecodeError where it is no UTF-16."""
        if not self._rest:
            self._rest = self._more(length)
        text, self._rest = self._rest[:length], self._rest[length:]
        return text

    def _more(self, length: int) -> bytes:
        text = self._text.read(length)
        if not self._known:
            self._begun += text
            if len(self._begun) < 2 and not self._text.ended:
                return b""
            text, self._begun, self._known = self._begun, b"", True
            if text.startswith(UTF_16_MARKS):
                self._decoder = codecs.getincrementaldecoder("utf-16")()
        if self._decoder is None:
            return text
        return self._decoder.decode(text, final=self._text.ended).encode("utf-8", "replace")


class TableText:
    """A table of Parquet or Arrow as CSV, a header and its rows; columns that are no single cell are left out.

    Raises UserError where pyarrow is missing, or the file is no such table.
    """

    held = 0

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._path = path
        self._rest = memoryview(b"")
        self.ended = False
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError(
                "tables of Parquet and Arrow are read through pyarrow, which is not installed",
                where=str(path),
                todo="Install it (`pip install 'detector[parquet]'`), or export the file as CSV",
            ) from None
        self._pieces = self._guarded(file)

    def read(self, length: int) -> bytes:
        """The next piece."""
        if not self._rest:
            piece = next(self._pieces, None)
            self.ended = piece is None
            self._rest = memoryview(piece or b"")
        text, self._rest = bytes(self._rest[:length]), self._rest[length:]
        return text

    def _guarded(self, file: BinaryIO) -> Iterator[bytes]:
        import pyarrow

        try:
            yield from _csv_pieces(file, parquet=self._path.suffix.lower() in _PARQUET)
        except pyarrow.ArrowException as error:
            raise UserError(
                f"this is no table that can be read: {in_brief(error)}",
                where=str(self._path),
                todo="Export it again, or as CSV",
            ) from error


def _csv_pieces(file: BinaryIO, *, parquet: bool) -> Iterator[bytes]:
    import pyarrow
    from pyarrow import csv

    header = True
    for batch in _batches(file, parquet=parquet):
        table = _of_cells(pyarrow.Table.from_batches([batch]))
        written = io.BytesIO()
        options = csv.WriteOptions(include_header=header, quoting_style="needed")
        csv.write_csv(table, written, options)
        header = False
        yield written.getvalue()


def _batches(file: BinaryIO, *, parquet: bool) -> Iterator[Any]:
    import pyarrow
    from pyarrow import ipc

    if parquet:
        from pyarrow.parquet import ParquetFile

        yield from ParquetFile(file).iter_batches(_ROWS)
        return
    try:
        reader = ipc.open_file(file)
    except pyarrow.ArrowInvalid:
        file.seek(0)
        yield from ipc.open_stream(file)
        return
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _of_cells(table: Any) -> Any:
    """The columns that CSV has cells for, decimals as floats."""
    from pyarrow import float64, types

    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if types.is_decimal(column.type) or types.is_float16(column.type):
            column = column.cast(float64())
        if not types.is_nested(column.type) and not types.is_binary(column.type) and name not in columns:
            columns[name] = column
    return type(table).from_pydict(columns)
