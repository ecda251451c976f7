from __future__ import annotations

import msgspec
import pytest

from tests.chaos.compare import Key, compare_alerts, compare_counts


def alert(sensor: str, episode: int, sequence: int, **more: object) -> bytes:
    return msgspec.json.encode(
        {"alert_id": f"{sensor}/{episode}", "sequence": sequence, "sensor_id": sensor, "score": 1.5, **more}
    )


RUN = [alert("a", 1, 0), alert("b", 1, 0), alert("a", 1, 1), alert("a", 2, 0), alert("b", 1, 1)]


def test_the_same_alerts_do_not_differ() -> None:
    assert not compare_alerts(RUN, list(RUN))


def test_sensors_may_be_interleaved_differently() -> None:
    assert not compare_alerts(RUN, [RUN[1], RUN[4], RUN[0], RUN[2], RUN[3]])


def test_a_missing_alert_is_found() -> None:
    found = compare_alerts(RUN, RUN[:2] + RUN[3:])
    assert found
    assert found.counts() == {"missing": 1, "unexpected": 0, "doubled": 0, "changed": 0, "misordered": 0}
    assert found.missing == [Key("a/1", 1)]


def test_an_alert_nobody_expected_is_found() -> None:
    found = compare_alerts(RUN, [*RUN, alert("c", 9, 0)])
    assert found.unexpected == [Key("c/9", 0)]
    assert not found.missing


def test_a_doubled_alert_is_found_even_if_it_is_the_same() -> None:
    found = compare_alerts(RUN, [*RUN, RUN[0]])
    assert found.doubled == [Key("a/1", 0)]
    assert not found.changed
    assert not found.misordered


def test_a_changed_alert_is_found_with_its_fields() -> None:
    found = compare_alerts(RUN, [alert("a", 1, 0, score=1.5000001, extra=1), *RUN[1:]])
    assert found.changed == {Key("a/1", 0): ["extra", "score"]}
    assert not found.missing


def test_of_a_doubled_alert_the_first_counts() -> None:
    found = compare_alerts(RUN, [*RUN, alert("a", 1, 0, score=9)])
    assert found.doubled == [Key("a/1", 0)]
    assert not found.changed


def test_another_order_of_one_sensor_is_found() -> None:
    found = compare_alerts(RUN, [RUN[2], RUN[1], RUN[0], RUN[3], RUN[4]])
    assert found.misordered == ["a"]
    assert found.counts()["missing"] == 0


def test_a_run_that_repeats_itself_is_no_measure() -> None:
    with pytest.raises(ValueError, match="repeats"):
        compare_alerts([RUN[0], RUN[0]], [])


def test_differences_can_be_written_down() -> None:
    found = compare_alerts(RUN, [alert("a", 1, 0, score=2), *RUN[2:], RUN[4]])
    written = msgspec.json.decode(msgspec.json.encode(found.as_json()))
    assert written == {
        "missing": [["b/1", 0]],
        "unexpected": [],
        "doubled": [["b/1", 1]],
        "changed": [{"key": ["a/1", 0], "fields": ["score"]}],
        "misordered": [],
    }


def test_records_without_an_order_are_counted() -> None:
    assert compare_counts([(0, 1), (0, 2)], [(0, 2), (0, 1)]) == {"missing": 0, "too many": 0}
    assert compare_counts([(0, 1), (0, 2)], [(0, 2), (0, 2), (1, 1)]) == {"missing": 1, "too many": 2}
