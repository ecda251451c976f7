"""What a model is, as numbers and names: everything that must agree between training, bundle and configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from detector.errors import UserError

WINDOW: Final = 100
READING_KINDS: Final = ("dense", "lstm")
"""The architectures that take windows of readings (n, 100, C)."""
FRAME_KINDS: Final = ("conv",)
"""The architectures that take frames (n, h, w, 1)."""
KINDS: Final = (*READING_KINDS, *FRAME_KINDS)
POOLED: Final = 4
"""Two poolings halve a frame's sides twice; sides that are no multiple would come back shorter."""

_SCALER_OF: Final = {"linear": "standard", "sigmoid": "minmax", "tanh": "symmetric"}
"""An output activation must be able to reach what the scaler makes of the data, and nothing much beyond it."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One architecture with its sizes. Windows have the shape (`window`, `len(channels)`).

    `hidden`: widths of the dense model's hidden layers; `units`: width of the LSTM layers. Raises UserError for an
    unknown kind and for an activation and a scaler that do not belong together.
    """

    kind: str
    channels: tuple[str, ...]
    hidden: tuple[int, ...] = (32,)
    units: int = 32
    activation: str = "linear"
    scaler: str = "standard"
    window: int = WINDOW

    def __post_init__(self) -> None:
        if self.kind not in READING_KINDS:
            raise UserError(
                f"there is no model kind {self.kind!r} for readings", todo=f"Use one of {', '.join(READING_KINDS)}"
            )
        check_pair(self.activation, self.scaler)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of one window: rows, channels."""
        return self.window, len(self.channels)

    @property
    def image(self) -> None:
        """The shape of a frame, which readings have not."""
        return None


@dataclass(frozen=True, slots=True)
class FrameSpec:
    """An architecture for frames of `image` = (h, w) pixels, one channel of grey.

    `filters`: of the two convolutions, whose mirror the decoder is; `units`: width of the code between them;
    `textbook`: ReLU on the code, and a plain convolution as the last layer. Raises UserError for a size that two
    poolings do not divide, and for an activation and a scaler that do not belong together.
    """

    image: tuple[int, int] = (28, 28)
    filters: tuple[int, int] = (16, 8)
    units: int = 32
    activation: str = "linear"
    scaler: str = "standard"
    textbook: bool = False
    kind: str = "conv"

    def __post_init__(self) -> None:
        h, w = self.image
        if h % POOLED or w % POOLED:
            whole = (h // POOLED * POOLED, w // POOLED * POOLED)
            raise UserError(
                f"a model takes frames whose sides are multiples of {POOLED}: {self.image} would come back as {whole}",
                where="training.image",
                todo=f"Use {(max(whole[0], POOLED), max(whole[1], POOLED))} or another such size",
            )
        check_pair(self.activation, self.scaler)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one frame: height, width, 1."""
        return (*self.image, 1)

    @property
    def pooled(self) -> tuple[int, int, int]:
        """Shape of what the convolutions make of a frame."""
        return self.image[0] // POOLED, self.image[1] // POOLED, self.filters[1]


def check_pair(activation: str, scaler: str) -> None:
    """Raise UserError unless the output activation goes with the scaler of the data."""
    if _SCALER_OF.get(activation) != scaler:
        pairs = ", ".join(f"{one} with {other}" for one, other in _SCALER_OF.items())
        raise UserError(
            f"output activation {activation} does not go with scaler {scaler}",
            where="training.activation, training.scaler",
            todo=f"Use {pairs}",
        )


TEXTBOOK_FRAMES: Final = FrameSpec(activation="sigmoid", scaler="minmax", textbook=True)
"""The convolutional autoencoder of 28 x 28 frames as tutorials of Keras have it."""


def textbook_of_readings(kind: str, channels: tuple[str, ...]) -> ModelSpec:
    """The autoencoder of windows as tutorials of Keras have it. Raises UserError for an unknown kind."""
    if kind == "dense":
        return ModelSpec(kind, channels, activation="sigmoid", scaler="minmax")
    return ModelSpec(kind, channels)
