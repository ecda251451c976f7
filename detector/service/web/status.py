"""What the process shows of itself to people: made by the main loop about once a second, read by HTTP threads.

A `Status` never changes once it is made. The loop puts a new one on the `Board`, which is a single assignment, so that
a reader needs no lock and can hold up nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from detector import __version__
from detector.config.load import Config
from detector.detection.watch import Reason
from detector.engine.overview import SensorView
from detector.streams.base import Message, Partition
from detector.wire.alerts import Kind


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model in use."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """A partition of ours. `clock`: ns, None before the first reading; `lag` as the backend counts it."""

    stream: str
    number: int
    kind: Kind
    position: int
    lag: int
    sensors: int
    warming: int
    open_episodes: int
    clock: int | None
    restoring: bool
    relearning: int = 0
    muted_episodes: int = 0


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor of a partition."""

    kind: Kind
    partition: Partition
    view: SensorView


@dataclass(frozen=True, slots=True)
class Unwatched:
    """A sensor of a partition of which no fault would be told, and why."""

    kind: Kind
    partition: Partition
    sensor_id: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Setup:
    """With what a process works. `configuration` and `reloaded`: the version in use, and whether it is the newest.

    `sensors`: those that get metrics of their own; `channels` of the readings.
    """

    backend: str = "directory"
    channels: tuple[str, ...] = ("value",)
    sensors: tuple[str, ...] = ()
    models: Mapping[Kind, ModelStatus] = field(default_factory=dict)
    configuration: str = ""
    reloaded: bool = True
    version: str = __version__


def setup_of(config: Config, models: Mapping[Kind, ModelStatus]) -> Setup:
    """The set-up that a configuration and its models make."""
    return Setup(
        backend=config.streams.backend,
        channels=config.readings.channels,
        sensors=config.metrics.sensors,
        models=dict(models),
        configuration=configuration_version(config),
    )


def configuration_version(config: Config) -> str:
    """A short name for a configuration: the same for the same settings, wherever they were written."""
    return hashlib.sha256(config.model_dump_json(by_alias=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Status:
    """The process at one moment. Times are wall-clock seconds since the epoch unless they are event time (ns).

    `rates`: inputs a second, by kind, one number a second, the newest last. Latencies in seconds, None: nothing was
    committed yet; `event_latency` from a reading's own time, `commit_latency` from the broker's.
    `unwatched_by_reason`: sensors that are not watched; `unwatched`: some of them, those that warm up last.
    `closed`: alerts of episodes that have closed, the newest first; perhaps others among them.
    """

    at: float
    started: float
    setup: Setup
    partitions: tuple[PartitionStatus, ...] = ()
    inputs: Mapping[Kind, int] = field(default_factory=dict)
    rates: Mapping[Kind, tuple[float, ...]] = field(default_factory=dict)
    alerts: int = 0
    budget_ratios: Mapping[Kind, float] = field(default_factory=dict)
    event_latency: float | None = None
    commit_latency: float | None = None
    commit_seconds: float | None = None
    worst: tuple[Sensor, ...] = ()
    episodes: tuple[Sensor, ...] = ()
    unwatched_by_reason: Mapping[Reason, int] = field(default_factory=dict)
    unwatched: tuple[Unwatched, ...] = ()
    closed: tuple[bytes, ...] = ()

    @property
    def lag(self) -> int:
        """What is there and not read yet, of all partitions."""
        return sum(one.lag for one in self.partitions)

    @property
    def sensors(self) -> int:
        return sum(one.sensors for one in self.partitions)

    @property
    def warming(self) -> int:
        return sum(one.warming for one in self.partitions)

    @property
    def relearning(self) -> int:
        return sum(one.relearning for one in self.partitions)

    @property
    def open_episodes(self) -> int:
        return sum(one.open_episodes for one in self.partitions)


class Board:
    """Holds the newest status; None before there is one. `hear` is told of alerts, on the main loop's time."""

    def __init__(self) -> None:
        self.status: Status | None = None
        self.hear: Callable[[Sequence[Message]], None] = lambda _: None
