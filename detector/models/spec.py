"""What a model is, as numbers and names: everything that must agree between training, bundle and configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from detector.errors import UserError

WINDOW: Final = 100
READING_KINDS: Final = ("dense", "lstm")
"""The architectures that take windows of readings (n, 100, C)."""

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


def check_pair(activation: str, scaler: str) -> None:
    """Raise UserError unless the output activation goes with the scaler of the data."""
    if _SCALER_OF.get(activation) != scaler:
        pairs = ", ".join(f"{one} with {other}" for one, other in _SCALER_OF.items())
        raise UserError(
            f"output activation {activation} does not go with scaler {scaler}",
            where="training.activation, training.scaler",
            todo=f"Use {pairs}",
        )
