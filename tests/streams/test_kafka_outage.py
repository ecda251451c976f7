"""What is told while nothing can be committed, and when it is given up. A clock that is set by hand."""

from __future__ import annotations

import logging

import pytest

from detector.errors import OperationError
from detector.streams.kafka.outage import Outage

FENCED = "another process took over the instance name"


class Place:
    """An outage with a limit of 10 s, what was told of it, and its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[str | None] = []
        self.outage = Outage(10.0, self.told.append, lambda: self.now)


@pytest.fixture
def place(caplog: pytest.LogCaptureFixture) -> Place:
    caplog.set_level(logging.INFO, "detector")
    return Place()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_broker_that_is_away_is_waited_for(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        place.outage.begin("it does not answer", away=True)
    place.outage.end()
    place.outage.end()
    assert lines(caplog) == ["waiting for the broker: it does not answer", "the broker is back"]
    assert place.told == ["it does not answer", None]


def test_a_broker_that_refuses_is_not_waited_for(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """It is there; whoever reads the log shall not go and look after it."""
    place.outage.begin(FENCED, away=False)
    place.outage.begin(FENCED, away=False)
    place.outage.end()
    assert lines(caplog) == []
    assert place.told == [FENCED, None]


def test_a_broker_that_goes_away_meanwhile_is_told(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.outage.begin(FENCED, away=False)
    place.outage.attempt_failed("cannot reach the broker")
    place.outage.begin(FENCED, away=False)
    place.outage.look(away=False, joined=True)
    assert lines(caplog) == ["waiting for the broker: cannot reach the broker", "the broker is back"]
    assert place.told == [FENCED, "cannot reach the broker", None]


@pytest.mark.parametrize(("away", "said"), [(True, "the broker has been away"), (False, "nothing could be committed")])
def test_it_is_given_up_in_the_end(away: bool, said: str, place: Place) -> None:
    place.outage.begin("no", away=away)
    place.now = 10.0
    place.outage.begin("no", away=away)
    place.now = 10.5
    with pytest.raises(OperationError, match=f"{said} for 10 s: no .*broker_outage_limit"):
        place.outage.begin("no", away=away)


def test_a_success_in_between_begins_the_count_again(place: Place) -> None:
    for at in (0.0, 8.0, 16.0):
        place.now = at
        place.outage.begin("no", away=False)
        place.outage.end()
    assert place.told == ["no", None] * 3


def test_attempts_come_later_each_time(place: Place) -> None:
    pauses = []
    for _ in range(8):
        place.outage.attempt_failed("no")
        pauses.append(place.outage.next_attempt - place.now)
    assert pauses == sorted(pauses)
    assert pauses[0] < 1.0 < pauses[-1] <= 5.0


def test_a_coordinator_that_moves_is_not_away(place: Place) -> None:
    place.outage.look(away=True, joined=True)
    place.now = 0.9
    place.outage.look(away=True, joined=True)
    place.outage.look(away=False, joined=True)
    place.now = 1.5
    place.outage.look(away=True, joined=True)
    assert place.told == []
    place.now = 2.6
    place.outage.look(away=True, joined=True)
    assert place.told == ["its group coordinator cannot be reached"]
