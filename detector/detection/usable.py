"""Whether the numbers of a profile can be computed with: finite, of the right shapes, with peaks that lead on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from detector.arrays import Bools
from detector.detection.prefix import SENTINELS
from detector.detection.profile import Calibration, Profile
from detector.detection.signals import WINDOW, signal_count
from detector.detection.views import COMPONENTS, VIEWS, several, typical_count

_POSITIVE: Final = float(np.finfo(np.float64).tiny)


def check_usable(profiles: Mapping[str, Profile], channels: int) -> None:
    """Raise ValueError unless each profile is of this many channels and its numbers can be computed with.

    All sensors are looked at together: at a start there may be a hundred thousand.
    """
    if not profiles:
        return
    ids, all_of_them = list(profiles), list(profiles.values())
    c, machine = (channels,), several(channels)
    _check("center", ids, (profile.center for profile in all_of_them), c)
    _check("scale", ids, (profile.scale for profile in all_of_them), c, least=_POSITIVE)
    _check("ridge", ids, (profile.ridge for profile in all_of_them), (channels, WINDOW - 1))
    _check("bias", ids, (profile.bias for profile in all_of_them), c)
    _check(
        "typical",
        ids,
        (np.nan_to_num(profile.typical) for profile in all_of_them),
        (typical_count(channels),),
        least=0.0,
    )
    _check("components", ids, (profile.components for profile in all_of_them), (COMPONENTS, machine))
    together = bool(machine) and not np.isnan(all_of_them[0].typical).any()
    k = (VIEWS if together else signal_count(channels),)
    _check("worst", ids, (profile.worst for profile in all_of_them), k, least=_POSITIVE)
    _check("worst_zz", ids, (profile.worst_zz for profile in all_of_them), (), least=_POSITIVE)
    _check("worst_zz_of_others", ids, (profile.worst_zz_of_others for profile in all_of_them), (), least=_POSITIVE)
    _check("mean", ids, (profile.mean for profile in all_of_them), k)
    _check("variance", ids, (profile.variance for profile in all_of_them), k, least=0.0)
    _check("count", ids, (profile.count for profile in all_of_them), (), least=_POSITIVE)
    _check("sentinels", ids, (np.nan_to_num(profile.sentinels) for profile in all_of_them), (channels, SENTINELS))
    limits = (np.where(np.isinf(profile.still_limit), 1.0, profile.still_limit) for profile in all_of_them)
    _check("still_limit", ids, limits, c, least=1.0)
    _check("resolution", ids, (profile.resolution for profile in all_of_them), c, least=0.0)
    limits = (np.where(np.isinf(profile.drift_worst), 1.0, profile.drift_worst) for profile in all_of_them)
    _check("drift_worst", ids, limits, c, least=_POSITIVE)
    _check("drift_worst_zz", ids, (profile.drift_worst_zz for profile in all_of_them), c, least=_POSITIVE)
    _check("drift_mean", ids, (profile.drift_mean for profile in all_of_them), c)
    _check("drift_variance", ids, (profile.drift_variance for profile in all_of_them), c, least=0.0)
    _check("noise_usual", ids, (profile.noise_usual for profile in all_of_them), c, least=_POSITIVE)
    limits = (np.where(np.isinf(profile.noise_hush), 2.0, profile.noise_hush) for profile in all_of_them)
    _check("noise_hush", ids, limits, c, least=1.01)
    _check("open_after", ids, (profile.open_after for profile in all_of_them), (2,), least=1)
    for sensor_id, profile in profiles.items():
        if len(profile.contexts):
            _check_hours(sensor_id, profile, channels)
    _check_peaks(ids, all_of_them)


def check_usable_frames(profiles: Mapping[str, Calibration]) -> None:
    """The same of cameras."""
    if not profiles:
        return
    ids, all_of_them = list(profiles), list(profiles.values())
    _check("worst", ids, (profile.worst for profile in all_of_them), (1,), least=_POSITIVE)
    _check("worst_zz", ids, (profile.worst_zz for profile in all_of_them), (), least=_POSITIVE)
    _check("mean", ids, (profile.mean for profile in all_of_them), (1,))
    _check("variance", ids, (profile.variance for profile in all_of_them), (1,), least=0.0)
    _check("count", ids, (profile.count for profile in all_of_them), (), least=_POSITIVE)
    _check_peaks(ids, all_of_them)


def _check(
    name: str, ids: Sequence[str], cells: Iterable[Any], shape: tuple[int, ...], *, least: float = -np.inf
) -> None:
    found = np.array(list(cells))
    if found.shape[1:] != shape:
        raise ValueError(f"`{name}` has the shape {found.shape[1:]}, not {shape}")
    good = np.isfinite(found) & (found >= least)
    _blame(ids, good.reshape(len(ids), -1).all(axis=1), f"`{name}` of {{}} is beyond what can be computed with")


def _check_hours(sensor_id: str, profile: Profile, channels: int) -> None:
    """Raise ValueError unless the hours of a profile are of its channels and can be computed with."""
    found = profile.contexts
    good = (found["channel"] >= 0) & (found["channel"] < channels) & (np.diff(found["channel"], prepend=-1) > 0)
    for name in ("half", "limit", "fewest"):
        good &= np.isfinite(found[name]) & (found[name] > 0)
    good &= ~np.isinf(found["center"]).any(axis=1) & ~np.isinf(found["spread"]).any(axis=1)
    if not good.all():
        raise ValueError(f"the hours of {sensor_id} are beyond what can be computed with")


def _check_peaks(ids: Sequence[str], profiles: Sequence[Calibration]) -> None:
    """Raise ValueError unless the peaks of each sensor, or camera, lead from any scored row to the last one."""
    runs = np.array([len(profile.peak_v) for profile in profiles])
    _blame(ids, runs > 0, "{} has no peaks")
    first, last, v = (
        np.concatenate(column)
        for column in zip(*((one.peak_first, one.peak_last, one.peak_v) for one in profiles), strict=True)
    )
    if not first.shape == last.shape == v.shape:
        raise ValueError("peaks have a beginning, an end and a score each")
    owners = np.repeat(np.arange(len(ids)), runs)
    ends = np.cumsum(runs) - 1
    good = np.isfinite(v) & (first <= last)
    # `peaks_of_suffix` walks from run to run up to the last row, which always stands.
    good[1:] &= (np.diff(last) > 0) | (np.diff(owners) > 0)
    good[ends] &= last[ends] == np.array([profile.scored_rows for profile in profiles]) - 1
    _blame(ids, np.bincount(owners, good) == runs, "the peaks of {} are not in order")


def _blame(ids: Sequence[str], good: Bools, what: str) -> None:
    if not good.all():
        raise ValueError(what.format(ids[int(np.argmin(good))]))
