"""Scoring windows with the LSTM compiled for itself (lstm.c), where it says what ONNX Runtime says."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

import numpy as np

from detector.arrays import F32
from detector.detection.kernel.build import LSTM_SOURCE
from detector.detection.kernel.choice import INTERPRETED, VARIABLE
from detector.detection.kernel.compiled import UnusableError, opened
from detector.models.runtime.checks import Runtime, check_output, check_windows
from detector.models.runtime.onnx_graph import Graph, Node, read_graph

LIBRARY: Final = LSTM_SOURCE.with_suffix(".so")
LANES: Final = 16
"""Of the widest vectors lstm.c knows."""
PAIR: Final = 2
"""That of lstm.c."""

COMPARED: Final = 64
RTOL, ATOL = 2e-4, 2e-5
"""Twice what each may differ by from the model itself (1e-4 and 1e-5, for windows within +-10)."""

_OPERATORS: Final = ("Transpose", "LSTM", "Expand", "LSTM", "Squeeze", "MatMul", "Add")
_ENDS: Final = (("Transpose",), ("Sigmoid", "Transpose"), ("Tanh", "Transpose"))
"""What comes after those, in the order of lstm.c's activations."""
_SIGMOID = _STATE = np.float32(0.5)
"""lstm.c makes a sigmoid of the tanh of half its argument, and holds states doubled; both are in the weights."""


class Layer(NamedTuple):
    """What adds to the gates of U units: weights of inputs (4 U, n) and of states (4 U, U), biases of both (8 U).

    Gates come in ONNX's order: input, output, forget, cell.
    """

    inputs: F32
    states: F32
    biases: F32


class Weights(NamedTuple):
    """Those of an autoencoder of U units and C channels.

    `values` (U, C), `values_bias` (C): from the second layer's states to rows. `activation`: 0 linear, 1 sigmoid,
    2 tanh.
    """

    first: Layer
    second: Layer
    values: F32
    values_bias: F32
    activation: int


def read_weights(content: bytes) -> Weights:
    """The weights in an ONNX file of an LSTM, as `training.onnx_export` writes it. Raises ValueError for any other."""
    try:
        graph = read_graph(content)
    except OverflowError as error:  # sizes that no array can have
        raise ValueError(str(error)) from None
    operators = tuple(node.operator for node in graph.nodes)
    end = operators[len(_OPERATORS) :]
    if operators[: len(_OPERATORS)] != _OPERATORS or end not in _ENDS:
        raise ValueError("its operations are others")
    _, reader, _, writer, _, product, total, *_ = graph.nodes
    try:
        first, second = _layer(graph, reader), _layer(graph, writer)
        values, values_bias = graph.constants[product.inputs[1]], graph.constants[total.inputs[1]]
        units, channels = values.shape
    except (KeyError, IndexError) as error:
        raise ValueError(f"its weights are not where they should be: {error}") from None
    shapes = [array.shape for array in (*first, *second, values_bias)]
    common = [(4 * units, units), (8 * units,)]
    if shapes != [(4 * units, channels), *common, (4 * units, units), *common, (channels,)]:
        raise ValueError(f"its weights do not fit each other: {shapes}")
    return Weights(first, second, values, values_bias, _ENDS.index(end))


def _layer(graph: Graph, node: Node) -> Layer:
    """Of the one direction that an LSTM operator has."""
    inputs, states, biases = (graph.constants[name] for name in node.inputs[1:4])
    return Layer(inputs[0], states[0], biases[0])


class Lstm:
    """Callable: float32 windows (n, rows, C) -> their reconstruction, the same shape.

    The bits of a window's result are the same in any batch. Not bound to a thread.
    """

    name: ClassVar = "the compiled LSTM"

    def __init__(self, weights: Weights, rows: int, library: Path = LIBRARY, *, lanes: int = LANES) -> None:
        """`lanes`: of the widest vectors that may be used. Raises UnusableError if the library cannot be used here."""
        functions = opened(library, LSTM_SOURCE)
        self._rebuild, widest = functions.lstm_rebuild, functions.lstm_lanes
        for function, arguments in ((self._rebuild, 5), (widest, 1)):
            function.argtypes, function.restype = [ctypes.c_int64] * arguments, ctypes.c_int64
        self.lanes: int = widest(lanes)
        if not self.lanes:
            raise UnusableError("this processor has no instructions that it could use")
        units, channels = weights.values.shape
        self.shape = rows, channels
        width = PAIR * self.lanes
        padded = -(-units // width) * width
        sizes = units, padded, width
        of_values = _SIGMOID if weights.activation == 1 else np.float32(1)
        first, second = weights.first, weights.second
        read = np.concatenate([first.inputs, first.states * _STATE], axis=1)
        # The fields of lstm.c's Model: numbers, and arrays, of which it gets the addresses.
        self._fields: list[int | F32] = [
            units, padded, channels, rows, weights.activation,
            *_laid(read, *sizes), _gates(_bias(first), padded),
            *_laid(second.inputs * _STATE, *sizes), _gates(_bias(second), padded),
            *_laid(second.states * _STATE, *sizes), 0,
            np.ascontiguousarray(weights.values.T) * (_STATE * of_values), weights.values_bias * of_values,
        ]  # fmt: skip
        self._model = np.array([part if isinstance(part, int) else part.ctypes.data for part in self._fields])

    def __call__(self, windows: F32) -> F32:
        """Reconstruct windows. Raises ValueError for another shape or dtype."""
        check_windows(windows, self.shape)
        windows = np.ascontiguousarray(windows)
        out = np.empty_like(windows)
        model, here, there = (array.ctypes.data for array in (self._model, windows, out))
        if not self._rebuild(self.lanes, model, len(windows), here, there):
            raise MemoryError
        return out


def _gates(weights: F32, padded: int) -> F32:
    """Of weights (4 U, n) those of lstm.c (4, padded, n), whose order of gates is input, forget, cell, output."""
    into, out, forget, cell = weights.reshape(4, -1, weights.shape[1])
    made = np.zeros((4, padded, weights.shape[1]), dtype=np.float32)
    made[:, : len(into)] = into * _SIGMOID, forget * _SIGMOID, cell, out * _SIGMOID
    return made


def _bias(layer: Layer) -> F32:
    """What both of its biases come to: (4 U, 1)."""
    total: F32 = layer.biases.reshape(2, -1).sum(axis=0)[:, None]
    return total


def _laid(weights: F32, units: int, padded: int, width: int) -> tuple[int, F32, F32]:
    """A layer of lstm.c: how many inputs it has; (units, inputs, 4); and (pairs, inputs, 4, width)."""
    gates = _gates(weights, padded)
    pairs = gates.reshape(4, -1, width, gates.shape[2])
    return (
        gates.shape[2],
        np.ascontiguousarray(gates[:, :units].transpose(1, 2, 0)),
        np.ascontiguousarray(pairs.transpose(1, 3, 0, 2)),
    )


class Choice(NamedTuple):
    """What runs an LSTM, and why that is not the compiled one; None where it is, or where a person asked for that."""

    runtime: Runtime
    reason: str | None


def choose(content: bytes, other: Runtime, shape: tuple[int, ...], library: Path = LIBRARY) -> Choice:
    """The compiled LSTM of an ONNX file, if it says of windows of that `shape` what the `other` runtime says."""
    if os.environ.get(VARIABLE) == INTERPRETED:
        return Choice(other, None)
    try:
        compiled = Lstm(read_weights(content), shape[0], library)
        check_output(compiled, shape)
        check_same(compiled, other)
    except (UnusableError, ValueError) as error:
        return Choice(other, str(error))
    return Choice(compiled, None)


def check_same(compiled: Lstm, other: Runtime) -> None:
    """Raise ValueError unless both make the same of random windows, and `compiled` the same bits in any batch."""
    windows = np.random.default_rng(0).normal(size=(COMPARED, *compiled.shape)).astype(np.float32)
    windows[::2] = np.clip(windows[::2] * 4, -10, 10)
    together = compiled(windows)
    for size in (7, 1):
        parts = [compiled(windows[i : i + size]) for i in range(0, len(windows), size)]
        if np.concatenate(parts).tobytes() != together.tobytes():
            raise ValueError("what it makes of a window depends on the batch")
    expected = other(windows)
    if not np.allclose(together, expected, RTOL, ATOL):
        raise ValueError(f"it differs from ONNX Runtime by {np.abs(together - expected).max():.2g}")
