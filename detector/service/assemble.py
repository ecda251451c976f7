"""A daemon put together from the configuration and the command's options, with what stands around it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from detector.config.load import Config
from detector.engine.scorestream import ScoreStream
from detector.errors import UserError
from detector.service.daemon import Daemon
from detector.service.deadline import ShutdownDeadline
from detector.service.health import WAITING, Health
from detector.service.logs import RecentProblems, event
from detector.service.metrics import Metrics
from detector.service.pipelines import Engine, make_engine, make_recogniser
from detector.service.rejects import RejectGuard
from detector.service.reload import Reloader
from detector.service.schemas import topic_documents
from detector.service.signals import StopSignals
from detector.service.supported import refuse_unsupported
from detector.service.systemd import Notifier, Pulse
from detector.service.web.page import page_routes
from detector.service.web.server import HttpServer, standard_routes
from detector.service.web.status import Board
from detector.streams.base import Partition, Streams
from detector.streams.directory import DirectoryStreams
from detector.streams.places import default_sensor, directory_streams_for
from detector.wire.alerts import dead_letter_line
from detector.wire.csv_form import CsvOptions, asked_of_csv

if TYPE_CHECKING:
    from detector.streams.kafka.streams import KafkaStreams

NANOSECONDS: Final = 1e9

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says beside the configuration.

    `input` and `output` are places of the files to use instead of configured streams; `sensor` and `interval` (ns) what
    readings lack that name none and rows that have no time; `skip_to` the offsets to go on at; `csv` what CSV files are
    like.
    """

    input: str | None = None
    output: str | None = None
    sensor: str | None = None
    interval: int | None = None
    until_end: bool = False
    fresh: bool = False
    skip_to: Mapping[Partition, int] = field(default_factory=dict)
    csv: CsvOptions = field(default_factory=CsvOptions)


def serve(
    config: Config,
    options: RunOptions,
    signals: StopSignals,
    *,
    load: Callable[[], Config],
    view: Callable[[Board], AbstractContextManager[None]],
) -> None:
    """Run a daemon until `signals` say to stop, or to the end of the input if that is asked for.

    `load` reads the configuration again for a reload; `view` shows the board to whoever sits at the terminal while the
    daemon runs. Raises DetectorError.
    """
    refuse_unsupported(config)
    metrics = Metrics(CollectorRegistry(), sensors=config.metrics.sensors)
    health, board, problems, notifier = Health(), Board(), RecentProblems(), Notifier()
    pulse = Pulse(health, notifier)
    routes = standard_routes(metrics.registry, health) | page_routes(board, health, problems)
    server = HttpServer(config.http.host, config.http.port, routes, on_failure=metrics.errors["http"].inc)
    deadline = ShutdownDeadline(lambda: signals.stop, config.shutdown_timeout / NANOSECONDS)
    with ExitStack() as around:
        logging.getLogger().addHandler(problems)
        around.callback(logging.getLogger().removeHandler, problems)
        around.callback(server.stop)
        around.callback(deadline.cancel)
        deadline.start()
        server.start()
        streams: Streams
        on_topics = False
        alive: list[Callable[[], None]] = [pulse]  # called between pieces of long work
        if config.streams.backend == "directory" or options.input is not None or options.output is not None:
            streams = files = make_streams(config, options)
            until_end, sensor = files.until_end, options.sensor
            if sensor is None and options.input is not None:
                sensor = default_sensor(next(iter(files.inputs.values())))
        else:
            forgotten = metrics.errors["offsets"].inc
            streams = topics = make_kafka_streams(config, options, health=health, pulse=pulse, on_forgotten=forgotten)
            until_end, sensor = options.until_end, options.sensor
            alive.append(topics.at_work)
            on_topics = True

        def work() -> None:
            for sign in alive:
                sign()

        def make(config: Config) -> Engine:
            documents = None
            if on_topics:
                documents = topic_documents(config, health=health, pulse=work, stop=lambda: signals.stop)
            return make_engine(
                config, sensor=sensor, interval=options.interval, place=options.input, csv=options.csv,
                documents=documents, pulse=work,
            )  # fmt: skip

        engine = make(config)
        for kind, model in engine.setup.models.items():
            event(_log, logging.INFO, "model_loaded", kind=kind, version=model.version)
        reloader = Reloader(engine, load=load, make=make, hangups=lambda: signals.hangups)
        daemon = Daemon(
            streams,
            engine,
            metrics=metrics,
            health=health,
            guard=RejectGuard(config.rejects.max_share, config.rejects.over),
            stop=lambda: signals.stop,
            until_end=until_end,
            ordered_file=_ordered_file(options.input, until_end=until_end),
            scores=make_score_stream(config),
            reloads=reloader,
            notifier=notifier,
            pulse=pulse,
            board=board,
        )
        around.callback(reloader.stop)
        reloader.start()
        with view(board):
            daemon.run()


def _ordered_file(place: str | None, *, until_end: bool) -> str | None:
    """The input if it is one file that is read once, from its beginning to its end."""
    return place if until_end and place is not None and not Path(place).is_dir() else None


def make_streams(config: Config, options: RunOptions) -> DirectoryStreams:
    """The streams of a daemon that runs on files. Opens nothing. Raises UserError for places that cannot be."""
    if options.skip_to:
        raise UserError("only Kafka has offsets to skip to", where="--skip-to", todo="Leave it out")
    directory = config.streams.directory
    named = options.sensor is not None
    recogniser = make_recogniser(
        config, options.csv, interval=options.interval, has_sensor=named or options.input is not None, named=named
    )
    return directory_streams_for(
        Path(directory.path),
        inputs=input_streams(config),
        alerts=config.output.alerts,
        dead_letters=config.output.dead_letters,
        scores=config.output.scores,
        verdicts=config.output.verdicts,
        input_option=options.input,
        output_option=options.output,
        checkpoint_interval=directory.checkpoint_interval / NANOSECONDS,
        until_end=options.until_end,
        fresh=options.fresh,
        encoders={config.output.dead_letters: dead_letter_line},
        recognisers={config.readings.input: recogniser.header},
    )


def make_kafka_streams(
    config: Config,
    options: RunOptions,
    *,
    health: Health,
    pulse: Callable[[], None],
    on_forgotten: Callable[[], None] = lambda: None,
) -> KafkaStreams:
    """The streams of a daemon that runs on Kafka. Opens nothing.

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

    if options.fresh:
        raise UserError(
            "on Kafka there is no checkpoint to forget", where="--fresh", todo="Use another streams.kafka.group_id"
        )
    if asked := asked_of_csv(options.csv, options.interval):
        raise UserError("on Kafka there are no CSV files", where=asked, todo="Leave it out")
    state_topics, outputs = kafka_topics(config)
    for partition in options.skip_to:
        if partition.stream not in state_topics:
            raise UserError(
                f"{partition.stream} is no input, which are {', '.join(state_topics)}",
                where="--skip-to",
                todo="Name one of them",
            )
    return KafkaStreams(
        config.streams.kafka,
        config.state,
        state_topics=state_topics,
        outputs=outputs,
        optional=optional_topics(config),
        skip_to=options.skip_to,
        until_end=options.until_end,
        on_waiting=waiting,
        on_forgotten=on_forgotten,
        tick=pulse,
    )


def input_streams(config: Config) -> list[str]:
    """The streams that are read: of what is enabled, readings first."""
    return [path.input for path in (config.readings, config.frames) if path.enabled]


def kafka_topics(config: Config) -> tuple[dict[str, str], list[str]]:
    """The topic of its state for each input, and the topics that are written to."""
    group = config.streams.kafka.group_id
    state = {config.readings.input: f"{group}-readings-state", config.frames.input: f"{group}-frames-state"}
    state_topics = {stream: state[stream] for stream in input_streams(config)}
    outputs = (config.output.alerts, config.output.dead_letters, config.output.scores, config.output.verdicts)
    return state_topics, [stream for stream in outputs if stream is not None]


def optional_topics(config: Config) -> list[str]:
    """Those of the topics written to that need not be there: a broker set up for 0.8 has none for verdicts."""
    return [stream for stream in (config.output.verdicts,) if stream is not None]


def make_score_stream(config: Config) -> ScoreStream | None:
    """What the scores of the readings go through, if they are asked for."""
    return None if config.output.scores is None else ScoreStream(config.output.scores, config.readings.channels)
