"""What stands in a model's ONNX file, read without the package `onnx`, which a serving process does not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from detector.arrays import F32

_VARINT, _WIDE, _BYTES, _NARROW = 0, 1, 2, 5
_GRAPH: Final = 7
_NODE, _CONSTANT = 1, 5
_INPUT, _OPERATOR = 1, 4
_SHAPE, _TYPE, _NAME, _CONTENT = 1, 2, 8, 9
_FLOAT: Final = 1


class Node(NamedTuple):
    """An operation, and the names of what goes into it."""

    operator: str
    inputs: Sequence[str]


class Graph(NamedTuple):
    """Operations in their order, and by name the constants that are 32-bit numbers."""

    nodes: Sequence[Node]
    constants: Mapping[str, F32]


def read_graph(content: bytes) -> Graph:
    """The graph of a serialised model. Raises ValueError for what is none, or none that `training.onnx_export` writes.

    >>> read_graph(b"no model")
    Traceback (most recent call last):
    ValueError: ...
    """
    (graph,) = _parts(content, _GRAPH)
    nodes = []
    for message in _parts(graph, _NODE):
        (operator,) = _parts(message, _OPERATOR)
        nodes.append(Node(operator.decode(), [name.decode() for name in _parts(message, _INPUT)]))
    return Graph(nodes, dict(map(_constant, filter(_is_float, _parts(graph, _CONSTANT)))))


def _is_float(message: bytes) -> bool:
    return (_TYPE, _FLOAT) in _fields(message)


def _constant(message: bytes) -> tuple[str, F32]:
    """Name and values of a constant."""
    shape = [value for number, value in _fields(message) if number == _SHAPE and isinstance(value, int)]
    (name,), (values,) = _parts(message, _NAME), _parts(message, _CONTENT)
    return name.decode(), np.frombuffer(values, dtype="<f4").reshape(shape)


def _parts(message: bytes, number: int) -> list[bytes]:
    """The fields of that number which hold bytes."""
    return [value for found, value in _fields(message) if found == number and isinstance(value, bytes)]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message of Protocol Buffers: their numbers and what they hold. Raises ValueError."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, form = key >> 3, key & 7
        if form == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if form == _BYTES:
            size, at = _varint(message, at)
        elif form in (_WIDE, _NARROW):
            size = 8 if form == _WIDE else 4
        else:
            raise ValueError(f"no field has the form {form}")
        if at + size > len(message):
            raise ValueError("the message is cut off")
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, seven bits a byte, lowest first, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(message):
            break
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("the message is cut off")
