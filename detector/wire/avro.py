"""Avro readings as documents that a mapping can look into: the wire format of Confluent's schema registry.

A value is a zero byte, the schema's number in four bytes, and the record without a header. What does not begin so is
JSON, as verdicts are.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from detector.errors import UserError, in_brief, is_foreseen
from detector.streams.schemas import Schema
from detector.wire.documents import Rejected, read_json

MAGIC: Final = b"\0"
_HEAD: Final = 5
_MOST: Final = 10_000
"""This many schemas are remembered."""
_DEEPEST: Final = 64
"""Levels that a schema may have."""
_LARGEST: Final = 10_000
"""Values of one record, those of arrays and maps counted once."""
_FEWEST: Final = {"null": 0, "float": 4, "double": 8}
"""Bytes that a value takes at least; of other kinds 1."""


class AvroDocuments:
    """Reads the documents of records. `schema` gives that of a number, None where the registry knows none.

    Raises UserError where fastavro is not installed.
    """

    def __init__(self, schema: Callable[[int], Schema | None]) -> None:
        try:
            import fastavro
        except ImportError:
            raise UserError(
                "readings in Avro are read through fastavro, which is not installed",
                where="streams.kafka.schema_registry",
                todo="Run `pip install 'detector[avro]'`",
            ) from None
        self._schema = schema
        self._parse, self._reader = fastavro.parse_schema, fastavro.schemaless_reader
        self._parsed: dict[int, Any] = {}

    def __call__(self, value: bytes | None) -> object:
        """The document that a record holds. Raises Rejected, and whatever `schema` raises."""
        if value is None or not value.startswith(MAGIC):
            return read_json(value)
        if len(value) < _HEAD:
            raise Rejected("malformed", "the number of a schema is cut off")
        number = int.from_bytes(value[1:_HEAD], "big")
        parsed = self._of(number)
        rest = io.BytesIO(value[_HEAD:])
        try:
            document = self._reader(rest, parsed, None)
        except Exception as error:  # of many kinds, by what is wrong with the bytes
            if is_foreseen(error) and not isinstance(error, OSError):
                raise
            raise Rejected("malformed", f"not Avro of schema {number}: {in_brief(error)}") from None
        if rest.read(1):
            raise Rejected("malformed", f"not Avro of schema {number}: something follows the record")
        return _plain(document)

    def _of(self, number: int) -> Any:
        if number not in self._parsed:
            if len(self._parsed) >= _MOST:
                self._parsed.clear()
            self._parsed[number] = self._asked(number)
        found = self._parsed[number]
        if isinstance(found, str):
            raise Rejected("malformed", found)
        return found

    def _asked(self, number: int) -> Any:
        """The schema, parsed; a text that says why there is none."""
        schema = self._schema(number)
        if schema is None:
            return f"the registry does not know the schema {number}"
        if schema.kind != "AVRO":
            return f"the schema {number} is {schema.kind}, not Avro"
        try:
            named: dict[str, Any] = {}
            for one in schema.references:
                self._parse(_bare(one), named)
            parsed = self._parse(_bare(schema.definition), named)
            _Extent(named).of(parsed)
            return parsed
        except Exception as error:
            if is_foreseen(error):
                raise
            return f"the schema {number} cannot be used: {in_brief(error)}"


class _Extent:
    """How large a record may be: fastavro follows any schema, and by some a few bytes ask for any number of values.

    A schema that contains itself is as deep as the bytes say, and ends the process; an array of what takes no bytes is
    as long. `named`: parsed definitions by full name.
    """

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._known: dict[str, tuple[int, int]] = {}
        self._open: set[str] = set()

    def of(self, schema: Any, depth: int = 0) -> tuple[int, int]:
        """The fewest bytes that a value takes, and the most values it holds. Raises ValueError without a bound."""
        if depth > _DEEPEST:
            raise ValueError(f"it has more than {_DEEPEST} levels")
        if isinstance(schema, list):
            parts = [self.of(one, depth + 1) for one in schema]
            return 1, max((values for _, values in parts), default=0) + 1
        if isinstance(schema, str):
            return self._of_name(schema, depth)
        kind = schema["type"]
        if kind in ("record", "error"):
            return self._of_record(schema, depth)
        if kind == "fixed":
            return int(schema["size"]), 1
        if kind == "enum":
            return 1, 1
        if kind in ("array", "map"):
            fewest, values = self.of(schema["items" if kind == "array" else "values"], depth + 1)
            if kind == "array" and not fewest:
                raise ValueError("what an array holds takes no bytes, so it may be of any length")
            return 1, values + 1
        return self.of(kind, depth + 1)

    def _of_name(self, name: str, depth: int) -> tuple[int, int]:
        if name not in self._named:
            return _FEWEST.get(name, 1), 1
        if name not in self._known:
            if name in self._open:
                raise ValueError(f"{name} contains itself")
            self._known[name] = self.of(self._named[name], depth + 1)
        return self._known[name]

    def _of_record(self, schema: Any, depth: int) -> tuple[int, int]:
        self._open.add(schema["name"])
        parts = [self.of(field["type"], depth + 1) for field in schema["fields"]]
        self._open.discard(schema["name"])
        values = sum(values for _, values in parts) + 1
        if values > _LARGEST:
            raise ValueError(f"a record has more than {_LARGEST} values")
        return sum(fewest for fewest, _ in parts), values


def _bare(schema: Any) -> Any:
    """A schema without the meanings of numbers: a time stays the number it is, whose unit its size tells."""
    if isinstance(schema, list):
        return [_bare(one) for one in schema]
    if isinstance(schema, Mapping):
        kept = schema.get("logicalType") == "decimal"
        return {name: _bare(part) for name, part in schema.items() if kept or name != "logicalType"}
    return schema


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, Decimal):
        return float(value)
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
