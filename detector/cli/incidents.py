"""`detector incidents`: episodes that belong together become one incident."""

from __future__ import annotations

import argparse
from typing import Any

from detector.cli import options


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "incidents",
        help="alerts in, incidents out: episodes that belong together",
        description="Reads the alerts of a detector and publishes incidents: episodes of one part of the plant that "
        "began at about the same time. Runs until it is stopped.",
    )
    parser.add_argument(
        "--input", type=options.place, metavar="PATH|-", help="a file of alerts, a directory of streams, or stdin"
    )
    parser.add_argument(
        "--output",
        type=options.place,
        metavar="PATH|-",
        help="a file for incidents, a directory of streams, or stdout",
    )
    parser.add_argument("--until-end", action="store_true", help="stop at the end that is there at the start")
    parser.add_argument("--fresh", action="store_true", help="forget the checkpoint and the output, start over")


def run(args: argparse.Namespace) -> int:
    """Run until stopped; 0 on a clean stop."""
    from detector.service.signals import StopSignals

    with StopSignals() as signals:  # before the imports, which take a good part of a second
        from detector.service.people import FollowOptions, alone, serve_incidents

        chosen = FollowOptions(args.input, args.output, args.until_end, args.fresh)
        serve_incidents(args.config, chosen, alone(lambda: signals.stop, args.config))
    return 0
