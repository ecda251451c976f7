"""`train --preset textbook`: the three autoencoders layer by layer as tutorials of Keras have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.models.bundle.spec import TEXTBOOK_FRAMES, FrameSpec, ModelSpec, textbook_of_readings
from detector.models.runtime.onnx import OnnxRuntime
from detector.models.training.architectures import build
from detector.models.training.onnx_export import to_onnx

CONV = {"kernel_size": (3, 3), "strides": (1, 1), "padding": "same"}
LAYERS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "dense": [
        ("Flatten", {}),
        ("Dense", {"units": 32, "activation": "relu"}),
        ("Dense", {"units": 100, "activation": "sigmoid"}),
        ("Reshape", {"target_shape": (100, 1)}),
    ],
    "lstm": [
        ("LSTM", {"units": 32, "activation": "tanh", "return_sequences": False}),
        ("RepeatVector", {"n": 100}),
        ("LSTM", {"units": 32, "activation": "tanh", "return_sequences": True}),
        ("Dense", {"units": 1, "activation": "linear"}),
    ],
    "conv": [
        ("Conv2D", {"filters": 16, "activation": "relu", **CONV}),
        ("MaxPooling2D", {"pool_size": (2, 2)}),
        ("Conv2D", {"filters": 8, "activation": "relu", **CONV}),
        ("MaxPooling2D", {"pool_size": (2, 2)}),
        ("Flatten", {}),
        ("Dense", {"units": 32, "activation": "relu"}),
        ("Dense", {"units": 392, "activation": "relu"}),
        ("Reshape", {"target_shape": (7, 7, 8)}),
        ("Conv2DTranspose", {"filters": 8, "activation": "relu", **CONV}),
        ("UpSampling2D", {"size": (2, 2)}),
        ("Conv2DTranspose", {"filters": 16, "activation": "relu", **CONV}),
        ("UpSampling2D", {"size": (2, 2)}),
        ("Conv2D", {"filters": 1, "activation": "sigmoid", **CONV}),
    ],
}
INPUTS = {"dense": (None, 100, 1), "lstm": (None, 100, 1), "conv": (None, 28, 28, 1)}
SCALERS = {"dense": "minmax", "lstm": "standard", "conv": "minmax"}


def spec_of(kind: str) -> ModelSpec | FrameSpec:
    return TEXTBOOK_FRAMES if kind == "conv" else textbook_of_readings(kind, ("value",))


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_are_those_of_the_textbook(kind: str) -> None:
    model = build(spec_of(kind))
    assert model.input_shape == model.output_shape == INPUTS[kind]
    assert [type(layer).__name__ for layer in model.layers] == [name for name, _ in LAYERS[kind]]
    for layer, (_, expected) in zip(model.layers, LAYERS[kind], strict=True):
        config = layer.get_config()
        assert {key: tuple(had) if isinstance(had := config[key], list) else had for key in expected} == expected
    assert spec_of(kind).scaler == SCALERS[kind]


@pytest.mark.parametrize("kind", LAYERS)
def test_the_export_computes_the_same(kind: str) -> None:
    spec = spec_of(kind)
    model = build(spec)
    random = np.random.default_rng(0)
    for layer in model.layers:  # initial biases are 0 and would hide a mistake with them
        layer.set_weights([random.normal(0, 0.2, weight.shape) for weight in layer.get_weights()])
    data = random.uniform(0, 1, (20, *spec.shape)).astype(np.float32)
    runtime = OnnxRuntime.load(to_onnx(model, spec), spec.kind)
    np.testing.assert_allclose(runtime(data), np.asarray(model(data)), rtol=1e-4, atol=1e-5)
