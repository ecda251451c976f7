"""The parts of a daemon, made from the configuration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from detector.config.load import Config, ReadingsConfig
from detector.config.rules import RuleBook
from detector.detection.scorer import Model, ScoreBlock, score_block
from detector.engine.readings import ReadingsPipeline
from detector.engine.scorestream import ScoreStream
from detector.engine.slices import Provenance, ReadingsProvenance
from detector.errors import UserError
from detector.models.bundle.bundles import bundle_with, check_fits, check_profiles, load_bundle
from detector.models.runtime.onnx import open_runtime
from detector.service.pipelines import MakePipeline, MakeReplay, by_stream, replays_by_stream
from detector.service.supported import tell_impatient, tell_unmatched
from detector.service.web.server import WAITING, Health
from detector.service.web.status import ModelStatus, Setup, setup_of
from detector.streams.base import Partition
from detector.streams.directory import DirectoryStreams
from detector.streams.places import directory_streams_for
from detector.wire.alerts import Kind, dead_letter_line
from detector.wire.json_readings import ReadingDecoder
from detector.wire.timerange import Decoder

if TYPE_CHECKING:
    from detector.streams.kafka.streams import KafkaStreams

NANOSECONDS = 1e9


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


def input_streams(config: Config) -> list[str]:
    """The streams that are read: of what is enabled, readings first."""
    return [path.input for path in (config.readings, config.frames) if path.enabled]


def make_streams(
    config: Config, *, input_option: str | None, output_option: str | None, until_end: bool, fresh: bool
) -> DirectoryStreams:
    """The streams of a daemon that runs on files. Opens nothing. Raises UserError for places that cannot be."""
    directory = config.streams.directory
    return directory_streams_for(
        Path(directory.path),
        inputs=input_streams(config),
        alerts=config.output.alerts,
        dead_letters=config.output.dead_letters,
        scores=config.output.scores,
        input_option=input_option,
        output_option=output_option,
        checkpoint_interval=directory.checkpoint_interval / NANOSECONDS,
        until_end=until_end,
        fresh=fresh,
        encoders={config.output.dead_letters: dead_letter_line},
    )


def make_kafka_streams(
    config: Config,
    *,
    until_end: bool,
    skip_to: Sequence[str],
    health: Health,
    pulse: Callable[[], None],
    on_forgotten: Callable[[], None] = lambda: None,
) -> KafkaStreams:
    """The streams of a daemon that runs on Kafka. `skip_to`: TOPIC:PARTITION:OFFSET. Opens nothing.

    `health` is told while the broker is waited for; `pulse` is called while something takes long; `on_forgotten` where
    the broker has forgotten an offset. Raises UserError.
    """
    # Here, because a daemon that runs on files needs no Kafka client.
    from detector.streams.kafka.streams import KafkaStreams

    def waiting(why: str | None) -> None:
        if why is None:
            health.clear_reason(WAITING)
        else:
            health.set_reason(WAITING, why)

    state_topics, outputs = kafka_topics(config)
    return KafkaStreams(
        config.streams.kafka,
        config.state,
        state_topics=state_topics,
        outputs=outputs,
        skip_to=dict(parse_skip(text, list(state_topics)) for text in skip_to),
        until_end=until_end,
        on_waiting=waiting,
        on_forgotten=on_forgotten,
        tick=pulse,
    )


def kafka_topics(config: Config) -> tuple[dict[str, str], list[str]]:
    """The topic of its state for each input, and the topics that are written to."""
    group = config.streams.kafka.group_id
    state = {config.readings.input: f"{group}-readings-state", config.frames.input: f"{group}-frames-state"}
    state_topics = {stream: state[stream] for stream in input_streams(config)}
    outputs = (config.output.alerts, config.output.dead_letters, config.output.scores)
    return state_topics, [stream for stream in outputs if stream is not None]


def make_score_stream(config: Config) -> ScoreStream | None:
    """What the scores of the readings go through, if they are asked for."""
    return None if config.output.scores is None else ScoreStream(config.output.scores, config.readings.channels)


def parse_skip(text: str, streams: Sequence[str]) -> tuple[Partition, int]:
    """TOPIC:PARTITION:OFFSET of one of the input streams. Raises UserError."""
    stream, _, rest = text.partition(":")
    number, _, offset = rest.partition(":")
    if not (number.isascii() and number.isdigit() and offset.isascii() and offset.isdigit()):
        raise UserError(f"{text} is no place to go on", where="--skip-to", todo="Write TOPIC:PARTITION:OFFSET")
    if stream not in streams:
        raise UserError(
            f"{stream} is no input, which are {', '.join(streams)}", where="--skip-to", todo="Name one of them"
        )
    return Partition(stream, int(number)), int(offset)


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


@dataclass(frozen=True, slots=True)
class Engine:
    """What turns records into results: a configuration, the models in use, and how pipelines are made of them."""

    config: Config
    setup: Setup
    make_pipeline: MakePipeline
    make_replay: MakeReplay


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
        # Here, because a daemon without cameras needs no decoder of images.
        from detector.service.frames import frame_pipeline_factory, frame_replay_factory, load_frame_model

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
