"""What cannot be dealt with costs its sensor, or its record, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from detector.arrays import F32
from detector.detection import profile
from detector.detection.scorer import Model
from detector.engine import state
from detector.engine.alertwriter import AlertWriter
from detector.engine.readings import BuildProfile, ReadingsPipeline
from detector.errors import OperationError
from detector.streams.base import Batch, Message, Record, pack_state, unpack_state
from detector.wire.alerts import Alert, decode_alert
from detector.wire.json_readings import ReadingDecoder
from tests import plant
from tests.plant import SECOND, START, healthy, readings_config
from tests.reference_rules import Reading

ROWS = 420
CONFIG = readings_config(close_after=20, update_every=30 * SECOND)
CUTS = [range(400, 975), range(0, 3 * ROWS, 7), range(0)]
"""One by one, from before the first profile is made to after the faults; in sevens; all at once."""


def groups(*, poison: int | None = None) -> list[list[Reading]]:
    """A row of a, b and c in turn, each with a fault; b says 666 in row `poison`."""
    columns = {}
    for number, name in enumerate("abc"):
        values = healthy(np.random.default_rng(number), ROWS)
        values[260:300] += 40
        columns[name] = values
    if poison is not None:
        columns["b"][poison] = 666.0
    return [
        [Reading(name, START + row * SECOND, tuple(columns[name][row].tolist()))]
        for row in range(ROWS)
        for name in "abc"
    ]


def told(messages: Sequence[Message], *sensors: str) -> list[bytes]:
    return [message.value for message in messages if (message.key or b"").decode() in sensors]


def alerts_of(messages: Sequence[Message], sensor: str) -> list[Alert]:
    return [decode_alert(value) for value in told(messages, sensor)]


def play(
    cuts: Sequence[int],
    model: Model | None = None,
    poison: int | None = None,
    build: BuildProfile = profile.build_profile,
) -> tuple[ReadingsPipeline, Any]:
    pipeline = plant.pipeline_of(CONFIG, plant.model_of() if model is None else model, build=build)
    return pipeline, plant.play(pipeline, plant.records_of(groups(poison=poison)), cuts)


def failing_at(values: Callable[[F32], Any]) -> Model:
    """A model that fails at windows of which this is true."""
    model = plant.model_of()

    def reconstruct(windows: F32) -> F32:
        if np.any(values(windows)):
            raise FloatingPointError("no such window")
        return model.reconstruct(windows)

    return replace(model, reconstruct=reconstruct)


def test_a_profile_that_cannot_be_built_costs_its_sensor_alone() -> None:
    _, expected = play(CUTS[-1])

    def failing(times: Any, values: Any, *args: Any, **options: Any) -> Any:
        if values[0, 0] == pytest.approx(groups()[1][0].values[0]):
            raise np.linalg.LinAlgError("Singular matrix")
        return profile.build_profile(times, values, *args, **options)

    states = set()
    for cuts in CUTS:
        pipeline, messages = play(cuts, build=failing)
        assert told(messages, "a", "c") == told(expected, "a", "c")
        assert not told(messages, "b")
        states.add(pipeline.snapshot())
    assert len(states) == 1


def test_a_row_that_cannot_be_judged_costs_its_sensor_from_that_row_on() -> None:
    model = failing_at(lambda windows: windows[:, -1, 0] > 60)
    _, expected = play(CUTS[-1])
    found = []
    for cuts in CUTS:
        pipeline, messages = play(cuts, model, poison=280)
        assert told(messages, "a", "c") == told(expected, "a", "c")
        found.append((told(messages, "b"), pipeline.snapshot()))
    assert found[0] == found[1] == found[2]
    opened, *_, closed = alerts_of(messages, "b")
    assert (opened.event, closed.event, closed.close_reason, closed.window) == ("opened", "closed", "evicted", None)
    assert closed.source.last_offset == plant.offset_of(280 * 3 + 1)


def test_an_alert_that_cannot_be_written_costs_its_sensor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = play(CUTS[-1])
    write = AlertWriter.updated

    def failing(self: AlertWriter, sensor_id: str, *args: Any) -> Message:
        if sensor_id == "b":
            raise ValueError("share nan")
        return write(self, sensor_id, *args)

    monkeypatch.setattr(AlertWriter, "updated", failing)
    found = []
    for cuts in CUTS:
        pipeline, messages = play(cuts)
        assert told(messages, "a", "c") == told(expected, "a", "c")
        found.append((told(messages, "b"), pipeline.snapshot()))
    assert found[0] == found[1] == found[2]
    assert [one.event for one in alerts_of(messages, "b")] == ["opened", "closed"]


def test_who_is_set_aside_stays_so_over_a_restart_and_is_met_again_by_another_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = failing_at(lambda windows: windows[:, -1, 0] > 60)
    records = plant.records_of(groups(poison=200))
    first = plant.pipeline_of(CONFIG, model)
    plant.play(first, records[:700])
    again = plant.pipeline_of(CONFIG, model)
    again.restore(first.snapshot())
    output = again.process(Batch(plant.PARTITION, records[700:760], plant.offset_of(760)))
    assert (output.failed, output.failures) == (20, [])
    assert again.sensors == 3

    monkeypatch.setattr(state, "__version__", "another")
    newer = plant.pipeline_of(CONFIG, model)
    newer.restore(first.snapshot())
    assert newer.sensors == 2
    output = newer.process(Batch(plant.PARTITION, records[700:760], plant.offset_of(760)))
    assert (output.failed, newer.warming) == (0, 1)


def test_a_failure_is_told_with_its_traceback_and_counted() -> None:
    model = failing_at(lambda windows: windows[:, -1, 0] > 60)
    pipeline = plant.pipeline_of(CONFIG, model)
    records = plant.records_of(groups(poison=200))
    output = pipeline.process(Batch(plant.PARTITION, records, plant.offset_of(len(records))))
    (failure,) = output.failures
    assert (failure.sensor_id, failure.stage, failure.offset) == ("b", "judge", plant.offset_of(601))
    assert "FloatingPointError: no such window" in failure.traceback
    assert output.outcomes()["failed"] == 0  # of this batch they were rows already


def test_what_is_foreseen_ends_the_process_and_no_sensor() -> None:
    def full(_: F32) -> F32:
        raise OSError("no space left")

    pipeline = plant.pipeline_of(CONFIG, replace(plant.model_of(), reconstruct=full))
    with pytest.raises(OSError, match="no space"):
        plant.play(pipeline, plant.records_of(groups()))


# -- records -------------------------------------------------------------------------------------------------------


def poisoned(decoder: ReadingDecoder, bad: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = decoder.decode

    def failing(batch: Batch) -> Any:
        if any(record.value == bad for record in batch.records):
            raise AttributeError("nobody thought of this")
        return decode(batch)

    monkeypatch.setattr(decoder, "decode", failing)


def letters(messages: Sequence[Message]) -> list[tuple[bytes, bytes]]:
    return [
        (dict(one.headers)["detector.reason"], dict(one.headers)["detector.offset"])
        for one in messages
        if one.stream == "dead-letters"
    ]


def test_a_record_that_the_decoder_fails_at_is_a_dead_letter_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    records = plant.records_of(groups(poison=200))
    bad = records[601]
    without = [one for one in records if one is not bad]
    clean = plant.pipeline_of(CONFIG, plant.model_of())
    expected = plant.play(clean, without)
    for cuts in CUTS:
        pipeline = plant.pipeline_of(CONFIG, plant.model_of())
        poisoned(pipeline._decoder, bad.value, monkeypatch)  # type: ignore[arg-type]  # noqa: SLF001
        found: list[Message] = []
        for batch in plant.batches_of(records, cuts):
            output = pipeline.process(batch)
            found += [*output.alerts, *output.dead_letters]
        assert letters(found) == [(b"internal", str(bad.offset).encode())]
        assert [one.value for one in found if one.stream == "alerts"] == [one.value for one in expected]


def test_a_replay_leaves_out_what_was_left_out_although_it_could_be_read_by_now() -> None:
    records = plant.records_of(groups(poison=200))
    bad = records[601]
    first = plant.pipeline_of(CONFIG, plant.model_of())
    old = first.snapshot()
    journal: dict[str, bytes] = {}
    first.begin(records[0].offset)
    first.leave_out([bad.offset])
    plant.play(first, records)
    plant.keep_journal(journal, first)
    assert "\0internal" in journal
    again = plant.pipeline_of(CONFIG, plant.model_of())
    again.restore(pack_state(unpack_state(old)[0], journal), records[-1].offset + 1, records[0].offset)
    plant.play(again, records)
    assert again.snapshot() == first.snapshot()


def test_what_every_slice_contains_is_forgotten() -> None:
    records = plant.records_of(groups())
    pipeline = plant.pipeline_of(CONFIG, plant.model_of())
    pipeline.begin(records[0].offset)
    pipeline.leave_out([records[5].offset])
    plant.play(pipeline, records[:30])
    assert [key for key, _ in pipeline.journal() if key == "\0internal"] == ["\0internal"]
    for number in range(pipeline.slices()):
        pipeline.pack_slice(number)
    assert [entry for entry in pipeline.journal() if entry[0] == "\0internal"] == [("\0internal", None)]


def test_more_than_some_thousands_end_the_process() -> None:
    pipeline = plant.pipeline_of(CONFIG, plant.model_of())
    with pytest.raises(OperationError, match="could not be dealt with"):
        pipeline.leave_out(range(20_000))


def test_a_record_left_out_has_a_dead_letter_as_it_came() -> None:
    pipeline = plant.pipeline_of(CONFIG, plant.model_of())
    record = Record(7, b"k", b'{"sensor_id": "a", "timestamp": 1790000000, "value": 1}', None, [("h", b"1")])
    pipeline.leave_out([7])
    output = pipeline.process(Batch(plant.PARTITION, [record], 8))
    (letter,) = output.dead_letters
    assert (letter.key, letter.value, letter.headers[0]) == (b"k", record.value, ("h", b"1"))
    assert output.rejected == {"internal": 1}
