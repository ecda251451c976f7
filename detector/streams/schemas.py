"""What a schema registry says of the values of a topic."""

from __future__ import annotations

from typing import Any, NamedTuple


class Schema(NamedTuple):
    """A schema: its language, such as AVRO, its definition, and those it refers to, what these need first."""

    kind: str
    definition: Any
    references: tuple[Any, ...] = ()
