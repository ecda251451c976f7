"""Scoring windows with ONNX Runtime, such that a window's result never depends on its neighbours in the batch."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import numpy as np
import onnxruntime

from detector.arrays import F32
from detector.errors import UserError, in_brief
from detector.models.bundle.bundles import Bundle
from detector.models.runtime.checks import Runtime, check_output, check_shape, check_windows
from detector.models.runtime.compiled import choose

CHUNK: Final[Mapping[str, int]] = {"dense": 1000, "lstm": 32, "conv": 32}
"""Windows, or frames, a call, by kind: larger batches fall out of the cache and run slower (measured)."""

SELF_CHECK_WINDOWS: Final = 64
_SELF_CHECK_GROUPS: Final = (7, 1)
_log = logging.getLogger(__name__)
_QUIET: Final = 4  # nothing but what ends the process: an error is raised, too


class Session(Protocol):
    """The part of `onnxruntime.InferenceSession` that is used."""

    def get_inputs(self) -> Sequence[Any]:
        """Descriptions of the inputs, with `name` and `shape`."""

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, F32]) -> Sequence[Any]:
        """Compute the outputs named (all of them for None)."""


class OnnxRuntime:
    """Callable: float32 windows (n, 100, C), or frames (n, h, w, 1) -> their reconstruction, the same shape.

    Not bound to a thread.

    The bits of a window's result are the same in any batch. ONNX Runtime's kernels keep to that by themselves on the
    machines seen so far; whether they do here is checked at construction, and if not, windows are scored in padded
    batches of one fixed size, in the last resort one by one.
    """

    name: ClassVar = "ONNX Runtime"

    def __init__(self, session: Session, kind: str) -> None:
        """Raises ValueError for a model that gives something else than a reconstruction."""
        self._session = session
        self._input, self.shape = _input_of(session)
        self._padded = False
        self._chunk = CHUNK[kind]
        check_output(self._run, self.shape)
        if not self._self_check():
            self._padded = True
            if not self._self_check():
                self._chunk = 1

    @classmethod
    def load(
        cls, model: Path | bytes, kind: str, *, shape: tuple[int, ...] | None = None, threads: int = 1
    ) -> OnnxRuntime:
        """Open an ONNX file, or its content. `shape` is that of one window, or frame, where it is known.

        Raises UserError if it is no model ONNX Runtime can run, or takes something else.

        >>> OnnxRuntime.load(b"no model", "dense")
        Traceback (most recent call last):
        detector.errors.UserError: ...
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # An idle pool spins by default and takes the core the stream's client needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _QUIET
        where = None if isinstance(model, bytes) else str(model)
        try:
            session = onnxruntime.InferenceSession(
                where or model,
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # a second try prints on standard output, where alerts may go
            )
            # First of all: a window of another shape may be larger than the memory.
            check_shape(_input_of(session)[1], shape, where)
            return cls(session, kind)
        except UserError:
            raise
        except Exception as error:
            # onnxruntime raises a dozen classes of its own that share no base but Exception.
            raise UserError(
                f"ONNX Runtime cannot run this model: {in_brief(error)}", where=where, todo="Train the model again"
            ) from None

    @property
    def batching(self) -> str:
        """How windows are grouped: `free`, `padded` to one size, or `single`."""
        return "free" if not self._padded else "padded" if self._chunk > 1 else "single"

    def __call__(self, windows: F32) -> F32:
        """Reconstruct windows. Raises ValueError for another shape or dtype."""
        check_windows(windows, self.shape)
        n = len(windows)
        if 0 < n <= self._chunk:
            return self._run(windows)
        out = np.empty_like(windows)
        for first in range(0, n, self._chunk):
            out[first : first + self._chunk] = self._run(windows[first : first + self._chunk])
        return out

    def _run(self, windows: F32) -> F32:
        n = len(windows)
        if self._padded and n < self._chunk:
            padded = np.zeros((self._chunk, *self.shape), dtype=np.float32)
            padded[:n] = windows
            windows = padded
        result: F32 = self._session.run(None, {self._input: windows})[0]
        return result[:n]

    def _self_check(self) -> bool:
        """Whether random windows give the same bits together, in small groups and one by one."""
        windows = np.random.default_rng(0).normal(size=(SELF_CHECK_WINDOWS, *self.shape)).astype(np.float32)
        together = self(windows).tobytes()
        return all(
            np.concatenate([self(windows[i : i + size]) for i in range(0, len(windows), size)]).tobytes() == together
            for size in _SELF_CHECK_GROUPS
        )


def open_runtime(bundle: Bundle, runtime: str = "onnx") -> Runtime:
    """Open a bundle's model for scoring, with `onnx` or `tensorflow`.

    With `onnx` an LSTM is run by its own kernel (compiled.py) where that says the same; else the log says once why not.
    Raises UserError if the model does not load or takes other windows than the manifest says.
    """
    if runtime == "tensorflow":
        # By name, so that serving with ONNX Runtime holds no reference to TensorFlow, not even a lazy one.
        backend = importlib.import_module("detector.models.runtime.tensorflow")
        loaded: Runtime = backend.TensorFlowRuntime.load(bundle.path / "model.keras", bundle.kind, shape=bundle.shape)
        return loaded
    if runtime != "onnx":
        raise UserError(f"there is no runtime {runtime!r}", where="readings.runtime", todo="Use onnx or tensorflow")
    model = bundle.path / "model.onnx"
    onnx = OnnxRuntime.load(model, bundle.kind, shape=bundle.shape)
    if bundle.kind != "lstm":
        return onnx
    chosen = choose(model.read_bytes(), onnx, bundle.shape)
    if chosen.reason is not None:
        say_once(chosen.reason)
    return chosen.runtime


@cache
def say_once(reason: str) -> None:
    """Say in the log why an LSTM is not compiled."""
    _log.warning("lstm_not_compiled", extra={"fields": {"reason": reason}})


def _input_of(session: Session) -> tuple[str, tuple[int, ...]]:
    """Name of the input, and the shape of one window, or frame. Raises ValueError or TypeError for other inputs."""
    (description,) = session.get_inputs()
    return description.name, tuple(int(size) for size in description.shape[1:])
