"""The one place that imports TensorFlow: on demand, quietly, and with its threads set.

The import takes seconds and hundreds of megabytes, so no module imports TensorFlow at its top; those that need it call
`load_tensorflow`. Nothing on the serving path with the onnx runtime does.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

from detector.errors import UserError


def require_training_packages() -> None:
    """Raise UserError where only the packages for serving are installed."""
    missing = [name for name in ("tensorflow", "onnx") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"training needs TensorFlow and ONNX, and {' and '.join(missing)} is not installed here",
            todo="Train with the image for training, or where the whole package is installed",
        )


def require_tensorflow(key: str) -> None:
    """Raise UserError where TensorFlow is not installed; `key` of the configuration asks for it."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            "TensorFlow is not installed here",
            where=f"{key}: tensorflow",
            todo="Set it to onnx, which scores the same model, or install the package with its dependencies",
        )


@functools.cache
def load_tensorflow() -> tuple[Any, Any]:
    """Import TensorFlow and Keras, once; returns both modules.

    Only the CPU is used: the models are small, and results are then reproducible. The number of threads is that of
    the CPUs this process may use, whatever OMP_NUM_THREADS says.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with native_stderr_held_back(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras
        import tensorflow as tf
    tf.get_logger().setLevel("ERROR")
    tf.config.threading.set_intra_op_parallelism_threads(len(os.sched_getaffinity(0)))
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf, keras


@contextlib.contextmanager
def native_stderr_held_back() -> Iterator[None]:
    """Keep what native code writes to standard error from the user, unless the block fails.

    TensorFlow's shared libraries print notices about the CPU and missing GPUs while they are loaded, before any log
    level applies.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
