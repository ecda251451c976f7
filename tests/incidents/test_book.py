"""Who belongs to which incident, and when it is told of."""

from __future__ import annotations

import msgspec
import pytest

from detector.incidents.book import SHOWN
from detector.incidents.groups import OTHERS
from detector.incidents.rebuilding import rebuilt
from detector.incidents.state import State
from detector.streams.base import Partition
from detector.times import parse_time
from detector.wire.incidents import encode_incident, incident_id
from tests.incidents.made import MINUTE, START, alert_id, book, news, take, told

DAY = 86_400


def test_an_episode_opens_an_incident_and_its_end_closes_it() -> None:
    incidents = take(book(), news("p-1", 0), news("p-1", 0, "closed", seen=200))
    assert told(incidents) == [("opened", 0, 1), ("closed", 1, 1)]
    opened, closed = incidents
    assert opened.incident_id == closed.incident_id == incident_id("all", alert_id("p-1"))
    assert (closed.close_reason, closed.ended_at) == ("recovered", closed.members[0].ended_at)
    assert opened.close_reason is None
    assert opened.ended_at is None


def test_onsets_within_the_time_belong_together_in_whatever_order_they_are_seen() -> None:
    plant = book()
    incidents = take(plant, news("p-1", 0), news("p-2", 299), news("p-3", -299), news("p-4", 301))
    assert told(incidents) == [("opened", 0, 1), ("updated", 1, 2), ("opened", 0, 1)]
    assert [member.sensor_id for member in plant.open[0].members] == ["p-3", "p-1", "p-2"]


def test_members_are_held_against_the_first_onset_alone_so_that_no_chain_grows() -> None:
    plant = book()
    take(plant, *(news(f"p-{number}", number * 200) for number in range(6)))
    assert [one.size for one in plant.open] == [2, 2, 2]


def test_a_refined_onset_changes_what_is_shown_and_no_membership() -> None:
    plant = book()
    take(plant, news("p-1", 0), news("p-2", 100))
    take(plant, news("p-1", -900, "updated", seen=120))
    incidents = take(plant, news("p-3", -800), news("p-4", 250))
    assert [one.size for one in plant.open] == [3, 1]
    assert parse_time(incidents[0].started_at) == START - 800 * 1_000_000_000
    assert plant.open[0].members[0].sensor_id == "p-1"
    assert plant.open[0].members[0].started_at == START - 900 * 1_000_000_000


def test_near_a_closed_incident_another_one_opens() -> None:
    incidents = take(book(), news("p-1", 0), news("p-1", 0, "closed", seen=130), news("p-2", 5))
    assert told(incidents) == [("opened", 0, 1), ("closed", 1, 1), ("opened", 0, 1)]
    assert incidents[0].incident_id != incidents[2].incident_id


def test_groups_keep_incidents_apart() -> None:
    incidents = take(book(["{line}/*"]), news("line 1/a", 0), news("line 2/a", 1), news("line 1/b", 2), news("door", 3))
    assert [(one.group, one.size) for one in incidents] == [
        ("line 1", 1), ("line 2", 1), ("line 1", 2), (OTHERS, 1)
    ]  # fmt: skip


def test_it_is_told_at_once_when_the_size_doubles_and_when_severity_rises() -> None:
    plant = book(update_every=None)
    incidents = take(plant, *(news(f"p-{number:02}", number) for number in range(9)))
    assert told(incidents) == [("opened", 0, 1), ("updated", 1, 2), ("updated", 2, 4), ("updated", 3, 8)]
    (risen,) = take(plant, news("p-03", 3, "updated", severity="critical"))
    assert (risen.severity, risen.sequence) == ("critical", 4)
    assert take(plant, news("p-04", 3, "updated", severity="critical")) == []
    assert take(plant, news("p-03", 3, "updated", severity="warning", sequence=2)) == []
    assert plant.open[0].severity == "critical"


def test_else_it_is_told_of_what_changed_once_in_a_while_of_event_time() -> None:
    plant = book()
    take(plant, news("p-1", 0), news("p-2", 1), news("p-3", 2))
    assert take(plant, news("p-1", 0, "updated", seen=60)) == []
    (due,) = take(plant, news("p-1", 0, "updated", seen=75, sequence=2))
    assert (due.event, due.size) == ("updated", 3)
    assert take(plant, news("p-1", 0, "updated", seen=130, sequence=3)) == []
    assert told(take(plant, news("p-1", 0, "updated", seen=300, sequence=4))) == [("updated", 3, 3)]


def test_it_is_over_when_all_are() -> None:
    plant = book()
    take(plant, news("p-1", 0), news("p-2", 1))
    assert take(plant, news("p-1", 0, "closed", seen=30)) == []
    (closed,) = take(plant, news("p-2", 1, "closed", seen=40))
    assert (closed.event, closed.close_reason) == ("closed", "recovered")
    assert plant.open == []
    assert plant.state.clocks == {}


def test_expected_on_all_closes_it_and_what_they_say_later_opens_none() -> None:
    plant = book()
    take(plant, news("p-1", 0), news("p-2", 1))
    assert take(plant, news("p-1", 0, "updated", verdict="expected")) == []
    (closed,) = take(plant, news("p-2", 1, "updated", verdict="expected"))
    assert (closed.event, closed.close_reason) == ("closed", "expected")
    assert take(plant, news("p-1", 0, "updated", sequence=5), news("p-1", 0, "closed", sequence=6)) == []


def test_one_that_never_ends_is_closed_by_the_clock_of_its_group() -> None:
    plant = book(["{line}/*"], max_duration=DAY * 1_000_000_000)
    take(plant, news("a/1", 0), news("b/1", 0))
    incidents = take(plant, news("a/2", 2 * DAY))
    assert [(one.event, one.close_reason) for one in incidents] == [("closed", "max_duration"), ("opened", None)]
    assert [one.group for one in plant.open] == ["b", "a"]
    assert take(plant, news("a/1", 0, "updated", seen=2 * DAY)) == []  # it may still speak, and is known


def test_muted_episodes_join_and_open_none() -> None:
    plant = book()
    assert take(plant, news("p-1", 0, muted=True)) == []
    take(plant, news("p-2", 1))
    (joined,) = take(plant, news("p-3", -5, muted=True, severity="critical"))
    assert (joined.size, joined.severity) == (2, "warning")
    assert [one.sensor_id for one in joined.suspects] == ["p-2"]
    assert [(one.sensor_id, one.muted) for one in joined.members] == [("p-2", False), ("p-3", True)]


def test_an_episode_joins_by_its_first_message_that_is_not_muted() -> None:
    plant = book()
    assert take(plant, news("p-1", 0, muted=True)) == []
    (opened,) = take(plant, news("p-1", -60, "updated"))
    assert parse_time(opened.started_at) == START - MINUTE


def test_what_comes_twice_or_out_of_order_changes_nothing() -> None:
    plant = book()
    take(plant, news("p-1", 0), news("p-1", 0, "updated", severity="critical"))
    assert take(plant, news("p-1", 0), news("p-1", 0, "updated")) == []
    take(plant, news("p-1", 0, "closed"))
    assert take(plant, news("p-1", 0), news("p-1", 0, "updated"), news("p-1", 0, "closed")) == []
    assert plant.open == []
    assert plant.counts.duplicates == 5


def test_an_episode_of_which_only_the_end_is_known_is_no_news() -> None:
    assert take(book(), news("p-1", 0, "closed")) == []


def test_the_beginning_may_be_missing() -> None:
    plant = book()
    assert told(take(plant, news("p-1", 0, "updated", sequence=7))) == [("opened", 0, 1)]
    take(plant, news("p-1", 0, "updated", sequence=9))
    assert plant.counts.gaps == 2


def test_a_message_lists_a_hundred_members_and_counts_the_others() -> None:
    plant = book()
    incidents = take(plant, *(news(f"p-{number:04}-{'x' * 200}", number / 10) for number in range(600)))
    last = incidents[-1]
    assert (last.size, len(last.members)) == (512, SHOWN)
    assert len(encode_incident(last)) < 200_000
    assert last.members[0].sensor_id.startswith("p-0000")
    take(plant, *(news(f"p-{number:04}-{'x' * 200}", number / 10, "closed") for number in range(599)))
    assert len(plant.open) == 1
    (closed,) = take(plant, news(f"p-0599-{'x' * 200}", 59.9, "closed"))
    assert closed.size == 600


def test_the_earliest_are_listed_whenever_they_came() -> None:
    plant = book()
    take(plant, *(news(f"p-{number:03}", number / 10) for number in range(200)))
    take(plant, news("early", -10))
    assert plant.open[0].members[0].sensor_id == "early"
    assert len(plant.open[0].members) == SHOWN


def test_groups_beyond_the_limit_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.incidents.book.GROUPS", 20)
    plant = book(["{line}/*"])
    take(plant, *(news(f"{number}/p", number) for number in range(25)))
    assert len(plant.open) == 20 + 1
    assert plant.counts.ungrouped == 5
    assert plant.open[-1].group == OTHERS


def test_the_memory_of_what_is_over_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.incidents.book.CLOSED_KEPT", 10)
    plant = book(within=0)
    for number in range(15):
        take(plant, news(f"p-{number}", number), news(f"p-{number}", number, "closed"))
    assert list(plant.state.past) == [alert_id(f"p-{number}") for number in range(5, 15)]


def test_a_state_goes_on_where_it_was_whatever_the_cut() -> None:
    alerts = [
        news("p-1", 0), news("p-2", 4), news("p-3", 9, muted=True), news("p-4", 500),
        news("p-1", 0, "updated", seen=90),
        news("p-2", 4, "updated", severity="critical"), news("p-4", 500, "closed", seen=600), news("p-2", 4, "closed"),
        news("p-1", 0, "closed"), news("p-3", 9, "closed"), news("p-1", 0), news("p-5", 20),
    ]  # fmt: skip
    whole = [encode_incident(one) for one in take(book(), *alerts)]
    assert len(whole) > 6
    for cut in range(len(alerts)):
        first = book()
        found = take(first, *alerts[:cut])
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(first.state), type=State)
        found += take(book(state=state), *alerts[cut:])
        assert [encode_incident(one) for one in found] == whole, cut


def test_a_lost_state_is_made_again_from_what_was_published() -> None:
    first = book(update_every=None)
    before = take(first, news("p-1", 0), news("p-2", 5), news("q", 1000), news("q", 1000, "closed", seen=1100))
    state, offsets = rebuilt(before)
    assert offsets == {Partition("anomaly-alerts", 0): 0}
    again = book(state=state, update_every=None)
    assert take(again, news("q", 1000, "closed", seen=1100), news("p-1", 0, "closed")) == []
    (closed,) = take(again, news("p-2", 5, "closed"))
    assert (closed.incident_id, closed.event, closed.size) == (before[0].incident_id, "closed", 2)
    assert closed.sequence == 2
    assert take(book(state=rebuilt([*before, closed])[0]), news("p-2", 5)) == []


@pytest.mark.parametrize("sizes", [3, 150])
def test_a_lost_state_keeps_the_first_onset(sizes: int) -> None:
    first = book()
    before = take(first, *(news(f"p-{number:03}", -number / 10) for number in range(sizes)))
    state, _ = rebuilt(before)
    assert state.open[0].anchor == START
    assert state.open[0].size == before[-1].size
