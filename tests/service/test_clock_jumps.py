"""Clocks that jump: the machine's own changes no result and no supervision, a sensor's restarts its window."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from detector.service.web.server import standard_routes
from detector.streams.base import Record
from tests.plant import SECOND, START, healthy, message, readings_of
from tests.service.test_daemon import ROWS, Process, Streams, config, model, process, records

__all__ = ["config", "model", "process", "records"]  # fixtures

DAY = 86_400.0


@pytest.mark.parametrize("jump", [-400 * DAY, -1.0, 400 * DAY], ids=["back", "a second back", "forward"])
def test_the_machines_clock_disturbs_nothing(
    process: Callable[..., Process], records: list[Record], jump: float
) -> None:
    undisturbed = process()
    expected = undisturbed.run()
    stamped = [record._replace(timestamp=int(START / 1e6) + i) for i, record in enumerate(records)]
    live: list[bool] = []

    def turn() -> bool:
        one.now += 1
        live.append(one.health.live)
        if len(live) == 3:
            one.set_forward += jump
        return False

    one = process(Streams(stamped), turn=turn)
    one.set_forward = START / SECOND + ROWS - one.now
    assert one.run() == expected
    assert len(live) > 5
    assert all(live)
    # At most half of the interval of 10 s passes between two, whatever the clock on the wall says.
    assert one.supervisor.told == ["ready", "alive", "stopping"]
    for name in ("event_latency", "commit_latency"):
        of_commits = one.sample(f"detector_{name}_seconds_sum")
        assert of_commits is not None
        assert of_commits >= 0
    assert one.sample("detector_commit_seconds_sum") == 0
    routes = standard_routes(one.registry, one.health, clock=lambda: one.now)
    assert routes["/healthz"]("").status == 200
    assert routes["/metrics"]("").status == 200


def test_latencies_are_never_below_zero(process: Callable[..., Process], records: list[Record]) -> None:
    """Readings from the future, as a clock that was set back sees them."""
    stamped = [record._replace(timestamp=int(START / 1e6)) for record in records[:50]]
    one = process(Streams(stamped))
    one.set_forward = START / SECOND - DAY - one.now
    one.run()
    for name in ("event_latency", "commit_latency"):
        assert one.sample(f"detector_{name}_seconds_count")
        assert one.sample(f"detector_{name}_seconds_sum") == 0


def test_a_sensors_clock_that_goes_back_is_counted_and_its_window_begins_anew(
    process: Callable[..., Process], records: list[Record]
) -> None:
    back = readings_of("pump-0", healthy(np.random.default_rng(5), 60), first=START - 7200 * SECOND)
    one = process(
        Streams([*(record.value or b"" for record in records[:200]), *(message([reading]) for reading in back)])
    )
    one.run()
    assert one.sample("detector_clock_resets_total") == 1
    assert one.sample("detector_readings_total", outcome="late") == 19
    assert one.sample("detector_readings_total", outcome="accepted") == 200 + 60 - 19
    # The partition's clock, which timers count by, stays where it was.
    assert one.sample("detector_last_event_timestamp_seconds", stream="sensor-readings", partition="0") == (
        START / SECOND + 199
    )
