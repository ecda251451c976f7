"""`detector backtest`: the daemon's own path over recorded data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from detector.errors import UserError


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "backtest",
        help="run the same detection over recorded data and sum up",
        description="Feeds a recording through the same code as `run`; its alerts are those `run` would publish.",
    )
    parser.add_argument("--data", required=True, metavar="PATH", help="a CSV or JSON lines file, or a directory")
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

    from detector.cli.options import duration_option, time_option
    from detector.recording import read_recording
    from detector.reports.backtest import run_backtest, summary, table_of
    from detector.reports.demo import print_board
    from detector.reports.scoreboard import read_labels
    from detector.service.assemble import load_model, make_decoder, pipeline_factory
    from detector.service.supported import refuse_unsupported
    from detector.streams.base import Partition
    from detector.streams.places import default_sensor, recording_file
    from detector.timerange import Decoder, TimeRange, newest_time

    config = args.config
    refuse_unsupported(config)
    stream = config.readings.input
    data = Path(args.data)
    labels = None if args.labels is None else read_labels(Path(args.labels))
    since, until = duration_option("--since", args.since), time_option("--until", args.until)
    sensor = args.sensor or default_sensor(recording_file(data, stream))
    model = load_model(config)
    plain = make_decoder(config, sensor=sensor, interval=duration_option("--interval", args.interval), live=False)
    start = None
    if since is not None:
        newest = newest_time(read_recording(data, stream), plain, until)
        start = None if newest is None else newest - since
    decoder: Decoder = plain if start is None and until is None else TimeRange(plain, start, until)
    pipeline = pipeline_factory(config, model, decoder)(Partition(stream, 0))
    result = run_backtest(read_recording(data, stream), pipeline, labels)
    if not result.records:
        raise UserError("the recording has no readings", where=str(data), todo="Name a file with data rows")
    if args.out is not None:
        write_alerts(Path(args.out), result.alerts)
    if args.json:
        sys.stdout.write(msgspec.json.encode(summary(result)).decode() + "\n")
        return 0
    console = Console(highlight=False, soft_wrap=True)
    if result.episodes:
        console.print(table_of(result))
    if result.board is not None:
        print_board(console, result.board)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in result.readings.items() if count)
    console.print(
        f"{result.sensors} sensors ({result.warming} still warming up), readings: {counts or 'none'}; "
        f"{len(result.episodes)} episodes."
    )
    if args.out is not None:
        console.print(f"Alerts: {Path(args.out) / 'alerts.jsonl'}")
    return 0


def write_alerts(directory: Path, alerts: list[bytes]) -> None:
    """Write `alerts.jsonl`, whole or not at all."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        part = directory / ".alerts.jsonl.part"
        part.write_bytes(b"".join(alert + b"\n" for alert in alerts))
        part.replace(directory / "alerts.jsonl")
    except OSError as error:
        raise UserError(f"cannot write the alerts: {error.strerror}", where=str(directory)) from error
