"""What is published of episodes, when, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from detector.arrays import F64
from detector.engine.announcer import deadline_after
from detector.times import parse_time
from detector.wire.alerts import decode_alert
from tests import plant
from tests.plant import SECOND, START
from tests.reference_rules import Reading

MODEL = plant.model_of(
    {
        name: plant.profile_of(plant.healthy(np.random.default_rng(1), 900), plant.reconstructor())
        for name in ("a", "b", "c")
    }
)
FAULT = 200
"""Row at which sensors break, if they do."""


class Told(NamedTuple):
    """A message in short: record that caused it, sensor, event, why it closed or how bad it is."""

    record: int
    sensor: str
    event: str
    more: str


def healthy(rows: int, seed: int = 2) -> F64:
    return plant.healthy(np.random.default_rng(seed), rows)


def broken(rows: int, size: float = 60.0, until: int | None = None, seed: int = 2) -> F64:
    values = healthy(rows, seed)
    values[FAULT:until] += size
    return values


def merged(*sensors: Sequence[Reading]) -> list[list[Reading]]:
    """One record a second, with the readings of all sensors of that time in the order of the arguments."""
    seconds: dict[int, list[Reading]] = {}
    for readings in sensors:
        for reading in readings:
            seconds.setdefault((reading.time - START) // SECOND, []).append(reading)
    return [seconds[second] for second in sorted(seconds)]


def told(groups: Sequence[Sequence[Reading]], *cuts: int, **settings: Any) -> list[Told]:
    """What is published; a message belongs to the record in whose batch it came out, if there is one record a batch.

    The same must come out of one batch, and of batches that end at `cuts`; the records are found by running them one
    by one from FAULT on.
    """
    config = plant.readings_config(open_after=(1, 1), **({"close_after": 5} | settings))
    records = plant.records_of(groups)
    bytes_of: list[list[bytes]] = []
    found: list[Told] = []
    for edges in ((), cuts, range(FAULT, len(records))):
        pipeline = plant.pipeline_of(config, MODEL)
        bytes_of.append([])
        record = FAULT - 1
        for batch in plant.batches_of(records, edges):
            output = pipeline.process(batch)
            bytes_of[-1] += [message.value for message in output.alerts]
            if isinstance(edges, range):
                for message in output.alerts:
                    alert = decode_alert(message.value)
                    found.append(Told(record, alert.sensor_id, alert.event, alert.close_reason or alert.severity))
                record += 1
    assert bytes_of[0] == bytes_of[1] == bytes_of[2]
    return found


def test_an_episode_is_opened_updated_in_time_and_closed() -> None:
    found = told(merged(plant.readings_of("a", broken(480, until=230))), 300, 301, update_every=60 * SECOND)
    opened, *updates, closed = found
    assert opened == (FAULT, "a", "opened", "critical")
    assert closed[1:] == ("a", "closed", "recovered")
    assert len(updates) >= 2
    assert [update.record for update in updates] == [FAULT + 61 * (i + 1) for i in range(len(updates))]


def test_sequences_count_and_the_id_stays() -> None:
    config = plant.readings_config(open_after=(1, 1), close_after=5, update_every=30 * SECOND)
    records = plant.records_of(merged(plant.readings_of("a", broken(480, until=230))))
    alerts = [decode_alert(message.value) for message in plant.play(plant.pipeline_of(config, MODEL), records)]
    assert [alert.sequence for alert in alerts] == list(range(len(alerts)))
    assert len({(alert.alert_id, alert.started_at, alert.detected_at, alert.threshold) for alert in alerts}) == 1
    assert parse_time(alerts[0].detected_at) == START + FAULT * SECOND
    assert parse_time(alerts[0].started_at) == START + FAULT * SECOND
    peaks = [alert.peak_score for alert in alerts]
    assert peaks == sorted(peaks)
    assert alerts[0].ended_at is None
    assert alerts[-1].ended_at is not None
    assert parse_time(alerts[-1].ended_at) == START + 229 * SECOND


def test_severity_that_rises_is_told_at_once_and_puts_off_the_next_update() -> None:
    values = broken(320, size=1.5)
    values[FAULT + 25 :] += 60
    found = told(
        merged(plant.readings_of("a", values)), 215, update_every=40 * SECOND, close_after=300, critical_ratio=20.0
    )
    first = next(place for place, one in enumerate(found) if one.event == "opened")
    assert found[first].more == "warning"
    rise = next(one for one in found if one.more == "critical")
    assert rise == (FAULT + 25, "a", "updated", "critical")
    later_ones = found[found.index(rise) + 1 :]
    assert later_ones == [(FAULT + 25 + 41 * i, "a", "updated", "critical") for i in (1, 2)]


@pytest.mark.parametrize("event", ["updated", "closed"])
def test_an_update_due_at_the_record_of_a_rise_or_of_the_end_comes_before_it(event: str) -> None:
    values = broken(480, size=1.5, until=240)
    values[FAULT + 25 : FAULT + 27] += 60
    groups = merged(plant.readings_of("a", values))
    plain = told(groups, critical_ratio=20.0)
    opened = next(one for one in plain if one.record >= FAULT and one.event == "opened")
    other = next(one for one in plain[plain.index(opened) :] if one.event == event)
    every = (other.record - opened.record - 1) * SECOND
    # The rise itself is an update, so that only a time before it, or one after it, is of use.
    if event == "closed":
        rise = next(one for one in plain[plain.index(opened) :] if one.event == "updated")
        every = (other.record - rise.record - 1) * SECOND
    found = told(groups, 211, update_every=every, critical_ratio=20.0)
    due = [one for one in found if one.record == other.record]
    assert [one.event for one in due] == ["updated", event]
    assert due[0].more == ("warning" if event == "updated" else "critical")
    assert due[1] == other


def test_a_silent_sensor_is_updated_by_the_clock_of_the_others() -> None:
    found = told(
        merged(plant.readings_of("a", broken(210)), plant.readings_of("b", healthy(300, seed=3))),
        205, 250, update_every=20 * SECOND,
    )  # fmt: skip
    assert found == [
        (FAULT, "a", "opened", "critical"),
        *[(FAULT + 21 * i, "a", "updated", "critical") for i in (1, 2, 3, 4)],
    ]


def test_updates_that_came_due_are_told_before_a_gap_closes_the_episode() -> None:
    values = broken(400)
    mine = plant.readings_of("a", values)
    found = told(
        merged([*mine[:210], *mine[300:]], plant.readings_of("b", healthy(400, seed=3))),
        250, 290, update_every=20 * SECOND,
    )  # fmt: skip
    assert found[:7] == [
        (FAULT, "a", "opened", "critical"),
        *[(FAULT + 21 * i, "a", "updated", "critical") for i in (1, 2, 3, 4)],
        (300, "a", "closed", "gap"),
        (399, "a", "opened", "critical"),
    ]


def test_the_update_due_at_the_very_record_that_ends_the_gap_comes_first() -> None:
    mine = plant.readings_of("a", broken(300))
    found = told(merged([*mine[:210], *mine[221:]]), update_every=20 * SECOND)
    assert found[:3] == [
        (FAULT, "a", "opened", "critical"),
        (210, "a", "updated", "critical"),
        (210, "a", "closed", "gap"),
    ]


def test_the_longest_duration_closes_and_the_next_episode_waits_for_a_quiet_row() -> None:
    values = broken(900, until=400)
    values[850:] += 60
    found = told(merged(plant.readings_of("a", values)), 240, max_duration=30 * SECOND)
    assert found[:2] == [(FAULT, "a", "opened", "critical"), (FAULT + 31, "a", "closed", "max_duration")]
    assert found[2].event == "opened"
    assert found[2].record > 400


def test_an_update_and_the_end_at_the_same_time_are_told_in_this_order() -> None:
    found = told(merged(plant.readings_of("a", broken(300))), max_duration=30 * SECOND, update_every=30 * SECOND)
    assert found == [
        (FAULT, "a", "opened", "critical"),
        (FAULT + 31, "a", "updated", "critical"),
        (FAULT + 31, "a", "closed", "max_duration"),
    ]


def test_an_update_due_after_the_end_is_not_told() -> None:
    mine, other = plant.readings_of("a", broken(205)), plant.readings_of("b", healthy(700, seed=3))
    settings: dict[str, Any] = {"update_every": 32 * SECOND, "max_duration": 30 * SECOND}
    found = told([*merged(mine, other[:210]), [other[260]]], **settings)
    assert found == [(FAULT, "a", "opened", "critical"), (210, "a", "closed", "max_duration")]
    settings = {"update_every": 240 * SECOND, "idle_eviction": SECOND}
    found = told([*merged(mine, other[:210]), [other[600]]], **settings)
    assert found == [(FAULT, "a", "opened", "critical"), (210, "a", "closed", "evicted")]


def test_a_sensor_that_is_gone_is_forgotten_and_begins_anew() -> None:
    mine, other = plant.readings_of("a", broken(900)), plant.readings_of("b", healthy(900, seed=3))
    found = told(merged([*mine[:210], *mine[600:]], other), 450, idle_eviction=50 * SECOND)
    # 200 intervals are the least.
    assert [one for one in found if one.sensor == "a"] == [
        (FAULT, "a", "opened", "critical"),
        (209 + 201, "a", "closed", "evicted"),
        (600 + 99, "a", "opened", "critical"),
    ]


def test_timers_come_by_deadline_and_id_and_before_the_readings_of_their_record() -> None:
    groups = merged(
        plant.readings_of("c", broken(201)),
        plant.readings_of("a", broken(201)),
        plant.readings_of("b", healthy(202, seed=3)),
    )
    breaking = plant.readings_of("b", healthy(400, seed=3) + 60)[300]
    found = told([*groups, [breaking]], max_duration=60 * SECOND, update_every=50 * SECOND)
    assert found == [
        (FAULT, "c", "opened", "critical"),
        (FAULT, "a", "opened", "critical"),
        (202, "a", "updated", "critical"),
        (202, "c", "updated", "critical"),
        (202, "a", "closed", "max_duration"),
        (202, "c", "closed", "max_duration"),
    ]


def test_a_timer_fires_once_its_time_has_passed_and_not_before() -> None:
    late = healthy(300)
    late[FAULT + 1 :] += 60
    found = told(
        merged(plant.readings_of("a", broken(300)), plant.readings_of("b", late)), 231, max_duration=30 * SECOND
    )
    assert [one[:3] for one in found] == [
        (FAULT, "a", "opened"),
        (FAULT + 1, "b", "opened"),
        (FAULT + 31, "a", "closed"),
        (FAULT + 32, "b", "closed"),
    ]


def test_readings_of_one_record_are_told_in_their_order() -> None:
    groups = merged(*(plant.readings_of(name, broken(FAULT + 1)) for name in ("b", "c", "a")))
    found = told(groups)
    assert found == [(FAULT, name, "opened", "critical") for name in ("b", "c", "a")]


def test_a_time_in_which_all_were_silent_counts_for_no_timer() -> None:
    names = ("a", "b")
    coming = [plant.readings_of(name, broken(300) if name == "a" else healthy(300)) for name in names]
    moved = [
        [reading._replace(time=reading.time + 3 * 86_400 * SECOND * (i >= 220)) for i, reading in enumerate(readings)]
        for readings in coming
    ]
    found = told(
        merged(*moved), 225, update_every=50 * SECOND, max_duration=3600 * SECOND, idle_eviction=300 * SECOND,
        window={"max_fill": 5},
    )  # fmt: skip
    # The gap restarts the windows; nothing is evicted, no longest duration passes.
    assert found == [(FAULT, "a", "opened", "critical"), (220, "a", "closed", "gap")]


def test_two_such_times_in_one_record_count_for_none_either() -> None:
    far = [Reading("b", START + day * 86_400 * SECOND + i * SECOND, (50.0,)) for day in (2, 5) for i in range(20)]
    settings: dict[str, Any] = {
        "max_duration": 3600 * SECOND,
        "idle_eviction": 300 * SECOND,
        "update_every": 600 * SECOND,
    }
    found = told([*merged(plant.readings_of("a", broken(205)), plant.readings_of("b", healthy(205))), far], **settings)
    assert found == [(FAULT, "a", "opened", "critical")]


def test_without_timers_nothing_is_told_but_opening_and_closing() -> None:
    found = told(merged(plant.readings_of("a", broken(480, until=230))), 333)
    assert [one.event for one in found] == ["opened", "closed"]


@pytest.mark.parametrize(("duration", "deadline"), [(None, None), (5, 12)])
def test_deadlines(duration: int | None, deadline: int | None) -> None:
    assert deadline_after(7, duration) == deadline
