"""The sum of a backtest."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from rich.console import Console

from detector.reports.backtest import SHOWN_SENSORS, BacktestResult, run_backtest, summary, table_of
from detector.reports.scoreboard import EpisodeSpan, Label
from detector.streams.base import Batch, Partition, Record
from detector.times import rfc3339
from detector.wire.alerts import decode_alert
from tests.plant import (
    PARTITION,
    SECOND,
    START,
    batches_of,
    healthy,
    model_of,
    pipeline_of,
    play,
    profile_of,
    readings_config,
    readings_of,
    reconstructor,
    records_of,
)

CONFIG = readings_config()
MODEL = model_of({"pump-0": profile_of(healthy(np.random.default_rng(0), 300), reconstructor())})


def recording() -> list[Record]:
    values = healthy(np.random.default_rng(1), 700)
    values[250:330] += 12
    return records_of([[reading] for reading in readings_of("pump-0", values)])


def backtest(*batches: Batch, labels: list[Label] | None = None) -> BacktestResult:
    return run_backtest(batches, lambda _: pipeline_of(CONFIG, MODEL), labels)


def printed(result: BacktestResult) -> str:
    text = io.StringIO()
    Console(file=text, width=200, markup=False).print(table_of(result))
    return text.getvalue()


def test_its_alerts_are_the_pipelines() -> None:
    records = recording()
    result = backtest(*batches_of(records, [100, 300]))
    assert result.alerts == [message.value for message in play(pipeline_of(CONFIG, MODEL), records)]
    assert result.readings["accepted"] == result.records == 700
    assert (result.sensors, result.warming, result.windows_scored, result.board) == (1, 0, 601, None)
    assert (result.first, result.last) == (START, START + 699 * SECOND)
    assert len(result.episodes) == len({decode_alert(alert).alert_id for alert in result.alerts}) >= 1


def test_labels_are_compared() -> None:
    start, end = (rfc3339(START + row * SECOND) for row in (250, 330))
    result = backtest(*batches_of(recording()), labels=[Label("pump-0", start, end), Label("pump-1", start, end)])
    told = summary(result)["labels"]
    assert (told["found"], told["missed"]) == (1, 1)
    assert 0 <= told["median_delay_seconds"] < 80


def test_the_first_refusal_is_kept() -> None:
    result = backtest(Batch(PARTITION, [Record(0, None, b"x"), Record(1, None, b"[]")], 2))
    assert (result.records, result.refused, result.readings["rejected"]) == (2, 2, 2)
    assert result.first_refusal == "not JSON: Expecting value at character 0"


def test_nothing_is_a_result_too() -> None:
    result = backtest()
    counts = (
        "sensors",
        "sensors_warming",
        "records",
        "windows_scored",
        "episodes",
        "allowed",
        "critical",
        "muted",
        "silent",
    )
    nothing: dict[str, Any] = {
        "verdicts": {"unknown": 0},
        "readings": {},
        "sensors_unwatched": {},
        "unwatched": [],
        "from": None,
        "to": None,
    }
    assert summary(result) == {**dict.fromkeys(counts, 0), **nothing}
    assert (result.first, result.last) == (None, None)


def test_every_partition_is_a_recording_of_its_own() -> None:
    records = recording()
    other = Partition(PARTITION.stream, 1)
    result = backtest(*batches_of(records), *(batch_of(other, batch) for batch in batches_of(records)))
    assert result.sensors == 2
    assert result.readings["accepted"] == 1400


def batch_of(partition: Partition, batch: Batch) -> Batch:
    return Batch(partition, batch.records, batch.next_offset)


def episode(sensor: str, peak: float, ended: int | None = 60) -> EpisodeSpan:
    end = None if ended is None else ended * SECOND
    return EpisodeSpan(sensor, 0, 0, end, "critical" if peak > 3 else "warning", peak, None)


def test_the_worst_come_first() -> None:
    result = BacktestResult(
        episodes=[episode("a", 2), episode("b[/]", 9), episode("a", 4, ended=None)], last=180 * SECOND
    )
    lines = [line.replace("│", " ").split() for line in printed(result).splitlines() if "│" in line]
    assert lines == [["b[/]", "1", "1", "9", "1", "min"], ["a", "2", "1", "4", "4", "min"]]


def test_only_some_are_shown() -> None:
    result = BacktestResult(episodes=[episode(f"pump-{i}", 1 + i) for i in range(SHOWN_SENSORS + 3)], last=0)
    assert "and 3 more" in printed(result)
    assert f"pump-{SHOWN_SENSORS + 2}" in printed(result)
    assert "pump-2 " not in printed(result)
