"""Readings as what a model is made of: `detector train`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detector.arrays import F32, F64, I64
from detector.detection.hours import Hours
from detector.detection.prefix import NotYetError, examine, sentinel_counts
from detector.detection.profile import MIN_ROWS, Profile, build_profile, scale_of
from detector.detection.signals import standardise
from detector.detection.usable import check_usable
from detector.errors import UserError
from detector.models.bundle.spec import ModelSpec
from detector.models.runtime.onnx import OnnxRuntime
from detector.models.training.building import COMPARED, Calibrated
from detector.models.training.sampling import CLIP, Sample, Series, sample


def with_a_scale(series: Series, scaler: str) -> tuple[Series, dict[str, str]]:
    """The sensors whose values have a center and a scale, and by sensor why others have none."""
    kept: dict[str, tuple[I64, F64]] = {}
    refused: dict[str, str] = {}
    for sensor_id, (times, values) in series.items():
        try:
            prefix = examine(times, values, least=MIN_ROWS)
        except NotYetError as error:
            refused[sensor_id] = f"{error}; the daemon makes its profile once it has seen enough"
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.isfinite(scale_of(prefix.values, scaler)).all()
        if scaled:
            kept[sensor_id] = times, values
        else:
            low, high = np.nanmin(values), np.nanmax(values)
            refused[sensor_id] = f"values from {low:.3g} to {high:.3g} are too far apart, or too large"
    return kept, refused


def taken_as_missing(series: Series, channels: Sequence[str]) -> Iterator[str]:
    """What to say of values that stand for none."""
    for sensor_id, (times, values) in series.items():
        sentinels = examine(times, values, least=MIN_ROWS).sentinels
        for channel, counts in zip(channels, sentinel_counts(values, sentinels), strict=True):
            of = f" ({channel})" if len(channels) > 1 else ""
            yield from (f"{sensor_id}{of}: {value:.10g} came {times} times" for value, times in counts)


def _cleaned(times: I64, values: F64) -> tuple[I64, F64]:
    """What of a sensor's rows makes its profile."""
    prefix = examine(times, values, least=MIN_ROWS)
    return prefix.times, prefix.values


@dataclass(frozen=True, slots=True)
class Sensors:
    """Each sensor of `series` has at least 150 rows; its profile is built from all of them, as the daemon would. NaN: a
    row lacks the channel.

    `stride` thins the autoencoder as it does live. `open_after` is the (n, m) of the sensors' alerts,
    `other_open_after` that of sensors where it differs. `refused` is told which sensor has no profile, and why.
    `hours`: the clocks that they go by, None: by none.
    """

    series: Series
    spec: ModelSpec
    stride: int
    open_after: tuple[int, int]
    other_open_after: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    refused: Callable[[str, str], None] = lambda _, __: None
    hours: Hours | None = None

    @property
    def times(self) -> Sequence[I64]:
        """Times of the rows, in ns, of each sensor."""
        return [times for times, _ in self.series.values()]

    def sample(self, limit: int) -> Sample:
        """The windows that are trained on and those held back. Raises ValueError for a shorter or an empty series."""
        cleaned = {sensor_id: _cleaned(*rows) for sensor_id, rows in self.series.items()}
        return sample(cleaned, scaler=self.spec.scaler, limit=limit)

    def newest(self) -> F32:
        """Some windows of one sensor as the model takes them."""
        _, values = _cleaned(*next(iter(self.series.values())))
        z = standardise(values, *scale_of(values, self.spec.scaler))[-(COMPARED + self.spec.window - 1) :]
        rows = np.clip(z, -CLIP, CLIP).astype(np.float32)
        return np.stack([rows[i : i + self.spec.window] for i in range(len(rows) - self.spec.window + 1)])

    def calibrate(self, runtime: OnnxRuntime, profiled: Callable[[int], None]) -> Calibrated:
        """The profile of each sensor that has one; `profiled` is told after each sensor how many are done.

        Raises UserError if none has.
        """
        profiles: dict[str, Profile] = {}
        for done, sensor_id in enumerate(self.series, 1):
            try:
                profiles[sensor_id] = self._profile(sensor_id, runtime)
            except (ArithmeticError, ValueError, IndexError) as error:
                # What these readings do to sums and matrices concerns no other sensor.
                self.refused(sensor_id, str(error))
            profiled(done)
        if not profiles:
            raise nothing_left()
        return Calibrated(profiles, _numbers(profiles, self.spec))

    def _profile(self, sensor_id: str, runtime: OnnxRuntime) -> Profile:
        times, values = self.series[sensor_id]
        open_after = self.other_open_after.get(sensor_id, self.open_after)
        with np.errstate(over="ignore", invalid="ignore"):
            profile, _ = build_profile(
                times, values, runtime, scaler=self.spec.scaler, stride=self.stride, open_after=open_after,
                hours=None if self.hours is None else (self.hours, sensor_id),
            )  # fmt: skip
        check_usable({sensor_id: profile}, len(self.spec.channels))
        return profile


def nothing_left() -> UserError:
    """The error to raise where no sensor has a profile."""
    return UserError(
        "there is no sensor whose readings can be calibrated",
        todo="Look at their values, or train on another part of them with --since, --until or --rows",
    )


def _numbers(profiles: Mapping[str, Profile], spec: ModelSpec) -> dict[str, Any]:
    """The profiles in numbers: medians over the sensors."""
    (channel, *others) = spec.channels
    signals = ("prediction", "place") if others else (f"prediction {channel}", "reconstruction", f"level {channel}")
    worst = np.median([profile.worst for profile in profiles.values()], axis=0)
    return {
        "sensors": len(profiles),
        "regular_sensors": sum(profile.regular for profile in profiles.values()),
        "median_scored_rows": float(np.median([profile.scored_rows for profile in profiles.values()])),
        "median_worst": dict(zip(signals, worst.tolist(), strict=True)),
    }
