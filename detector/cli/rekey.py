"""`detector rekey`: a topic copied under other keys."""

from __future__ import annotations

import argparse
from typing import Any

from detector.cli import options


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "rekey",
        help="copy a topic, its records under other keys, exactly once",
        description="Copies the records of a Kafka topic to another one, unchanged but for their keys, so that what "
        "belongs together lies in one partition. Runs until it is stopped.",
    )
    parser.add_argument(
        "--key",
        type=options.key_template,
        metavar="TEMPLATE",
        required=True,
        help="built of parts of the message: {machine}, {site}/{tags.host}; {sensor_id} is the sensor's id",
    )
    parser.add_argument("--from", dest="source", type=options.topic, metavar="TOPIC", required=True, help="copy this")
    parser.add_argument("--to", dest="target", type=options.topic, metavar="TOPIC", required=True, help="to this one")
    parser.add_argument("--until-end", action="store_true", help="stop at the end that is there at the start")


def run(args: argparse.Namespace) -> int:
    """Run until stopped; 0 on a clean stop."""
    from detector.service.signals import StopSignals

    with StopSignals() as signals:  # before the imports, which take a good part of a second
        from detector.service.people import alone
        from detector.service.rekeying import serve_rekey

        around = alone(lambda: signals.stop, args.config)
        serve_rekey(args.config, args.key, args.source, args.target, around, until_end=args.until_end)
    return 0
