"""The configuration: one frozen, fully validated value. Every key has a default; durations are int nanoseconds.

`Config()` is the default configuration. `detector.config.load` reads one from a file and from `--set` options, and is
where everything here is imported from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from detector.config.alerts import AlertsConfig, FrameAlertsConfig, OverrideConfig
from detector.config.base import Section
from detector.config.fields import FieldsConfig
from detector.config.machines import AlignConfig, MachineConfig
from detector.config.people import IncidentsConfig, NotifyConfig
from detector.config.streams import StreamsConfig
from detector.config.values import (
    DURATION_PATTERN,
    Count,
    Day,
    Duration,
    Listen,
    Name,
    PatientDuration,
    Pattern,
    PositiveDuration,
    Text,
    Time,
    Weekday,
    Zone,
    format_duration,
    parse_duration,
    refused,
)


class SensorsConfig(Section):
    """Which sensors are watched (shell patterns), and how many."""

    include: tuple[Pattern, ...] = ("*",)
    exclude: tuple[Pattern, ...] = ()
    max: Annotated[int, Field(ge=0)] = 100_000
    """Of a partition; where all places are taken, sensors without a profile make way. 0: any number."""


class WindowConfig(Section):
    """How readings become windows."""

    stride: Count = 1
    """Every how many readings the autoencoder runs."""
    allowed_lateness: Duration = 0
    """How long readings are held for others to overtake them."""
    max_future: Duration = parse_duration("5m")
    """How far a timestamp may lie beyond the broker's."""
    max_gap: PositiveDuration | None = None
    """A longer silence restarts the window."""
    fill: Literal["linear"] = "linear"
    max_fill: Annotated[int, Field(ge=0, le=50)] = 5
    """At most this many missing rows are filled in."""


class ReadingsConfig(Section):
    """The path of sensor readings."""

    enabled: bool = True
    input: Name = "sensor-readings"
    model: Path = Path("var/models/readings")
    """Directory of bundles; its file `current` names the active version."""
    runtime: Literal["onnx", "tensorflow"] = "onnx"
    channels: Annotated[tuple[Text, ...], Field(min_length=1)] = ("value",)
    """Value columns of a reading; several give windows of shape (100, n)."""
    fields: FieldsConfig = Field(default_factory=FieldsConfig)
    coerce: bool = False
    """Take numbers in strings, and whole numbers as sensor ids."""
    sensors: SensorsConfig = Field(default_factory=SensorsConfig)
    warmup: Annotated[int, Field(ge=150, le=1_000_000)] = 1000
    """Readings before a sensor without a profile may alert."""
    window: WindowConfig = Field(default_factory=WindowConfig)
    silence_after: PatientDuration | None = "auto"
    """A sensor that is not heard for so long, while others are, is an episode. auto: by its own interval."""
    idle_eviction: PositiveDuration | None = parse_duration("7d")
    """A sensor that is silent for longer is forgotten."""
    alerts: AlertsConfig = Field(default_factory=AlertsConfig)
    overrides: Annotated[tuple[OverrideConfig, ...], Field(max_length=1000)] = ()
    machines: tuple[MachineConfig, ...] = ()
    """Whose channels come as sensors of their own, one value a reading."""
    align: AlignConfig | None = None
    """How their readings become rows; null: as is usual, where there are machines."""
    timezone: Zone | None = "UTC"
    """Whose clocks and weekdays a sensor's usual hours go by; null: none is judged by the time of the day."""

    @property
    def decoded(self) -> tuple[str, ...]:
        """The channels of a reading as it comes: those of a machine come one by one."""
        return ("value",) if self.machines else self.channels

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.channels)) < len(self.channels):
            raise refused("channels names a channel twice", "Keep one of them")
        if isinstance(self.fields.value, dict) and set(self.fields.value) != set(self.decoded):
            raise refused(
                f"fields.value has {', '.join(self.fields.value)}, and the channels are {', '.join(self.decoded)}",
                "Give each channel its path" if not self.machines else "Name the one place of a tag's value",
            )
        if self.align is not None and not self.machines:
            raise refused("align joins the tags of machines, and there are none", "Name them in readings.machines")
        self._check_machines()
        return self

    def _check_machines(self) -> None:
        ids: set[str] = set()
        places: dict[str, str] = {}
        for machine in self.machines:
            if machine.id in ids:
                raise refused(f"the machine {machine.id} is there twice", "Keep one of them")
            ids.add(machine.id)
            if set(machine.channels) != set(self.channels):
                raise refused(
                    f"the machine {machine.id} has {', '.join(machine.channels)}, and the channels are "
                    f"{', '.join(self.channels)}",
                    "Name a tag for each of readings.channels",
                )
            for channel, tag in machine.channels.items():
                place = f"{channel} of {machine.id}"
                if places.setdefault(tag, place) != place:
                    raise refused(f"the tag {tag} is {places[tag]} and {place}", "A tag is one channel of one machine")


class LimitsConfig(Section):
    """The largest frame that is decoded."""

    pixels: Count = 16_000_000
    bytes: Count = 10_000_000


class FramesConfig(Section):
    """The path of camera frames."""

    enabled: bool = False
    input: Name = "image-frames"
    model: Path = Path("var/models/frames")
    runtime: Literal["onnx", "tensorflow"] = "onnx"
    limits: LimitsConfig = Field(default_factory=LimitsConfig)
    warmup: Annotated[int, Field(ge=150, le=1_000_000)] = 500
    """Frames before a camera without a profile may alert."""
    max_future: Duration = parse_duration("5m")
    """How far a frame's timestamp may lie beyond the broker's."""
    idle_eviction: PositiveDuration | None = parse_duration("7d")
    """A camera that is silent for longer is forgotten."""
    alerts: FrameAlertsConfig = Field(default_factory=FrameAlertsConfig)


Side = Annotated[int, Field(ge=4, le=512)]
_PAIRS: Final = {"sigmoid": "minmax", "tanh": "symmetric", "linear": "standard"}


class TrainingConfig(Section):
    """How a model is trained."""

    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (32,)
    """Widths of the dense model's hidden layers."""
    units: Count = 32
    """Width of the LSTM layers, and of the code of frames."""
    image: tuple[Side, Side] = (28, 28)
    """Height and width to which frames are brought; multiples of 4."""
    filters: tuple[Count, Count] = (16, 8)
    """Of the two convolutions over frames."""
    activation: Literal["linear", "sigmoid", "tanh"] = "linear"
    """Of the output; belongs to the scaler: linear to standard, sigmoid to minmax, tanh to symmetric."""
    scaler: Literal["standard", "minmax", "symmetric"] = "standard"
    epochs: Count = 30
    """Passes over the data."""
    min_steps: Count | None = 600
    """At least this many steps, and more passes while the held-back tail improves; null: exactly `epochs` passes."""
    batch_size: Count = 128
    max_windows: Count = 100_000
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="after")
    def _exactly(self) -> Self:
        """Whoever writes `epochs` and says nothing of `min_steps` gets those epochs."""
        if "epochs" in self.model_fields_set and "min_steps" not in self.model_fields_set:
            object.__setattr__(self, "min_steps", None)  # the settings are frozen, and not finished yet
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        needed = _PAIRS[self.activation]
        if self.scaler != needed:
            raise refused(
                f"activation {self.activation} does not go with scaler {self.scaler}",
                f"Set scaler: {needed}, or an activation for {self.scaler}",
            )
        return self


class MaintenanceConfig(Section):
    """Episodes of matching sensors and cameras that open in this time are muted; `to` is not part of it."""

    match: Pattern
    start: Time = Field(alias="from")
    end: Time = Field(alias="to")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.start >= self.end:
            raise refused("`to` is not after `from`", "Swap or correct them")
        return self


class CalendarConfig(Section):
    """Days, the last one included, on which matching sensors do not go by their weekday, in `readings.timezone`."""

    match: Pattern = "*"
    first: Day = Field(alias="from")
    last: Day = Field(alias="to")
    like: Weekday | None = None
    """The weekday that they go by; null: by none, and nothing is learnt or missed of their hours."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.first > self.last:
            raise refused("`to` is before `from`", "Swap or correct them")
        return self


class OutputConfig(Section):
    """The output streams."""

    alerts: Name = "anomaly-alerts"
    dead_letters: Name = "detector-dead-letters"
    scores: Name | None = None
    verdicts: Name | None = "anomaly-verdicts"


class RejectsConfig(Section):
    """A larger share of rejected records than this, over the last `over` records, stops the daemon."""

    max_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    over: Annotated[int, Field(ge=100, le=1_000_000)] = 1000


class StateConfig(Section):
    """State that survives restarts (Kafka)."""

    snapshot_interval: PositiveDuration = parse_duration("60s")
    on_missing_state: Literal["rebuild", "cold", "fail"] = "rebuild"
    rebuild_max_age: PositiveDuration = parse_duration("1d")


class HttpConfig(Section):
    """The HTTP server of metrics and health."""

    listen: Listen = "127.0.0.1:9108"

    @property
    def host(self) -> str:
        """The address without the brackets of IPv6."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port; 0 lets the system choose."""
        return int(self.listen.rpartition(":")[2])


class MetricsConfig(Section):
    """Sensors that get metric series of their own."""

    sensors: Annotated[tuple[Text, ...], Field(max_length=100)] = ()


class LogConfig(Section):
    """Logging to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class Config(Section):
    """Everything a person can set."""

    streams: StreamsConfig = Field(default_factory=StreamsConfig)
    readings: ReadingsConfig = Field(default_factory=ReadingsConfig)
    frames: FramesConfig = Field(default_factory=FramesConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    maintenance: Annotated[tuple[MaintenanceConfig, ...], Field(max_length=1000)] = ()
    calendar: Annotated[tuple[CalendarConfig, ...], Field(max_length=1000)] = ()
    output: OutputConfig = Field(default_factory=OutputConfig)
    incidents: IncidentsConfig = Field(default_factory=IncidentsConfig)
    notify: NotifyConfig = Field(default_factory=NotifyConfig)
    rejects: RejectsConfig = Field(default_factory=RejectsConfig)
    state: StateConfig = Field(default_factory=StateConfig)
    http: HttpConfig = Field(default_factory=HttpConfig)
    metrics: MetricsConfig = Field(default_factory=MetricsConfig)
    log: LogConfig = Field(default_factory=LogConfig)
    shutdown_timeout: PositiveDuration = parse_duration("20s")

    @model_validator(mode="after")
    def _check(self) -> Self:
        streams = {
            "readings.input": self.readings.input,
            "frames.input": self.frames.input,
            "output.alerts": self.output.alerts,
            "output.dead_letters": self.output.dead_letters,
            "output.scores": self.output.scores,
            "output.verdicts": self.output.verdicts,
            "incidents.output": self.incidents.output,
        }
        seen: dict[str, str] = {}
        for key, name in streams.items():
            if name is not None and seen.setdefault(name, key) != key:
                raise refused(f"{seen[name]} and {key} are both the stream {name}", "Give each its own name")
        if self.streams.backend == "directory" and self.readings.enabled and self.readings.fields.by_record:
            raise refused(
                "readings.fields.timestamp is `record`, and the lines of a file have no time of their own",
                "Name the timestamp, or use Kafka",
            )
        return self


def config_schema() -> dict[str, Any]:
    """The JSON Schema of the configuration file."""
    schema = Config.model_json_schema(by_alias=True)
    for section in (schema, *schema["$defs"].values()):
        for key in section["properties"].values():
            # pydantic gives the default as it is inside, in ns; the file has it as text.
            forms = key.get("anyOf", [key])
            if any(form.get("pattern") == DURATION_PATTERN for form in forms) and isinstance(key.get("default"), int):
                key["default"] = format_duration(key["default"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "detector configuration"}
