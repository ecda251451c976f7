"""`detector demo`: simulate a plant, train, run the daemon over its stream, and say honestly how well it did."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from detector.cli import options


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "demo",
        help="simulate, train, run, report: the whole thing in two minutes",
        description="Simulates a plant of 20 sensors with labelled faults, trains a model on its healthy beginning, "
        "runs the daemon over the stream, and compares its alerts with the labels.",
    )
    parser.add_argument(
        "--dir", type=options.place, default="var/demo", metavar="DIR", help="where everything is put (var/demo)"
    )
    parser.add_argument("--plain", action="store_true", help="plain lines, no colours or progress bars")
    parser.add_argument("--seed", type=options.seed, default=0, metavar="N", help="another seed, another plant (0)")


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 if every step worked, whatever the detector found."""
    from detector.reports.demo import Demo

    return Demo(Path(args.dir), seed=args.seed, plain=args.plain).run()
