"""The simulated plant: repeatable, ordered, healthy where it says so, and faulty where its labels say so."""

from __future__ import annotations

import hashlib
import itertools
import json

import numpy as np
import pytest

from detector.simulation import plant as simulation
from detector.simulation.plant import FAULTS, FieldNames, Plant, Series, simulate

SECOND = 1_000_000_000


def digest(plant: Plant) -> str:
    return hashlib.sha256(b"".join(simulation.lines(plant))).hexdigest()


def owner(plant: Plant, sensor_id: str) -> Series:
    return next(one for one in plant.series if one.sensor_id == sensor_id)


def test_equal_arguments_give_equal_bytes_and_another_seed_gives_others() -> None:
    first = simulate(sensors=6, rows=1200, seed=3)
    again = simulate(sensors=6, rows=1200, seed=3)
    other = simulate(sensors=6, rows=1200, seed=4)
    assert digest(first) == digest(again)
    assert first.labels == again.labels
    assert digest(first) != digest(other)


def test_lines_are_readings_in_the_order_of_time() -> None:
    plant = simulate(sensors=9, rows=300, seed=1)
    rows = [json.loads(line) for line in simulation.lines(plant)]
    assert len(rows) == plant.readings
    assert [set(row) for row in rows] == [{"sensor_id", "timestamp", "value"}] * len(rows)
    stamps = [row["timestamp"] for row in rows]
    assert stamps == sorted(stamps)
    assert {row["sensor_id"] for row in rows} == {one.sensor_id for one in plant.series}
    for one in plant.series:
        values = [row["value"] for row in rows if row["sensor_id"] == one.sensor_id]
        assert values == one.values.tolist()


def test_field_names_are_those_asked_for() -> None:
    line = next(simulation.lines(simulate(sensors=1, rows=5, seed=0), FieldNames("tag", 'the "time"', "reading")))
    assert list(json.loads(line)) == ["tag", 'the "time"', "reading"]


def test_sensors_differ_in_kind_scale_and_interval_and_end_together() -> None:
    plant = simulate(sensors=20, rows=400, seed=0, faults=())
    assert len({(one.kind.name, one.interval) for one in plant.series}) == 20
    assert {one.interval // SECOND for one in plant.series} == {1, 5, 10, 60}
    ends = [int(one.times[-1]) for one in plant.series]
    assert max(ends) - min(ends) <= 61 * SECOND
    assert max(float(one.values.mean()) for one in plant.series) > 90_000
    assert min(float(one.values.mean()) for one in plant.series) < 10


def test_time_of_a_sensor_moves_forward_evenly() -> None:
    for one in simulate(sensors=20, rows=500, seed=5, faults=()).series:
        assert one.times.dtype == np.int64
        steps = np.diff(one.times)
        assert steps.min() > 0
        assert np.abs(steps - one.interval).max() <= one.interval // 50
        assert not (one.times % 1_000_000).any()


def test_the_course_of_the_day_comes_back_a_day_later() -> None:
    plant = simulate(sensors=16, rows=5 * 1440, seed=2, faults=())
    slow = owner(plant, "temperature-16")
    assert slow.interval == 60 * SECOND
    hourly = slow.values.reshape(-1, 60).mean(axis=1)
    same_hour = float(np.corrcoef(hourly[:-24], hourly[24:])[0, 1])
    opposite_hour = float(np.corrcoef(hourly[:-12], hourly[12:])[0, 1])
    assert same_hour > 0.5
    assert opposite_hour < 0


def test_counts_are_whole_numbers() -> None:
    plant = simulate(sensors=5, rows=2000, seed=0)
    counts = owner(plant, "count-05")
    assert np.array_equal(counts.values, np.rint(counts.values))
    assert all(b"." not in line.split(b'"value"')[1] for line in simulation.lines(plant) if b"count-05" in line)


@pytest.mark.parametrize(("rows", "healthy"), [(10_000, 4000), (4000, 2000), (1000, 500), (3, 1)])
def test_the_first_part_is_free_of_faults(rows: int, healthy: int) -> None:
    plant = simulate(sensors=8, rows=rows, seed=0)
    assert {one.healthy_rows for one in plant.series} == {healthy}
    for label in plant.labels:
        one = owner(plant, label.sensor_id)
        assert label.start > one.times[healthy - 1]
        assert label.start <= label.end <= max(int(one.times[-1]), label.end)


def test_kinds_come_up_equally_often_and_every_fifth_sensor_is_healthy() -> None:
    plant = simulate(sensors=20, rows=10_000, seed=0)
    counts = [sum(label.kind == kind for label in plant.labels) for kind in FAULTS]
    assert min(counts) >= 5
    assert max(counts) - min(counts) <= 1
    assert len({label.sensor_id for label in plant.labels}) == 16


def test_faults_of_one_sensor_lie_apart() -> None:
    plant = simulate(sensors=20, rows=10_000, seed=6)
    for one in plant.series:
        mine = sorted(label for label in plant.labels if label.sensor_id == one.sensor_id)
        for before, after in itertools.pairwise(mine):
            assert after.start - before.end > 300 * one.interval


def test_no_faults_where_none_are_asked_for_or_there_is_no_room() -> None:
    assert simulate(sensors=5, rows=3000, seed=0, faults=()).labels == ()
    assert simulate(sensors=5, rows=300, seed=0).labels == ()


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_changes_what_its_label_covers_and_nothing_else(kind: str) -> None:
    plant = simulate(sensors=10, rows=4000, seed=8, faults=(kind,))
    assert {label.kind for label in plant.labels} == {kind}
    for label in plant.labels:
        one = owner(plant, label.sensor_id)
        inside = (one.times >= label.start) & (one.times <= label.end)
        part = one.values[inside]
        spread = float(np.std(one.values[: one.healthy_rows]))
        noise = float(np.std(np.diff(one.values[: one.healthy_rows]))) / np.sqrt(2)
        edge = float(one.values[: one.healthy_rows].mean())
        match kind:
            case "dropout":
                assert part.size == 0
                assert label.end - label.start >= 30 * one.interval
            case "stuck-at":
                assert part.size >= 150
                assert np.ptp(part) == 0
            case "spike":
                assert 1 <= part.size <= 3
                assert np.abs(part - edge).max() > 3 * noise
            case "level-shift":
                assert abs(float(part.mean()) - edge) > spread
            case "drift":
                quarter = part.size // 4
                assert abs(float(part[-quarter:].mean() - part[:quarter].mean())) > spread
            case _:
                assert part.size >= 300


def test_a_frequency_change_moves_the_main_period() -> None:
    plant = simulate(sensors=5, rows=6000, seed=9, faults=("frequency-change",))
    for label in plant.labels:
        one = owner(plant, label.sensor_id)
        inside = (one.times >= label.start) & (one.times <= label.end)
        ratio = _main_frequency(one.values[inside]) / _main_frequency(one.values[: one.healthy_rows])
        assert ratio > 1.5 or ratio < 0.6


def _main_frequency(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    index = np.arange(values.size)
    # Without the slow course of the day, which a spectrum would show as its largest peak.
    rest = values - np.polyval(np.polyfit(index, values, 2), index)
    return float((np.argmax(np.abs(np.fft.rfft(rest))[1:]) + 1) / values.size)


@pytest.mark.parametrize(
    ("sensors", "rows", "seed", "faults", "message"),
    [
        (0, 10, 0, (), "at least one sensor"),
        (1, 0, 0, (), "at least one sensor"),
        (1, 10, -1, (), "seed"),
        (1, 10, 0, ("meteor",), "unknown fault `meteor`"),
        (1000, 1_000_000, 0, (), "more than"),
    ],
)
def test_arguments_out_of_range(sensors: int, rows: int, seed: int, faults: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(sensors=sensors, rows=rows, seed=seed, faults=faults)


class Clock:
    """Time that passes only while someone sleeps, or is let pass."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_a_plant_told_live_keeps_its_values_and_its_pace_at_another_speed() -> None:
    plant, now = simulation.simulate(sensors=5, rows=900, seed=2), 1_800_000_000 * 10**9
    since = simulation.lines_of_history(plant)
    live = simulation.told_live(plant, 50.0, now, since=since)
    times = np.sort(np.concatenate([one.times for one in live.series]))
    assert times[since] == now
    assert (times[-1] - now) / 1e9 == pytest.approx((len(times) - 1 - since) / 50)
    assert simulation.due(live, since) == pytest.approx((times[since:] - now) / 1e9)
    for before, after in zip(plant.series, live.series, strict=True):
        assert np.array_equal(before.values, after.values)
        assert np.median(np.diff(after.times)) == pytest.approx(after.interval, rel=0.02)
    by_id = {one.sensor_id: one for one in plant.series}
    moved = {one.sensor_id: one for one in live.series}
    assert plant.labels
    for label, other in zip(plant.labels, live.labels, strict=True):
        if label.kind == "dropout":
            continue
        row = np.searchsorted(by_id[label.sensor_id].times, label.start)
        assert moved[label.sensor_id].times[row] == other.start


def test_pacing_keeps_the_rate() -> None:
    clock = Clock()
    stamps = [clock.now for _ in simulation.paced([b""] * 101, np.arange(101) / 50.0, clock=clock, sleep=clock.sleep)]
    assert stamps[0] == 100.0
    assert stamps[-1] == pytest.approx(102.0)
    assert all(abs(stamp - (100.0 + index / 50.0)) < 1e-6 for index, stamp in enumerate(stamps))


def test_pacing_at_a_high_rate_sleeps_seldom_and_is_never_early_by_much() -> None:
    clock = Clock()
    for number, _ in enumerate(
        simulation.paced([b""] * 10_000, np.arange(10_000) / 10_000.0, clock=clock, sleep=clock.sleep)
    ):
        assert number / 10_000.0 - (clock.now - 100.0) <= 0.01
    assert len(clock.slept) < 110


def test_pacing_catches_up_after_a_slow_taker() -> None:
    clock = Clock()
    items = simulation.paced([b""] * 20, np.arange(20) / 10.0, clock=clock, sleep=clock.sleep)
    next(items)
    clock.now += 1.0
    for _ in range(10):
        next(items)
    assert clock.slept == []
