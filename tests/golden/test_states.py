"""What an earlier release left behind in the middle of an input is taken up, and what comes of it is as if it had not
been stopped. On Kafka: `tests/kafka/test_golden.py`.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.golden.cases import ALERTS, CAMERAS, LETTERS, PLANT, Case, Json, parsed, run, untar
from tests.golden.compare import expect_alerts, expect_letters, since_last, without_claims
from tests.golden.states import DIRECTORY_KINDS, as_ever
from tests.golden.topics import KINDS, frozen_of

BOTH = pytest.mark.parametrize("case", [PLANT, CAMERAS], ids=[PLANT.name, CAMERAS.name])


def left_behind(case: Case, kind: str, place: Path) -> Path:
    """The directory as it was left, with the input to its end."""
    case.lay(place)
    untar(case.data / f"directory-{kind}.tar.gz", place)
    return place


@BOTH
@pytest.mark.parametrize("kind", DIRECTORY_KINDS)
def test_a_directory_is_taken_up(case: Case, kind: str, tmp_path: Path) -> None:
    place = left_behind(case, kind, tmp_path / "place")
    run(place, "run", "--until-end")
    expected, found = (as_ever(alerts) for alerts in (case.recorded(ALERTS), parsed((place / ALERTS).read_bytes())))
    expect_alerts(without_claims(since_last(expected)), since_last(found))
    expect_letters(case.recorded(LETTERS), parsed((place / LETTERS).read_bytes()))


@BOTH
@pytest.mark.parametrize("kind", DIRECTORY_KINDS)
def test_the_directory_was_left_in_the_middle(case: Case, kind: str, tmp_path: Path) -> None:
    place = left_behind(case, kind, tmp_path / "place")
    checkpoint = (place / ".detector" / "checkpoint").read_bytes()
    _, _, rest = checkpoint.partition(b"\n")
    (length,) = struct.unpack_from("<I", rest)
    table = msgspec.msgpack.decode(rest[4 : 4 + length])
    final = table["outputs"][ALERTS.removesuffix(".jsonl")]
    alerts = (place / ALERTS).read_bytes()
    if kind == "stopped":
        assert final == len(alerts)
        assert len(still_open(parsed(alerts))) >= 2
    else:
        assert final < len(alerts), "alerts that no checkpoint knows will be written again"
    (row,) = table["partitions"]
    assert 0 < row["position"] < (place / case.input).stat().st_size


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_the_group_was_left_in_the_middle(case: Case, kind: str) -> None:
    frozen = frozen_of(case, kind)
    logs = {(topic, number): entries for topic, number, entries, _ in frozen["logs"]}
    alerts = [json.loads(base64.b64decode(value)) for _, _, value, _ in logs["-alerts", 0]]
    assert len(still_open(alerts)) >= 2
    assert len(frozen["committed"]) == case.partitions
    for committed, metadata in frozen["committed"].values():
        replayed_from = json.loads(metadata)["r"]
        if kind == "stopped":
            assert replayed_from == committed
        else:
            assert replayed_from < committed
    slices = [len(slices_of(logs[f"-{case.path}-state", number])) for number in range(case.partitions)]
    if kind == "killed" and case is PLANT:
        assert min(slices) >= 2, "slices of several ages"
    assert (max(slices) == 0) is (kind == "early")


def still_open(alerts: Sequence[Json]) -> set[str]:
    """Ids of the episodes that were not closed."""
    return {alert["alert_id"] for alert in alerts} - {a["alert_id"] for a in alerts if a["event"] == "closed"}


def slices_of(entries: Sequence[Sequence[Any]]) -> set[int]:
    """The input offsets that slices in force are of."""
    newest = {base64.b64decode(key): base64.b64decode(value) for _, key, value, _ in entries if value is not None}
    return {msgspec.msgpack.decode(value)[1] for key, value in newest.items() if key.startswith(b"s:")}
