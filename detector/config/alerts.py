"""Settings of alerts, and what may differ for the sensors that match a pattern."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from detector.config.base import Section
from detector.config.values import (
    Count,
    PatientDuration,
    Pattern,
    Period,
    PositiveDuration,
    parse_duration,
    parse_period,
    refused,
)


class FalseAlarms(Section):
    """The budget: this many false alarms a sensor in this time, or in this many readings."""

    per_sensor: Annotated[float, Field(gt=0)] = 1.0
    per: Period = "week"
    """hour, day, week, month (30 days), year, a duration such as 12h, or `10000 readings`."""

    @property
    def period(self) -> int | None:
        """The budget's time in ns, None where it counts readings."""
        return parse_period(self.per)[0]

    @property
    def readings(self) -> int | None:
        """The budget's number of readings, None where it counts time."""
        return parse_period(self.per)[1]


class OpenAfter(Section):
    """An episode opens when `n` of the last `of` rows exceed the threshold."""

    n: Count = 10
    of: Annotated[int, Field(ge=1, le=100)] = 10

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n > self.of:
            raise refused(f"n is {self.n}, more than the {self.of} rows it is counted in", "Lower n or raise of")
        return self


class FrameOpenAfter(OpenAfter):
    """The same for frames, which are fewer."""

    n: Count = 3
    of: Annotated[int, Field(ge=1, le=100)] = 5


class MinDeviation(Section):
    """Deviations from the sensor's usual level below this are no anomaly, whatever their score."""

    absolute: Annotated[float, Field(ge=0)] = 0.0
    """In the sensor's own unit."""
    relative: Annotated[float, Field(ge=0)] = 0.0
    """As a share of the usual level."""


class AlertsConfig(Section):
    """When an episode opens, is updated and closes."""

    false_alarms: FalseAlarms | None = Field(default_factory=FalseAlarms)
    """null: no budget, a fixed threshold."""
    open_after: OpenAfter = Field(default_factory=OpenAfter)
    close_after: Count = 100
    """Rows in a row below the closing level."""
    critical_ratio: Annotated[float, Field(ge=1)] = 3.0
    """An episode is critical from this multiple of the threshold on."""
    update_every: PositiveDuration | None = parse_duration("15m")
    """Event time between two `updated` messages."""
    max_duration: PositiveDuration | None = parse_duration("7d")
    direction: Literal["both", "above", "below"] = "both"
    min_deviation: MinDeviation = Field(default_factory=MinDeviation)


_NO_LEVEL: Final = "{} has no meaning for frames: a picture has no usual level to lie above or below"


class FrameAlertsConfig(AlertsConfig):
    """The same for frames, but for `direction` and `min_deviation`, which stay as they are."""

    open_after: FrameOpenAfter = Field(default_factory=FrameOpenAfter)
    close_after: Count = 20
    direction: Literal["both", "above", "below"] = Field(default="both", json_schema_extra={"const": "both"})
    """Without meaning for frames."""
    min_deviation: MinDeviation = Field(
        default_factory=MinDeviation, json_schema_extra={"const": {"absolute": 0.0, "relative": 0.0}}
    )
    """Without meaning for frames."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.direction != "both":
            raise refused(_NO_LEVEL.format("direction"), "Remove it")
        if self.min_deviation != MinDeviation():
            raise refused(_NO_LEVEL.format("min_deviation"), "Remove it; a stricter false_alarms means fewer alerts")
        return self


class AlertsOverride(Section):
    """Keys of `readings.alerts` that differ for some sensors. Which were given is in `model_fields_set`."""

    false_alarms: FalseAlarms | None = None
    open_after: OpenAfter = Field(default_factory=OpenAfter)
    close_after: Count = 100
    critical_ratio: Annotated[float, Field(ge=1)] = 3.0
    update_every: PositiveDuration | None = None
    max_duration: PositiveDuration | None = None
    direction: Literal["both", "above", "below"] = "both"
    min_deviation: MinDeviation = Field(default_factory=MinDeviation)


class WindowOverride(Section):
    """Keys of `readings.window` that differ for some sensors."""

    max_gap: PositiveDuration | None = None
    max_fill: Annotated[int, Field(ge=0, le=50)] = 5


class OverrideConfig(Section):
    """Other settings for the sensors whose id matches a shell pattern; of several overrides the first one counts."""

    match: Pattern
    enabled: bool = True
    """false: these sensors are left out."""
    window: WindowOverride = Field(default_factory=WindowOverride)
    silence_after: PatientDuration | None = None
    alerts: AlertsOverride = Field(default_factory=AlertsOverride)

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = self.model_fields_set - {"match"}
        if not given - {"window", "alerts"} and not self.window.model_fields_set and not self.alerts.model_fields_set:
            raise refused(f"the override for `{self.match}` sets nothing", "Add a setting, or `enabled: true`")
        return self
