"""Training one autoencoder on the windows of all sensors, or on the frames of all cameras.

The loop is our own and runs inside TensorFlow, a hundred steps a call: with models this small `Model.fit` spends half
of its time between the steps, and most of it where an epoch is a single step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, I64
from detector.config.load import TrainingConfig
from detector.models.bundle.spec import FrameSpec, ModelSpec
from detector.models.training.architectures import build
from detector.models.training.tensorflow_setup import load_tensorflow

NOISE: Final = 0.1
FIRST_RATE, LAST_RATE = 1e-3, 1e-5
PATIENCE: Final = 3
"""Epochs without an improvement after which the extra epochs end."""
IMPROVEMENT: Final = 1e-3
"""A smaller relative fall of the tail's error is no improvement."""
EXTRA_SHARE: Final = 0.5
"""At most this share of the planned epochs is added while the tail still improves."""
STEPS_PER_CALL: Final = 100
_EVALUATED_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training is. `steps` of `planned` are made; `loss`: mean over the last steps; `tail`: on the tail."""

    steps: int
    planned: int
    loss: float
    tail: float | None


@dataclass(frozen=True, slots=True)
class Errors:
    """The distribution of the mean squared errors of windows, or of frames, in scaled units."""

    windows: int
    mean: float
    median: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, errors: F64) -> Errors:
        """Sum up one error a window (n,), n at least 1."""
        median, p95, p99 = np.percentile(errors, [50, 95, 99]).tolist()
        return cls(len(errors), float(errors.mean()), median, p95, p99, float(errors.max()))


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What was trained on and how well it went. `tail` is None where no windows were held back.

    Of frames: `sensors` are cameras (0: without a name), `rows` and `windows` are frames.
    """

    sensors: int
    rows: int
    epochs: int
    steps: int
    seconds: float
    train: Errors
    tail: Errors | None


class Sampled(Protocol):
    """What is trained on: numbers of windows, or frames, to train on and of those held back."""

    @property
    def sensors(self) -> int:
        """How many sensors, or cameras with a name, it comes from."""

    @property
    def size(self) -> int:
        """How many rows, or frames, it has."""

    @property
    def train(self) -> I64:
        """Numbers to train on."""

    @property
    def tail(self) -> I64:
        """Numbers held back."""

    def picker(self, tf: Any) -> Callable[[Any], Any]:
        """A function inside TensorFlow: numbers (n,) -> what the model takes (n, ...)."""


def train(
    sampled: Sampled,
    spec: ModelSpec | FrameSpec,
    settings: TrainingConfig,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Any, TrainReport]:
    """Train a model of `spec` on what was sampled; returns the Keras model and a report.

    The learning rate falls along a cosine over the planned epochs: `settings.epochs`, or as many as
    `settings.min_steps` take. Then the weights are those of the planned end, unless further epochs at the lowest rate
    improve the held-back tail: they go on until three in a row did not, at most half as many as were planned, and the
    best weights win. Without a tail, or without `min_steps`, the planned end is the end. The same sample, settings and
    machine give the same weights.
    """
    tf, keras = load_tensorflow()
    began = clock()
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(settings.seed)
    model = build(spec)
    loop = _Loop(model, sampled, settings, progress)
    loop.run()
    report = TrainReport(
        sensors=sampled.sensors,
        rows=sampled.size,
        epochs=loop.epochs_done,
        steps=loop.steps_done,
        seconds=clock() - began,
        train=Errors.of(loop.errors(sampled.train)),
        tail=Errors.of(loop.errors(sampled.tail)) if len(sampled.tail) else None,
    )
    return model, report


class _Loop:
    """The epochs of one training run, and what they need on TensorFlow's side."""

    def __init__(
        self,
        model: Any,
        sampled: Sampled,
        settings: TrainingConfig,
        progress: Callable[[Progress], None],
    ) -> None:
        self._model = model
        self._sample = sampled
        self._seed = settings.seed
        self._progress = progress
        self._batch = min(settings.batch_size, len(sampled.train))
        self._steps_per_epoch = len(sampled.train) // self._batch
        self._epochs_planned = max(settings.epochs, math.ceil((settings.min_steps or 0) / self._steps_per_epoch))
        self._epochs_at_most = self._epochs_planned
        if settings.min_steps is not None:
            self._epochs_at_most += int(self._epochs_planned * EXTRA_SHARE)
        self._steps_planned = self._epochs_planned * self._steps_per_epoch
        self._order = np.random.default_rng(settings.seed)
        self.epochs_done = 0
        self.steps_done = 0
        self._compile()

    def run(self) -> None:
        """Train to the end and leave the best weights in the model."""
        while self.epochs_done < self._epochs_planned:
            loss = self._epoch()
        if not len(self._sample.tail):
            return
        best = self._tail_error()
        weights = self._model.get_weights()
        self._report(loss, best)
        since_best = 0
        while since_best < PATIENCE and self.epochs_done < self._epochs_at_most:
            loss = self._epoch()
            tail = self._tail_error()
            self._report(loss, tail)
            since_best = 0 if tail < best * (1 - IMPROVEMENT) else since_best + 1
            if tail < best:
                best, weights = tail, self._model.get_weights()
        self._model.set_weights(weights)

    def errors(self, starts: I64) -> F64:
        """Mean squared error of each window (n,), without noise."""
        parts: Sequence[NDArray[Any]] = [
            self._evaluate(starts[i : i + _EVALUATED_AT_ONCE]).numpy()
            for i in range(0, len(starts), _EVALUATED_AT_ONCE)
        ]
        return np.concatenate(parts).astype(np.float64)

    def _tail_error(self) -> float:
        return float(self.errors(self._sample.tail).mean())

    def _epoch(self) -> float:
        order = self._order.permutation(self._sample.train)
        total = 0.0
        for first in range(0, self._steps_per_epoch, STEPS_PER_CALL):
            steps = min(STEPS_PER_CALL, self._steps_per_epoch - first)
            starts = order[first * self._batch : (first + steps) * self._batch].reshape(steps, self._batch)
            loss = float(self._train(starts, self.steps_done))
            self.steps_done += steps
            total += loss * steps
            self._report(loss, None)
        self.epochs_done += 1
        return total / self._steps_per_epoch

    def _report(self, loss: float, tail: float | None) -> None:
        planned = max(self._steps_planned, self.steps_done)
        self._progress(Progress(self.steps_done, planned, loss, tail))

    def _compile(self) -> None:
        """Make the two TensorFlow functions: many training steps in one call, and the errors of many windows."""
        tf, keras = load_tensorflow()
        model = self._model
        windows_at = self._sample.picker(tf)
        schedule = keras.optimizers.schedules.CosineDecay(FIRST_RATE, self._steps_planned, alpha=LAST_RATE / FIRST_RATE)
        optimizer = keras.optimizers.Adam(schedule)
        optimizer.build(model.trainable_variables)
        seed = tf.constant(self._seed, tf.int64)

        def one_step(step: Any, total: Any, starts: Any, steps_before: Any) -> tuple[Any, Any, Any, Any]:
            clean = windows_at(starts[step])
            key = tf.stack([seed, tf.cast(steps_before + step, tf.int64)])
            noise = tf.random.stateless_normal(tf.shape(clean), key, stddev=NOISE)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(clean + noise, training=True) - clean))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)
            return step + 1, total + loss, starts, steps_before

        def many_steps(starts: Any, steps_before: Any) -> Any:
            """`starts` (steps, batch); the mean loss of the steps."""
            steps = tf.shape(starts)[0]
            loop = (tf.constant(0), tf.constant(0.0), starts, steps_before)
            _, total, _, _ = tf.while_loop(lambda step, *_: step < steps, one_step, loop, parallel_iterations=1)
            return total / tf.cast(steps, tf.float32)

        def evaluate(starts: Any) -> Any:
            clean = windows_at(starts)
            return tf.reduce_mean(
                tf.square(model(clean, training=False) - clean), axis=list(range(1, len(clean.shape)))
            )

        # Not compiled by XLA: its gain of a sixth with the LSTM does not pay for its compilation and another
        # arithmetic.
        self._train = tf.function(
            many_steps,
            input_signature=[tf.TensorSpec((None, self._batch), tf.int64), tf.TensorSpec((), tf.int32)],
            autograph=False,
            jit_compile=False,
        )
        self._evaluate = tf.function(
            evaluate, input_signature=[tf.TensorSpec((None,), tf.int64)], autograph=False, jit_compile=False
        )
