"""Records copied under other keys, in the loop of the small daemons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from detector.config.load import Config, FieldsConfig
from detector.errors import OperationError, UserError
from detector.service.follower import Follower
from detector.service.health import Health
from detector.service.people import Around
from detector.service.peoplemetrics import RekeyMetrics
from detector.service.rejects import RejectGuard
from detector.service.rekeying import MOST_BYTES, RekeyWork, serve_rekey
from detector.service.systemd import Notifier
from detector.streams.base import Assigned, Batch, Partition, Record
from detector.streams.memory import MemoryStreams
from detector.wire.documents import Rejected
from detector.wire.rekeying import Rekeying


class KillError(Exception):
    """The process dies here."""


def value(number: int, **more: object) -> bytes:
    reading = {"sensor_id": f"line1/{number % 4}", "machine": f"m{number % 2}", "timestamp": number, "value": number}
    return json.dumps(reading | more).encode()


def work(key: str = "{machine}", fields: dict[str, Any] | None = None) -> RekeyWork:
    return RekeyWork(
        Rekeying(FieldsConfig.model_validate(fields or {}), key),
        output="out",
        dead_letters="dead",
        guard=RejectGuard(0.5, 1000),
        metrics=RekeyMetrics(CollectorRegistry()),
    )


def run(streams: MemoryStreams, stop: Sequence[int] = ()) -> None:
    turns = iter(range(10_000))

    def stopping() -> bool:
        if next(turns) in stop:
            raise KillError
        return False

    Follower(streams, work(), name="rekey", health=Health(), stop=stopping, until_end=True).run()


def test_records_pass_unchanged_but_for_the_key() -> None:
    partition = Partition("in", 0)
    one = work()
    one.begin({partition: Assigned(partition, 7)})
    record = Record(7, b"tag", value(3), 1_795_341_600_125, [("trace", b"x"), ("empty", None)])
    (copy,) = one.take(Batch(partition, [record], 8))
    assert (copy.stream, copy.key, copy.value, copy.timestamp) == ("out", b"m1", record.value, record.timestamp)
    assert copy.headers == [("trace", b"x"), ("empty", b"")]
    assert one.positions == {partition: 8}
    (copy,) = one.take(Batch(partition, [Record(8, None, value(2), -1)], 9))
    assert (copy.key, copy.timestamp) == (b"m0", None)


@pytest.mark.parametrize(
    ("key", "fields", "record", "expected"),
    [
        ("{machine}", {}, value(1), b"m1"),
        ("{sensor_id}", {}, value(1), b"line1/1"),
        ("{sensor_id}", {}, b'{"timestamp": 1, "value": 1}', b"the key"),
        ("{sensor_id}", {"preset": "telegraf"}, b'{"tags": {"topic": "a/b"}, "fields": {}, "timestamp": 1}', b"a/b"),
        ("{tags.site}-{n}", {}, b'{"tags": {"site": "x"}, "n": 7}', b"x-7"),
        ("{machine}", {}, b"[" + value(1) + b"," + value(3) + b"]", b"m1"),
        ("{tags.host}", {"preset": "telegraf"}, b'{"metrics": [{"tags": {"host": "h"}}]}', b"h"),
        ("{machine}", {}, b"[" + value(1) + b"," + value(2) + b"]", "malformed: readings of several keys"),
        ("{machine}", {}, b'{"sensor_id": "a"}', "missing_sensor_id: not all parts of `{machine}` are there"),
        ("{machine}", {}, b'{"machine": null}', "missing_sensor_id"),
        ("{machine}", {}, b'{"machine": [1]}', "bad_sensor_id"),
        ("{machine}", {}, b'{"machine": "a\\u0001"}', "bad_sensor_id"),
        ("{machine.id}", {}, b'{"machine": [{"id": 1}]}', "malformed: `machine.id` leads into a list"),
        ("{sensor_id}", {}, b'{"sensor_id": 7}', "bad_sensor_id"),
        ("{machine}", {}, b"[]", "empty"),
        ("{machine}", {}, b"[1]", "malformed"),
        ("{machine}", {}, b"{", "malformed: not JSON"),
        ("{machine}", {}, b"\xff", "malformed"),
        ("{machine}", {}, b"[" * 5000, "malformed"),
        ("{machine}", {}, None, "empty"),
    ],
)  # fmt: skip
def test_the_key_of_a_record(key: str, fields: dict[str, Any], record: bytes | None, expected: bytes | str) -> None:
    rekeying = Rekeying(FieldsConfig.model_validate(fields), key)
    if isinstance(expected, bytes):
        assert rekeying.key(Record(0, b"the key", record)) == expected
    else:
        with pytest.raises(Rejected) as found:
            rekeying.key(Record(0, b"the key", record))
        assert f"{found.value.reason}: {found.value.message}".startswith(expected)


def test_whole_numbers_are_sensors_where_they_are_coerced() -> None:
    assert Rekeying(FieldsConfig(), "{sensor_id}", coerce=True).key(Record(0, None, b'{"sensor_id": 7}')) == b"7"


def test_what_has_no_key_and_what_is_too_large_is_a_dead_letter() -> None:
    long = value(2, note="x" * MOST_BYTES)
    streams = MemoryStreams({"in": [[value(0), b"{}", value(1), long, value(3)]]})
    run(streams)
    assert [message.key for message in streams.read("out")] == [b"m0", b"m1", b"m1"]
    dead = [dict(message.headers) for message in streams.read("dead")]
    assert [(one["detector.reason"], one["detector.offset"]) for one in dead] == [
        (b"missing_sensor_id", b"1"),
        (b"too_many_bytes", b"3"),
    ]


def test_every_record_is_copied_once_however_often_the_process_dies() -> None:
    inputs = [[value(n) if n % 7 else b"?" for n in range(part, 200, 3)] for part in range(3)]
    whole = MemoryStreams({"in": inputs})
    run(whole)
    expected = [(message.key, message.value) for message in whole.read("out")]
    assert len(expected) == sum(one != b"?" for part in inputs for one in part)
    random = np.random.default_rng(3)
    killed = MemoryStreams({"in": inputs}, max_records=5)
    deaths = 0
    for _ in range(30):
        try:
            run(killed, [int(random.integers(2, 6))])
        except KillError:
            deaths += 1
    run(killed)
    assert deaths > 5
    assert sorted((message.key, message.value) for message in killed.read("out")) == sorted(expected)
    assert len(killed.read("dead")) == len(whole.read("dead"))


def test_a_topic_of_another_kind_is_not_drained_into_the_dead_letters() -> None:
    streams = MemoryStreams({"in": [[b"?"] * 300]})
    with pytest.raises(OperationError, match=r"were rejected.*not JSON"):
        run(streams)
    assert not streams.read("dead")


def test_partitions_that_go_are_not_committed() -> None:
    one, two = Partition("in", 0), Partition("in", 1)
    made = work()
    made.begin({one: Assigned(one, 0)})
    made.begin({two: Assigned(two, 5)})
    assert made.positions == {one: 0, two: 5}
    made.lose()
    assert made.positions == {}


@pytest.mark.parametrize(
    ("backend", "target", "told"),
    [
        ("directory", "out", "files have no keys"),
        ("kafka", "in", "in is --from, too"),
        ("kafka", "detector-dead-letters", "output.dead_letters"),
    ],
)
def test_what_cannot_be(backend: str, target: str, told: str) -> None:
    config = Config.model_validate({"streams": {"backend": backend}, "http": {"listen": "127.0.0.1:0"}})
    with pytest.raises(UserError, match=told):
        serve_rekey(config, "{machine}", "in", target, Around(lambda: True, Notifier({}), None))


def test_a_machine_is_that_of_the_tag_where_there_are_machines() -> None:
    rekeying = Rekeying(FieldsConfig(), "{machine}", machines={"line1/1": "press-1"})
    assert rekeying.key(Record(0, None, value(1))) == b"press-1"
    assert rekeying.key(Record(0, None, value(2))) == b"line1/2", "a tag of none keeps its own key"
    assert rekeying.key(Record(0, b"line1/1", b'{"timestamp": 1}')) == b"press-1"
