"""The file of profiles in a bundle for frames, and such a bundle opened for scoring."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from detector.arrays import F32
from detector.detection.framesignal import FrameModel, NormalErrors
from detector.detection.profile import Calibration
from detector.detection.usable import check_usable_frames
from detector.errors import UserError
from detector.models.bundle.bundles import PROFILES_FILE, Bundle
from detector.models.bundle.profiles import pack_profiles, read_profiles, unpack_profiles
from detector.models.runtime.onnx import open_runtime
from detector.models.training.frame_sampling import scaled


@dataclass(frozen=True, slots=True)
class ScaledReconstruct:
    """Callable: frames (n, h, w, 1) in [0, 1] -> their reconstruction, by a network that takes scaled ones."""

    network: Callable[[F32], F32]
    center: float
    scale: float

    def __call__(self, frames: F32) -> F32:
        """Scale, reconstruct, scale back: elementwise but for the network."""
        rebuilt = self.network(scaled(frames[..., 0], self.center, self.scale))
        back: F32 = rebuilt * np.float32(self.scale) + np.float32(self.center)
        return back


def save_frame_profiles(
    path: Path, scale: tuple[float, float], normal: NormalErrors, profiles: Mapping[str, Calibration]
) -> None:
    """Write what scoring needs beside the network as one compressed npz without pickled objects."""
    arrays = pack_profiles(Calibration, profiles)
    arrays |= {f"calibration_{field.name}": np.array(getattr(normal, field.name)) for field in fields(NormalErrors)}
    arrays["center_and_scale"] = np.array(scale)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _load_frame_profiles(
    path: Path, image: tuple[int, int]
) -> tuple[tuple[float, float], NormalErrors, dict[str, Calibration]]:
    """What `save_frame_profiles` wrote. Raises whatever reading raises, ValueError for what is of other frames."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    center, scale = arrays["center_and_scale"].tolist()
    normal = NormalErrors(
        broad_spread=arrays["calibration_broad_spread"],
        fine_spread=arrays["calibration_fine_spread"],
        usual_mean=float(arrays["calibration_usual_mean"]),
        usual_peak=float(arrays["calibration_usual_peak"]),
        worst_peak=float(arrays["calibration_worst_peak"]),
    )
    for spread in (normal.broad_spread, normal.fine_spread):
        if spread.shape != image:
            raise ValueError(f"they are of frames of shape {spread.shape}, the manifest says {image}")
        if not (np.isfinite(spread) & (spread >= 0)).all():
            raise ValueError("the spread of pixels is beyond what can be computed with")
    units = (scale, normal.usual_mean, normal.usual_peak, normal.worst_peak)
    if not (math.isfinite(center) and all(0 < unit < math.inf for unit in units)):
        raise ValueError("the scale is beyond what can be computed with")
    profiles = unpack_profiles(Calibration, arrays)
    check_usable_frames(profiles)
    return (center, scale), normal, profiles


def open_frame_model(bundle: Bundle, runtime: str = "onnx") -> FrameModel:
    """Open a bundle for frames (see `bundles.load_bundle` with `kinds=FRAME_KINDS`) for scoring.

    Raises UserError if the model or the profiles do not load, or are of other frames than the manifest says.
    """
    image = bundle.image
    if image is None:
        raise UserError("this is a model of readings", where=str(bundle.path), todo="Correct frames.model")
    (center, scale), normal, profiles = read_profiles(
        bundle.path / PROFILES_FILE, lambda path: _load_frame_profiles(path, image)
    )
    return FrameModel(
        name=bundle.name,
        version=bundle.version,
        digest=bundle.digest,
        shape=image,
        reconstruct=ScaledReconstruct(open_runtime(bundle, runtime), center, scale),
        normal=normal,
        profiles=profiles,
    )
