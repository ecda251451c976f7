"""`detector run`: the daemon."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from detector.errors import UserError

if TYPE_CHECKING:
    from detector.config.load import Config
    from detector.service.assemble import Engine
    from detector.service.metrics import Metrics
    from detector.service.signals import StopSignals
    from detector.service.web.server import Health
    from detector.streams.base import Streams
    from detector.streams.directory import DirectoryStreams
    from detector.streams.kafka.streams import KafkaStreams


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "run",
        help="the daemon: readings and frames in, alerts out",
        description="Reads sensor readings and camera frames, scores them and publishes alert episodes, until it is "
        "stopped.",
    )
    parser.add_argument("--input", metavar="PATH|-", help="a CSV or JSON lines file, a directory of streams, or stdin")
    parser.add_argument("--output", metavar="PATH|-", help="a file for alerts, a directory of streams, or stdout")
    parser.add_argument("--sensor", metavar="ID", help="the sensor of readings that name none (default: file name)")
    parser.add_argument("--interval", metavar="D", help="time between rows of a CSV file without timestamps, e.g. 1s")
    parser.add_argument("--until-end", action="store_true", help="stop at the end that is there at the start")
    parser.add_argument("--fresh", action="store_true", help="forget the checkpoint and the output, start over")
    parser.add_argument("--plain", action="store_true", help="lines of the log only, also on a terminal")
    parser.add_argument("--live", action="store_true", help="the live view on the terminal, wherever the log goes")
    parser.add_argument(
        "--skip-to",
        metavar="TOPIC:PARTITION:OFFSET",
        action="append",
        default=[],
        help="Kafka: go on at this offset, past what cannot be read (repeatable)",
    )


def run(args: argparse.Namespace) -> int:
    """Run until stopped; 0 on a clean stop."""
    from detector.service.signals import StopSignals

    with StopSignals() as signals:  # before the imports, which take a good part of a second
        return _serve(args, signals)


def _serve(args: argparse.Namespace, signals: StopSignals) -> int:
    # Here, because `detector run --help` needs none of it.
    from prometheus_client import CollectorRegistry

    from detector.cli.live import live_view
    from detector.cli.options import duration_option, place_option, sensor_option
    from detector.service.assemble import make_engine, make_score_stream
    from detector.service.daemon import Daemon
    from detector.service.deadline import ShutdownDeadline
    from detector.service.logs import RecentProblems, event
    from detector.service.metrics import Metrics
    from detector.service.rejects import RejectGuard
    from detector.service.reload import Reloader
    from detector.service.supported import refuse_unsupported
    from detector.service.systemd import Notifier
    from detector.service.web.page import page_routes
    from detector.service.web.server import Health, HttpServer, standard_routes
    from detector.service.web.status import Board
    from detector.streams.places import default_sensor

    config = args.config
    refuse_unsupported(config)
    if args.live and args.plain:
        raise UserError("both are given", where="--live, --plain", todo="Leave one out")
    interval = duration_option("--interval", args.interval)
    sensor = sensor_option(args.sensor)
    input_option, output_option = place_option("--input", args.input), place_option("--output", args.output)
    metrics = Metrics(CollectorRegistry(), sensors=config.metrics.sensors)
    health = Health()
    deadline = ShutdownDeadline(lambda: signals.stop, config.shutdown_timeout / 1e9)
    board, problems = Board(), RecentProblems()
    logging.getLogger().addHandler(problems)
    routes = standard_routes(metrics.registry, health) | page_routes(board, health, problems)
    server = HttpServer(config.http.host, config.http.port, routes, on_failure=metrics.errors["http"].inc)
    topics: KafkaStreams | None = None
    deadline.start()
    try:
        server.start()
        if config.streams.backend == "directory" or input_option is not None or output_option is not None:
            files = _files(args, config, input_option, output_option)
            streams: Streams = files
            until_end = files.until_end
            if sensor is None and input_option is not None:
                sensor = default_sensor(next(iter(files.inputs.values())))
        else:
            streams = topics = _topics(args, config, health, metrics, lambda: daemon.pulse())
            until_end = args.until_end

        def pulse() -> None:
            daemon.pulse()
            if topics is not None:
                topics.at_work()

        def make(config: Config) -> Engine:
            return make_engine(config, sensor=sensor, interval=interval, place=input_option, pulse=pulse)

        engine = make(config)
        reloader = Reloader(engine, load=args.reload, make=make, hangups=lambda: signals.hangups)
        daemon = Daemon(
            streams,
            engine.make_pipeline,
            make_replay=engine.make_replay,
            metrics=metrics,
            health=health,
            guard=RejectGuard(config.rejects.max_share, config.rejects.over),
            stop=lambda: signals.stop,
            until_end=until_end,
            notifier=Notifier(),
            board=board,
            setup=engine.setup,
            reloads=reloader,
            scores=make_score_stream(config),
        )
        for kind, model in engine.setup.models.items():
            event(logging.getLogger(__name__), logging.INFO, "model_loaded", kind=kind, version=model.version)
        reloader.start()
        try:
            with live_view(board, asked=args.live, plain=args.plain, alerts_on_stdout=output_option == "-"):
                daemon.run()
        finally:
            reloader.stop()
    finally:
        deadline.cancel()
        server.stop()
        logging.getLogger().removeHandler(problems)
    return 0


def _files(
    args: argparse.Namespace, config: Config, input_option: str | None, output_option: str | None
) -> DirectoryStreams:
    from detector.service.assemble import make_streams

    if args.skip_to:
        raise UserError("only Kafka has offsets to skip to", where="--skip-to", todo="Leave it out")
    return make_streams(
        config, input_option=input_option, output_option=output_option, until_end=args.until_end, fresh=args.fresh
    )


def _topics(
    args: argparse.Namespace, config: Config, health: Health, metrics: Metrics, pulse: Callable[[], None]
) -> KafkaStreams:
    from detector.service.assemble import make_kafka_streams

    if args.fresh:
        raise UserError(
            "on Kafka there is no checkpoint to forget", where="--fresh", todo="Use another streams.kafka.group_id"
        )
    return make_kafka_streams(
        config, until_end=args.until_end, skip_to=args.skip_to, health=health, pulse=pulse,
        on_forgotten=metrics.errors["offsets"].inc,
    )  # fmt: skip
