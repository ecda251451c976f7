"""An onset follows from what an alert's messages show, and the profile that they name the bundle of: anybody can tell.

Looks at an open episode fall on every `LOOK`-th row since the sensor's window was complete, which a reader of messages
has not counted. But it is one number for a sensor, so that one of `LOOK` has to explain all of its episodes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from detector.arrays import F64, I64
from detector.detection.columns import NEVER
from detector.detection.finding import LOOK, Finding, Window, first_look, next_look
from detector.detection.profile import Profile
from detector.detection.signals import WINDOW, standardise
from detector.reports.joined import joined
from detector.times import parse_time
from detector.wire.alerts import Alert, decode_alert
from tests import plant
from tests.plant import SECOND, START

OPEN_AFTER = (8, 10)
FAULTS = ((400, "shift"), (1000, "slow"))
ROWS = 1400
LASTING = 220


def faulty(rng: np.random.Generator) -> F64:
    """A sensor with one fault of each kind."""
    values = plant.healthy(rng, ROWS)
    step = np.arange(LASTING, dtype=np.float64)
    for first, kind in FAULTS:
        values[first : first + LASTING, 0] += {
            "shift": np.full(LASTING, 4.0 * rng.choice((-1, 1))),
            "slow": 0.25 * step,
        }[kind]
    return values


def played(name: str, values: F64, profile: Profile) -> list[list[Alert]]:
    """The messages of each episode."""
    config = plant.readings_config(
        open_after=OPEN_AFTER, false_alarms=plant.per_readings(2_000), update_every=70 * SECOND
    )
    pipeline = plant.pipeline_of(config, plant.model_of({name: profile}))
    records = plant.records_of([[reading] for reading in plant.readings_of(name, values)])
    found: dict[str, list[Alert]] = {}
    for message in plant.play(pipeline, records, range(0, ROWS, 90)):
        alert = decode_alert(message.value)
        found.setdefault(alert.alert_id, []).append(alert)
    return list(found.values())


class Rows:
    """What the messages of an episode show, as the profile scales it."""

    def __init__(self, messages: Sequence[Alert], profile: Profile) -> None:
        window = joined(message.window for message in messages)
        assert window is not None
        self._profile = profile
        self.times: I64 = np.array(window.timestamps) * 10**6
        self._z = standardise(np.array(window.values, dtype=np.float64)[:, None], profile.center, profile.scale)
        self._errors = np.array(window.errors, dtype=np.float64)[:, None]

    @functools.cache  # noqa: B019 - it lasts as long as its test
    def until(self, row: int) -> Window:
        """The window whose newest row this is."""
        part = slice(row + 1 - WINDOW, row + 1)
        ridge = self._profile.ridge.astype(np.float64)
        return Window(self.times[part], self._z[part], self._errors[part], ridge, self._profile.bias, {})


def onsets(messages: Sequence[Alert], rows: Rows, phase: int) -> Iterator[int]:
    """What each message has to say, if looks fall on rows whose time in seconds has this rest."""
    detected = parse_time(messages[0].detected_at)
    ends = [int(np.searchsorted(rows.times, newest(message))) for message in messages]
    found: Finding = first_look(rows.until(ends[0]), NEVER, OPEN_AFTER[0])
    yield found.onset
    for (earlier, message), (before, last) in zip(pairwise(messages), pairwise(ends), strict=True):
        judged = message.event == "closed" or message.severity != earlier.severity
        for row in range(before + 1, last + 1):
            if (judged and row == last) or (rows.times[row] // SECOND) % LOOK == phase:
                found = next_look(found, rows.until(row), detected)
        yield found.onset


def newest(message: Alert) -> int:
    assert message.window is not None
    return message.window.timestamps[-1] * 10**6


def said(messages: Sequence[Alert]) -> list[int]:
    return [parse_time(message.started_at) for message in messages]


def test_each_onset_is_what_the_messages_so_far_let_expect() -> None:
    profile = plant.profile_of(
        plant.healthy(np.random.default_rng(1), 1500), plant.reconstructor(), open_after=OPEN_AFTER
    )
    episodes = played("pump", faulty(np.random.default_rng(7)), profile)
    assert [round((said(one)[-1] - START) / SECOND / 100) for one in episodes] == [row // 100 for row, _ in FAULTS]
    shown = [(one, Rows(one, profile)) for one in episodes]
    explained = [phase for phase in range(LOOK) if all(list(onsets(*one, phase)) == said(one[0]) for one in shown)]
    assert explained
    assert len(explained) < LOOK, "looks between messages matter"
    assert any(len(set(said(one))) > 1 for one in episodes), "a later message knows it better"


def test_an_onset_stands_once_too_little_before_it_is_seen() -> None:
    profile = plant.profile_of(
        plant.healthy(np.random.default_rng(1), 1500), plant.reconstructor(), open_after=OPEN_AFTER
    )
    for messages in played("pump", faulty(np.random.default_rng(6)), profile):
        detected = parse_time(messages[0].detected_at)
        late = [one for one in messages if newest(one) >= detected + WINDOW * SECOND]
        assert len(late) >= 2
        assert len(set(said(late))) == 1
