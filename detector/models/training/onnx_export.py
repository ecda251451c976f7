"""From a trained Keras model to an ONNX graph, written node by node.

The architectures are few and small, so their graphs are written out here: seven nodes for the dense model, nine for
the LSTM, with one `LSTM` operator a layer, twenty for the convolutions. A general converter makes 40 nodes of the LSTM
model, runs a tenth slower, and needs the versions of four libraries to agree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from detector import __version__
from detector.models.bundle.spec import FrameSpec, ModelSpec

INPUT, OUTPUT = "windows", "expected"
OPSET, IR_VERSION = 21, 10

_ACTIVATIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh"}


def to_onnx(model: Any, spec: ModelSpec | FrameSpec) -> bytes:
    """The ONNX form of a Keras model built from `spec`, serialised.

    Input `windows` and output `expected` are float32 (n, 100, C), or (n, h, w, 1) for frames, with n free.
    """
    graph = _Graph()
    shape: list[str | int | None] = ["n", *spec.shape]
    if isinstance(spec, FrameSpec):
        _conv(graph, model, spec)
    else:
        _WRITERS[spec.kind](graph, model, spec)
    body = helper.make_graph(
        graph.nodes,
        spec.kind,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
        graph.constants,
    )
    made = helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="detector",
        producer_version=__version__,
    )
    onnx.checker.check_model(made, full_check=True)
    content: bytes = made.SerializeToString()
    return content


class _Graph:
    """Nodes and constants in the making. Every method returns the name of the tensor it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, port: int = 0, **attributes: Any) -> str:
        """Append a node; its output number `port` is the one that is named and used."""
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [""] * port + [name], **attributes))
        return name

    def affine(self, tensor: str, layer: Any) -> str:
        """A Keras Dense layer on the last axis, without its activation."""
        kernel, bias = (self.constant(weight) for weight in layer.get_weights())
        return self.add("Add", self.add("MatMul", tensor, kernel), bias)

    def activate(self, tensor: str, activation: str) -> str:
        return self.add(_ACTIVATIONS[activation], tensor) if activation in _ACTIVATIONS else tensor

    def convolve(self, tensor: str, kernel: NDArray[Any], bias: NDArray[Any]) -> str:
        """A convolution with padding to the same size, of channels first; kernel (out, in, y, x)."""
        y, x = kernel.shape[2] // 2, kernel.shape[3] // 2
        return self.add("Conv", tensor, self.constant(kernel), self.constant(bias), pads=[y, x, y, x])

    def lstm(self, tensor: str, layer: Any, *, port: int) -> str:
        """A Keras LSTM layer over (rows, n, C): port 0 gives all states (rows, 1, n, U), port 1 the last (1, n, U)."""
        kernel, recurrent, bias = layer.get_weights()
        units = recurrent.shape[0]
        weights = [
            self.constant(_gates(kernel).T[None]),
            self.constant(_gates(recurrent).T[None]),
            self.constant(np.concatenate([_gates(bias), np.zeros_like(bias)])[None]),
        ]
        return self.add("LSTM", tensor, *weights, port=port, hidden_size=units)


def _gates(weights: NDArray[Any]) -> NDArray[Any]:
    """Reorder the last axis from Keras' gates (input, forget, cell, output) to ONNX' (input, output, forget, cell)."""
    into, forget, cell, out = np.split(weights, 4, axis=-1)
    return np.concatenate([into, out, forget, cell], axis=-1)


def _dense(graph: _Graph, model: Any, spec: ModelSpec) -> None:
    layers = [layer for layer in model.layers if layer.get_weights()]
    tensor = graph.add("Reshape", INPUT, graph.constant(np.array([0, -1])))
    for layer in layers[:-1]:
        tensor = graph.add("Relu", graph.affine(tensor, layer))
    tensor = graph.activate(graph.affine(tensor, layers[-1]), spec.activation)
    graph.add("Reshape", tensor, graph.constant(np.array([0, *spec.shape])), output=OUTPUT)


def _lstm(graph: _Graph, model: Any, spec: ModelSpec) -> None:
    reader, writer, dense = (layer for layer in model.layers if layer.get_weights())
    by_row = graph.add("Transpose", INPUT, perm=[1, 0, 2])
    code = graph.lstm(by_row, reader, port=1)
    repeated = graph.add("Expand", code, graph.constant(np.array([spec.window, 1, 1])))
    states = graph.add("Squeeze", graph.lstm(repeated, writer, port=0), graph.constant(np.array([1])))
    values = graph.activate(graph.affine(states, dense), spec.activation)
    graph.add("Transpose", values, output=OUTPUT, perm=[1, 0, 2])


def _conv(graph: _Graph, model: Any, spec: FrameSpec) -> None:
    """Channels come first here and last in Keras, so the dense layers between have their weights reordered.

    A transposed convolution of stride 1 is a convolution with the kernel turned around, which runs faster.
    """
    first, second, code, unfold, *back = (layer for layer in model.layers if layer.get_weights())
    h, w, depth = spec.pooled
    tensor = graph.add("Reshape", INPUT, graph.constant(np.array([0, 1, *spec.image])))
    for layer in (first, second):
        kernel, bias = layer.get_weights()
        tensor = graph.add("Relu", graph.convolve(tensor, kernel.transpose(3, 2, 0, 1), bias))
        tensor = graph.add("MaxPool", tensor, kernel_shape=[2, 2], strides=[2, 2])
    tensor = graph.add("Reshape", tensor, graph.constant(np.array([0, -1])))
    kernel, bias = code.get_weights()
    kernel = kernel.reshape(h, w, depth, -1).transpose(2, 0, 1, 3).reshape(h * w * depth, -1)
    tensor = graph.add("Add", graph.add("MatMul", tensor, graph.constant(kernel)), graph.constant(bias))
    if spec.textbook:
        tensor = graph.add("Relu", tensor)
    kernel, bias = unfold.get_weights()
    kernel = kernel.reshape(-1, h, w, depth).transpose(0, 3, 1, 2).reshape(-1, h * w * depth)
    bias = bias.reshape(h, w, depth).transpose(2, 0, 1).reshape(-1)
    tensor = graph.add("Add", graph.add("MatMul", tensor, graph.constant(kernel)), graph.constant(bias))
    tensor = graph.add("Reshape", graph.add("Relu", tensor), graph.constant(np.array([0, depth, h, w])))
    for layer in back:
        kernel, bias = layer.get_weights()
        if spec.textbook and layer is back[-1]:
            turned = kernel.transpose(3, 2, 0, 1)
        else:
            turned = kernel[::-1, ::-1].transpose(2, 3, 0, 1)
        tensor = graph.convolve(tensor, turned, bias)
        if layer is not back[-1]:
            doubled = graph.constant(np.array([1, 1, 2, 2], dtype=np.float32))
            tensor = graph.add(
                "Resize", graph.add("Relu", tensor), "", doubled,
                mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
            )  # fmt: skip
    tensor = graph.activate(tensor, spec.activation)
    graph.add("Reshape", tensor, graph.constant(np.array([0, *spec.shape])), output=OUTPUT)


_WRITERS = {"dense": _dense, "lstm": _lstm}
