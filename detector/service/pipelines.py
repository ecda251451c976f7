"""How records become results: the models of a configuration, and what makes the pipelines of partitions of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import ValidationError

from detector.config.load import Config, FramesConfig, ReadingsConfig
from detector.config.rules import RuleBook
from detector.detection.framesignal import FrameModel
from detector.detection.scorer import Model, ScoreBlock, score_block
from detector.engine.partition import PartitionPipeline
from detector.engine.readings import ReadingsPipeline
from detector.engine.slices import FramesProvenance, Provenance, ReadingsProvenance
from detector.errors import UserError
from detector.models.bundle.bundles import bundle_with, check_fits, check_frames_fit, check_profiles, load_bundle
from detector.models.bundle.frame_bundles import open_frame_model
from detector.models.bundle.spec import FRAME_KINDS
from detector.models.runtime.onnx import open_runtime
from detector.service.supported import tell_impatient, tell_unmatched
from detector.service.web.status import ModelStatus, Setup, setup_of
from detector.streams.base import Partition
from detector.wire.alerts import Kind
from detector.wire.json_readings import ReadingDecoder
from detector.wire.timerange import Decoder

if TYPE_CHECKING:
    from detector.engine.frames import FramesPipeline

MakePipeline = Callable[[Partition], PartitionPipeline]
MakeReplay = Callable[[Partition, Provenance], PartitionPipeline]


@dataclass(frozen=True, slots=True)
class Engine:
    """What turns records into results: a configuration, the models in use, and how pipelines are made of them.

    `make_replay` makes the pipeline that runs records again which were processed with another model or other settings;
    without it the configured ones count at once.
    """

    config: Config
    setup: Setup
    make_pipeline: MakePipeline
    make_replay: MakeReplay | None


def make_engine(
    config: Config, *, sensor: str | None, interval: int | None, place: str | None, pulse: Callable[[], None]
) -> Engine:
    """Load and verify the models and put everything together that the main loop processes with.

    `sensor`, `interval` and `place` are those of `make_decoder`; `pulse` is called between pieces of long work. Raises
    UserError for what is wrong with a bundle, or does not fit it.
    """
    makers: dict[str, MakePipeline] = {}
    formers: dict[str, MakeReplay] = {}
    models: dict[Kind, ModelStatus] = {}
    sensors: Collection[str] = ()
    cameras: Collection[str] = ()
    if config.readings.enabled:
        model = load_model(config)
        sensors = model.profiles
        tell_impatient(config, model.profiles)
        decoder = make_decoder(config, sensor=sensor, interval=interval, live=True, place=place)
        makers[config.readings.input] = pipeline_factory(
            config, model, decoder, pulse, keep_rows=config.output.scores is not None
        )
        formers[config.readings.input] = replay_factory(config, model, sensor=sensor, interval=interval, pulse=pulse)
        models["readings"] = ModelStatus(model.name, model.version, model.digest)
    if config.frames.enabled:
        eyes = load_frame_model(config)
        cameras = eyes.profiles
        make = frame_pipeline_factory(config, eyes, pulse=pulse)
        makers[config.frames.input] = make
        formers[config.frames.input] = frame_replay_factory(config, eyes, pulse=pulse)
        models["frames"] = ModelStatus(eyes.name, eyes.version, eyes.digest)
    tell_unmatched(config, sensors, cameras)
    return Engine(
        config=config,
        setup=setup_of(config, models),
        make_pipeline=by_stream(makers),
        make_replay=replays_by_stream(formers),
    )


def by_stream(makers: Mapping[str, MakePipeline]) -> MakePipeline:
    """Makes the pipelines of several streams."""
    return lambda partition: makers[partition.stream](partition)


def replays_by_stream(makers: Mapping[str, MakeReplay]) -> MakeReplay:
    """Makes the pipelines of several streams that run records again."""
    return lambda partition, provenance: makers[partition.stream](partition, provenance)


def load_model(config: Config, digest: str | None = None) -> Model:
    """The active bundle of the readings, verified, checked against the configuration, and ready to score.

    `digest` asks for another version. Raises UserError.
    """
    readings, book = config.readings, RuleBook(config.readings)
    bundle = load_bundle(readings.model) if digest is None else bundle_with(readings.model, digest)
    check_fits(bundle, channels=readings.channels, stride=readings.window.stride)
    profiles = bundle.profiles()
    check_profiles(bundle, profiles, lambda sensor_id: book.of(sensor_id).open_after)
    return Model(
        name=bundle.name,
        version=bundle.version,
        digest=bundle.digest,
        scaler=bundle.scaler,
        stride=bundle.stride,
        reconstruct=open_runtime(bundle, readings.runtime),
        profiles=profiles,
    )


def load_frame_model(config: Config, digest: str | None = None) -> FrameModel:
    """The active bundle of the frames, verified, checked against the configuration, and ready to score.

    `digest` asks for another version. Raises UserError.
    """
    frames = config.frames
    if digest is None:
        bundle = load_bundle(frames.model, kinds=FRAME_KINDS)
    else:
        bundle = bundle_with(frames.model, digest, kinds=FRAME_KINDS)
    check_frames_fit(bundle, open_after=(frames.alerts.open_after.n, frames.alerts.open_after.of))
    return open_frame_model(bundle, frames.runtime)


def make_decoder(
    config: Config, *, sensor: str | None, interval: int | None, live: bool, place: str | None = None
) -> ReadingDecoder:
    """The decoder of the readings stream. `live`: a reading far ahead of its broker's clock is refused.

    `place` names the input in errors about a CSV header.
    """
    readings = config.readings
    return ReadingDecoder(
        readings.fields,
        readings.channels,
        default_sensor=sensor,
        interval=interval,
        max_future=readings.window.max_future if live else None,
        place=place,
    )


def pipeline_factory(
    config: Config,
    model: Model,
    decoder: Decoder,
    pulse: Callable[[], None] = lambda: None,
    score: ScoreBlock = score_block,
    *,
    keep_rows: bool = False,
) -> Callable[[Partition], ReadingsPipeline]:
    """What makes the pipeline of a partition when it is assigned.

    `pulse`, `score` and `keep_rows` are those of `ReadingsPipeline`.
    """

    def make(partition: Partition) -> ReadingsPipeline:
        return ReadingsPipeline(
            partition,
            config.readings,
            model,
            decoder,
            dead_letters=config.output.dead_letters,
            alerts=config.output.alerts,
            pulse=pulse,
            score=score,
            keep_rows=keep_rows,
            maintenance=config.maintenance,
        )

    return make


def replay_factory(
    config: Config, model: Model, *, sensor: str | None, interval: int | None, pulse: Callable[[], None] = lambda: None
) -> Callable[[Partition, Provenance], ReadingsPipeline]:
    """What makes a replay pipeline: it runs records again with the model and the settings of the first time.

    The provenance names the model's version in the directory of bundles, and holds the settings. `sensor` and
    `interval` are those of `make_decoder`. What it returns raises UserError where either cannot be had.
    """

    @lru_cache(maxsize=1)  # the partitions of a process were mostly processed with the same ones
    def make_for(provenance: Provenance) -> Callable[[Partition], ReadingsPipeline]:
        readings = _readings_of(provenance, config.readings)
        former = config.model_copy(update={"readings": readings, "maintenance": readings.maintenance})
        decoder = make_decoder(former, sensor=sensor, interval=interval, live=True)
        same = provenance.model == model.digest
        return pipeline_factory(former, model if same else load_model(former, provenance.model), decoder, pulse)

    return lambda partition, provenance: make_for(provenance)(partition)


def _readings_of(provenance: Provenance, readings: ReadingsConfig) -> ReadingsProvenance:
    try:
        found = ReadingsProvenance.model_validate_json(provenance.settings)
    except ValidationError as error:
        raise UserError(
            "readings have to be run again with settings this version does not know: "
            f"{error.errors()[0]['msg']} ({'.'.join(map(str, error.errors()[0]['loc']))})",
            todo="Start the version that ran before once more and stop it with SIGTERM",
        ) from None
    return found.model_copy(update={"input": readings.input, "model": readings.model})


def frame_pipeline_factory(
    config: Config, model: FrameModel, *, pulse: Callable[[], None]
) -> Callable[[Partition], FramesPipeline]:
    """What makes the pipeline of a partition of frames when it is assigned.

    `pulse` is that of `FramesPipeline`.
    """
    # Here, because a daemon without cameras needs no decoder of images.
    from detector.engine.framequeue import decoding_threads
    from detector.engine.frames import FramesPipeline
    from detector.wire.frames import FrameDecoder

    frames = config.frames
    decoder = FrameDecoder(model.shape, frames.limits, max_future=frames.max_future)
    threads = decoding_threads()

    def make(partition: Partition) -> FramesPipeline:
        return FramesPipeline(
            partition, frames, model, decoder, threads,
            dead_letters=config.output.dead_letters, alerts=config.output.alerts, pulse=pulse,
            maintenance=config.maintenance,
        )  # fmt: skip

    return make


def frame_replay_factory(
    config: Config, model: FrameModel, *, pulse: Callable[[], None]
) -> Callable[[Partition, Provenance], FramesPipeline]:
    """What makes a replay pipeline: it runs frames again with the model and the settings of the first time.

    What it returns raises UserError where the provenance's model or settings cannot be had.
    """

    @lru_cache(maxsize=1)
    def make_for(provenance: Provenance) -> Callable[[Partition], FramesPipeline]:
        frames = _frames_of(provenance, config.frames)
        former = config.model_copy(update={"frames": frames, "maintenance": frames.maintenance})
        found = model if provenance.model == model.digest else load_frame_model(former, provenance.model)
        return frame_pipeline_factory(former, found, pulse=pulse)

    return lambda partition, provenance: make_for(provenance)(partition)


def _frames_of(provenance: Provenance, frames: FramesConfig) -> FramesProvenance:
    try:
        found = FramesProvenance.model_validate_json(provenance.settings)
    except ValidationError as error:
        raise UserError(
            "frames have to be run again with settings this version does not know: "
            f"{error.errors()[0]['msg']} ({'.'.join(map(str, error.errors()[0]['loc']))})",
            todo="Start the version that ran before once more and stop it with SIGTERM",
        ) from None
    return found.model_copy(update={"input": frames.input, "model": frames.model, "enabled": True})
