"""`detector run`: the daemon."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from detector.cli import options

if TYPE_CHECKING:
    from detector.config.load import Config
    from detector.service.signals import StopSignals


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "run",
        help="the daemon: readings and frames in, alerts out",
        description="Reads sensor readings and camera frames, scores them and publishes alert episodes, until it is "
        "stopped.",
    )
    parser.add_argument(
        "--input",
        type=options.place,
        metavar="PATH|-",
        help="a CSV or JSON lines file, a directory of streams, or stdin",
    )
    parser.add_argument(
        "--output", type=options.place, metavar="PATH|-", help="a file for alerts, a directory of streams, or stdout"
    )
    options.add_sensor_option(parser)
    options.add_csv_options(parser)
    parser.add_argument("--until-end", action="store_true", help="stop at the end that is there at the start")
    parser.add_argument("--fresh", action="store_true", help="forget the checkpoint and the output, start over")
    options.add_companions(parser, "run these daemons in the same process, on files")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--plain", action="store_true", help="lines of the log only, also on a terminal")
    shown.add_argument("--live", action="store_true", help="the live view on the terminal, wherever the log goes")
    parser.add_argument(
        "--skip-to",
        type=options.topic_offset,
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
    from detector.cli.live import live_view
    from detector.cli.recordings import widened
    from detector.service.assemble import RunOptions, serve
    from detector.service.companions import companions

    chosen = RunOptions(
        input=args.input,
        output=args.output,
        sensor=args.sensor,
        interval=args.interval,
        until_end=args.until_end,
        fresh=args.fresh,
        skip_to=dict(args.skip_to),
        csv=options.csv_options(args),
    )

    def load() -> Config:
        return widened(args.reload(), args, args.input)

    view = partial(live_view, asked=args.live, plain=args.plain, alerts_on_stdout=args.output == "-")
    with companions(args.config, chosen, args.companions, signals):
        serve(widened(args.config, args, args.input), chosen, signals, load=load, view=view)
    return 0
