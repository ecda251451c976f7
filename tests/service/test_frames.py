"""A daemon with cameras, from its configuration: models, former models, streams and state of both kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.config.load import Config, load_config
from detector.engine.frames import FramesPipeline
from detector.engine.readings import ReadingsPipeline
from detector.engine.slices import Provenance
from detector.errors import UserError
from detector.service.assemble import RunOptions, input_streams, kafka_topics, make_streams
from detector.service.pipelines import load_frame_model, make_engine
from detector.streams.base import Partition
from tests.tiny import tiny_bundle
from tests.tinycam import SHAPE, tiny_frame_bundle

READINGS, FRAMES = Partition("sensor-readings", 0), Partition("image-frames", 0)


def config_of(tmp_path: Path, *settings: str) -> Config:
    places = [f"readings.model={tmp_path}/readings", f"frames.model={tmp_path}/frames", "frames.enabled=true"]
    return load_config(None, [*places, f"streams.directory.path={tmp_path}/data", *settings])


def engine_of(config: Config) -> object:
    return make_engine(config)


def test_one_engine_makes_both(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    readings, frames = tiny_bundle(config.readings.model), tiny_frame_bundle(config.frames.model)
    engine = make_engine(config)
    assert isinstance(engine.make_pipeline(READINGS), ReadingsPipeline)
    assert isinstance(engine.make_pipeline(FRAMES), FramesPipeline)
    assert {kind: model.version for kind, model in engine.setup.models.items()} == {
        "readings": readings.version, "frames": frames.version,
    }  # fmt: skip


def test_either_alone_needs_only_its_own_model(tmp_path: Path) -> None:
    frames_alone = config_of(tmp_path, "readings.enabled=false")
    tiny_frame_bundle(frames_alone.frames.model)
    engine = make_engine(frames_alone)
    assert list(engine.setup.models) == ["frames"]
    with pytest.raises(UserError, match="there is no trained model"):
        engine_of(config_of(tmp_path))


def test_streams_follow_what_is_enabled(tmp_path: Path) -> None:
    both, frames = config_of(tmp_path), config_of(tmp_path, "readings.enabled=false")
    assert input_streams(both) == ["sensor-readings", "image-frames"]
    assert kafka_topics(both)[0] == {
        "sensor-readings": "detector-readings-state", "image-frames": "detector-frames-state",
    }  # fmt: skip
    assert kafka_topics(frames)[0] == {"image-frames": "detector-frames-state"}
    streams = make_streams(both, RunOptions())
    assert streams.inputs == {name: tmp_path / "data" / f"{name}.jsonl" for name in input_streams(both)}


def test_a_model_of_readings_is_none_of_frames(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    tiny_bundle(config.frames.model)
    with pytest.raises(UserError, match=r"what is needed here is conv .*Correct frames\.model\."):
        load_frame_model(config)


def test_profiles_for_other_alerts_are_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, "frames.alerts.open_after={n: 2, of: 4}")
    tiny_frame_bundle(config.frames.model)
    with pytest.raises(UserError, match=r"frames\.alerts\.open_after"):
        load_frame_model(config)


def test_a_former_model_and_its_settings_come_back(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    tiny_bundle(config.readings.model)
    old = tiny_frame_bundle(config.frames.model, day=21)
    before = make_engine(config).make_pipeline(FRAMES)
    tiny_frame_bundle(config.frames.model, cameras=("door", "gate"))
    now = config_of(tmp_path, "frames.alerts.close_after=7")
    assert (load_frame_model(now).digest != old.digest, load_frame_model(now).shape) == (True, SHAPE)
    replay = make_engine(now).make_replay
    assert replay is not None
    former = replay(FRAMES, before.provenance)
    assert isinstance(former, FramesPipeline)
    assert former.provenance == before.provenance
    with pytest.raises(UserError, match="frames have to be run again with the model"):
        replay(FRAMES, Provenance("0" * 64, before.provenance.settings))
    with pytest.raises(UserError, match="frames have to be run again with settings this version does not know"):
        replay(FRAMES, Provenance(old.digest, b'{"odd": 1}'))
