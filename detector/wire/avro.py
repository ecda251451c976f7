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
            return self._parse(_bare(schema.definition), named)
        except Exception as error:
            if is_foreseen(error):
                raise
            return f"the schema {number} cannot be used: {in_brief(error)}"


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
