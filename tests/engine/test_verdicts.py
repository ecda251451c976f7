"""What a person says of an alert acts at its record: on the threshold, the budget, the mute; whatever came with it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.arrays import F64
from detector.detection.closed import REMEMBERED
from detector.engine.output import Output
from detector.engine.readings import ReadingsPipeline
from detector.streams.base import Batch, Record
from detector.wire.alerts import Alert, decode_alert
from detector.wire.readings import Verdict, Word
from detector.wire.verdicts import WORDS, decode_acknowledgement, encode_verdict
from tests import cameras, plant
from tests.engine.test_readings_property import THOROUGH, Scenario, arrivals, grouped, name, random_cuts, scenarios
from tests.plant import SECOND, START
from tests.reference_rules import Reading

FAULT = 40.0
CONFIG = plant.readings_config(warmup=600, false_alarms=plant.per_readings(2000), close_after=50)


def story(faults: Sequence[tuple[int, int]], rows: int = 4000, size: float = FAULT) -> F64:
    """Readings of a sensor with faults (first row, rows)."""
    values = plant.healthy(np.random.default_rng(2), rows)
    for begin, length in faults:
        values[begin : begin + length] += size
    return values


class Told:
    """A sensor `a`, a record a reading, and what is said of its alerts between two of them."""

    def __init__(self, values: F64, config: Any = CONFIG) -> None:
        self.config = config
        self.records = plant.records_of([[reading] for reading in plant.readings_of("a", values)])
        self.pipeline = plant.pipeline_of(config, plant.model_of())
        self.at = 0
        self.alerts: list[Alert] = []
        self.output = Output()

    def until(self, row: int) -> Told:
        """Feed the readings before this row."""
        self.feed(self.records[self.at : row])
        self.at = row
        return self

    def say(self, word: Word, alert_id: str | None = None, sensor: str = "a") -> Output:
        """A verdict on the newest alert, or another."""
        record = plant.verdict(sensor, alert_id or self.alerts[-1].alert_id, word, self.records[self.at - 1].offset + 1)
        return self.feed([record])

    def feed(self, records: Sequence[Record]) -> Output:
        output = self.pipeline.process(Batch(plant.PARTITION, records, records[-1].offset + 1))
        self.alerts += [decode_alert(message.value) for message in output.alerts]
        return output

    def cells(self, *names: str) -> list[Any]:
        table = plant.table_of(self.pipeline, self.config)
        return [table[one][table.slots["a"]].tolist() for one in names]

    @property
    def peaks(self) -> list[float]:
        """The peaks that are kept aside, and the reservoir's as they stand."""
        peaks, forgotten, aside = self.cells("peaks", "forgotten", "unlearnt")
        kept = [peak for peak in aside if peak > -math.inf]
        return sorted([*kept, *(peak - forgotten for peak in peaks if peak > -math.inf)], reverse=True)

    @property
    def threshold(self) -> dict[str, Any]:
        """All that the threshold follows from."""
        names = ("peaks_kept", "peaks_seen", "credit", "rows")
        return {"peaks": self.peaks} | dict(zip(names, self.cells(*names), strict=True))


def test_a_true_fault_leaves_the_threshold_as_if_it_had_cost_nothing() -> None:
    quiet, told = Told(story([])).until(1500), Told(story([(1000, 60)])).until(1500)
    taught = told.threshold
    assert taught["peaks"] != quiet.peaks
    assert taught["credit"] == pytest.approx(quiet.threshold["credit"] - 1)
    output = told.say("real")
    (message,) = output.verdicts
    assert (message.stream, message.key) == ("anomaly-verdicts", b"a")
    said = decode_acknowledgement(message.value)
    assert (said.alert_id, said.word, said.source.offset) == (
        told.alerts[-1].alert_id,
        "real",
        told.records[1499].offset + 1,
    )
    assert told.threshold["credit"] == pytest.approx(quiet.threshold["credit"])
    (gone,) = set(taught["peaks"]) - set(told.peaks)
    assert gone not in quiet.peaks


@pytest.mark.parametrize("word", ["real", "expected"])
def test_it_does_not_matter_whether_it_is_said_before_or_after_the_end(word: Word) -> None:
    values = story([(1000, 60)])
    before = Told(values).until(1030)
    before.say(word)
    after = Told(values).until(1500)
    after.say(word)
    before.until(1500)
    assert before.threshold["credit"] == pytest.approx(after.threshold["credit"], abs=1e-12)
    assert before.peaks == pytest.approx(after.peaks, abs=1e-12)
    assert before.cells("peaks_seen", "peaks_kept") == after.cells("peaks_seen", "peaks_kept")


@pytest.mark.parametrize("words", [["real", "false"], ["expected", "real", "false"], ["false"]])
def test_the_last_verdict_wins(words: list[Word]) -> None:
    told, silent = Told(story([(1000, 60), (2000, 60)])), Told(story([(1000, 60), (2000, 60)]))
    told.until(1500)
    first = told.alerts[-1].alert_id
    silent.until(2500)
    told.until(2500)
    for word in words:
        told.say(word, first)
    assert told.threshold["credit"] == pytest.approx(silent.threshold["credit"], abs=1e-12)
    assert told.peaks == silent.peaks
    assert told.pipeline.budget_account == silent.pipeline.budget_account


def test_what_is_said_twice_counts_once() -> None:
    told = Told(story([(1000, 60)])).until(1500)
    told.say("real")
    once = told.threshold
    assert len(told.say("real").verdicts) == 1
    assert told.threshold == once


def test_episodes_are_taken_back_in_any_order() -> None:
    """What is left is what there would be without those that are said to be real."""
    faults = [(700 + 400 * i, 40 + 10 * i) for i in range(REMEMBERED)]
    ends = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 0, 1]):
        told = Told(story(faults)).until(3000)
        ids = list(dict.fromkeys(one.alert_id for one in told.alerts))
        assert len(ids) == REMEMBERED
        for which in order:
            told.say("real", ids[which])
        ends.append(told.peaks)
        assert max(told.peaks) < 1.0
    assert ends[0] == ends[1] == ends[2]


def test_what_is_expected_is_muted_while_it_lasts_and_heard_again_if_it_is_not() -> None:
    told = Told(story([(1000, 300)])).until(1050)
    assert [(one.event, one.muted, one.verdict) for one in told.alerts] == [("opened", False, None)]
    output = told.say("expected")
    assert (output.muted, output.events) == (1, {})
    told.until(1100)
    assert (told.alerts[-1].event, told.alerts[-1].muted, told.alerts[-1].verdict) == ("updated", True, "expected")
    assert told.pipeline.muted_episodes == 1
    assert told.alerts[-1].source.last_offset == told.records[1049].offset + 1
    told.say("real")
    assert (told.alerts[-1].muted, told.alerts[-1].verdict, told.pipeline.muted_episodes) == (False, "real", 0)
    told.say("expected")
    told.until(1600)
    assert [(one.event, one.muted, one.verdict) for one in told.alerts[-1:]] == [("closed", True, "expected")]
    assert [one.sequence for one in told.alerts] == list(range(len(told.alerts)))


def test_what_the_scale_has_learnt_of_something_expected_is_forgotten_where_there_is_a_copy() -> None:
    told = Told(story([(1000, 900)])).until(1800)
    kept, mean, variance = told.cells("kept", "kept_mean", "mean")
    assert kept
    assert told.alerts[-1].event != "closed"
    told.say("expected")
    assert told.cells("mean")[0] == told.cells("kept_mean")[0] == mean
    assert told.cells("kept", "kept_rows")[0] is True, "the fault goes on, and so does the copy"
    assert told.cells("mean")[0] != variance


def test_short_faults_have_no_copy_to_go_back_to() -> None:
    told = Told(story([(1000, 60)])).until(1500)
    before = told.cells("mean", "variance", "kept")
    told.say("expected")
    assert told.cells("mean", "variance", "kept") == before


def test_a_true_fault_spends_no_budget() -> None:
    told = Told(story([(1000, 60), (2000, 60)])).until(1500)
    assert told.pipeline.budget_account.opened == 1
    told.say("real")
    assert told.pipeline.budget_account.opened == 0
    told.say("false")
    assert told.pipeline.budget_account.opened == 1
    told.until(2050)
    told.say("expected")
    assert told.pipeline.budget_account.opened == 1


def bad(output: Output) -> str:
    """Why a verdict did not take effect."""
    (letter,) = output.dead_letters
    headers = dict(letter.headers)
    assert headers["detector.reason"] == b"bad_verdict"
    assert output.rejected == {"bad_verdict": 1}
    assert (output.refused, output.verdicts, output.alerts) == ([], [], [])
    return headers["detector.message"].decode()


def test_a_verdict_on_what_is_not_remembered_is_a_dead_letter() -> None:
    told = Told(story([(700 + 300 * i, 40) for i in range(6)])).until(3000)
    ids = list(dict.fromkeys(one.alert_id for one in told.alerts))
    before = plant.state_of(told.pipeline, CONFIG)
    assert bad(told.say("real", ids[0])) == "the sensor has no such alert, neither open nor among the last 4"
    assert bad(told.say("real", ids[-1], sensor="b")) == "the sensor is not known"
    after = plant.state_of(told.pipeline, CONFIG)
    assert {**before, "position": 0} == {**after, "position": 0}
    assert len(told.say("real", ids[2]).verdicts) == 1


def test_held_rows_follow_a_verdict() -> None:
    """What is held back for lateness comes after it, though its records came before."""
    values = story([(1000, 60)])
    config = plant.readings_config(
        warmup=600, false_alarms=plant.per_readings(2000), close_after=50, window={"allowed_lateness": 40 * SECOND}
    )
    told = Told(values, config).until(1060)
    assert [one.event for one in told.alerts] == ["opened"]
    told.say("expected")
    told.until(1500)
    assert told.alerts[-1].muted
    assert told.threshold["credit"] > 0


# -- the properties --------------------------------------------------------------------------------------------------


def with_verdicts(scenario: Scenario, seed: int) -> list[Record]:
    """The scenario's records with verdicts among them, most of them on alerts that there are by then.

    They are given between records that come in bunches: what a bunch tells of is known after it.
    """
    random = Random(seed)  # noqa: S311
    records = plant.records_of(grouped(scenario, arrivals(scenario)))
    pipeline = scenario.pipeline()
    known: list[tuple[str, str]] = []
    mixed: list[Record] = []
    begin = 0
    while begin < len(records):
        end = begin + random.choice((1, 4, 16))
        bunch: list[Record] = []
        for record in records[begin:end]:
            bunch.append(record)
            given = 0
            while known and given < 3 and random.random() < 0.15:
                given += 1
                sensor, alert = random.choice(known[-8:])
                sensor = name(0) if random.random() < 0.05 else sensor
                alert = "none" if random.random() < 0.05 else alert
                bunch.append(plant.verdict(sensor, alert, random.choice(WORDS), record.offset + given))
        for message in plant.play(pipeline, bunch):
            found = decode_alert(message.value)
            known = [*(one for one in known if one[1] != found.alert_id), (found.sensor_id, found.alert_id)]
        mixed += bunch
        begin = end
    return mixed


def everything(pipeline: ReadingsPipeline, records: Sequence[Record], cuts: Sequence[int] = ()) -> list[bytes]:
    """All messages, each sort in its order."""
    outputs = [pipeline.process(batch) for batch in plant.batches_of(records, cuts)]
    sorts = ("alerts", "verdicts", "dead_letters")
    return [message.value for sort in sorts for output in outputs for message in getattr(output, sort)]


@THOROUGH
@given(scenarios(), st.integers(0, 2**16))
def test_batches_do_not_matter(scenario: Scenario, seed: int) -> None:
    records = with_verdicts(scenario, seed)
    outcomes = []
    for cuts in ((), random_cuts(scenario, len(records)), range(len(records) // 2, len(records) // 2 + 40)):
        pipeline = scenario.pipeline()
        outcomes.append((everything(pipeline, records, cuts), plant.state_of(pipeline, scenario.config)))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@THOROUGH
@given(scenarios(), st.integers(0, 2**16), st.data())
def test_nor_do_restarts_with_state_of_different_ages(scenario: Scenario, seed: int, data: st.DataObject) -> None:
    records = with_verdicts(scenario, seed)
    batches = list(plant.batches_of(records, random_cuts(scenario, len(records))))
    stop = data.draw(st.integers(0, len(batches) - 1))
    whole, pipeline = plant.of_different_ages(
        scenario.pipeline, batches[: stop + 1], 2, lambda: data.draw(st.booleans())
    )
    again = [record for record in records if pipeline.position <= record.offset < whole.position]
    assert everything(pipeline, again, random_cuts(scenario, len(records))) == []
    assert (pipeline.restoring, pipeline.mismatches) == (False, 0)
    for batch in batches[stop + 1 :]:
        ours, expected = pipeline.process(batch), whole.process(batch)
        assert dataclasses.astuple(ours)[1:3] == dataclasses.astuple(expected)[1:3]
        assert ours.verdicts == expected.verdicts
    assert plant.state_of(pipeline, scenario.config) == plant.state_of(whole, scenario.config)


# -- silence and cameras ---------------------------------------------------------------------------------------------


def test_a_silence_may_be_expected_and_is_remembered_as_others_are() -> None:
    config = plant.readings_config(
        warmup=1000, silence_after=30 * SECOND, critical_ratio=100.0, update_every=20 * SECOND
    )
    spans = {"quiet": (*range(50), *range(200, 260)), "other": range(400)}
    rows = sorted((second, sensor) for sensor, seconds in spans.items() for second in seconds)
    records = plant.records_of([[Reading(sensor, START + second * SECOND, (50.0,))] for second, sensor in rows])
    pipeline = plant.pipeline_of(config, plant.model_of())

    def feed(some: Sequence[Record]) -> list[Alert]:
        return [decode_alert(message.value) for message in plant.play(pipeline, some)]

    at = next(i for i, (second, _) in enumerate(rows) if second == 100)
    (opened,) = [one for one in feed(records[:at]) if one.event == "opened"]
    assert (opened.reason, opened.muted) == ("silent", False)
    verdict = plant.verdict("quiet", opened.alert_id, "expected", records[at - 1].offset + 1)
    (updated,) = feed([verdict])
    assert (updated.event, updated.muted, updated.verdict) == ("updated", True, "expected")
    later = feed(records[at:])
    assert {one.muted for one in later if one.alert_id == opened.alert_id} == {True}
    assert [one.event for one in later if one.alert_id == opened.alert_id][-1] == "closed"
    again = plant.verdict("quiet", opened.alert_id, "real", records[-1].offset + 1)
    assert len(pipeline.process(Batch(plant.PARTITION, [again], again.offset + 1)).verdicts) == 1


@pytest.mark.parametrize("cut", [False, True])
def test_cameras_are_told_in_the_stream_of_frames(cut: bool) -> None:
    frames = cameras.watched(260, faults=[(60, 90), (150, 200)])
    records = cameras.records_of({"door": frames})
    config = cameras.frames_config(false_alarms=plant.per_readings(300), close_after=20)
    whole = cameras.pipeline_of(config, cameras.model_of("door"))
    whole.begin(0)
    alerts = [decode_alert(message.value) for message in cameras.play(whole, records)]
    first, second = dict.fromkeys(one.alert_id for one in alerts)
    given = [(120, first, "real"), (170, second, "expected"), (171, "none", "real")]
    for place, alert, word in reversed(given):
        line = encode_verdict(Verdict("door", alert, word), camera=True)  # type: ignore[arg-type]
        records.insert(place, Record(records[place - 1].offset + 1, b"door", line))
    pipeline = cameras.pipeline_of(config, cameras.model_of("door"))
    pipeline.begin(0)
    outputs = [pipeline.process(batch) for batch in cameras.batches_of(records, range(0, 263, 7) if cut else ())]
    while pipeline.pending:
        outputs.append(pipeline.advance())
    said = [decode_acknowledgement(one.value) for output in outputs for one in output.verdicts]
    assert [(one.alert_id, one.word, one.source.stream) for one in said] == [
        (first, "real", "image-frames"), (second, "expected", "image-frames")
    ]  # fmt: skip
    told = [decode_alert(message.value) for output in outputs for message in output.alerts]
    assert [one.event for one in told if one.muted] == ["updated", "closed"]
    assert [dict(one.headers)["detector.reason"] for output in outputs for one in output.dead_letters] == [
        b"bad_verdict"
    ]
    assert pipeline.budget_account.opened == 0
