"""The streams of a daemon, as the configuration and the options want them."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.config.load import Config, load_config
from detector.errors import UserError
from detector.service.assemble import RunOptions, kafka_topics, make_kafka_streams, make_streams
from detector.service.health import Health
from detector.streams.base import Partition
from detector.wire.csv_form import CsvOptions


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(None, [f"streams.directory.path={tmp_path / 'data'}"])


def test_the_topics_of_scores_are_those_asked_for(config: Config) -> None:
    assert kafka_topics(config)[1] == ["anomaly-alerts", "detector-dead-letters", "anomaly-verdicts"]
    asked = load_config(None, ["output.scores=anomaly-scores"])
    assert kafka_topics(asked)[1] == ["anomaly-alerts", "detector-dead-letters", "anomaly-scores", "anomaly-verdicts"]


def test_streams_lie_where_the_configuration_or_the_options_say(config: Config, tmp_path: Path) -> None:
    streams = make_streams(config, RunOptions())
    data = tmp_path / "data"
    assert streams.inputs == {"sensor-readings": data / "sensor-readings.jsonl"}
    assert streams.outputs["anomaly-alerts"] == data / "anomaly-alerts.jsonl"
    assert streams.until_end is False
    source = tmp_path / "in.csv"
    source.touch()
    options = RunOptions(input=str(source), output=str(tmp_path / "out.jsonl"), until_end=True)
    streams = make_streams(config, options)
    assert streams.inputs == {"sensor-readings": source}
    assert streams.outputs["anomaly-alerts"] == tmp_path / "out.jsonl"
    assert streams.until_end is True
    assert not data.exists(), "nothing is opened here"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            RunOptions(skip_to={Partition("elsewhere", 0): 7}),
            "elsewhere is no input, which are sensor-readings",
        ),
        (
            RunOptions(interval=1_000_000_000, csv=CsvOptions(zone="Europe/Berlin")),
            "on Kafka there are no CSV files (--zone Europe/Berlin --interval 1s). Leave it out.",
        ),
        (RunOptions(fresh=True), "on Kafka there is no checkpoint to forget (--fresh)"),
    ],
)
def test_what_makes_no_sense_on_kafka_is_refused(config: Config, options: RunOptions, says: str) -> None:
    with pytest.raises(UserError) as refused:
        make_kafka_streams(config, options, health=Health(), pulse=lambda: None)
    assert says in str(refused.value)


def test_files_have_no_offsets_to_go_on_at(config: Config) -> None:
    with pytest.raises(UserError, match="only Kafka has offsets to skip to"):
        make_streams(config, RunOptions(skip_to={Partition("sensor-readings", 0): 7}))
