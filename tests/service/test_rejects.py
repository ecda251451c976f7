"""The guard against input that is something else: from a hundred records on, over the last this many."""

from __future__ import annotations

import pytest

from detector.errors import OperationError
from detector.service.rejects import RejectGuard


def test_fewer_than_a_hundred_records_are_no_evidence() -> None:
    guard = RejectGuard(0.5, 1000)
    guard.judge(99, range(99))
    with pytest.raises(OperationError, match="100 of the last 100 records"):
        guard.judge(1, [0])


def test_the_share_itself_is_allowed() -> None:
    guard = RejectGuard(0.5, 1000)
    guard.judge(200, range(100))
    with pytest.raises(
        OperationError, match="101 of the last 201 records were rejected, more than the allowed share of"
    ):
        guard.judge(1, [0])


def test_only_the_last_records_count() -> None:
    guard = RejectGuard(0.5, 200)
    guard.judge(150, [])
    guard.judge(100, range(100))
    guard.judge(0, [])
    with pytest.raises(OperationError, match="101 of the last 200 records"):
        guard.judge(1, [0])


def test_a_batch_larger_than_what_is_looked_at() -> None:
    guard = RejectGuard(0.5, 100)
    guard.judge(1000, range(900))
    with pytest.raises(OperationError, match="100 of the last 100 records"):
        guard.judge(1000, range(900, 1000))


def test_a_share_of_one_never_stops() -> None:
    RejectGuard(1.0, 100).judge(1000, range(1000))


def test_the_line_shows_what_came() -> None:
    with pytest.raises(OperationError) as stopped:
        RejectGuard(0.1, 100).judge(100, range(11), "`value` is missing")
    assert str(stopped.value) == (
        "11 of the last 100 records were rejected, more than the allowed share of 0.1; one of them: `value` is missing "
        "(rejects.max_share). Correct the producer or `readings.fields`, and start again."
    )
    assert stopped.value.exit_code == 1
