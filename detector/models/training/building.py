"""What `detector train` does between readings, or frames, and the bundle: train, export, compare, calibrate, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from detector.arrays import F32, I64
from detector.config.load import TrainingConfig
from detector.detection.profile import Profile
from detector.errors import OperationError
from detector.models.bundle.bundles import Bundle, check_name, write_bundle
from detector.models.bundle.spec import FrameSpec, ModelSpec
from detector.models.bundle.versions import check_writable
from detector.models.runtime.onnx import OnnxRuntime
from detector.models.training.architectures import save
from detector.models.training.loop import Progress, Sampled, TrainReport, train
from detector.models.training.onnx_export import to_onnx
from detector.times import rfc3339

EXPORT_TOLERANCE: Final = 1e-2
"""A right export differs from Keras in the last digits, a wrong one by whole units."""
COMPARED: Final = 64
"""Windows, or frames, that both compute."""
LIBRARIES: Final = ("tensorflow", "keras", "numpy", "onnx", "onnxruntime")


class Calibrated(NamedTuple):
    """What a model's errors are judged by: `profiles` as `write_bundle` takes them; `summary`, for the manifest."""

    profiles: Mapping[str, Profile] | Callable[[Path], None]
    summary: dict[str, Any]


class Material(Protocol):
    """What a model is made of: `sensors.Sensors` or `cameras.Cameras`."""

    @property
    def spec(self) -> ModelSpec | FrameSpec:
        """The model."""

    @property
    def stride(self) -> int:
        """Every how many rows the model is run."""

    @property
    def open_after(self) -> tuple[int, int]:
        """The (n, m) of most alerts."""

    @property
    def times(self) -> Sequence[I64]:
        """Times of the rows, or frames, in ns, a series each; none where nothing is known of them."""

    def sample(self, limit: int) -> Sampled:
        """What is trained on and what is held back, at most `limit` windows, or frames."""

    def newest(self) -> F32:
        """Up to `COMPARED` windows, or frames, as the model takes them."""

    def calibrate(self, runtime: OnnxRuntime, profiled: Callable[[int], None]) -> Calibrated:
        """Make profiles with the exported model; `profiled` is told after each sensor, or camera, how many are done."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained autoencoder: as Keras' model, as ONNX, and the latter opened for scoring."""

    network: Any
    onnx: bytes
    runtime: OnnxRuntime
    report: TrainReport


def build_bundle(
    directory: Path,
    material: Material,
    settings: TrainingConfig,
    *,
    created: datetime,
    name: str | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    profiled: Callable[[int], None] = lambda _: None,
) -> tuple[Bundle, TrainReport]:
    """Train on `material` and write a bundle version, which is not activated.

    `profiled` is that of `Material.calibrate`. Raises UserError before training if the name or the directory will not
    do, OperationError if the disk fails.
    """
    spec = material.spec
    check_name(name or spec.kind)
    check_writable(directory)
    fitted = fit(material, settings, progress=progress)
    calibrated = material.calibrate(fitted.runtime, profiled)
    bundle = write_bundle(
        directory,
        spec,
        save_keras=lambda path: save(fitted.network, path),
        onnx=fitted.onnx,
        profiles=calibrated.profiles,
        stride=material.stride,
        open_after=material.open_after,
        created=created,
        name=name,
        calibration=calibrated.summary,
        training=_summary(material.times, settings, fitted.report),
        libraries={library: version(library) for library in LIBRARIES},
    )
    return bundle, fitted.report


def fit(
    material: Material, settings: TrainingConfig, *, progress: Callable[[Progress], None] = lambda _: None
) -> Fitted:
    """Train, export, and make sure that the export computes the same. Raises OperationError if not."""
    spec = material.spec
    network, report = train(material.sample(settings.max_windows), spec, settings, progress=progress)
    onnx = to_onnx(network, spec)
    runtime = OnnxRuntime.load(onnx, spec.kind)
    _compare(network, runtime, material.newest())
    return Fitted(network, onnx, runtime, report)


def _compare(model: Any, runtime: OnnxRuntime, windows: F32) -> None:
    difference = float(np.abs(np.asarray(model(windows)) - runtime(windows)).max())
    if not difference <= EXPORT_TOLERANCE:
        raise OperationError(
            f"the exported model differs from the trained one by {difference:.3g}",
            where="model.onnx",
            todo="Report this with the output of `pip freeze`",
        )


def _summary(times: Sequence[I64], settings: TrainingConfig, report: TrainReport) -> dict[str, Any]:
    """The training data and the run, for the manifest."""
    return {
        "from": rfc3339(min(int(column.min()) for column in times)) if times else None,
        "to": rfc3339(max(int(column.max()) for column in times)) if times else None,
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "max_windows": settings.max_windows,
        **asdict(report),
    }
