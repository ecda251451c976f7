"""`detector alerts`: the episodes that were published, as a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from detector.cli import options
from detector.errors import UserError

if TYPE_CHECKING:
    from detector.config.load import Config


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "alerts",
        help="list the episodes that were published",
        description="The episodes of a stream of alerts, one line each: when, whose, what, how bad, over or not. "
        "`detector inspect` draws one of them by the id that is shown.",
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

    from detector.reports.episodelist import Wanted, as_json, episodes_of, table_of

    wanted = Wanted(args.sensor, args.open, args.since)
    try:
        episodes = episodes_of(_messages(args.data, args.config), wanted)
    except ValueError as error:
        raise UserError(
            f"this is no stream of alerts: {error}", where=args.data, todo="Give a file of alerts"
        ) from None
    if args.json:
        sys.stdout.write(as_json(episodes).decode())
    elif episodes:
        console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 160)
        console.print(table_of(episodes), markup=False)
    else:
        sys.stdout.write("no episodes\n")
    return 0


def _messages(data: str, config: Config) -> Iterator[bytes]:
    """The messages at a place. Raises UserError, OperationError."""
    if data == "kafka":
        from detector.streams.kafka_reader import TopicReader

        with TopicReader(config.streams.kafka, config.output.alerts) as reader:
            for batch in reader.read(None):
                yield from (record.value for record in batch.records if record.value is not None)
        return
    path = Path(data)
    if path.is_dir():
        path /= f"{config.output.alerts}.jsonl"
    try:
        with path.open("rb") as file:
            # A line without its end is being written.
            yield from (line for line in file if line.strip() and line.endswith(b"\n"))
    except OSError as error:
        raise UserError(
            f"cannot read the alerts: {error.strerror}", where=str(path), todo="Name a file of alerts"
        ) from None
