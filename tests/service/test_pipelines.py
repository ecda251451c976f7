"""Models, decoders and pipelines of readings, as the configuration wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detector.config.load import Config, load_config
from detector.errors import UserError
from detector.service.pipelines import load_model, make_decoder, pipeline_factory
from detector.streams.base import Batch, Partition, Record
from tests.tiny import SENSORS, json_lines, tiny_bundle


@pytest.fixture
def config(tmp_path: Path) -> Config:
    tiny_bundle(tmp_path / "models")
    return load_config(None, [f"readings.model={tmp_path / 'models'}"])


def changed(config: Config, setting: str) -> Config:
    return load_config(None, [f"readings.model={config.readings.model}", setting])


def test_the_model_is_the_active_bundle_ready_to_score(config: Config) -> None:
    bundle = tiny_bundle(config.readings.model, day=23)
    model = load_model(config)
    assert (model.name, model.version, model.digest) == ("dense", bundle.version, bundle.digest)
    assert (model.scaler, model.stride, set(model.profiles)) == ("standard", 1, set(SENSORS))
    assert model.reconstruct(np.zeros((3, 100, 1), dtype=np.float32)).shape == (3, 100, 1)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("readings.channels=[a, b]", r"windows of shape \(100, 1\), this configuration makes \(100, 2\)"),
        ("readings.channels=[pressure]", "was trained on the channels value; this configuration reads pressure"),
        ("readings.window.stride=5", "built with stride 1, this configuration has 5"),
        ("readings.alerts.open_after={n: 3, of: 5}", "alerts after 10 of 10 rows, this configuration has 3 of 5"),
    ],
)
def test_a_model_for_something_else_is_refused(config: Config, setting: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        load_model(changed(config, setting))


def test_the_decoder_follows_the_configuration(config: Config) -> None:
    config = changed(config, "readings.fields={sensor_id: tag, timestamp: at, value: reading}")
    decoder = make_decoder(config, sensor=None, interval=None, live=True)
    # Ten minutes ahead of what the broker says it is: one reading too far in the future.
    value = b'{"tag":"pump-0","at":1790000600,"reading":1.5}'
    batch = Batch(
        Partition("sensor-readings", 0),
        [Record(0, None, value, 1_790_000_600_000), Record(1, None, value, 1_790_000_000_000)],
        2,
    )
    readings = decoder.decode(batch)
    assert (readings.ids, readings.values.tolist()) == (["pump-0"], [[1.5]])
    assert [reject.reason for reject in readings.rejects] == ["timestamp_in_future"]
    recorded = make_decoder(config, sensor=None, interval=None, live=False).decode(batch)
    assert len(recorded) == 2


def test_rows_of_a_file_may_lack_sensor_and_time(config: Config) -> None:
    decoder = make_decoder(config, sensor="boiler", interval=10**9, live=True)
    batch = Batch(Partition("sensor-readings", 0), [Record(6, None, b"1"), Record(8, None, b"2")], 10, header=b"value")
    readings = decoder.decode(batch)
    assert readings.ids == ["boiler", "boiler"]
    assert np.diff(readings.times).tolist() == [10**9]


def test_every_partition_has_a_pipeline_of_its_own(config: Config) -> None:
    decoder = make_decoder(config, sensor=None, interval=None, live=True)
    make = pipeline_factory(config, load_model(config), decoder)
    first, second = (make(Partition("sensor-readings", number)) for number in range(2))
    lines = json_lines().splitlines()
    output = first.process(Batch(first.partition, [Record(i, None, line) for i, line in enumerate(lines)], len(lines)))
    assert {message.stream for message in output.alerts} == {"anomaly-alerts"}
    assert (first.sensors, second.sensors) == (2, 0)
    letters = second.process(Batch(second.partition, [Record(0, None, b"x")], 1)).dead_letters
    assert [letter.stream for letter in letters] == ["detector-dead-letters"]
