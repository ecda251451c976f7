"""A model or settings that changed while nobody was there: what has to be run again runs as it did the first time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from detector.config.load import CalendarConfig, Config, FramesConfig, MaintenanceConfig, ReadingsConfig, load_config
from detector.detection.scorer import Model
from detector.engine.readings import ReadingsPipeline
from detector.engine.slices import (
    PROVENANCE_ENTRY,
    FramesProvenance,
    Provenance,
    ReadingsProvenance,
    as_meant,
    frame_settings_of,
    provenance_of,
    settings_of,
)
from detector.errors import UserError
from detector.service.daemon import Clocks, Daemon
from detector.service.health import Health
from detector.service.metrics import Metrics
from detector.service.pipelines import MakeReplay, load_model, make_engine
from detector.service.rejects import RejectGuard
from detector.streams.base import (
    Assigned,
    Batch,
    Deferred,
    Message,
    Partition,
    Record,
    RollingSnapshot,
    Snapshot,
    nothing_deferred,
    pack_state,
    unpack_state,
)
from detector.streams.memory import MemoryStreams
from detector.wire.alerts import decode_alert
from detector.zones import DATA
from tests.engines import engine_making
from tests.plant import (
    PARTITION,
    healthy,
    maintenance,
    model_of,
    per_readings,
    pipeline_of,
    profile_of,
    readings_config,
    readings_of,
    reconstructor,
    records_of,
)
from tests.tiny import tiny_bundle

ROWS = 700
TURN = 100
"""Records a turn."""


class CrashError(Exception):
    """The process is gone."""


class Lagging(MemoryStreams):
    """Streams whose stored state stays behind: that of the first commit, or none (`fresh`), until it is renewed."""

    def __init__(self, records: Sequence[Record], *, fresh: bool) -> None:
        super().__init__({PARTITION.stream: [records]}, TURN)
        self._stored: tuple[int, int, list[bytes]] | None = (0, 0, []) if fresh else None
        self._journal: dict[str, bytes] = {}
        self._began = False
        self.seconds = 0.0

    def assign(self, partition: Partition) -> None:
        super().assign(partition)
        if self._stored is not None and self._began:
            log = self._logs[partition]
            log.index, position, slices = self._stored
            state = pack_state(slices, self._journal)
            live_from = log.committed if log.committed > position else None
            self._events = [Assigned(partition, position, state, live_from, self.seconds)]

    def commit(
        self,
        positions: Mapping[Partition, int],
        snapshot: Snapshot,
        *,
        final: bool = False,
        deferred: Deferred = nothing_deferred,
    ) -> bool:
        rolling = snapshot if PARTITION in positions and isinstance(snapshot, RollingSnapshot) else None
        # Before the state is asked for in one piece, for it needs none then.
        journal = () if rolling is None else rolling.journal(PARTITION)
        durable = super().commit(positions, snapshot, final=final, deferred=deferred)
        log = self._logs[PARTITION]
        if rolling is not None:
            self._began = True
            renewed = rolling.renewed(PARTITION)
            if self._stored is None or renewed:
                self._stored = log.index, log.committed, [*map(bytes, unpack_state(snapshot(PARTITION))[0])]
            for key, value in journal:
                self._journal[key] = value or b""
        return durable


def life(
    streams: Lagging, make: Callable[[Partition], ReadingsPipeline], turns: int | None, former: MakeReplay | None
) -> CollectorRegistry:
    """One process, which dies before its turn number `turns` or runs to the end."""
    left = iter(range(10**6 if turns is None else turns))

    def stop() -> bool:
        if next(left, None) is None:
            raise CrashError
        return False

    registry = CollectorRegistry()
    daemon = Daemon(
        streams, engine_making(make, former), metrics=Metrics(registry), health=Health(),
        guard=RejectGuard(0.5, 1000), stop=stop, until_end=True, clocks=Clocks(monotonic=lambda: 0.0),
    )  # fmt: skip
    with contextlib.suppress(CrashError):
        daemon.run()
    return registry


def faulty() -> list[Record]:
    """One reading a record of a sensor that has four faults."""
    values = healthy(np.random.default_rng(1), ROWS)
    for begin in (120, 280, 450, 600):
        values[begin : begin + 45] += 12
    return records_of([[reading] for reading in readings_of("pump-0", values)])


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return faulty()


def model_with(seed: int, version: str) -> Model:
    profile = profile_of(healthy(np.random.default_rng(seed), 300), reconstructor(seed=seed), open_after=(3, 5))
    model = model_of({"pump-0": profile}, seed=seed)
    return dataclasses.replace(model, version=version, digest=f"sha256:{version}")


Made = tuple[Model, ReadingsConfig, Sequence[MaintenanceConfig]]
OLD: Made = (
    model_with(0, "1"), readings_config(false_alarms=per_readings(5000), open_after=(3, 5), close_after=40),
    [maintenance("*", 110, 150)],
)  # fmt: skip
NEW: Made = (
    model_with(7, "2"), readings_config(false_alarms=per_readings(700), open_after=(3, 5), close_after=15),
    [maintenance("pump-?", 440, 550), maintenance("pump-0", 100, 200)],
)  # fmt: skip


def pipeline_with(of: Made) -> ReadingsPipeline:
    return pipeline_of(of[1], of[0], maintenance=of[2])


def maker(of: Made) -> Callable[[Partition], ReadingsPipeline]:
    return lambda _: pipeline_with(of)


def former(_: Partition, provenance: Provenance) -> ReadingsPipeline:
    assert provenance.model == OLD[0].digest
    found = ReadingsProvenance.model_validate_json(provenance.settings)
    return pipeline_of(found, OLD[0], maintenance=found.maintenance)


def switched(records: Sequence[Record], at: int) -> list[Message]:
    """The alerts of a run that is stopped in good order at that record, and goes on with what is new."""
    old, new = pipeline_with(OLD), pipeline_with(NEW)
    alerts = list(old.process(Batch(PARTITION, records[:at], records[at - 1].offset + 1)).alerts)
    new.restore(old.snapshot())
    return alerts + new.process(Batch(PARTITION, records[at:], records[-1].offset + 1)).alerts


@pytest.mark.parametrize("fresh", [False, True], ids=["slices", "nothing but a journal"])
@pytest.mark.parametrize("turns", [3, 5])
def test_a_crash_with_something_new_behind_it(records: list[Record], turns: int, fresh: bool) -> None:
    expected = switched(records, turns * TURN)
    assert {decode_alert(message.value).muted for message in expected} == {True, False}
    streams = Lagging(records, fresh=fresh)
    life(streams, maker(OLD), turns, None)
    # The next one is brought up to date, and dies when it has committed once or not at all, and so on.
    life(streams, maker(NEW), turns - 1, former)
    life(streams, maker(NEW), turns + 1, former)
    life(streams, maker(NEW), None, former)
    assert streams.read("alerts") == expected


def test_run_again_with_what_is_new_it_would_be_another_story(records: list[Record]) -> None:
    streams = Lagging(records, fresh=False)
    life(streams, maker(OLD), 5, None)
    life(streams, maker(NEW), None, None)
    assert streams.read("alerts") != switched(records, 500)


def test_the_time_of_a_restore_contains_what_the_backend_took(records: list[Record]) -> None:
    streams = Lagging(records, fresh=False)
    streams.seconds = 3.5
    life(streams, maker(OLD), 3, None)
    registry = life(streams, maker(OLD), None, None)
    assert registry.get_sample_value("detector_restore_seconds_sum") == 3.5


def test_a_partition_that_is_taken_away_while_it_is_restored(records: list[Record]) -> None:
    streams = Lagging(records, fresh=False)
    life(streams, maker(OLD), 5, None)
    registry, health = CollectorRegistry(), Health()
    seen: list[tuple[list[str], float | None]] = []

    def stop() -> bool:
        labels = {"stream": PARTITION.stream, "partition": "0"}
        seen.append((list(health.reasons), registry.get_sample_value("detector_restore_progress_ratio", labels)))
        if len(seen) == 3:
            streams.revoke(PARTITION)
        elif len(seen) == 5:
            streams.assign(PARTITION)
        return len(seen) == 15

    Daemon(
        streams, engine_making(maker(NEW), former), metrics=Metrics(registry), health=health,
        guard=RejectGuard(0.5, 1000), stop=stop,
    ).run()  # fmt: skip
    nobodys = ["unassigned"], None
    halfway = [(["restoring"], pytest.approx(share, abs=0.01)) for share in (0.25, 0.5)]
    assert seen[:7] == [nobodys, *halfway, nobodys, nobodys, *halfway]
    assert seen[-1] == ([], 1.0)
    assert streams.read("alerts") == switched(records, 5 * TURN)


def test_a_state_says_on_what_it_rests() -> None:
    pipeline = pipeline_of(OLD[1], OLD[0])
    pipeline.begin(0)
    (name, entry), *_ = pipeline.journal()
    assert name == PROVENANCE_ENTRY
    assert entry is not None
    assert provenance_of(pack_state([], {name: entry})) == provenance_of(pipeline.snapshot()) == pipeline.provenance
    assert pipeline.journal() == []
    assert provenance_of(pack_state([], {})) is None


def test_a_state_of_nobody_says_it_again() -> None:
    """What was to be said of the beginning may not be stored yet."""
    pipeline, again = pipeline_of(OLD[1], OLD[0]), pipeline_of(OLD[1], OLD[0])
    pipeline.begin(7)
    assert not again.restore(pipeline.snapshot())
    assert (again.position, [name for name, _ in again.journal()]) == (7, [PROVENANCE_ENTRY])
    assert not again.renewed()


def test_only_what_changes_results_is_part_of_the_settings() -> None:
    config = OLD[1]
    elsewhere = config.model_copy(update={"model": Path("elsewhere"), "input": "other"})
    assert settings_of(elsewhere) == settings_of(config) != settings_of(NEW[1])
    overridden = ReadingsConfig.model_validate({"overrides": ({"match": "a*", "alerts": {"close_after": 5}},)})
    again = ReadingsConfig.model_validate_json(settings_of(overridden))
    assert again == overridden
    assert again.overrides[0].alerts.model_fields_set == {"close_after"}


def test_maintenance_is_part_of_the_settings() -> None:
    windows = (maintenance("a*", 10, 20.000000001),)
    stored = settings_of(OLD[1], windows)
    assert stored != settings_of(OLD[1]) == settings_of(OLD[1], ())
    again = ReadingsProvenance.model_validate_json(stored)
    assert again.maintenance == windows
    assert settings_of(again, again.maintenance) == stored
    frames = FramesProvenance.model_validate_json(frame_settings_of(FramesConfig(), windows))
    assert frame_settings_of(frames, frames.maintenance) == frame_settings_of(FramesConfig(), windows)


def test_the_calendar_is_part_of_the_settings() -> None:
    days = (CalendarConfig.model_validate({"from": "2026-12-24", "to": "2026-12-26", "like": "sunday"}),)
    stored = settings_of(OLD[1], (), days)
    assert stored != settings_of(OLD[1]) == settings_of(OLD[1], (), ())
    again = ReadingsProvenance.model_validate_json(stored)
    assert again.calendar == days
    assert settings_of(again, again.maintenance, again.calendar) == stored


@pytest.mark.parametrize(
    "settings", [{"timezone": "Europe/Berlin"}, {"fields": {"timestamp": {"path": "ts", "zone": "Europe/Berlin"}}}]
)
def test_the_release_of_the_zone_data_is_part_of_the_settings(settings: dict[str, Any]) -> None:
    config = ReadingsConfig.model_validate(settings)
    stored = settings_of(config)
    again = ReadingsProvenance.model_validate_json(stored)
    assert again.zone_data == DATA
    assert settings_of(again) == stored
    assert ReadingsProvenance.model_validate_json(settings_of(ReadingsConfig())).zone_data is None


# -- the model of before -------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Config:
    tiny_bundle(tmp_path / "models")
    return load_config(None, [f"readings.model={tmp_path / 'models'}"])


def replays_of(config: Config) -> MakeReplay:
    make = make_engine(config).make_replay
    assert make is not None
    return make


def test_the_model_of_before_is_found_by_its_digest(config: Config) -> None:
    old = load_model(config)
    new = tiny_bundle(config.readings.model, day=23)
    model = load_model(config)
    make = replays_of(config)
    assert model.digest == new.digest
    provenance = Provenance(old.digest, settings_of(config.readings.model_copy(update={"warmup": 321})))
    assert make(PARTITION, provenance).provenance == provenance
    worked_on = Provenance(old.digest, settings_of(config.readings, (maintenance("a", 0, 5),)))
    assert make(PARTITION, worked_on).provenance == worked_on
    assert load_model(config, old.digest).version == old.version


def test_a_model_of_before_that_is_gone_is_named(config: Config) -> None:
    make = replays_of(config)
    with pytest.raises(UserError, match="the model 0123abcd, which is not there") as gone:
        make(PARTITION, Provenance("0123abcd", settings_of(config.readings)))
    assert str(config.readings.model) in str(gone.value)


def test_settings_of_another_version_are_refused(config: Config) -> None:
    make = replays_of(config)
    with pytest.raises(UserError, match="readings have to be run again with settings this version does not know"):
        make(PARTITION, Provenance("0123abcd", b'{"colour":"red"}'))


def test_other_zone_data_than_those_of_before_are_refused(config: Config) -> None:
    berlin = config.readings.model_copy(update={"timezone": "Europe/Berlin"})
    make, digest = replays_of(config), load_model(config).digest
    stored = settings_of(berlin)
    assert make(PARTITION, Provenance(digest, stored)).provenance.settings == stored
    with pytest.raises(UserError, match="the time zones of 2019a, and those here are of 20"):
        make(PARTITION, Provenance(digest, stored.replace(DATA.encode(), b"2019a")))


def test_a_setting_that_an_older_release_did_not_store_means_what_that_release_did() -> None:
    now = settings_of(readings_config())
    before = json.loads(now)
    del before["sensors"]["max"]
    del before["timezone"]
    meant = ReadingsProvenance.model_validate_json(as_meant(json.dumps(before).encode()))
    assert meant.sensors.max == 0
    assert meant.timezone is None, "there were no hours to go by"
    assert as_meant(now) == now
