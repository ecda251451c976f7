"""The main loop, over streams in memory and with clocks that the test turns."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from detector.config.load import ReadingsConfig
from detector.detection.scorer import Model
from detector.engine.readings import ReadingsPipeline
from detector.errors import OperationError, UserError
from detector.service.daemon import Clocks, Daemon
from detector.service.health import WAITING, Health
from detector.service.metrics import Metrics
from detector.service.rejects import RejectGuard
from detector.service.systemd import Notifier, Pulse
from detector.service.web.status import Board
from detector.streams.base import Deferred, Event, Message, Partition, Record, Snapshot, nothing_deferred
from detector.streams.memory import MemoryStreams
from detector.wire.alerts import decode_alert
from tests.engines import engine_making
from tests.plant import (
    PARTITION,
    SECOND,
    healthy,
    model_of,
    per_readings,
    pipeline_of,
    play,
    profile_of,
    readings_config,
    readings_of,
    reconstructor,
    records_of,
    table_of,
)

ROWS = 700
BEGIN = 1_000.0


class Streams(MemoryStreams):
    """Streams in memory that note what is asked of them."""

    def __init__(self, records: Sequence[Record | bytes], *, max_records: int = 100, durable_every: int = 1) -> None:
        super().__init__({PARTITION.stream: [records]}, max_records, durable_every=durable_every)
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")
        super().open()

    def poll(self, timeout: float) -> Sequence[Event]:
        self.calls.append("poll")
        return super().poll(timeout)

    def write(self, messages: Sequence[Message]) -> None:
        self.calls.append("write")
        super().write(messages)

    def commit(
        self,
        positions: Mapping[Partition, int],
        snapshot: Snapshot,
        *,
        final: bool = False,
        deferred: Deferred = nothing_deferred,
    ) -> bool:
        self.calls.append("commit finally" if final else "commit")
        return super().commit(positions, snapshot, final=final, deferred=deferred)

    def close(self) -> None:
        self.calls.append("close")
        super().close()


class Supervisor(Notifier):
    """Notes what systemd would be told; wants to be fed every 10 s."""

    def __init__(self) -> None:
        super().__init__({})
        self.watchdog_interval = 10.0
        self.told: list[str] = []

    def ready(self, status: str = "") -> None:
        self.told.append("ready")

    def stopping(self, status: str = "") -> None:
        self.told.append("stopping")

    def alive(self) -> None:
        self.told.append("alive")


@dataclasses.dataclass
class Process:
    """A daemon with all that belongs to it. `turn` is called before each turn and says whether to stop."""

    streams: Streams
    config: ReadingsConfig
    model: Model
    turn: Callable[[], bool] = lambda: False
    until_end: bool = True
    make: Callable[[Partition], ReadingsPipeline] | None = None

    def __post_init__(self) -> None:
        self.now = BEGIN
        self.set_forward = 0.0  # the wall clock, against what has passed
        self.registry = CollectorRegistry()
        self.health = Health(clock=lambda: self.now)
        self.supervisor = Supervisor()
        self.pulse = Pulse(self.health, self.supervisor, lambda: self.now)
        self.pipelines: list[ReadingsPipeline] = []
        self.board = Board()
        self.daemon = Daemon(
            self.streams,
            engine_making(self.make or self._make),
            metrics=Metrics(self.registry),
            health=self.health,
            guard=RejectGuard(0.5, 1000),
            stop=lambda: self.turn(),
            until_end=self.until_end,
            notifier=self.supervisor,
            pulse=self.pulse,
            board=self.board,
            clocks=Clocks(wall=lambda: self.now + self.set_forward, monotonic=lambda: self.now),
        )

    def _make(self, partition: Partition) -> ReadingsPipeline:
        self.pipelines.append(pipeline_of(self.config, self.model))
        return self.pipelines[-1]

    def run(self) -> list[Message]:
        """Run it to its end, and return every alert that is final."""
        self.daemon.run()
        return self.streams.read("alerts")

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def turns(*actions: Callable[[], object]) -> Callable[[], bool]:
    """Does one action before each turn, and stops after the last."""
    left: Iterator[Callable[[], object]] = iter(actions)

    def turn() -> bool:
        action = next(left, None)
        if action is not None:
            action()
        return action is None

    return turn


def nothing() -> None:
    """A turn like any other."""


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Readings of one sensor with a fault that passes."""
    values = healthy(np.random.default_rng(1), ROWS)
    values[250:330] += 12
    return records_of([[reading] for reading in readings_of("pump-0", values)])


@pytest.fixture(scope="module")
def model() -> Model:
    reconstruct = reconstructor()
    return model_of({"pump-0": profile_of(healthy(np.random.default_rng(0), 300), reconstruct)})


@pytest.fixture
def config() -> ReadingsConfig:
    return readings_config(false_alarms=per_readings(5000))


@pytest.fixture
def process(records: list[Record], config: ReadingsConfig, model: Model) -> Callable[..., Process]:
    def make(streams: Streams | None = None, **options: Any) -> Process:
        options = {"config": config, "model": model, **options}
        return Process(Streams(records) if streams is None else streams, **options)

    return make


def logged(caplog: pytest.LogCaptureFixture) -> dict[str, Mapping[str, Any]]:
    return {record.msg: getattr(record, "fields", {}) for record in caplog.records}


# -- a life --------------------------------------------------------------------------------------------------------


def test_a_life_has_its_order(process: Callable[..., Process], caplog: pytest.LogCaptureFixture) -> None:
    one = process(Streams([], max_records=10))
    with caplog.at_level(logging.INFO):
        one.run()
    # The first turn is given the partition, the second finds that this was all.
    assert one.streams.calls == ["open", "poll", "commit", "poll", "commit", "commit finally", "close"]
    life = ["started", "partition_assigned", "draining", "stopped"]
    assert [name for name in logged(caplog) if name in life] == life
    assert one.supervisor.told == ["ready", "stopping"]


def test_to_its_end_it_publishes_what_the_pipeline_says(
    process: Callable[..., Process], records: list[Record], config: ReadingsConfig, model: Model
) -> None:
    published = process().run()
    assert published == play(pipeline_of(config, model), records)
    alerts = [decode_alert(message.value) for message in published]
    assert [alert.event for alert in alerts][:: len(alerts) - 1] == ["opened", "closed"]


def test_dead_letters_come_before_alerts_and_both_before_the_commit(process: Callable[..., Process]) -> None:
    one = process(Streams([b"x"]))
    one.run()
    assert one.streams.calls[:5] == ["open", "poll", "write", "write", "commit"]
    (letter,) = one.streams.read("dead-letters")
    assert letter.value == b"x"


def test_told_to_stop_before_it_began_it_reads_nothing(process: Callable[..., Process]) -> None:
    one = process(turn=lambda: True)
    assert one.run() == []
    assert one.streams.calls == ["open", "commit finally", "close"]


def test_without_an_end_it_runs_until_it_is_told_to_stop(process: Callable[..., Process]) -> None:
    one = process(turn=turns(*[nothing] * 30), until_end=False)
    one.run()
    assert one.streams.calls.count("poll") == 30
    assert one.streams.lag() == {PARTITION: 0}


def test_what_is_done_when_it_stops_is_final(process: Callable[..., Process], records: list[Record]) -> None:
    streams = Streams(records, durable_every=1000)
    one = process(streams, turn=turns(nothing, nothing, nothing))
    one.run()
    assert streams.calls[-2:] == ["commit finally", "close"]
    two = process(streams)
    two.run()
    assert two.sample("detector_readings_total", outcome="accepted") == len(records) - 300
    assert [message.value for message in streams.read("alerts")] == [m.value for m in process().run()]


def test_an_error_leaves_everything_to_the_next_start(process: Callable[..., Process], records: list[Record]) -> None:
    streams = Streams(records, durable_every=1000)

    def fail() -> None:
        raise OperationError("the disk is gone")

    one = process(streams, turn=turns(nothing, nothing, nothing, nothing, fail))
    with pytest.raises(OperationError, match="the disk is gone"):
        one.run()
    assert streams.calls[-1] == "close"
    assert "commit finally" not in streams.calls
    assert process(streams).run() == process().run()


# -- restarts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 3, 4, 6])
def test_a_restart_changes_nothing(process: Callable[..., Process], records: list[Record], at: int) -> None:
    streams = Streams(records)
    process(streams, turn=turns(*[nothing] * at)).run()
    assert process(streams).run() == process().run()


def test_a_new_model_is_taken_up_and_told(
    process: Callable[..., Process], records: list[Record], model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    streams = Streams(records)
    process(streams, turn=turns(*[nothing] * 3)).run()
    before = len(streams.read("alerts"))
    assert before, "the episode has to be open when the model changes"
    process(streams, model=dataclasses.replace(model, version="2", digest="sha256:1")).run()
    assert logged(caplog)["model_changed_since_last_run"] == {"stream": PARTITION.stream}
    alerts = [decode_alert(message.value) for message in streams.read("alerts")]
    assert alerts[before - 1].alert_id == alerts[before].alert_id
    assert {alert.model.version for alert in alerts[before:]} == {"2"}


def test_the_same_model_is_not_told(process: Callable[..., Process], caplog: pytest.LogCaptureFixture) -> None:
    one = process()
    one.run()
    process(one.streams).run()
    assert "model_changed_since_last_run" not in logged(caplog)


def test_a_new_budget_is_taken_up(process: Callable[..., Process], caplog: pytest.LogCaptureFixture) -> None:
    one = process()
    one.run()
    config = readings_config(false_alarms=per_readings(700))
    two = process(one.streams, config=config)
    two.run()
    assert float(table_of(one.pipelines[0], one.config)["budget"][0]) == 5000
    assert float(table_of(two.pipelines[0], config)["budget"][0]) == 700
    assert "model_changed_since_last_run" not in logged(caplog)


def test_a_state_of_other_windows_is_refused(process: Callable[..., Process]) -> None:
    one = process()
    one.run()
    other = process(one.streams, config=readings_config(channels=2), model=model_of(channels=2))
    with pytest.raises(UserError, match="cannot be taken up") as refused:
        other.run()
    assert "--fresh" in str(refused.value)
    assert one.streams.calls[-1] == "close"


# -- partitions come and go ----------------------------------------------------------------------------------------


def test_a_partition_that_is_taken_away_is_forgotten_and_comes_back(
    process: Callable[..., Process], records: list[Record]
) -> None:
    streams = Streams(records)
    seen: list[tuple[dict[str, str], list[float | None]]] = []

    def look() -> None:
        names = ("detector_lag_records", "detector_restore_progress_ratio")
        series = [one.sample(name, stream=PARTITION.stream, partition="0") for name in names]
        seen.append((one.health.reasons, series))

    one = process(
        streams,
        turn=turns(
            nothing, lambda: streams.revoke(PARTITION), look, lambda: streams.assign(PARTITION), look, *[nothing] * 20
        ),
        until_end=False,
    )
    published = one.run()
    assert seen == [({"unassigned": "no partition is assigned"}, [None, None]), ({}, [len(records) - 200, 1])]
    assert len(one.pipelines) == 2
    assert published == process().run()


def test_what_was_uncommitted_of_a_partition_goes_with_it(
    process: Callable[..., Process], records: list[Record]
) -> None:
    stamped = [record._replace(timestamp=int(BEGIN - 5) * 1000) for record in records]
    streams = Streams(stamped, durable_every=3)
    commits: list[float | None] = []

    def look() -> None:
        commits.append(one.sample("detector_commit_latency_seconds_count"))

    take, give = (lambda: streams.revoke(PARTITION)), (lambda: streams.assign(PARTITION))
    # The third commit is the first durable one. By then the hundred records of the first turn are someone else's.
    one = process(streams, turn=turns(nothing, take, nothing, look, give, *[nothing] * 6, look), until_end=False)
    assert one.run() == process().run()
    assert commits == [0, 2]
    assert one.sample("detector_commit_latency_seconds_sum") == 3 * 5, "and the last one as it stops"


def test_it_is_ready_from_the_first_partition_until_it_stops(process: Callable[..., Process]) -> None:
    seen: list[tuple[list[str], float | None]] = []

    def look() -> None:
        seen.append((list(one.health.reasons), one.sample("detector_ready")))

    one = process(turn=turns(look, look, look))
    assert list(one.health.reasons) == ["starting"]
    one.run()
    assert seen == [(["unassigned"], 0.0), ([], 1.0), ([], 1.0)]
    assert list(one.health.reasons) == ["stopping"]


# -- what it tells -------------------------------------------------------------------------------------------------


def test_a_flood_of_rejects_stops_it_with_the_batch_uncommitted(process: Callable[..., Process]) -> None:
    streams = Streams([b"no reading"] * 300, max_records=500)
    with pytest.raises(OperationError) as stopped:
        process(streams).run()
    assert str(stopped.value) == (
        "300 of the last 300 records were rejected, more than the allowed share of 0.5; one of them: "
        "not JSON: Expecting value at character 0 (rejects.max_share). "
        "Correct the producer or `readings.fields`, and start again."
    )
    assert streams.calls == ["open", "poll", "close"]
    assert streams.read("dead-letters") == []


def test_what_happens_is_counted(process: Callable[..., Process], records: list[Record]) -> None:
    first = records[0]
    odd = [
        Record(10**6, None, b'{"sensor_id":"pump-0","timestamp":1790001000,"value":null}'),
        Record(10**6 + 1, None, first.value),
        Record(10**6 + 2, None, b"x"),
    ]
    one = process(Streams([*records, *odd]))
    published = one.run()
    outcomes = ("accepted", "missing", "late", "duplicate", "excluded", "failed", "rejected")
    counted = {outcome: one.sample("detector_readings_total", outcome=outcome) for outcome in outcomes}
    assert counted == {
        "accepted": ROWS, "missing": 1, "late": 1, "duplicate": 0, "excluded": 0, "failed": 0, "rejected": 1,
    }  # fmt: skip
    assert one.sample("detector_rejects_total", reason="malformed") == 1
    assert one.sample("detector_windows_scored_total", kind="readings") == ROWS - 99
    assert one.sample("detector_score_count", kind="readings") == ROWS - 99
    assert one.sample("detector_reconstruction_error_count", kind="readings") == ROWS - 99
    assert one.sample("detector_sensors") == 1
    assert one.sample("detector_sensors_warming") == 0
    assert one.sample("detector_open_episodes", kind="readings") == 0
    assert one.sample("detector_batch_records_sum") == ROWS + 3
    assert one.sample("detector_loop_last_progress_timestamp_seconds") == BEGIN
    assert one.sample("detector_snapshot_bytes") > 0  # type: ignore[operator]
    alerts = [decode_alert(message.value) for message in published]
    for event in ("opened", "closed"):
        told = [
            one.sample("detector_alerts_total", kind="readings", event=event, severity=severity) or 0
            for severity in ("warning", "critical")
        ]
        assert sum(told) == sum(alert.event == event for alert in alerts) > 0


def test_rejects_are_told(process: Callable[..., Process], caplog: pytest.LogCaptureFixture) -> None:
    process(Streams([b"x", b"[]"])).run()
    assert logged(caplog)["readings_rejected"] == {"records": 2, "reasons": {"malformed": 1, "empty": 1}}


def test_at_the_end_the_log_has_what_was_not_used_and_the_board_shows_the_end(
    process: Callable[..., Process], records: list[Record], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    odd = [records[20].value or b"", records[ROWS - 1].value or b"", b"x"]
    one = process(Streams([*records, *odd]))  # in no time: a status was last due at the start
    published = one.run()
    assert logged(caplog)["stopped"] == {
        "readings": ROWS + 3, "frames": 0, "late": 1, "duplicate": 1, "rejected": 1, "alerts": len(published),
        "seconds": 0.0,
    }  # fmt: skip
    status = one.board.status
    assert status is not None
    assert (status.inputs["readings"], status.alerts, status.sensors) == (ROWS + 3, len(published), 1)


def test_after_a_failure_the_board_shows_what_was_done_before(process: Callable[..., Process]) -> None:
    def fail() -> None:
        raise OperationError("broken")

    one = process(turn=turns(nothing, nothing, fail))
    with pytest.raises(OperationError):
        one.run()
    assert one.board.status is not None
    assert one.board.status.inputs["readings"] == 200


def test_a_budget_that_cannot_be_kept_is_told(
    process: Callable[..., Process], caplog: pytest.LogCaptureFixture
) -> None:
    process(config=readings_config(false_alarms=per_readings(100))).run()
    assert logged(caplog)["budget_limited"]["sensors"] == 1


def test_the_watchdog_is_fed_by_the_loop(process: Callable[..., Process]) -> None:
    def later(seconds: float) -> Callable[[], None]:
        def wait() -> None:
            one.now += seconds

        return wait

    one = process(turn=turns(later(1), later(1), later(4), later(1), later(5)), until_end=False)
    one.run()
    # At most half the interval passes between two: it is fed after 6 s and after 12 s.
    assert one.supervisor.told == ["ready", "alive", "alive", "stopping"]
    assert one.now == BEGIN + 12


def test_long_work_in_a_pipeline_can_show_that_it_is_alive(process: Callable[..., Process]) -> None:
    one = process()
    one.now += 100
    live = [one.health.live]
    one.pulse()
    live.append(one.health.live)
    assert live == [False, True]
    assert one.supervisor.told == ["alive"]


def test_latency_is_that_of_the_newest_reading(process: Callable[..., Process], records: list[Record]) -> None:
    one = process()
    one.now = (1_790_000_000 * SECOND + ROWS * SECOND) / 1e9
    one.run()
    with_news = one.streams.calls.count("commit") - 1
    assert one.sample("detector_event_latency_seconds_count") == with_news, "the last two commits cover nothing new"
    assert one.sample("detector_last_event_timestamp_seconds", stream=PARTITION.stream, partition="0") == (
        1_790_000_000 + ROWS - 1
    )


def test_commit_latency_counts_from_the_newest_record_of_a_commit(
    process: Callable[..., Process], records: list[Record]
) -> None:
    ages = (90, 7, 3)
    stamped = [
        record._replace(timestamp=int(BEGIN - age) * 1000) for record, age in zip(records[:3], ages, strict=True)
    ]
    one = process(Streams(stamped, max_records=2))
    one.run()
    assert one.sample("detector_commit_latency_seconds_count") == 2, "the commit at the end covers nothing new"
    assert one.sample("detector_commit_latency_seconds_sum") == 7 + 3


def test_where_there_is_no_broker_there_is_no_commit_latency(
    process: Callable[..., Process], records: list[Record]
) -> None:
    one = process()
    one.run()
    assert all(record.timestamp is None for record in records)
    assert one.sample("detector_commit_latency_seconds_count") == 0


def test_having_to_wait_for_the_broker_is_counted_once_each_time(process: Callable[..., Process]) -> None:
    def broker(away: bool) -> Callable[[], None]:
        return lambda: one.health.set_reason(WAITING, "no answer") if away else one.health.clear_reason(WAITING)

    one = process(turn=turns(*(broker(away) for away in (False, True, True, False, True, False))), until_end=False)
    one.run()
    assert one.sample("detector_errors_total", stage="commit") == 2


def test_what_cannot_be_shown_ends_nothing(
    process: Callable[..., Process], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = process().run()

    def failing(*_: Any) -> Any:
        raise OverflowError("nobody thought of this")

    monkeypatch.setattr(ReadingsPipeline, "overview", failing)
    assert process().run() == expected
    assert [record.msg for record in caplog.records].count("overview_failed") == 1
