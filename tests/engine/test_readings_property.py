"""The pipeline against the slow reference, and against itself in other batches, other interleavings, after restarts."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from detector.config.load import FalseAlarms, MaintenanceConfig, MinDeviation, ReadingsConfig
from detector.config.rules import RuleBook
from detector.detection import scorer
from detector.detection.profile import Profile
from detector.detection.scorer import Model
from detector.engine import patience
from detector.engine import readings as pipeline_module
from detector.engine.readings import ReadingsPipeline
from detector.streams.base import Record
from tests import plant
from tests.fuzz.budget import LONGER
from tests.plant import SECOND, START
from tests.reference import Reference
from tests.reference_rules import Event, Reading

DAY = 86_400 * SECOND
# A scenario takes a second or more, and making a failing one smaller would take hundreds of them. Every run has others,
# and `make fuzz` tries twenty times as many.
THOROUGH = settings(
    max_examples=8 * LONGER,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# -- scenarios -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trouble:
    """Something that happens to a sensor (or to all, where it says so) around a row."""

    kind: str
    sensor: int
    row: int
    rows: int
    size: float


@dataclass(frozen=True)
class Scenario:
    """A plant, what it goes through, and how its readings come in."""

    seed: int
    config: ReadingsConfig
    stride: int
    known: tuple[bool, ...]
    intervals: tuple[int, ...]
    irregular: tuple[bool, ...]
    rows: int
    troubles: tuple[Trouble, ...]
    group: int
    maintenance: tuple[MaintenanceConfig, ...] = ()

    def pipeline(self) -> ReadingsPipeline:
        return plant.pipeline_of(self.config, self.model(), maintenance=self.maintenance)

    def model(self) -> Model:
        return self._model(self.known, 0)

    def successor(self, known: Sequence[bool]) -> Model:
        """Another model, which knows other sensors."""
        return dataclasses.replace(self._model(known, 1), version="2", digest="sha256:2")

    def _model(self, known: Sequence[bool], seed: int) -> Model:
        book = RuleBook(self.config)
        channels = len(self.config.channels)
        profiles = {
            name(i): bundled(
                channels, self.intervals[i], self.irregular[i], self.stride, book.of(name(i)).open_after, i + seed, seed
            )
            for i, knows in enumerate(known)
            if knows
        }
        return plant.model_of(profiles, channels=channels, stride=self.stride, seed=seed)


KINDS = (
    "shift", "shift", "one channel", "loud", "glitch", "stuck", "hole", "long hole", "duplicates", "late", "nulls",
    "gone", "set back", "set back and on", "ahead", "all silent", "all ahead",
)  # fmt: skip


def name(sensor: int) -> str:
    return f"s{sensor}"


@functools.cache
def bundled(
    channels: int, interval: int, irregular: bool, stride: int, open_after: tuple[int, int], kind: int, seed: int
) -> Profile:
    values = plant.healthy(np.random.default_rng(kind), 200 + 300 * (kind % 3), channels)
    return plant.profile_of(
        values,
        plant.reconstructor(channels, seed),
        interval=interval,
        stride=stride,
        open_after=open_after,
        jitter=0.9 if irregular else 0.1,
    )


@st.composite
def overrides(draw: st.DrawFn, *, timers: bool) -> list[dict[str, Any]]:
    """Other settings for some sensors; patterns overlap, and the first one counts."""
    alerts = {
        "false_alarms": st.sampled_from([None, {"per": "300 readings"}, {"per": "10m"}]),
        "open_after": st.sampled_from([{"n": 12, "of": 14}, {"n": 2, "of": 4}, {"n": 1, "of": 1}]),
        "close_after": st.sampled_from([2, 30]),
        "critical_ratio": st.sampled_from([1.0, 2.0]),
        "direction": st.sampled_from(["both", "above", "below"]),
        "min_deviation": st.sampled_from([{"absolute": 0.5}, {"relative": 0.02}, {"absolute": 0.3, "relative": 0.01}]),
    }
    if timers:
        alerts["update_every"] = st.sampled_from([None, "3s"])
        alerts["max_duration"] = st.sampled_from([None, "12s"])
    silence = {"silence_after": st.sampled_from([None, "4s", "11s", "auto"])} if timers else {}
    one = st.fixed_dictionaries(
        {"match": st.sampled_from(["s0", "s[12]", "s[!0-2]", "*"])},
        optional={
            "enabled": st.sampled_from([True, True, True, False]),
            **silence,
            "alerts": st.fixed_dictionaries({}, optional=alerts).filter(bool),
            "window": st.fixed_dictionaries(
                {}, optional={"max_gap": st.sampled_from([None, "6s"]), "max_fill": st.sampled_from([0, 8])}
            ).filter(bool),
        },
    ).filter(lambda override: len(override) > 1)
    return draw(st.lists(one, max_size=3))


@st.composite
def scenarios(draw: st.DrawFn, *, timers: bool = True, cold: bool = True) -> Scenario:
    channels = draw(st.sampled_from([1, 1, 2, 3]))
    sensors = draw(st.integers(1, 6))
    rows = draw(st.integers(150, max(200, 1500 // sensors)))

    def seconds(*choices: float | None) -> Any:
        chosen = draw(st.sampled_from(choices))
        return None if chosen is None else int(chosen * SECOND)

    config = plant.readings_config(
        channels=channels,
        warmup=draw(st.integers(150, 200)),
        false_alarms=draw(
            st.sampled_from([None, plant.per_readings(300), plant.per_readings(1000), FalseAlarms(per="10m")])
        ),
        open_after=draw(st.sampled_from([(10, 10), (3, 5), (2, 3), (1, 1)])),
        window={
            "allowed_lateness": seconds(0, 0, 1.5, 6),
            "max_gap": seconds(None, 4, 30),
            "max_fill": draw(st.sampled_from([0, 2, 5])),
            "stride": (stride := draw(st.sampled_from([1, 1, 3]))),
        },
        silence_after=draw(st.sampled_from([None, *("auto",) * 4, *(size * SECOND for size in (2, 9, 30))]))
        if timers
        else None,
        idle_eviction=seconds(None, 20, 60, 230) if timers else None,
        update_every=seconds(None, 2, 9, 40) if timers else None,
        max_duration=seconds(None, 9, 30, 120) if timers else None,
        close_after=draw(st.sampled_from([3, 20, 60])),
        critical_ratio=draw(st.sampled_from([1.0, 1.5, 3.0, 20.0])),
        overrides=draw(overrides(timers=timers)),
        direction=draw(st.sampled_from(["both", "both", "above", "below"])),
        min_deviation=draw(st.sampled_from([MinDeviation(), MinDeviation(), MinDeviation(absolute=0.6)])),
    )
    trouble = st.builds(
        Trouble,
        kind=st.sampled_from(KINDS),
        sensor=st.integers(0, sensors - 1),
        row=st.integers(0, rows - 1),
        rows=st.integers(1, 60),
        size=st.floats(1, 40),
    )
    return Scenario(
        seed=draw(st.integers(0, 2**16)),
        config=config,
        stride=stride,
        known=tuple(draw(st.booleans()) or not cold for _ in range(sensors)),
        intervals=tuple(draw(st.sampled_from([SECOND, SECOND, SECOND // 2, 3 * SECOND])) for _ in range(sensors)),
        irregular=tuple(draw(st.sampled_from([False, False, True])) for _ in range(sensors)),
        rows=rows,
        troubles=tuple(draw(st.lists(trouble, min_size=1, max_size=8))),
        group=draw(st.sampled_from([1, 1, 4, 20])),
        maintenance=tuple(draw(st.lists(windows(rows), max_size=3))),
    )


@st.composite
def windows(draw: st.DrawFn, rows: int) -> MaintenanceConfig:
    """A time in which some of the sensors are worked on; times may overlap."""
    begin = draw(st.integers(0, rows))
    length = draw(st.sampled_from([1, 10, 40, 120, rows]))
    return plant.maintenance(draw(st.sampled_from(["*", "s0", "s[!0]"])), begin, begin + length)


def arrivals(scenario: Scenario) -> list[Reading]:
    """The plant's readings in order of arrival."""
    rng = np.random.default_rng(scenario.seed)
    coming: list[tuple[float, Reading]] = []
    for sensor in range(len(scenario.known)):
        coming += _of_sensor(scenario, sensor, rng)
    coming.sort(key=lambda pair: pair[0])
    return [reading for _, reading in coming]


def _of_sensor(scenario: Scenario, sensor: int, rng: np.random.Generator) -> list[tuple[float, Reading]]:
    interval, rows = scenario.intervals[sensor], scenario.rows
    values = plant.healthy(rng, rows, len(scenario.config.channels), begin=int(rng.integers(23)))
    spread = 0.45 if scenario.irregular[sensor] else 0.05
    real = START + ((np.arange(rows) + rng.uniform(-spread, spread, rows)) * interval).astype(np.int64)
    stamps, order = real.copy(), real.astype(float)
    keep, missing, copies = np.ones(rows, bool), np.zeros(values.shape, bool), np.zeros(rows, int)
    for trouble in scenario.troubles:
        first, size = trouble.row, trouble.size
        part = slice(first, first + trouble.rows)
        if trouble.kind == "all silent":
            later = real >= START + first * SECOND
            stamps[later] += int((2 if size > 20 else 0.004) * DAY)
        elif trouble.kind == "all ahead":
            stamps[(real >= START + first * SECOND) & (real < START + (first + 1) * SECOND)] += int(size * DAY)
        if trouble.sensor != sensor:
            continue
        if trouble.kind == "shift":
            values[part] += size
        elif trouble.kind == "one channel":
            values[part, trouble.row % values.shape[1]] -= size
        elif trouble.kind == "loud":
            values[part, -1] += rng.normal(0, size, len(values[part]))
        elif trouble.kind == "glitch":
            values[first] = 1e9
        elif trouble.kind == "stuck":
            values[part] = values[first]
        elif trouble.kind == "hole":
            keep[first : first + 1 + int(size) % 8] = False
        elif trouble.kind == "long hole":
            stamps[first:] += int(size * 8 * SECOND)
            order[first:] += int(size * 8 * SECOND)
        elif trouble.kind == "duplicates":
            copies[part] = 1 + int(size) % 2
        elif trouble.kind == "late":
            order[first : first + trouble.rows : 4] += size / 4 * interval
        elif trouble.kind == "nulls":
            missing[first : first + trouble.rows : 3, int(size) % values.shape[1]] = True
        elif trouble.kind == "gone":
            missing[part, slice(None) if size > 30 else int(size) % values.shape[1]] = True
        elif trouble.kind == "set back":
            stamps[first:] -= int(size * 20 * SECOND)
        elif trouble.kind == "set back and on":
            stamps[part] -= int(size * 4 * SECOND)
        elif trouble.kind == "ahead":
            stamps[part] += int(size / 10 * DAY)
    coming = []
    for row in np.flatnonzero(keep).tolist():
        cells = tuple(
            None if gone else value for value, gone in zip(values[row].tolist(), missing[row].tolist(), strict=True)
        )
        coming.append((order[row], Reading(name(sensor), int(stamps[row]), cells)))
        again = tuple(None if value is None else value + 1 for value in cells)
        coming += [(order[row] + 1 + i, Reading(name(sensor), int(stamps[row]), again)) for i in range(copies[row])]
    return coming


def grouped(scenario: Scenario, readings: Sequence[Reading]) -> list[list[Reading]]:
    """The readings in records of up to `group`, in order of arrival."""
    rng = np.random.default_rng(scenario.seed + 1)
    groups: list[list[Reading]] = []
    at = 0
    while at < len(readings):
        size = int(rng.integers(1, scenario.group + 1))
        groups.append(list(readings[at : at + size]))
        at += size
    return groups


def random_cuts(scenario: Scenario, records: int) -> list[int]:
    rng = np.random.default_rng(scenario.seed + 2)
    return [int(cut) for cut in rng.integers(0, records, int(rng.integers(1, 12)))]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenarios last minutes: sensors have shorter lengths of their own, and forget their habits sooner."""
    monkeypatch.setattr(patience, "LADDER", 2 * SECOND << np.arange(20))
    monkeypatch.setattr(patience, "INTERVALS", 3)
    monkeypatch.setattr(patience, "HABIT", 200 * SECOND)


# -- comparing -------------------------------------------------------------------------------------------------------


def same(ours: Any, expected: Any) -> bool:
    """Equal, floats to a relative 1e-9: the reference sums in another order."""
    if isinstance(expected, float):
        return math.isclose(ours, expected, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(expected, tuple):
        return len(ours) == len(expected) and all(map(same, ours, expected))
    return bool(ours == expected)


def differences(ours: Sequence[Event], expected: Sequence[Event]) -> list[str]:
    found = []
    for place, (one, other) in enumerate(zip(ours, expected, strict=False)):
        found += [
            f"event {place} ({other.event} {other.sensor}): {field} is {a}, expected {b}"
            for field, a, b in zip(Event._fields, one, other, strict=True)
            if not same(a, b)
        ]
    found += [f"not expected: {extra[:12]}" for extra in ours[len(expected) :]]
    found += [f"missing: {absent[:12]}" for absent in expected[len(ours) :]]
    return found[:8]


def produce(
    config: ReadingsConfig,
    model: Model,
    records: Sequence[Record],
    cuts: Sequence[int],
    maintenance: Sequence[MaintenanceConfig] = (),
) -> tuple[list[Event], dict[str, dict[str, list[float]]]]:
    """What the pipeline publishes, unrounded, and its numbers in the end."""
    pipeline = plant.pipeline_of(config, model, maintenance=maintenance)
    with plant.unrounded() as written:
        messages = plant.play(pipeline, records, cuts)
    decoded = [msgspec.json.decode(message.value) for message in messages]
    events = [plant.event_of(written[alert["alert_id"], alert["sequence"]]) for alert in decoded]
    return events, plant.numbers_of(pipeline, config)


# -- the properties --------------------------------------------------------------------------------------------------


def check_against_reference(
    config: ReadingsConfig,
    model: Model,
    groups: Sequence[Sequence[Reading]],
    cuts: Sequence[int],
    maintenance: Sequence[MaintenanceConfig] = (),
) -> list[Event]:
    """Run both over the same records; returns the reference's events."""
    records = plant.records_of(groups)
    reference = Reference(config, model, maintenance)
    for record, group in zip(records, groups, strict=True):
        reference.feed(record.offset, group)
    events, numbers = produce(config, model, records, cuts, maintenance)
    assert differences(events, reference.events) == []
    assert numbers.keys() == reference.numbers().keys()
    for sensor, expected in reference.numbers().items():
        assert numbers[sensor] == {part: pytest.approx(cells, rel=1e-8, abs=1e-11) for part, cells in expected.items()}
    return reference.events


@THOROUGH
@given(scenarios())
def test_pipeline_does_what_the_reference_does(scenario: Scenario) -> None:
    groups = grouped(scenario, arrivals(scenario))
    cuts = random_cuts(scenario, len(groups))
    events = check_against_reference(scenario.config, scenario.model(), groups, cuts, scenario.maintenance)
    for kind in {
        f"{found.reason} {found.event} {found.close_reason or found.severity}{' muted' * found.muted}"
        for found in events
    }:
        event(kind)


def long_story(seed: int) -> tuple[ReadingsConfig, Model, list[list[Reading]]]:
    """Two sensors over long faults, which the adaptive scale learns and forgets again, gaps, and long peace."""
    rng = np.random.default_rng(seed)
    coming: list[tuple[float, Reading]] = []
    for sensor in range(2):
        values = plant.healthy(rng, 4000)
        for first, rows, size in ((600, 450, 9), (1300, 330, -7), (1900, 600, 4), (2900, 20, 30), (3700, 300, 5)):
            begin = first + int(rng.integers(100))
            values[begin : begin + rows] += size
        values[3300] = 1e9
        own = plant.readings_of(name(sensor), values, first=START + sensor * SECOND // 2)
        later = [own[i]._replace(time=own[i].time - 90 * SECOND) for i in range(3000, len(own))]
        own = [*own[:3000], *later] if sensor else own
        # Short gaps are filled; a long one, and a clock that is set back, restart the window, each at another phase
        # of the stride and after another number of quiet rows.
        gone = {*range(800, 805), *range(1203, 1205), *range(2700, 2742), *range(2850, 2853), *range(3550, 3571)}
        coming += [(START + i * SECOND, reading) for i, reading in enumerate(own) if i not in gone]
    coming.sort(key=lambda pair: pair[0])
    readings = [reading for _, reading in coming]
    stride = 1 + 2 * (seed % 2)
    config = plant.readings_config(
        warmup=550, false_alarms=plant.per_readings(500), update_every=90 * SECOND, window={"stride": stride}
    )
    return config, plant.model_of(stride=stride), [readings[i : i + 3] for i in range(0, len(readings), 3)]


def story_maintenance(seed: int) -> list[MaintenanceConfig]:
    """For odd seeds: over a short fault and the beginning of longer ones."""
    times = (("*", 580, 1000), ("s0", 1900, 2200), ("s0", 2100, 2250), ("*", 2800, 3250))
    return [plant.maintenance(*one) for one in times] if seed % 2 else []


@pytest.mark.parametrize("seed", [0, 1])
def test_so_it_does_over_long_faults_and_long_peace(seed: int) -> None:
    config, model, groups = long_story(seed)
    events = check_against_reference(config, model, groups, [1000, 1001, 2002], story_maintenance(seed))
    assert sum(one.event == "opened" for one in events) >= 8
    if seed:
        assert len({(one.event, one.muted) for one in events}) == 6


def check_batches(
    config: ReadingsConfig,
    model: Model,
    groups: Sequence[Sequence[Reading]],
    cuttings: Sequence[Sequence[int]],
    maintenance: Sequence[MaintenanceConfig] = (),
) -> None:
    """However records are cut into batches, and batches into blocks, messages and state are the same to the bit."""
    records = plant.records_of(groups)
    outcomes = []
    for cuts in ((), *cuttings):
        pipeline = plant.pipeline_of(config, model, maintenance=maintenance)
        outcomes.append((plant.play(pipeline, records, cuts), plant.state_of(pipeline, config)))
    with mock.patch.object(pipeline_module, "BLOCK_ROWS", 4), mock.patch.object(scorer, "CHUNK", 3):
        pipeline = plant.pipeline_of(config, model, maintenance=maintenance)
        outcomes.append((plant.play(pipeline, records), plant.state_of(pipeline, config)))
    for messages, state in outcomes[1:]:
        assert messages == outcomes[0][0]
        assert state == outcomes[0][1]


@THOROUGH
@given(scenarios())
def test_batches_do_not_matter(scenario: Scenario) -> None:
    groups = grouped(scenario, arrivals(scenario))
    middle = len(groups) // 2
    single = range(middle, min(middle + 40, len(groups)))
    cuttings = [random_cuts(scenario, len(groups)), single]
    check_batches(scenario.config, scenario.model(), groups, cuttings, scenario.maintenance)


@pytest.mark.parametrize("seed", [2, 3])
def test_nor_do_they_over_long_faults_and_long_peace(seed: int) -> None:
    config, model, groups = long_story(seed)
    check_batches(config, model, groups, [range(0, len(groups), 37), [len(groups) // 3]], story_maintenance(seed))


@THOROUGH
@given(scenarios(timers=False), st.randoms(use_true_random=False))
def test_interleaving_of_sensors_does_not_matter_without_timers(scenario: Scenario, random: Random) -> None:
    coming = arrivals(scenario)
    queues = [
        grouped(scenario, [reading for reading in coming if reading.sensor == name(sensor)])
        for sensor in range(len(scenario.known))
    ]
    turns = [sensor for sensor, queue in enumerate(queues) for _ in queue]
    outcomes = []
    for _ in range(2):
        random.shuffle(turns)
        places = [0] * len(queues)
        groups, own = [], {}
        for record, sensor in enumerate(turns):
            own[plant.offset_of(record)] = places[sensor]
            groups.append(queues[sensor][places[sensor]])
            places[sensor] += 1
        cuts = random_cuts(scenario, len(groups))
        records = plant.records_of(groups)
        events, _ = produce(scenario.config, scenario.model(), records, cuts, scenario.maintenance)
        outcomes.append(
            {
                name(sensor): [
                    one._replace(opened_offset=own[one.opened_offset], last_offset=own[one.last_offset])
                    for one in events
                    if one.sensor == name(sensor)
                ]
                for sensor in range(len(queues))
            }
        )
    assert outcomes[0] == outcomes[1]


@THOROUGH
@given(scenarios(), st.data())
def test_a_restart_between_batches_does_not_matter(scenario: Scenario, data: st.DataObject) -> None:
    records = plant.records_of(grouped(scenario, arrivals(scenario)))
    cuts = random_cuts(scenario, len(records))
    whole = scenario.pipeline()
    expected = plant.play(whole, records, cuts)

    pipeline = scenario.pipeline()
    messages = []
    for batch in plant.batches_of(records, cuts):
        messages += pipeline.process(batch).alerts
        if data.draw(st.booleans()):
            stored = pipeline.snapshot()
            pipeline = scenario.pipeline()
            assert not pipeline.restore(stored)
    assert messages == expected
    assert plant.state_of(pipeline, scenario.config) == plant.state_of(whole, scenario.config)


@THOROUGH
@given(scenarios(), st.data())
def test_nor_does_one_with_state_of_different_ages(scenario: Scenario, data: st.DataObject) -> None:
    """State is kept in slices, some newer than others; what lies between is run again without output."""
    records = plant.records_of(grouped(scenario, arrivals(scenario)))
    batches = list(plant.batches_of(records, random_cuts(scenario, len(records))))
    stop = data.draw(st.integers(0, len(batches) - 1))
    whole, pipeline = plant.of_different_ages(
        scenario.pipeline, batches[: stop + 1], 2, lambda: data.draw(st.booleans())
    )

    again = [record for record in records if pipeline.position <= record.offset < whole.position]
    assert plant.play(pipeline, again, random_cuts(scenario, len(records))) == []
    assert not pipeline.restoring
    assert pipeline.mismatches == 0
    for batch in batches[stop + 1 :]:
        assert pipeline.process(batch).alerts == whole.process(batch).alerts
    ours, expected = (plant.state_of(one, scenario.config) for one in (pipeline, whole))
    assert ours == expected
