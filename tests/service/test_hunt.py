"""A record that nobody foresaw costs itself: it is found, becomes a dead letter, and the process goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from detector.detection.windows import Arrivals, admit
from detector.engine import readings as engine_readings
from detector.service import hunt
from detector.streams.base import Message, Record
from tests.service.test_daemon import Streams, config, model, process, records, turns

__all__ = ["config", "model", "process", "records"]  # fixtures

POISON = 0.0078125
"""The value of a record that makes admission fail."""


def poison(monkeypatch: pytest.MonkeyPatch, *, times: int | None = None) -> list[int]:
    """Let admission fail at POISON, or the first `times` times only; each entry is a failure."""
    failures: list[int] = []

    def failing(table: Any, arrivals: Arrivals, lateness: int) -> Any:
        if (arrivals.values == POISON).any() and (times is None or len(failures) < times):
            failures.append(len(arrivals.values))
            raise IndexError("nobody thought of this")
        return admit(table, arrivals, lateness)

    monkeypatch.setattr(engine_readings, "admit", failing)
    return failures


def poisoned(records: list[Record], *at: int) -> list[Record]:
    """The records with poison before those at these places, under offsets of its own."""
    found: list[Record] = []
    for number, record in enumerate(records):
        if number in at:
            found.append(record._replace(value=bad_value(record)))
        else:
            found.append(record)
    return found


def bad_value(record: Record) -> bytes:
    return json.dumps(json.loads(record.value or b"") | {"value": POISON}).encode()


def expected(records: list[Record], process: Any, *without: int) -> list[Message]:
    left = [record for number, record in enumerate(records) if number not in without]
    alerts: list[Message] = process(Streams(left)).run()
    return alerts


def letters(streams: Streams) -> list[tuple[bytes, bytes]]:
    headers = [dict(message.headers) for message in streams.read("dead-letters")]
    return [(one["detector.reason"], one["detector.offset"]) for one in headers]


@pytest.mark.parametrize("durable_every", [1, 3])
@pytest.mark.parametrize("max_records", [1, 64, 1000])
def test_a_record_that_cannot_be_dealt_with_is_a_dead_letter(
    max_records: int, durable_every: int, process: Any, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts = expected(records, process, 333)
    poison(monkeypatch)
    streams = Streams(poisoned(records, 333), max_records=max_records, durable_every=durable_every)
    one = process(streams)
    assert one.run() == alerts
    assert alerts
    assert letters(streams) == [(b"internal", str(records[333].offset).encode())]
    assert one.registry.get_sample_value("detector_errors_total", {"stage": "record"}) == 1


def test_a_retry_counts_once(process: Any, records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)
    streams = Streams(poisoned(records, 333), max_records=50, durable_every=4)
    one = process(streams)
    one.run()
    accepted = one.registry.get_sample_value("detector_readings_total", {"outcome": "accepted"})
    rejected = one.registry.get_sample_value("detector_readings_total", {"outcome": "rejected"})
    missing = one.registry.get_sample_value("detector_readings_total", {"outcome": "missing"})
    late = one.registry.get_sample_value("detector_readings_total", {"outcome": "late"})
    assert accepted + rejected + missing + late == len(records)
    assert rejected == 1


def test_two_of_them_in_a_batch_are_both_found(
    process: Any, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts = expected(records, process, 310, 390)
    poison(monkeypatch)
    streams = Streams(poisoned(records, 310, 390), max_records=200)
    assert process(streams).run() == alerts
    assert [offset for _, offset in letters(streams)] == [str(records[i].offset).encode() for i in (310, 390)]


def test_a_failure_that_does_not_come_again_is_passed_over(
    process: Any, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = poisoned(records, 333)
    alerts = process(Streams(bad)).run()
    poison(monkeypatch, times=1)
    streams = Streams(bad)
    assert process(streams).run() == alerts
    assert letters(streams) == []


def test_more_than_three_hunts_a_minute_end_the_process(
    process: Any, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch)
    streams = Streams(poisoned(records, 100, 200, 300, 400, 500), max_records=20)
    with pytest.raises(IndexError, match="nobody thought"):
        process(streams).run()
    assert len(letters(streams)) == hunt.MOST_HUNTS


def test_a_full_disk_is_no_record(process: Any, records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError("no space left")

    monkeypatch.setattr(engine_readings, "admit", full)
    with pytest.raises(OSError, match="no space"):
        process(Streams(records)).run()


def test_killed_in_the_hunt_the_outcome_is_the_same(
    process: Any, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts = expected(records, process, 333)
    poison(monkeypatch)
    streams = Streams(poisoned(records, 333), max_records=50, durable_every=3)
    kills = 0
    for stop_at in (2, 4, 1, 5, 3, 2, 6, 1):
        try:
            process(streams, turn=turns(*[lambda: None] * stop_at, _kill)).daemon.run()
        except KeyboardInterrupt:
            kills += 1
    assert kills > 3
    assert process(streams).run() == alerts
    assert letters(streams) == [(b"internal", str(records[333].offset).encode())]


def _kill() -> None:
    raise KeyboardInterrupt


def test_what_cannot_be_read_again_is_kept_in_memory(
    process: Any, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pipe(Streams):
        repeatable = False

        def roll_back(self) -> None:
            raise AssertionError("a pipe")

    alerts = expected(records, process, 333)
    poison(monkeypatch)
    monkeypatch.setattr(hunt, "KEPT_RECORDS", 120)
    streams = Pipe(poisoned(records, 333), max_records=50)
    assert process(streams).run() == alerts
    assert letters(streams) == [(b"internal", str(records[333].offset).encode())]
