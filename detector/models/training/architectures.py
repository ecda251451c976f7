"""The autoencoders, built with Keras: float32 windows (n, 100, C), or frames (n, h, w, 1), in, the same shape out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from detector.models.bundle.spec import FrameSpec, ModelSpec
from detector.models.training.tensorflow_setup import load_tensorflow


def build(spec: ModelSpec | FrameSpec) -> Any:
    """Build the untrained Keras model of `spec`. Initial weights follow Keras' global random seed."""
    return _conv(spec) if isinstance(spec, FrameSpec) else _BUILDERS[spec.kind](spec)


def save(model: Any, path: Path) -> None:
    """Write the model as a `.keras` file."""
    with warnings.catch_warnings():
        # Keras hands its variables to numpy in a way numpy deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        model.save(path)


def _dense(spec: ModelSpec) -> Any:
    """The window flattened, hidden layers with ReLU, and back: 100 C -> hidden ... -> 100 C."""
    _, keras = load_tensorflow()
    rows, channels = spec.shape
    layers = keras.layers
    model = keras.Sequential(name="dense")
    model.add(keras.Input(spec.shape, name="windows"))
    model.add(layers.Flatten())
    for width in spec.hidden:
        model.add(layers.Dense(width, activation="relu"))
    model.add(layers.Dense(rows * channels, activation=spec.activation))
    model.add(layers.Reshape(spec.shape))
    return model


def _lstm(spec: ModelSpec) -> Any:
    """One LSTM reads the window into its last state, a second one unrolls that state into 100 rows.

    The output layer works on the last axis of the 3-D tensor, which is one product for all rows.
    """
    _, keras = load_tensorflow()
    rows, channels = spec.shape
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(spec.shape, name="windows"),
            layers.LSTM(spec.units),
            layers.RepeatVector(rows),
            layers.LSTM(spec.units, return_sequences=True),
            layers.Dense(channels, activation=spec.activation),
        ],
        name="lstm",
    )


def _conv(spec: FrameSpec) -> Any:
    """Two convolutions with pooling, a dense code, and their mirror with transposed convolutions and upsampling.

    Where textbooks differ in a layer, `spec.textbook` says so.
    """
    _, keras = load_tensorflow()
    layers = keras.layers
    first, second = spec.filters
    h, w, depth = spec.pooled
    last = layers.Conv2D if spec.textbook else layers.Conv2DTranspose
    return keras.Sequential(
        [
            keras.Input(spec.shape, name="frames"),
            layers.Conv2D(first, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(second, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(spec.units, activation="relu" if spec.textbook else None),
            layers.Dense(h * w * depth, activation="relu"),
            layers.Reshape(spec.pooled),
            layers.Conv2DTranspose(second, 3, padding="same", activation="relu"),
            layers.UpSampling2D(),
            layers.Conv2DTranspose(first, 3, padding="same", activation="relu"),
            layers.UpSampling2D(),
            last(1, 3, padding="same", activation=spec.activation),
        ],
        name="conv",
    )


_BUILDERS = {"dense": _dense, "lstm": _lstm}
