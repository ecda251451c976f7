"""`detector backtest`: the daemon's own path over recorded data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detector.budget import BudgetAccount
    from detector.reports.backtest import BacktestResult
    from detector.reports.scoreboard import Label
    from detector.timerange import Decoder


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "backtest",
        help="run the same detection over recorded data and sum up",
        description="Feeds a recording through the same code as `run`; its alerts are those `run` would publish.",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="PATH|kafka",
        help="a CSV or JSON lines file, a directory, or the topic readings.input",
    )
    parser.add_argument("--sensor", metavar="ID", help="the sensor of readings that name none (default: file name)")
    parser.add_argument("--interval", metavar="D", help="time between rows of a CSV file without timestamps, e.g. 1s")
    parser.add_argument("--since", metavar="D", help="only so much of the end of the data, e.g. 7d")
    parser.add_argument("--until", metavar="T", help="only readings before this time (RFC 3339)")
    parser.add_argument("--labels", metavar="FILE", help="known faults, to compare with (JSON as of `simulate`)")
    parser.add_argument("--out", metavar="DIR", help="write alerts.jsonl there")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Backtest and print."""
    # Here, because `detector backtest --help` needs none of it.
    import msgspec
    from rich.console import Console

    from detector.cli.options import duration_option, place_option, time_option
    from detector.reports.backtest import summary, table_of
    from detector.reports.demo import print_board
    from detector.reports.scoreboard import read_labels

    place = place_option("--data", args.data)
    since, until = duration_option("--since", args.since), time_option("--until", args.until)
    labels = None if args.labels is None else read_labels(Path(args.labels))
    replay = _replay_topic if place == "kafka" else _replay_file
    result = replay(args, since=since, until=until, labels=labels)
    if not result.records:
        raise UserError("the recording has no readings", where=place, todo="Name one that has")
    if 2 * result.refused > result.records:
        raise UserError(
            f"{result.refused} of {result.records} records are no readings; the first: {result.first_refusal}",
            where=place,
            todo="Correct them, or name their parts in readings.fields",
        )
    if not sum(result.readings.values()):
        raise UserError("no reading lies in the time asked for", where=place, todo="Look at --since and --until")
    if args.out is not None:
        write_alerts(Path(args.out), result.alerts)
    if args.json:
        sys.stdout.write(msgspec.json.encode(summary(result)).decode() + "\n")
        return 0
    console = Console(highlight=False, markup=False, soft_wrap=True)  # sensor ids may have brackets
    if result.episodes:
        console.print(table_of(result))
    if result.board is not None:
        print_board(console, result.board)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in result.readings.items() if count)
    console.print(
        f"{result.sensors} sensors ({result.warming} still warming up), readings: {counts or 'none'}; "
        f"{len(result.episodes)} episodes{_budget(result.budget)}."
    )
    if args.out is not None:
        console.print(f"Alerts: {Path(args.out) / 'alerts.jsonl'}")
    return 0


def _budget(account: BudgetAccount) -> str:
    """What was allowed, and observed / asked once enough was allowed to say so."""
    if account.allowed <= 0:
        return ""
    ratio = f", {account.ratio:.2f} of it" if account.ratio is not None and account.allowed >= 1 else ""
    return f", where the budget allows {account.allowed:.3g}{ratio}"


def _replay_file(
    args: argparse.Namespace, *, since: int | None, until: int | None, labels: Sequence[Label] | None
) -> BacktestResult:
    from detector.cli.options import duration_option, sensor_option
    from detector.recording import read_recording
    from detector.reports.backtest import run_backtest
    from detector.service.assemble import load_model, make_decoder, pipeline_factory
    from detector.service.supported import refuse_unsupported
    from detector.streams.places import default_sensor, recording_file
    from detector.timerange import newest_time

    config, data = args.config, Path(args.data)
    refuse_unsupported(config)
    stream = config.readings.input
    sensor = sensor_option(args.sensor) or default_sensor(recording_file(data, stream))
    model = load_model(config)
    interval = duration_option("--interval", args.interval)
    decoder = make_decoder(config, sensor=sensor, interval=interval, live=False, place=args.data)
    start = None
    if since is not None:
        newest = newest_time(read_recording(data, stream), decoder, until)
        start = None if newest is None else newest - since
    make = pipeline_factory(config, model, _ranged(decoder, start, until))
    return run_backtest(read_recording(data, stream), make, labels)


def _replay_topic(
    args: argparse.Namespace, *, since: int | None, until: int | None, labels: Sequence[Label] | None
) -> BacktestResult:
    from detector.cli.options import duration_option, sensor_option
    from detector.cli.topics import recorded
    from detector.reports.backtest import run_backtest
    from detector.service.assemble import load_model, make_decoder, pipeline_factory
    from detector.service.supported import refuse_unsupported

    config = args.config
    refuse_unsupported(config)
    model = load_model(config)
    interval = duration_option("--interval", args.interval)
    # As live: the records have their broker's time, by which the daemon refuses readings of the future.
    decoder = make_decoder(config, sensor=sensor_option(args.sensor), interval=interval, live=True)
    with recorded(config, decoder, since=since, until=until) as (batches, start):
        return run_backtest(batches, pipeline_factory(config, model, _ranged(decoder, start, until)), labels)


def _ranged(decoder: Decoder, start: int | None, until: int | None) -> Decoder:
    from detector.timerange import TimeRange

    return decoder if start is None and until is None else TimeRange(decoder, start, until)


def write_alerts(directory: Path, alerts: list[bytes]) -> None:
    """Write `alerts.jsonl`, whole or not at all."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        part = directory / ".alerts.jsonl.part"
        part.write_bytes(b"".join(alert + b"\n" for alert in alerts))
        part.replace(directory / "alerts.jsonl")
    except OSError as error:
        raise UserError(f"cannot write the alerts: {error.strerror}", where=str(directory)) from error
