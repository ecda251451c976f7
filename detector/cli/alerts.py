"""`detector alerts`: the episodes that were published, as a table."""

from __future__ import annotations

import argparse
import sys

from detector.cli import options


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "alerts",
        help="list the episodes that were published",
        description="The episodes of a stream of alerts, one line each, on a narrow terminal two: when, whose, what, "
        "how bad, over or not. `detector inspect` draws one of them by the id that is shown.",
    )
    parser.add_argument(
        "data",
        type=options.place,
        metavar="PATH|kafka",
        help="a file of alerts, a directory of streams, or the topic output.alerts",
    )
    parser.add_argument("--sensor", type=options.sensor_id, metavar="ID", help="only those of this sensor or camera")
    parser.add_argument(
        "--since", type=options.duration, metavar="D", help="only those detected so long before the newest, e.g. 7d"
    )
    parser.add_argument("--open", action="store_true", help="only those that are open")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the episodes."""
    # Here, because `detector alerts --help` needs none of it.
    from rich.console import Console

    from detector.cli.published import alerts_at, listed, verdicts_at
    from detector.reports.episodelist import UNBOUNDED, Wanted, as_json, episodes_of, listing
    from detector.reports.feedback import said_of, with_verdicts

    wanted = Wanted(args.sensor, args.open, args.since)
    with listed(args.data):
        episodes = episodes_of(alerts_at(args.data, args.config), wanted)
        episodes = with_verdicts(episodes, said_of(verdicts_at(args.data, args.config)))
    if args.json:
        sys.stdout.write(as_json(episodes).decode())
    elif episodes:
        console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else UNBOUNDED)
        console.print(listing(episodes, console), markup=False)
    else:
        sys.stdout.write("no episodes\n")
    return 0
