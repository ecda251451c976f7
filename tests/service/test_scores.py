"""The stream of scores: the same series of every sensor however records come in, and each row once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from detector.config.load import ReadingsConfig
from detector.detection.scorer import Model
from detector.engine.output import ScoredRows, traced
from detector.engine.readings import ReadingsPipeline
from detector.engine.scorestream import MAX_NUMBERS, ScoreStream
from detector.service.daemon import Clocks, Daemon
from detector.service.health import Health
from detector.service.metrics import Metrics
from detector.service.rejects import RejectGuard
from detector.streams.base import Message, Partition, Record
from detector.streams.memory import MemoryStreams
from detector.wire.alerts import rounded
from detector.wire.json_readings import ReadingDecoder
from tests import plant
from tests.engines import engine_making
from tests.plant import NAMES, PARTITION, SECOND, START
from tests.reference_rules import Reading
from tests.wire.test_alerts import validate

ROWS = 330
Series = dict[str, list[tuple[Any, ...]]]
"""(timestamp, value and expected of each channel, score, threshold) by sensor."""


def pipeline(config: ReadingsConfig, model: Model) -> ReadingsPipeline:
    """One that keeps its rows."""
    decoder = ReadingDecoder(config.fields, config.channels)
    return ReadingsPipeline(
        PARTITION, config, model, decoder, dead_letters="dead-letters", alerts="alerts", keep_rows=True
    )


def life(
    streams: MemoryStreams,
    config: ReadingsConfig,
    model: Model,
    turns: int | None = None,
    before_turn: Callable[[], None] = lambda: None,
) -> None:
    """One daemon, which dies before that turn or runs to the end."""
    left = None if turns is None else iter(range(turns))

    def stop() -> bool:
        if left is not None and next(left, None) is None:
            raise InterruptedError
        before_turn()
        return False

    daemon = Daemon(
        streams,
        engine_making(lambda _: pipeline(config, model)),
        metrics=Metrics(CollectorRegistry()),
        health=Health(),
        guard=RejectGuard(1.0, 1000),
        stop=stop,
        until_end=True,
        scores=ScoreStream("scores", config.channels),
        clocks=Clocks(monotonic=lambda: 0.0),
    )
    with contextlib.suppress(InterruptedError):
        daemon.run()


def series(messages: Sequence[Message], channels: int) -> Series:
    """What the messages say, one after the other."""
    found: Series = {}
    for message in messages:
        said = json.loads(message.value)
        assert message.key == said["sensor_id"].encode()
        columns = []
        for part in (said["values"], said["expected"]):
            if channels == 1:
                columns.append(part)
            else:
                assert list(part) == list(NAMES[:channels])
                columns += part.values()
        rows = zip(said["timestamps"], *columns, said["scores"], said["thresholds"], strict=True)
        found.setdefault(said["sensor_id"], []).extend(rows)
    return found


def readings(channels: int, seed: int) -> list[list[Reading]]:
    """Three sensors, one of them with a fault, one unknown to the model, with gaps and missing values."""
    rng = np.random.default_rng(seed)
    coming: list[Reading] = []
    for sensor in range(3):
        values = plant.healthy(rng, ROWS, channels)
        if sensor == 0:
            values[230:290, -1] += 9
        own = plant.readings_of(f"s{sensor}", values, first=START + sensor * SECOND // 3)
        for row in rng.integers(0, ROWS, 4).tolist():
            gone = int(rng.integers(channels))
            own[row] = own[row]._replace(
                values=tuple(None if at == gone else v for at, v in enumerate(own[row].values))
            )
        coming += own if sensor != 1 else [one for row, one in enumerate(own) if row not in range(150, 190)]
    coming.sort(key=lambda reading: reading.time)
    groups: list[list[Reading]] = []
    while coming:
        size = int(rng.integers(1, 4))
        groups.append(coming[:size])
        coming = coming[size:]
    return groups


def model_and_config(channels: int, stride: int) -> tuple[ReadingsConfig, Model]:
    prefix = plant.healthy(np.random.default_rng(9), 400, channels)
    profile = plant.profile_of(prefix, plant.reconstructor(channels), stride=stride)
    model = plant.model_of({"s0": profile, "s1": profile}, channels=channels, stride=stride)
    config = plant.readings_config(
        channels=channels, warmup=160, false_alarms=plant.per_readings(500), window={"stride": stride}
    )
    return config, model


def watched(config: ReadingsConfig, model: Model, records: Sequence[Record]) -> Series:
    """Every scored row as the pipeline has it, rounded as in messages."""
    found: Series = {}

    def note(rows: ScoredRows) -> None:
        begin = 0
        for sensor, count in zip(rows.ids, rows.counts.tolist(), strict=True):
            part = slice(begin, begin + count)
            begin += count
            columns = [*rows.values[part].T, *rows.expected[part].T, rows.scores[part], rows.thresholds[part]]
            told = [[None if np.isnan(x) else x for x in rounded(column).tolist()] for column in columns]
            stamps = (rows.times[part] // 10**6).tolist()
            found.setdefault(sensor, []).extend(zip(stamps, *told, strict=True))

    plant.play(plant.pipeline_of(config, model, traced(note)), records)
    return found


@settings(max_examples=15, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    channels=st.sampled_from([1, 2, 3]),
    stride=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**16),
    records=st.integers(5, 300),
    durable_every=st.integers(1, 4),
    deaths=st.lists(st.integers(1, 12), max_size=6),
)
def test_any_batching_and_any_kill_lead_to_the_same_series(
    channels: int, stride: int, seed: int, records: int, durable_every: int, deaths: list[int]
) -> None:
    config, model = model_and_config(channels, stride)
    written = plant.records_of(readings(channels, seed))
    streams = MemoryStreams({PARTITION.stream: [written]}, records, durable_every=durable_every)
    for turns in deaths:
        life(streams, config, model, turns)
    life(streams, config, model)
    messages = streams.read("scores")
    expected = watched(config, model, written)
    assert series(messages, channels) == expected
    assert {sensor for sensor, told in expected.items() if len(told) > 30} == {"s0", "s1", "s2"}
    for message in messages[:: max(1, len(messages) // 5)]:
        validate(message.value, "score")


def test_what_is_run_again_is_not_told_again() -> None:
    config, model = model_and_config(1, 1)
    batches = list(plant.batches_of(plant.records_of(readings(1, 3)), [200]))
    one = pipeline(config, model)
    one.begin(0)
    assert one.process(batches[0]).rows
    again = pipeline(config, model)
    again.begin(0, live_from=batches[0].next_offset)
    assert not again.process(batches[0]).rows
    ours, theirs = (pipeline.process(batches[1]).rows for pipeline in (one, again))
    assert [rows.scores.tolist() for rows in ours] == [rows.scores.tolist() for rows in theirs] != []


def test_what_a_partition_had_told_without_a_commit_is_told_by_whoever_has_it_next() -> None:
    config, model = model_and_config(1, 1)
    written = plant.records_of(readings(1, 3))
    streams = MemoryStreams({PARTITION.stream: [written]}, 100, durable_every=1000)
    turns = iter([None, None, None, streams.revoke, streams.assign])

    def rebalance() -> None:
        action = next(turns, None)
        if action is not None:
            action(PARTITION)

    life(streams, config, model, before_turn=rebalance)
    assert series(streams.read("scores"), 1) == watched(config, model, written)


def test_of_a_partition_that_is_gone_nothing_is_told() -> None:
    stream = ScoreStream("scores", ("value",))
    stream.add(Partition("a", 0), [rows("s", 3)])
    stream.add(Partition("a", 1), [rows("t", 2)])
    stream.drop(Partition("a", 0))
    assert list(series(stream.take(), 1)) == ["t"]
    assert stream.take() == []


@pytest.mark.parametrize(("channels", "most"), [(1, MAX_NUMBERS // 2), (3, MAX_NUMBERS // 6), (MAX_NUMBERS, 1)])
def test_a_message_has_an_end(channels: int, most: int) -> None:
    count = 2 * most + 1 if channels < 10 else 2
    stream = ScoreStream("scores", [f"c{number}" for number in range(channels)])
    stream.add(PARTITION, [rows("s", count, channels)])
    lengths = [len(json.loads(message.value)["scores"]) for message in stream.take()]
    assert lengths == ([most, most, 1] if channels < 10 else [1, 1])


def test_without_being_asked_for_nothing_is_kept() -> None:
    config, model = model_and_config(1, 1)
    silent = plant.pipeline_of(config, model)
    kept = [silent.process(batch).rows for batch in plant.batches_of(plant.records_of(readings(1, 3)))]
    assert kept == [[]]


def rows(sensor: str, count: int, channels: int = 1) -> ScoredRows:
    """Scored rows of one sensor."""
    numbers = np.arange(count, dtype=np.float64)
    values = np.repeat(numbers[:, None], channels, axis=1)
    return ScoredRows(
        [sensor], np.array([count]), np.arange(count), np.arange(count) * SECOND, values, values, numbers, numbers,
        numbers,
    )  # fmt: skip


@given(st.lists(st.floats(-1e15, 1e15), min_size=1))
def test_numbers_have_six_digits(numbers: list[float]) -> None:
    for number, short in zip(numbers, rounded(np.array(numbers)).tolist(), strict=True):
        if abs(number) > 1e-290:
            assert abs(short - number) <= 0.500001 * 10.0 ** (np.floor(np.log10(abs(number))) - 5)
        if abs(number) > 1e-15:
            assert float(f"{short:.6g}") == short


def test_odd_numbers_stay_what_they_are() -> None:
    numbers = [0.0, 5e-324, 1.7e308, -1.7e308, float("inf"), float("-inf")]
    assert rounded(np.array(numbers)).tolist() == pytest.approx(numbers, rel=1e-5)
    assert np.isnan(rounded(np.array([np.nan]))).all()
