"""Training: that it learns, ends, reports, and gives the same weights again."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import numpy as np
import pytest

from detector.config.load import TrainingConfig
from detector.errors import UserError
from detector.models.bundle.spec import ModelSpec
from detector.models.training.architectures import build
from detector.models.training.loop import Errors, Progress, train
from detector.models.training.sampling import CLIP, Sample, sample
from detector.models.training.tensorflow_setup import load_tensorflow, native_stderr_held_back
from tests.models.conftest import Trained, waves

SPEC = ModelSpec("dense", ("value",), hidden=(8,))


def sampled(sensors: int, rows: int) -> Sample:
    return sample(waves(sensors, rows), scaler="standard", limit=20_000)


def weights(model: Any) -> bytes:
    return b"".join(weight.tobytes() for weight in model.get_weights())


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    chosen = sampled(2, 200)
    first, again, other = (
        weights(train(chosen, SPEC, TrainingConfig(epochs=1, min_steps=12, seed=seed))[0]) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_it_learns() -> None:
    chosen = sampled(2, 400)
    _, short = train(chosen, SPEC, TrainingConfig(epochs=1, min_steps=5))
    _, longer = train(chosen, SPEC, TrainingConfig(epochs=1, min_steps=400))
    assert longer.train.mean < 0.5 * short.train.mean
    assert longer.tail is not None
    assert short.tail is not None
    assert longer.tail.mean < 0.5 * short.tail.mean


def test_the_report_and_the_progress_add_up() -> None:
    seen: list[Progress] = []
    clock = iter([10.0, 12.5])
    chosen = sampled(2, 500)  # 2 x 361 windows to train on: 5 steps an epoch, and 80 held back
    _, report = train(
        chosen, SPEC, TrainingConfig(epochs=3, min_steps=20), progress=seen.append, clock=lambda: next(clock)
    )
    assert (report.sensors, report.rows, report.seconds) == (2, 1000, 2.5)
    assert report.train.windows == 722
    assert report.tail is not None
    assert report.tail.windows == 80
    assert 4 <= report.epochs <= 6  # 20 steps need 4 epochs; at most half as many are added
    assert report.steps == 5 * report.epochs
    assert [step.steps for step in seen] == sorted(step.steps for step in seen)
    assert seen[-1].steps == report.steps
    assert seen[0].planned == 20
    assert all(np.isfinite(step.loss) for step in seen)


def test_epochs_count_where_they_are_more_than_the_minimum_of_steps() -> None:
    _, report = train(sampled(1, 200), SPEC, TrainingConfig(epochs=7, min_steps=3))
    assert (report.epochs, report.steps, report.tail) == (7, 7, None)


def test_epochs_that_are_written_are_made_and_no_more() -> None:
    for settings in (TrainingConfig(epochs=3), TrainingConfig(epochs=3, min_steps=None)):
        _, report = train(sampled(2, 500), SPEC, settings)
        assert (report.epochs, report.steps) == (3, 15)
    assert (TrainingConfig().min_steps, TrainingConfig(epochs=30, min_steps=600)) == (600, TrainingConfig())


def test_the_weights_kept_are_the_best_on_the_tail() -> None:
    seen: list[Progress] = []
    chosen = sampled(2, 500)
    _, report = train(chosen, SPEC, TrainingConfig(epochs=4, min_steps=1), progress=seen.append)
    assert report.tail is not None
    assert report.tail.mean == min(step.tail for step in seen if step.tail is not None)


def test_errors_are_those_of_the_model_on_windows_without_noise() -> None:
    chosen = sampled(1, 160)
    model, report = train(chosen, SPEC, TrainingConfig(epochs=1, min_steps=3))
    windows = np.stack([chosen.rows[i : i + 100] for i in range(61)])
    errors = ((np.asarray(model(windows)) - windows) ** 2).mean(axis=(1, 2))
    assert report.train.mean == pytest.approx(errors.mean(), rel=1e-5)
    assert report.train.max == pytest.approx(errors.max(), rel=1e-5)
    assert report.train.median == pytest.approx(np.median(errors), rel=1e-5)


def test_errors_sum_up() -> None:
    errors = Errors.of(np.arange(101.0))
    assert errors == Errors(windows=101, mean=50.0, median=50.0, p95=95.0, p99=99.0, max=100.0)


def test_a_constant_sensor_can_be_trained_on() -> None:
    times, _ = waves(1, 200)["pump-0"]
    flat = sample({"flat": (times, np.full((200, 1), 7.0))}, scaler="standard", limit=1000)
    _, report = train(flat, SPEC, TrainingConfig(epochs=1, min_steps=5))
    assert np.isfinite(report.train.max)


def test_threads_are_set_whatever_the_environment_says() -> None:
    tf, _ = load_tensorflow()
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert tf.config.threading.get_intra_op_parallelism_threads() == len(os.sched_getaffinity(0))


def test_notices_of_native_code_are_held_back_unless_it_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with native_stderr_held_back():
        os.write(2, b"a notice about the CPU\n")
    assert capfd.readouterr().err == ""
    with contextlib.suppress(ImportError), native_stderr_held_back():
        os.write(2, b"what went wrong\n")
        raise ImportError
    assert capfd.readouterr().err == "what went wrong\n"


@pytest.mark.parametrize(
    ("activation", "scaler", "low", "high"),
    [("sigmoid", "minmax", 0, 1), ("tanh", "symmetric", -1, 1), ("linear", "standard", -np.inf, np.inf)],
)
@pytest.mark.parametrize("kind", ["dense", "lstm"])
def test_the_output_activation_bounds_the_output(
    kind: str, activation: str, scaler: str, low: float, high: float
) -> None:
    model = build(ModelSpec(kind, ("a", "b"), units=4, hidden=(6, 3), activation=activation, scaler=scaler))
    windows = np.random.default_rng(0).normal(0, CLIP, (5, 100, 2)).astype(np.float32)
    out = np.asarray(model(windows))
    assert out.shape == (5, 100, 2)
    assert low <= out.min() <= out.max() <= high


def test_sizes_are_those_of_the_configuration() -> None:
    shapes = [w.shape for w in build(ModelSpec("dense", ("a", "b"), hidden=(6, 3))).get_weights()]
    assert shapes == [(200, 6), (6,), (6, 3), (3,), (3, 200), (200,)]
    shapes = [w.shape for w in build(ModelSpec("lstm", ("a", "b"), units=5)).get_weights()]
    assert shapes == [(2, 20), (5, 20), (20,), (5, 20), (5, 20), (20,), (5, 2), (2,)]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"activation": "sigmoid"}, "output activation sigmoid does not go with scaler standard"),
        ({"scaler": "symmetric"}, "output activation linear does not go with scaler symmetric"),
        ({"activation": "softplus"}, "output activation softplus does not go with scaler standard"),
        ({"kind": "transformer"}, "there is no model kind 'transformer'"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        ModelSpec(**{"kind": "dense", "channels": ("value",), **changes})  # type: ignore[arg-type]


def test_every_architecture_trains(trained: Trained) -> None:
    assert trained.report.steps >= 30
    assert np.isfinite(trained.report.train.max)
