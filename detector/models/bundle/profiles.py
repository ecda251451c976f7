"""Profiles in a bundle: how their file is written and read."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from detector.detection.context import CONTEXT
from detector.detection.prefix import SENTINELS
from detector.detection.profile import Calibration, Profile
from detector.detection.views import COMPONENTS, several, typical_count
from detector.errors import UserError, in_brief

Loaded = TypeVar("Loaded")
P = TypeVar("P", bound=Calibration)
"""A sensor's profile, or a camera's."""


def read_profiles(path: Path, load: Callable[[Path], Loaded]) -> Loaded:
    """What `load` makes of the file of profiles. Raises UserError for anything that is wrong with it."""
    try:
        with zipfile.ZipFile(path):  # numpy leaves the file open where this fails
            pass
        return load(path)
    except Exception as error:
        # What zipfile, zlib, struct, ast and numpy raise of a broken archive has no other base in common.
        raise UserError(
            f"cannot read the profiles: {in_brief(error)}", where=str(path), todo="Train the model again"
        ) from None


_STORED: Final = (
    "center", "scale", "ridge", "bias", "median_interval", "regular", "worst", "worst_zz", "worst_zz_of_others", "mean",
    "variance", "count", "scored_rows", "peak_first", "peak_last", "peak_v", "open_after", "sentinels",
    "still_limit", "resolution", "drift_worst", "drift_worst_zz", "drift_mean", "drift_variance",
    "noise_usual", "noise_hush", "typical", "components",
)  # fmt: skip
"""The arrays of a file of profiles, in this order, those that the profiles have; peaks of all profiles in a row."""
_WITHOUT_RULES: Final = {
    "still_limit": np.inf, "resolution": 0.0,
    "drift_worst": np.inf, "drift_worst_zz": 1.0, "drift_mean": 0.0, "drift_variance": 1.0,
    "noise_usual": 1.0, "noise_hush": np.inf,
}  # fmt: skip
"""What a bundle of before says to the rules of evidence."""
_RAGGED: Final = ("peak_first", "peak_last", "peak_v")
_IDS: Final = {Profile: "sensor_id", Calibration: "camera_id"}


def pack_profiles(made: type[P], profiles: Mapping[str, P]) -> dict[str, NDArray[Any]]:
    """Profiles by the id of their sensor or camera as arrays, for an npz without pickled objects."""
    arrays: dict[str, NDArray[Any]] = {_IDS[made]: np.array(list(profiles), dtype=str)}
    for name in _stored(made):
        column = [getattr(profile, name) for profile in profiles.values()]
        arrays[name] = np.concatenate(column) if name in _RAGGED and column else np.array(column)
    arrays["peak_count"] = np.array([len(profile.peak_v) for profile in profiles.values()], dtype=np.int64)
    return arrays


def unpack_profiles(made: type[P], arrays: Mapping[str, NDArray[Any]]) -> dict[str, P]:
    """Read what `pack_profiles` made. Raises KeyError or ValueError if it is something else."""
    profiles = {}
    ends = np.cumsum(arrays["peak_count"], dtype=np.int64)
    for i, owner in enumerate(arrays[_IDS[made]].tolist()):
        peaks = slice(int(ends[i] - arrays["peak_count"][i]), int(ends[i]))
        cells: dict[str, Any] = {name: arrays[name][peaks if name in _RAGGED else i] for name in _stored(made)}
        cells = {name: cell if cell.ndim else cell.item() for name, cell in cells.items()}
        if "open_after" in cells:
            cells["open_after"] = tuple(cells["open_after"].tolist())
        profiles[owner] = made(**cells)
    return profiles


def _stored(made: type[Calibration]) -> list[str]:
    own = {field.name for field in fields(made)}
    return [name for name in _STORED if name in own]


def save_profiles(path: Path, profiles: Mapping[str, Profile]) -> None:
    """Write profiles by sensor id as one compressed npz without pickled objects."""
    arrays = pack_profiles(Profile, profiles)
    if np.isnan(arrays["sentinels"]).all():  # then the file is what it was before there were any
        del arrays["sentinels"]
    if not arrays["typical"].size:
        del arrays["typical"], arrays["components"]
    arrays |= _pack_contexts(profiles)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _pack_contexts(profiles: Mapping[str, Profile]) -> dict[str, NDArray[Any]]:
    """The hours of sensors that go by them, by their places among all; nothing where there is none."""
    found = [(i, profile) for i, profile in enumerate(profiles.values()) if len(profile.contexts)]
    if not found:
        return {}
    joined = np.concatenate([profile.contexts for _, profile in found])
    owners = [i for i, profile in found for _ in profile.contexts]
    zones = [profile.zone for _, profile in found for _ in profile.contexts]
    columns = {f"context_{name}": np.ascontiguousarray(joined[name]) for name in CONTEXT.names or ()}
    return columns | {"context_sensor": np.array(owners, dtype=np.int64), "context_zone": np.array(zones, dtype=str)}


def _unpack_contexts(arrays: Mapping[str, NDArray[Any]], profiles: dict[str, Profile]) -> dict[str, Profile]:
    """Profiles with the hours that `_pack_contexts` packed."""
    if "context_sensor" not in arrays:
        return profiles
    owners = arrays["context_sensor"]
    joined = np.zeros(len(owners), dtype=CONTEXT)
    for name in CONTEXT.names or ():
        joined[name] = arrays[f"context_{name}"]
    ids = list(profiles)
    for owner in np.unique(owners).tolist():
        mine = owners == owner
        zone = str(arrays["context_zone"][mine][0])
        profiles[ids[owner]] = replace(profiles[ids[owner]], contexts=joined[mine], zone=zone)
    return profiles


def load_profiles(path: Path) -> dict[str, Profile]:
    """Read what `save_profiles` wrote. Raises ValueError, KeyError or OSError if the file is something else."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    # Bundles of before lack it; with the maximum over all signals a mute sensor is a little less sensitive.
    arrays.setdefault("worst_zz_of_others", arrays["worst_zz"])
    arrays.setdefault("sentinels", np.full((*arrays["center"].shape, SENTINELS), np.nan))
    for name, nothing in _WITHOUT_RULES.items():
        arrays.setdefault(name, np.full_like(arrays["center"], nothing))
    sensors, channels = len(arrays["center"]), arrays["center"].shape[-1]
    arrays.setdefault("typical", np.full((sensors, typical_count(channels)), np.nan, dtype=np.float32))
    arrays.setdefault("components", np.zeros((sensors, COMPONENTS, several(channels)), dtype=np.float32))
    return _unpack_contexts(arrays, unpack_profiles(Profile, arrays))
