"""`detector notify`: people are told of incidents."""

from __future__ import annotations

import argparse
from typing import Any

from detector.cli import options


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "notify",
        help="incidents in, people told: Alertmanager, webhooks",
        description="Reads incidents and tells the targets of the configuration, each at its own pace. Runs until it "
        "is stopped.",
    )
    parser.add_argument(
        "--input", type=options.place, metavar="PATH|-", help="a file of incidents, a directory of streams, or stdin"
    )
    parser.add_argument("--until-end", action="store_true", help="stop when what is there at the start was told")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--test", metavar="TARGET", help="send this target a made-up incident and say what came of it")
    instead.add_argument(
        "--dry-run", action="store_true", help="print what would be sent of the incidents there are, and send nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Run until stopped; 0 on a clean stop, of --test if it was delivered."""
    from detector.service.signals import StopSignals

    with StopSignals() as signals:  # before the imports, which take a good part of a second
        from detector.service.people import FollowOptions, alone, serve_notify
        from detector.service.trial import dry_run, send_test

        if args.test is not None:
            print(send_test(args.config, args.test))
        elif args.dry_run:
            for line in dry_run(args.config, args.input):
                print(line)
        else:
            chosen = FollowOptions(input=args.input, until_end=args.until_end)
            serve_notify(args.config, chosen, alone(lambda: signals.stop, args.config))
    return 0
