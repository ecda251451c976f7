"""The convolutional model: both runtimes agree with Keras, no frame depends on its neighbours, bundles come back."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest

from detector.arrays import F32
from detector.config.load import TrainingConfig
from detector.detection.framesignal import FrameModel, examine, score_frames
from detector.detection.profile import Calibration, build_frame_profile
from detector.errors import OperationError, UserError
from detector.models.bundle.bundles import PROFILES_FILE, Bundle, check_frames_fit, load_bundle, write_bundle
from detector.models.bundle.frame_bundles import open_frame_model, save_frame_profiles
from detector.models.bundle.spec import FRAME_KINDS, FrameSpec
from detector.models.runtime.onnx import CHUNK, OnnxRuntime
from detector.models.runtime.tensorflow import TensorFlowRuntime
from detector.models.training import building
from detector.models.training.architectures import build, save
from detector.models.training.building import build_bundle
from detector.models.training.cameras import Cameras
from detector.models.training.frame_sampling import CameraFrames, held_back, sample_frames, scale_of_frames
from detector.models.training.loop import TrainReport, train
from detector.models.training.onnx_export import to_onnx
from tests.framemodels import textured_frames
from tests.models.conftest import NOON

SECOND = 10**9
SMALL = FrameSpec((12, 16), filters=(6, 4), units=8)
QUICK = TrainingConfig(epochs=1, min_steps=60, batch_size=64)


def cameras_of(*counts: int, shape: tuple[int, int] = SMALL.image) -> CameraFrames:
    """Cameras `cam-0`, `cam-1`, ... with this many frames, one a second."""
    return {
        f"cam-{i}": (np.arange(n, dtype=np.int64) * SECOND, textured_frames(n, shape, seed=i))
        for i, n in enumerate(counts)
    }


class Network(NamedTuple):
    spec: FrameSpec
    model: Any
    onnx: bytes


@pytest.fixture(
    scope="module",
    params=[
        FrameSpec(),
        SMALL,
        FrameSpec((12, 16), (6, 4), 8, "sigmoid", "minmax"),
        FrameSpec((4, 8), (3, 5), 8, "tanh", "symmetric"),
    ],
    ids=lambda spec: f"{spec.image} {spec.activation}",
)
def network(request: pytest.FixtureRequest) -> Network:
    """A model whose weights and biases are all different, as after training."""
    return _network(request.param)


@functools.cache
def _network(spec: FrameSpec) -> Network:
    """Once a process: in random order the fixture goes from one parameter to another and back."""
    model = build(spec)
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(weight + rng.normal(0, 0.1, weight.shape))
    return Network(spec, model, to_onnx(model, spec))


def frames_for(spec: FrameSpec, n: int = 150) -> F32:
    return np.random.default_rng(1).normal(0, 2, (n, *spec.shape)).astype(np.float32)


# -- the network ---------------------------------------------------------------------------------------------------


def test_onnx_agrees_with_keras(network: Network) -> None:
    frames = frames_for(network.spec)
    made = OnnxRuntime.load(network.onnx, "conv")(frames)
    np.testing.assert_allclose(made, np.asarray(network.model(frames)), 1e-4, 1e-5)


def test_tensorflow_agrees_with_keras(network: Network, tmp_path: Path) -> None:
    save(network.model, tmp_path / "model.keras")
    frames = frames_for(network.spec)
    made = TensorFlowRuntime.load(tmp_path / "model.keras", "conv")(frames)
    np.testing.assert_allclose(made, np.asarray(network.model(frames)), 1e-4, 1e-5)


def test_bits_depend_on_no_neighbour_and_no_position(network: Network) -> None:
    runtime = OnnxRuntime.load(network.onnx, "conv")
    assert runtime.batching == "free"
    frames = frames_for(network.spec, 2 * CHUNK["conv"] + 5)
    together = runtime(frames)
    for size in (1, 2, 3, 7, 16, 31, 33):
        parts = [runtime(frames[i : i + size]) for i in range(0, len(frames), size)]
        assert np.concatenate(parts).tobytes() == together.tobytes()
    order = np.random.default_rng(2).permutation(len(frames))
    assert runtime(frames[order]).tobytes() == together[order].tobytes()


def test_transposed_convolutions_become_plain_ones(network: Network) -> None:
    operators = [node.op_type for node in onnx.load_from_string(network.onnx).graph.node]
    assert operators.count("Conv") == 5
    assert operators.count("MatMul") == operators.count("MaxPool") == operators.count("Resize") == 2
    assert "ConvTranspose" not in operators


def test_other_frames_are_refused(network: Network) -> None:
    with pytest.raises(ValueError, match=r"float32 frames of shape \(n, .*, 1\), these are float32 of shape"):
        OnnxRuntime.load(network.onnx, "conv")(np.zeros((1, 28, 24, 1), np.float32))


@pytest.mark.parametrize(
    ("image", "says"),
    [((30, 28), r"\(30, 28\) would come back as \(28, 28\)"), ((28, 3), r"Use \(28, 4\)")],
)
def test_sides_that_two_poolings_do_not_divide_are_refused(image: tuple[int, int], says: str) -> None:
    with pytest.raises(UserError, match=says):
        FrameSpec(image)


def test_an_activation_that_does_not_go_with_the_scaler_is_refused() -> None:
    with pytest.raises(UserError, match="output activation sigmoid does not go with scaler standard"):
        FrameSpec(activation="sigmoid")


# -- what is trained on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "held"), [(100, 20), (449, 89), (450, 150), (1500, 150), (1501, 150), (6000, 600)])
def test_the_newest_frames_are_held_back(frames: int, held: int) -> None:
    assert held_back(frames) == held


def test_the_scale_is_that_of_the_pixels_trained_on() -> None:
    cameras = cameras_of(200, 120)
    trained_on = np.concatenate([cameras["cam-0"][1][:160].ravel(), cameras["cam-1"][1][:96].ravel()])
    assert scale_of_frames(cameras, "standard") == pytest.approx((trained_on.mean(), trained_on.std()), rel=1e-5)
    assert scale_of_frames(cameras, "minmax") == (0.0, 1.0)
    assert scale_of_frames(cameras, "symmetric") == (0.5, 0.5)
    sample = sample_frames(cameras, scaler="standard", limit=1000)
    assert sample.frames.shape == (320, 12, 16, 1)
    assert sample.train.tolist() == [*range(160), *range(200, 296)]
    assert sample.tail.tolist() == [*range(160, 200), *range(296, 320)]
    assert sample.frames[sample.train].mean() == pytest.approx(0, abs=1e-3)
    assert sample.frames[sample.train].std() == pytest.approx(1, abs=1e-3)


def test_a_limit_thins_all_cameras_alike() -> None:
    sample = sample_frames(cameras_of(200, 100), scaler="minmax", limit=150)
    assert len(sample.frames) == 150
    assert sample.frames[0, ..., 0].tobytes() == cameras_of(200)["cam-0"][1][0].tobytes()
    assert (len(sample.train), len(sample.tail)) == (120, 30)


def test_a_few_frames_are_not_trained_on() -> None:
    with pytest.raises(ValueError, match="at least 100 frames, these are 99"):
        sample_frames(cameras_of(99), scaler="minmax", limit=1000)


# -- training and bundles ------------------------------------------------------------------------------------------


def test_it_learns_and_the_same_seed_gives_the_same_weights() -> None:
    chosen = Cameras(cameras_of(300), SMALL, (3, 5)).sample(1000)
    first, report = train(chosen, SMALL, QUICK)
    again, _ = train(chosen, SMALL, QUICK)
    _, short = train(chosen, SMALL, QUICK.model_copy(update={"min_steps": 1}))
    assert b"".join(w.tobytes() for w in first.get_weights()) == b"".join(w.tobytes() for w in again.get_weights())
    assert report.tail is not None
    assert short.tail is not None
    assert report.tail.mean < 0.7 * short.tail.mean
    assert (report.sensors, report.rows, report.train.windows, report.tail.windows) == (1, 300, 240, 60)


def bundle_of(directory: Path, cameras: CameraFrames) -> tuple[Bundle, TrainReport]:
    return build_bundle(directory, Cameras(cameras, SMALL, open_after=(3, 5)), QUICK, created=NOON)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of two cameras, of which one has too few frames for a profile."""
    return bundle_of(tmp_path_factory.mktemp("models"), cameras_of(460, 120))[0]


def test_a_bundle_is_opened_with_what_it_was_made_of(made: Bundle) -> None:
    bundle = load_bundle(made.path.parent, made.version, kinds=FRAME_KINDS)
    assert bundle == made
    assert (bundle.kind, bundle.image, bundle.shape, bundle.channels) == ("conv", (12, 16), (12, 16, 1), ())
    assert (bundle.manifest.hidden, bundle.manifest.units) == ((6, 4), 8)
    model = open_frame_model(bundle)
    assert (model.shape, model.digest, model.version) == ((12, 16), bundle.digest, bundle.version)
    assert list(model.profiles) == ["cam-0"]
    held = cameras_of(460)["cam-0"]
    again, _ = build_frame_profile(held[0][310:], score_frames(model, held[1][310:]), open_after=(3, 5))
    for field in dataclasses.fields(Calibration):
        assert np.array_equal(getattr(model.profiles["cam-0"], field.name), getattr(again, field.name))
    together = np.concatenate([held[1][310:], cameras_of(460, 120)["cam-1"][1][96:]])
    assert max(examine(model, frame).heat.max() for frame in together) == pytest.approx(1.0, rel=1e-5)
    assert bundle.manifest.calibration["frames"] == 174
    assert bundle.manifest.calibration["worst_signal"] == pytest.approx(score_frames(model, together).max())
    assert (bundle.manifest.training["from"], bundle.manifest.training["to"]) == (
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:07:39Z",
    )


def test_the_bits_of_a_frame_do_not_depend_on_its_batch(made: Bundle) -> None:
    model = open_frame_model(made)
    frames = textured_frames(150, (12, 16), seed=9)
    together = score_frames(model, frames)
    for size in (1, 3, 64, 65):
        parts = [score_frames(model, frames[i : i + size]) for i in range(0, len(frames), size)]
        assert np.concatenate(parts).tobytes() == together.tobytes()


def test_both_runtimes_score_alike(made: Bundle) -> None:
    frames = textured_frames(20, (12, 16), seed=9)
    by_onnx = score_frames(open_frame_model(made), frames)
    np.testing.assert_allclose(score_frames(open_frame_model(made, "tensorflow"), frames), by_onnx, 1e-3)


def test_images_of_no_camera_make_no_profile(tmp_path: Path) -> None:
    (_, images) = cameras_of(500)["cam-0"]
    bundle, report = bundle_of(tmp_path, {None: (np.zeros(500, np.int64), images)})
    assert open_frame_model(bundle).profiles == {}
    assert report.sensors == 0
    assert bundle.manifest.training["from"] is None


def test_a_wrong_export_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxRuntime, "__call__", lambda self, windows: windows + np.float32(1))
    with pytest.raises(OperationError, match="the exported model differs"):
        bundle_of(tmp_path, cameras_of(100))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "train", lambda *_, **__: pytest.fail("it was trained"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError):
        bundle_of(tmp_path / "file", cameras_of(100))


def test_a_bundle_of_another_kind_is_refused(made: Bundle) -> None:
    with pytest.raises(UserError, match=r"what is needed here is dense or lstm .*Correct readings\.model\."):
        load_bundle(made.path.parent, made.version)


def test_another_n_of_m_is_refused(made: Bundle) -> None:
    check_frames_fit(made, open_after=(3, 5))
    with pytest.raises(UserError, match=r"after 3 of 5 frames, this configuration has 2 of 5.*frames\.alerts"):
        check_frames_fit(made, open_after=(2, 5))


@pytest.mark.parametrize("spec", [FrameSpec((12, 12)), FrameSpec((12, 16), (6, 4), 8)])
def test_profiles_and_models_of_other_frames_are_refused(spec: FrameSpec, made: Bundle, tmp_path: Path) -> None:
    model: FrameModel = open_frame_model(made)
    other = build(FrameSpec((8, 8)))
    bundle = write_bundle(
        tmp_path,
        spec,
        save_keras=lambda path: save(other, path),
        onnx=to_onnx(other, FrameSpec((8, 8))),
        profiles=lambda path: save_frame_profiles(path, (0.0, 1.0), model.normal, {}),
        open_after=(3, 5),
        created=NOON,
    )
    says = r"\(12, 16\), the manifest says \(12, 12\)|frames of shape \(8, 8, 1\), its manifest says \(12, 16, 1\)"
    with pytest.raises(UserError, match=says):
        open_frame_model(bundle)


def test_profiles_that_are_none_are_refused(made: Bundle, tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path,
        SMALL,
        save_keras=_something_else,
        onnx=(made.path / "model.onnx").read_bytes(),
        profiles=_something_else,
        open_after=(3, 5),
        created=NOON,
    )
    with pytest.raises(UserError, match="cannot read the profiles") as caught:
        open_frame_model(bundle)
    assert PROFILES_FILE in str(caught.value)


def _something_else(path: Path) -> None:
    path.write_bytes(b"something else")
