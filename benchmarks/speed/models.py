"""The models that are measured: small, trained once by `detector train`, kept for the next time."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from detector.detection.profile import Profile, build_profile
from detector.detection.scorer import Model
from detector.models.bundle.bundles import Bundle, load_bundle, write_bundle
from detector.models.bundle.spec import ModelSpec
from detector.models.bundle.versions import activate
from detector.models.runtime.onnx import open_runtime

KINDS = ("dense", "lstm")
MEAN, DEVIATION = 50.0, 3.0
"""Of the values that are sent."""
_PROFILE_ROWS = 2000


class Everyone(Mapping[str, Profile]):
    """The same profile for every sensor, so that none has to warm up."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def __getitem__(self, sensor_id: str) -> Profile:
        return self._profile

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def ensure_models(directory: Path, kinds: Sequence[str] = KINDS) -> None:
    """Train what is not there yet into `directory/<kind>`. Raises CalledProcessError."""
    data = directory / "plant"
    for kind in kinds:
        if (directory / kind / "current").exists():
            continue
        sys.stderr.write(f"training a small {kind} model, once ...\n")
        if not data.exists():
            _detector("simulate", "--out", str(data), "--sensors", "2", "--rows", "1500", "--faults", "none")
        _detector(
            "train",
            "--data",
            str(data),
            "--model",
            kind,
            "--out",
            str(directory / kind),
            "--set",
            "training.epochs=1",
            "--set",
            "training.min_steps=600",
        )


def profile_of_the_load(bundle: Bundle) -> Profile:
    """A profile of values like those the benchmarks send.

    One of another sensor would do for the arithmetic, but every sensor would be in an alarm all the time, and what is
    measured would be the path of alarms and the memory of their episodes.
    """
    values = np.random.default_rng(7).normal(MEAN, DEVIATION, (_PROFILE_ROWS, 1))
    times = np.arange(_PROFILE_ROWS, dtype=np.int64) * 10**9
    profile, _ = build_profile(
        times,
        values,
        open_runtime(bundle),
        scaler=bundle.scaler,
        stride=bundle.stride,
        open_after=bundle.manifest.open_after,
    )
    return profile


def model_for_everyone(directory: Path) -> Model:
    """The active bundle's model, with the profile of the load for all sensors."""
    bundle = load_bundle(directory)
    profile = profile_of_the_load(bundle)
    return Model(
        name=bundle.name,
        version=bundle.version,
        digest=bundle.digest,
        scaler=bundle.scaler,
        stride=bundle.stride,
        reconstruct=open_runtime(bundle),
        profiles=Everyone(profile),
    )


def _detector(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "detector.cli.main", *arguments], check=True, stdout=subprocess.DEVNULL)


def bundle_for(source: Path, target: Path, sensors: Sequence[str]) -> None:
    """Write and activate a version of `source`'s model in `target` that has a profile for each of the sensors."""
    bundle = load_bundle(source)
    profile = profile_of_the_load(bundle)
    manifest = bundle.manifest
    version = write_bundle(
        target,
        ModelSpec(bundle.kind, bundle.channels, manifest.hidden, manifest.units, bundle.activation, bundle.scaler),
        save_keras=partial(_copy, bundle.path / "model.keras"),
        onnx=(bundle.path / "model.onnx").read_bytes(),
        profiles=dict.fromkeys(sensors, profile),
        stride=bundle.stride,
        open_after=manifest.open_after,
        created=datetime.now(UTC),
    )
    activate(target, version.version)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
