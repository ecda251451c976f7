"""Scoring windows with TensorFlow itself: slower to start and to run than ONNX Runtime, for comparison and doubt."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from detector.arrays import F32
from detector.errors import UserError, in_brief
from detector.models.bundle.spec import FRAME_KINDS
from detector.models.runtime.checks import check_output, check_shape, check_windows
from detector.models.training.tensorflow_setup import load_tensorflow, require_tensorflow

_CHUNK: Final = {"dense": 1000, "lstm": 64, "conv": 64}


class TensorFlowRuntime:
    """Callable: float32 windows (n, 100, C), or frames (n, h, w, 1) -> their reconstruction, the same shape.

    One `tf.function` of fixed signature, so nothing is traced again while serving. The last bits of a result may
    depend on the size of the batch.
    """

    name: ClassVar = "TensorFlow"

    def __init__(self, model: Any, kind: str) -> None:
        tf, _ = load_tensorflow()
        self.shape = _shape_of(model)
        self._chunk = _CHUNK[kind]
        signature = [tf.TensorSpec((None, *self.shape), tf.float32)]
        self._run = tf.function(
            lambda windows: model(windows, training=False),
            input_signature=signature,
            autograph=False,
            jit_compile=False,
        )
        # Traced now rather than on the first reading.
        check_output(lambda windows: self._run(windows).numpy(), self.shape)

    @classmethod
    def load(cls, path: Path, kind: str, *, shape: tuple[int, ...] | None = None) -> TensorFlowRuntime:
        """Open a `.keras` file; code inside it is refused. `shape` is that of one window, or frame, where it is known.

        Raises UserError if it is no such model, or takes something else, or TensorFlow is not installed.
        """
        require_tensorflow("frames.runtime" if kind in FRAME_KINDS else "readings.runtime")
        _, keras = load_tensorflow()
        try:
            model = keras.models.load_model(path, compile=False, safe_mode=True)
            check_shape(_shape_of(model), shape, str(path))
            return cls(model, kind)
        except UserError:
            raise
        except Exception as error:
            # Keras, h5py, zipfile and TensorFlow each raise their own of a file that is damaged.
            raise UserError(
                f"Keras cannot load this model: {in_brief(error)}", where=str(path), todo="Train the model again"
            ) from None

    def __call__(self, windows: F32) -> F32:
        """Reconstruct windows. Raises ValueError for another shape or dtype."""
        check_windows(windows, self.shape)
        out = np.empty_like(windows)
        for first in range(0, len(windows), self._chunk):
            part = slice(first, first + self._chunk)
            out[part] = self._run(windows[part]).numpy()
        return out


def _shape_of(model: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in model.input_shape[1:])
