"""What is new is prepared beside the loop, taken between two records, and left alone where it cannot be used."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from detector.config.load import Config, load_config
from detector.config.settings import SensorsConfig
from detector.detection.table import StateError
from detector.engine.output import Output
from detector.engine.readings import ReadingsPipeline
from detector.errors import UserError
from detector.service.daemon import NEVER_DURABLE_SECONDS, Clocks, Daemon
from detector.service.health import WAITING, Health
from detector.service.metrics import Metrics
from detector.service.pipelines import Engine, make_engine
from detector.service.rejects import RejectGuard
from detector.service.reload import Failed, Ready, Reloader, changes
from detector.service.web.status import Board, ModelStatus, Setup
from detector.streams.base import Batch, Event, Message, Partition, Record, Snapshot
from detector.streams.memory import MemoryStreams
from tests.engines import engine_making
from tests.plant import PARTITION
from tests.service.test_switch import NEW, OLD, TURN, CrashError, Lagging, Made, faulty, pipeline_with
from tests.tiny import tiny_bundle

# -- the thread beside the loop ------------------------------------------------------------------------------------


class Signals:
    """Counts like the process's own."""

    hangups = 0


class Place:
    """A daemon's files: a configuration and a directory of models; and a reloader that looks when it is told."""

    def __init__(self, directory: Path) -> None:
        self.models = directory / "models"
        self.file = directory / "config.yaml"
        self.first = tiny_bundle(self.models)
        self.write()
        self.signals = Signals()
        self.made = 0
        self.reloader = Reloader(
            self.make(self.load()), load=self.load, make=self.make, hangups=lambda: self.signals.hangups
        )

    def write(self, text: str = "") -> None:
        self.file.write_text(f"readings: {{model: {self.models}, alerts: {{close_after: 100}}}}\n{text}")

    def load(self) -> Config:
        return load_config(self.file)

    def make(self, config: Config) -> Engine:
        self.made += 1
        return make_engine(config)

    def look(self) -> Ready | Failed | None:
        self.reloader.look()
        return self.reloader.take()

    def hang_up(self) -> Ready | Failed | None:
        self.signals.hangups += 1
        return self.look()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def told(caplog: pytest.LogCaptureFixture) -> str:
    """The error of the newest reload that failed."""
    failed = [getattr(one, "fields", {}) for one in caplog.records if one.getMessage() == "reload_failed"]
    return str(failed[-1]["error"])


def test_nothing_new_is_nothing_to_do(place: Place) -> None:
    assert place.look() is None
    assert place.made == 1


def test_another_version_in_current_is_made_ready(place: Place) -> None:
    second = tiny_bundle(place.models, day=23)
    ready = place.look()
    assert isinstance(ready, Ready)
    assert (ready.reason, ready.changed) == ("current", ())
    assert ready.engine.setup.models["readings"].version == second.version
    assert ready.engine.make_pipeline(PARTITION).provenance.model == second.digest
    assert place.look() is None, "once"


def test_a_volume_of_kubernetes_is_swapped_as_a_whole(tmp_path: Path) -> None:
    """`current` is a link into `..data`, a link to a directory that is replaced by another one."""
    place = Place(tmp_path)
    second = tiny_bundle(place.models, day=23)
    volume = tmp_path / "volume"
    for name, version in (("..1", place.first.version), ("..2", second.version)):
        (volume / name).mkdir(parents=True)
        (volume / name / "current").write_text(f"{version}\n")
    data, current = volume / "..data", place.models / "current"
    data.symlink_to("..1")
    current.unlink()
    current.symlink_to(data / "current")
    assert place.look() is None
    (volume / "..tmp").symlink_to("..2")
    (volume / "..tmp").replace(data)
    ready = place.look()
    assert isinstance(ready, Ready)
    assert ready.engine.setup.models["readings"].version == second.version


def test_a_signal_reads_the_configuration_anew(place: Place) -> None:
    place.write("log: {level: debug}\n")
    ready = place.hang_up()
    assert isinstance(ready, Ready)
    assert (ready.reason, ready.changed, ready.only_logging) == ("SIGHUP", ("log.level",), True)
    level, root = logging.getLogger().level, logging.getLogger()
    handlers = root.handlers[:]
    try:
        place.reloader.taken(ready)
        assert root.level == logging.DEBUG
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def test_a_storm_of_signals_is_one(place: Place) -> None:
    place.signals.hangups += 1000
    assert isinstance(place.look(), Ready)
    assert place.made == 2
    assert place.look() is None


def test_what_is_prepared_is_not_undone_by_what_comes_next(place: Place) -> None:
    """A signal, and another model before the loop has taken what the signal brought."""
    place.write("log: {level: error}\n")
    place.signals.hangups += 1
    place.reloader.look()
    second = tiny_bundle(place.models, day=23)
    ready = place.look()
    assert isinstance(ready, Ready)
    assert ready.changed == ("log.level",)
    assert ready.engine.setup.models["readings"].version == second.version
    place.reloader.refused(ready, "it does not fit")
    tiny_bundle(place.models, day=24)
    after = place.look()
    assert isinstance(after, Ready)
    assert after.changed == ()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("readings: [", "config.yaml"),
        ("log: {level: loud}", "expected"),
        ("streams: {directory: {path: elsewhere}}", "streams.directory.path cannot change while the daemon runs"),
        ("http: {listen: '127.0.0.1:1'}\nrejects: {over: 200}", "http.listen, rejects.over cannot change"),
    ],
)
def test_a_configuration_that_cannot_be_used(
    place: Place, caplog: pytest.LogCaptureFixture, text: str, error: str
) -> None:
    place.write(text)
    assert isinstance(place.hang_up(), Failed)
    assert error in told(caplog)
    assert place.look() is None, "it is not tried again before something changes"
    place.write()
    assert isinstance(place.hang_up(), Ready)


def test_a_bundle_of_another_shape(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    tiny_bundle(place.models, channels=("value", "pressure"), day=23)
    assert isinstance(place.look(), Failed)
    assert "the model takes windows of shape (100, 2)" in told(caplog)


def test_a_bundle_with_a_changed_byte(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    second = tiny_bundle(place.models, day=23)
    (place.models / second.version / "model.onnx").write_bytes(b"x")
    assert isinstance(place.look(), Failed)
    assert "model.onnx" in told(caplog)


def test_a_pointer_that_cannot_be_read_or_names_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    current = place.models / "current"
    current.write_text("../elsewhere\n")
    assert place.look() is None, "somebody may be writing it"
    current.write_text("20261130T000000Z-gone-123456\n")
    assert isinstance(place.look(), Failed)
    assert "20261130T000000Z-gone-123456" in told(caplog)
    current.write_text(f"{place.first.version}\n")
    assert isinstance(place.look(), Ready), "back to what is in use"


def test_what_nobody_thought_of_does_not_end_the_watch(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Config:
        raise RuntimeError("deep inside")

    reloader = Reloader(place.make(place.load()), load=broken, make=place.make, hangups=lambda: place.signals.hangups)
    place.signals.hangups += 1
    reloader.look()
    assert isinstance(reloader.take(), Failed)
    assert told(caplog) == "RuntimeError: deep inside"


def test_differences_by_their_keys() -> None:
    old = load_config(None, ["readings.alerts.close_after=50"])
    new = load_config(None, ["readings.overrides=[{match: a*, alerts: {direction: above}}]", "log.level=error"])
    assert list(changes(old, new)) == ["log.level", "readings.alerts.close_after", "readings.overrides"]
    assert list(changes(old, old)) == []


# -- the loop ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return faulty()


class Scripted:
    """Hands out at given turns what has been prepared."""

    def __init__(self, script: dict[int, Ready | Failed]) -> None:
        self.script = script
        self.turn = 0
        self.outcomes: list[str] = []

    def take(self) -> Ready | Failed | None:
        self.turn += 1
        return self.script.get(self.turn)

    def taken(self, ready: Ready) -> None:
        self.outcomes.append("taken")

    def refused(self, ready: Ready, why: str) -> None:
        self.outcomes.append(why)


def engine_of(side: Made) -> Engine:
    def make(_: Partition) -> ReadingsPipeline:
        return pipeline_with(side)

    def former(_: Partition, __: Any) -> ReadingsPipeline:
        raise AssertionError("nothing has to be run again")

    setup = Setup(models={"readings": ModelStatus(side[0].name, side[0].version, side[0].digest)})
    return engine_making(make, former, setup)


def ready(side: Made, *changed: str) -> Ready:
    return Ready(engine_of(side), changed, "SIGHUP")


@dataclasses.dataclass
class Life:
    """One process over the streams, and what it told."""

    streams: MemoryStreams
    reloads: Scripted
    side: Made = OLD
    stop: Callable[[], bool] = lambda: False
    now: float = 0.0

    def run(self) -> Life:
        self.registry, self.board = CollectorRegistry(), Board()
        engine = engine_of(self.side)
        with contextlib.suppress(CrashError):
            Daemon(
                self.streams, dataclasses.replace(engine, make_replay=None), metrics=Metrics(self.registry),
                health=Health(), guard=RejectGuard(0.5, 1000), stop=self.stop, until_end=True, board=self.board,
                reloads=self.reloads, clocks=Clocks(monotonic=self.clock),
            ).run()  # fmt: skip
        return self

    def clock(self) -> float:
        self.now += 0.01
        return self.now

    @property
    def successful(self) -> float | None:
        return self.registry.get_sample_value("detector_config_last_reload_successful")

    def models(self) -> set[str]:
        families = (one for one in self.registry.collect() if one.name == "detector_model")
        return {sample.labels["version"] for family in families for sample in family.samples}


def memory(records: Sequence[Record], **options: Any) -> MemoryStreams:
    return MemoryStreams({PARTITION.stream: [records]}, TURN, **options)


def switched(records: Sequence[Record], at: int, new: Made = NEW) -> list[Message]:
    """The alerts of a run that is stopped in good order at that record, and goes on with what is new."""
    before, after = pipeline_with(OLD), pipeline_with(new)
    alerts = list(before.process(Batch(PARTITION, records[:at], records[at - 1].offset + 1)).alerts)
    after.restore(before.snapshot())
    return alerts + after.process(Batch(PARTITION, records[at:], records[-1].offset + 1)).alerts


@pytest.mark.parametrize("turn", [2, 4])
def test_it_switches_between_two_records(
    records: list[Record],
    turn: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    life = Life(memory(records), Scripted({turn: ready(NEW, "readings.alerts.close_after")})).run()
    assert life.streams.read("alerts") == switched(records, turn * TURN)
    assert life.streams.read("alerts") != switched(records, (turn + 1) * TURN)
    assert life.reloads.outcomes == ["taken"]
    (said,) = [getattr(one, "fields", {}) for one in caplog.records if one.getMessage() == "reloaded"]
    assert said["positions"] == {"sensor-readings:0": records[turn * TURN - 1].offset + 1}
    assert said["models"] == {"readings": "2"}
    assert (life.successful, life.models()) == (1, {"2"})
    assert life.board.status is not None
    assert life.board.status.setup.models["readings"].version == "2"


def test_it_waits_until_what_was_done_is_durable(records: list[Record]) -> None:
    streams = memory(records, durable_every=3)
    # Turn 4 is not durable, the sixth is.
    life = Life(streams, Scripted({4: ready(NEW)})).run()
    assert life.streams.read("alerts") == switched(records, 6 * TURN)


@pytest.mark.parametrize("more", [0, 1])
def test_killed_right_after_the_switch_it_comes_back_to_the_same(records: list[Record], more: int) -> None:
    streams = memory(records, durable_every=3)
    turns = iter(range(6 + more))

    def stop() -> bool:
        if next(turns, None) is None:
            raise CrashError
        return False

    life = Life(streams, Scripted({4: ready(NEW)}), stop=stop).run()
    assert life.reloads.outcomes == ["taken"]
    # The next process finds what is new in the files.
    Life(streams, Scripted({}), side=NEW).run()
    assert streams.read("alerts") == switched(records, 6 * TURN)


def test_readings_that_nobody_watched_before_the_switch_are_not_taken_up_after_a_kill(records: list[Record]) -> None:
    """Where a pipeline has met nobody so far, a replay from the beginning on would meet them under what is new."""
    nobody = OLD[1].model_copy(update={"sensors": SensorsConfig(exclude=("pump-*",))})
    blind: Made = OLD[0], nobody, OLD[2]
    turns = iter(range(4))

    def stop() -> bool:
        if next(turns, None) is None:
            raise CrashError
        return False

    undisturbed = Life(memory(records), Scripted({2: ready(NEW)}), blind).run().streams.read("alerts")
    assert undisturbed
    streams = Lagging(records, fresh=True)
    assert Life(streams, Scripted({2: ready(NEW)}), blind, stop).run().reloads.outcomes == ["taken"]
    Life(streams, Scripted({}), NEW).run()
    assert streams.read("alerts") == undisturbed


def test_a_stream_that_keeps_nothing_has_nothing_to_wait_for(records: list[Record]) -> None:
    streams = memory(records, durable_every=10**6)
    waits = iter([False, False, False, True])
    life = Life(streams, Scripted({2: ready(NEW)}))

    def stop() -> bool:
        if next(waits, False):
            life.now += NEVER_DURABLE_SECONDS
        return False

    life.stop = stop
    life.run()
    assert life.streams.read("alerts") == switched(records, 4 * TURN)


def test_a_failure_is_seen_and_changes_nothing(records: list[Record]) -> None:
    undisturbed = Life(memory(records), Scripted({})).run()
    life = Life(memory(records), Scripted({3: Failed()})).run()
    assert life.streams.read("alerts") == undisturbed.streams.read("alerts")
    assert (undisturbed.successful, life.successful) == (1, 0)
    assert life.models() == {"1"}
    assert life.registry.get_sample_value("detector_errors_total", {"stage": "reload"}) == 1
    again = Life(memory(records), Scripted({3: Failed(), 5: ready(OLD)})).run()
    assert again.successful == 1


def test_a_failure_after_what_is_still_to_be_taken_counts(records: list[Record]) -> None:
    life = Life(memory(records, durable_every=3), Scripted({4: ready(NEW), 5: Failed()})).run()
    assert life.reloads.outcomes == ["taken"]
    assert (life.successful, life.models()) == (0, {"2"})


def unfit() -> Ready:
    """What no state fits."""

    class Unfit(ReadingsPipeline):
        def restore(self, data: bytes | memoryview, live_from: int | None = None, position: int | None = None) -> bool:
            raise StateError("it does not fit")

    def make(_: Partition) -> ReadingsPipeline:
        pipeline = pipeline_with(NEW)
        pipeline.__class__ = Unfit
        return pipeline

    return Ready(dataclasses.replace(engine_of(NEW), make_pipeline=make), ("readings.alerts.close_after",), "SIGHUP")


def test_what_the_state_does_not_fit_is_refused(records: list[Record]) -> None:
    undisturbed = Life(memory(records), Scripted({})).run()
    life = Life(memory(records), Scripted({3: unfit()})).run()
    assert life.reloads.outcomes == ["it does not fit"]
    assert life.streams.read("alerts") == undisturbed.streams.read("alerts")
    assert (life.successful, life.models()) == (0, {"1"})


def crashed(records: Sequence[Record]) -> Lagging:
    """Streams of a process that died after five turns, and whose state is that of the first one."""
    streams = Lagging(records, fresh=False)
    turns = iter(range(5))

    def stop() -> bool:
        if next(turns, None) is None:
            raise CrashError
        return False

    Life(streams, Scripted({}), stop=stop).run()
    return streams


@pytest.mark.parametrize("turn", [1, 3])
def test_during_a_restore_it_waits(records: list[Record], turn: int) -> None:
    streams = crashed(records)
    life = Life(streams, Scripted({turn: ready(NEW)})).run()
    assert life.reloads.outcomes == ["taken"]
    assert streams.read("alerts") == switched(records, 5 * TURN)


def test_nor_is_it_the_end_of_a_restore_if_the_state_does_not_fit(records: list[Record]) -> None:
    undisturbed = Life(memory(records), Scripted({})).run()
    streams = crashed(records)
    life = Life(streams, Scripted({2: unfit()})).run()
    assert life.reloads.outcomes == ["it does not fit"]
    assert streams.read("alerts") == undisturbed.streams.read("alerts")
    assert (life.successful, life.models()) == (0, {"1"})


class Slow(ReadingsPipeline):
    """Something is pending for two turns after each batch, as with frames that are decoded."""

    left = 0

    @property
    def pending(self) -> bool:  # type: ignore[override]
        return self.left > 0

    def process(self, batch: Batch) -> Output:
        self.left = 2
        return super().process(batch)

    def advance(self) -> Output:
        self.left -= 1
        return super().advance()


class Failing(MemoryStreams):
    """The commit number `fails` is aborted: every partition is taken up again with the next poll."""

    def __init__(self, records: Sequence[Record], health: Health, *, fails: int) -> None:
        super().__init__({PARTITION.stream: [records]}, TURN)
        self.health = health
        self.fails = fails
        self.commits = 0

    def commit(self, positions: Mapping[Partition, int], snapshot: Snapshot, **options: Any) -> bool:
        self.commits += 1
        if self.commits != self.fails:
            return super().commit(positions, snapshot, **options)
        self._written = []
        self.revoke(PARTITION)
        self.health.set_reason(WAITING, "the commit was aborted")
        return False

    def poll(self, timeout: float) -> Sequence[Event]:
        if WAITING in self.health.reasons:
            self.health.clear_reason(WAITING)
            self.assign(PARTITION)
        return super().poll(timeout)


@pytest.mark.parametrize("fails", [3, 4, 5, 6])
def test_an_aborted_commit_while_nothing_more_is_taken_in(
    records: list[Record], fails: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    health = Health()
    streams = Failing(records, health, fails=fails)
    reloads = Scripted({3: ready(NEW, "readings.alerts.close_after")})

    def make(_: Partition) -> ReadingsPipeline:
        pipeline = pipeline_with(OLD)
        pipeline.__class__ = Slow
        return pipeline

    pauses: list[float] = []
    Daemon(
        streams, engine_making(make, setup=engine_of(OLD).setup), metrics=Metrics(CollectorRegistry()), health=health,
        guard=RejectGuard(0.5, 1000), stop=lambda: False, until_end=True, reloads=reloads,
        clocks=Clocks(pause=pauses.append),
    ).run()  # fmt: skip
    assert pauses, "it held what comes in back"
    assert reloads.outcomes == ["taken"]
    (said,) = [getattr(one, "fields", {}) for one in caplog.records if one.getMessage() == "reloaded"]
    (position,) = said["positions"].values()
    at = next(i for i, record in enumerate(records) if record.offset >= position)
    assert streams.read("alerts") == switched(records, at)


def test_another_log_level_touches_no_state(records: list[Record]) -> None:
    def make(_: Partition) -> ReadingsPipeline:
        raise UserError("it is recreated")

    first = iter([True])
    old = engine_of(OLD)
    engine = dataclasses.replace(
        old, make_pipeline=lambda at: old.make_pipeline(at) if next(first, False) else make(at)
    )
    undisturbed = Life(memory(records), Scripted({})).run()
    life = Life(memory(records), Scripted({3: Ready(engine, ("log.level",), "SIGHUP")})).run()
    assert life.reloads.outcomes == ["taken"]
    assert life.streams.read("alerts") == undisturbed.streams.read("alerts")


def test_before_the_first_record_there_is_nothing_to_take_over(records: list[Record]) -> None:
    streams = memory([])

    class Deferred(Scripted):
        def taken(self, ready: Ready) -> None:
            super().taken(ready)
            streams.append(PARTITION, records)

    life = Life(streams, Deferred({1: ready(NEW)})).run()
    assert life.reloads.outcomes == ["taken"]
    expected = Life(memory(records), Scripted({}), side=NEW).run()
    assert streams.read("alerts") == expected.streams.read("alerts")
