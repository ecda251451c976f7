"""Readings as what a model is made of: `detector train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detector.arrays import F32, I64
from detector.detection.profile import Profile, build_profile, scale_of
from detector.detection.signals import standardise
from detector.models.bundle.spec import ModelSpec
from detector.models.runtime.onnx import OnnxRuntime
from detector.models.training.building import COMPARED, Calibrated
from detector.models.training.sampling import CLIP, Sample, Series, sample


@dataclass(frozen=True, slots=True)
class Sensors:
    """Each sensor of `series` has at least 150 rows; its profile is built from all of them, as the daemon would.

    `stride` thins the autoencoder as it does live. `open_after` is the (n, m) of the sensors' alerts,
    `other_open_after` that of sensors where it differs.
    """

    series: Series
    spec: ModelSpec
    stride: int
    open_after: tuple[int, int]
    other_open_after: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def times(self) -> Sequence[I64]:
        """Times of the rows, in ns, of each sensor."""
        return [times for times, _ in self.series.values()]

    def sample(self, limit: int) -> Sample:
        """The windows that are trained on and those held back. Raises ValueError for a shorter or an empty series."""
        return sample(self.series, scaler=self.spec.scaler, limit=limit)

    def newest(self) -> F32:
        """Some windows of one sensor as the model takes them."""
        _, values = next(iter(self.series.values()))
        z = standardise(values, *scale_of(values, self.spec.scaler))[-(COMPARED + self.spec.window - 1) :]
        rows = np.clip(z, -CLIP, CLIP).astype(np.float32)
        return np.stack([rows[i : i + self.spec.window] for i in range(len(rows) - self.spec.window + 1)])

    def calibrate(self, runtime: OnnxRuntime, profiled: Callable[[int], None]) -> Calibrated:
        """The profile of each sensor; `profiled` is told after each how many are done."""
        profiles: dict[str, Profile] = {}
        for sensor_id, (times, values) in self.series.items():
            profiles[sensor_id], _ = build_profile(
                times,
                values,
                runtime,
                scaler=self.spec.scaler,
                stride=self.stride,
                open_after=self.other_open_after.get(sensor_id, self.open_after),
            )
            profiled(len(profiles))
        return Calibrated(profiles, _numbers(profiles, self.spec))


def _numbers(profiles: Mapping[str, Profile], spec: ModelSpec) -> dict[str, Any]:
    """The profiles in numbers: medians over the sensors."""
    signals = [*(f"prediction {channel}" for channel in spec.channels), "reconstruction"]
    signals += [f"level {channel}" for channel in spec.channels]
    worst = np.median([profile.worst for profile in profiles.values()], axis=0)
    return {
        "sensors": len(profiles),
        "regular_sensors": sum(profile.regular for profile in profiles.values()),
        "median_scored_rows": float(np.median([profile.scored_rows for profile in profiles.values()])),
        "median_worst": dict(zip(signals, worst.tolist(), strict=True)),
    }
