"""`detector run`: the daemon."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector.service.signals import StopSignals


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "run",
        help="the daemon: readings in, alerts out",
        description="Reads sensor readings, scores them and publishes alert episodes, until it is stopped.",
    )
    parser.add_argument("--input", metavar="PATH|-", help="a CSV or JSON lines file, a directory of streams, or stdin")
    parser.add_argument("--output", metavar="PATH|-", help="a file for alerts, a directory of streams, or stdout")
    parser.add_argument("--sensor", metavar="ID", help="the sensor of readings that name none (default: file name)")
    parser.add_argument("--interval", metavar="D", help="time between rows of a CSV file without timestamps, e.g. 1s")
    parser.add_argument("--until-end", action="store_true", help="stop at the end that is there at the start")
    parser.add_argument("--fresh", action="store_true", help="forget the checkpoint and the output, start over")


def run(args: argparse.Namespace) -> int:
    """Run until stopped; 0 on a clean stop."""
    from detector.service.signals import StopSignals

    with StopSignals() as signals:  # before the imports, which take a good part of a second
        return _serve(args, signals)


def _serve(args: argparse.Namespace, signals: StopSignals) -> int:
    # Here, because `detector run --help` needs none of it.
    from prometheus_client import CollectorRegistry

    from detector.cli.options import duration_option, place_option, sensor_option
    from detector.service.assemble import load_model, make_decoder, make_streams, pipeline_factory
    from detector.service.daemon import Daemon
    from detector.service.deadline import ShutdownDeadline
    from detector.service.http import Health, HttpServer, standard_routes
    from detector.service.logs import event
    from detector.service.metrics import Metrics
    from detector.service.rejects import RejectGuard
    from detector.service.supported import refuse_unsupported
    from detector.service.systemd import Notifier
    from detector.streams.places import default_sensor

    config = args.config
    refuse_unsupported(config)
    interval = duration_option("--interval", args.interval)
    sensor = sensor_option(args.sensor)
    input_option, output_option = place_option("--input", args.input), place_option("--output", args.output)
    metrics = Metrics(CollectorRegistry(), sensors=config.metrics.sensors)
    health = Health()
    deadline = ShutdownDeadline(lambda: signals.stop, config.shutdown_timeout / 1e9)
    deadline.start()
    server = HttpServer(config.http.host, config.http.port, standard_routes(metrics.registry, health))
    server.start()
    try:
        model = load_model(config)
        metrics.model("readings", name=model.name, version=model.version, digest=model.digest)
        streams = make_streams(
            config,
            input_option=input_option,
            output_option=output_option,
            until_end=args.until_end,
            fresh=args.fresh,
        )
        if sensor is None and input_option is not None:
            sensor = default_sensor(streams.inputs[config.readings.input])
        decoder = make_decoder(config, sensor=sensor, interval=interval, live=True)
        daemon = Daemon(
            streams,
            pipeline_factory(config, model, decoder, lambda: daemon.pulse()),
            metrics=metrics,
            health=health,
            guard=RejectGuard(config.rejects.max_share, config.rejects.over),
            stop=lambda: signals.stop,
            until_end=streams.until_end,
            notifier=Notifier(),
        )
        event(logging.getLogger(__name__), logging.INFO, "model_loaded", version=model.version)
        daemon.run()
    finally:
        deadline.cancel()
        server.stop()
    return 0
