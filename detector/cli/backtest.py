"""`detector backtest`: the daemon's own path over recorded data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from detector.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from detector.budget import BudgetAccount
    from detector.config import Config
    from detector.reports.backtest import BacktestResult
    from detector.reports.curves import Curves
    from detector.reports.scoreboard import Label
    from detector.scorer import Model
    from detector.streams.base import Batch
    from detector.timerange import Decoder

ALERTS: Final = "alerts.jsonl"
REPORT: Final = "report.html"


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
    parser.add_argument("--out", metavar="DIR", help="write alerts.jsonl and report.html there")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Backtest and print."""
    # Here, because `detector backtest --help` needs none of it.
    import msgspec
    from rich.console import Console

    from detector.cli.options import duration_option, place_option, time_option
    from detector.reports.backtest import summary, table_of
    from detector.reports.curves import Curves
    from detector.reports.demo import print_board
    from detector.reports.scoreboard import read_labels
    from detector.reports.text import duration
    from detector.timestamps import rfc3339

    place = place_option("--data", args.data)
    since, until = duration_option("--since", args.since), time_option("--until", args.until)
    labels = None if args.labels is None else read_labels(Path(args.labels))
    curves = None if args.out is None else Curves(len(args.config.readings.channels))
    replay = _replay_topic if place == "kafka" else _replay_file
    result, model = replay(args, since=since, until=until, labels=labels, curves=curves)
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
    if labels is not None:
        _judge_labels(result, args.labels)
    if curves is not None:
        _write(Path(args.out), args, result, curves, model)
    if args.json:
        sys.stdout.write(msgspec.json.encode(summary(result)).decode() + "\n")
        return 0
    console = Console(highlight=False, markup=False, soft_wrap=True)  # sensor ids may have brackets
    if result.episodes:
        console.print(table_of(result))
    if result.board is not None:
        print_board(console, result.board)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in result.readings.items() if count)
    if result.first is not None and result.last is not None:
        console.print(f"{rfc3339(result.first)} .. {rfc3339(result.last)} ({duration(result.last - result.first)})")
    console.print(
        f"{result.sensors} sensors ({result.warming} still warming up), readings: {counts or 'none'}; "
        f"{len(result.episodes)} episodes{_budget(result.budget)}."
    )
    if args.out is not None:
        console.print(f"Alerts: {Path(args.out) / ALERTS}   report: {Path(args.out) / REPORT}")
    return 0


def _budget(account: BudgetAccount) -> str:
    """What was allowed, and observed / asked once enough was allowed to say so."""
    if account.allowed <= 0:
        return ""
    ratio = f", {account.ratio:.2f} of it" if account.ratio is not None and account.allowed >= 1 else ""
    return f", where the budget allows {account.allowed:.3g}{ratio}"


def _judge_labels(result: BacktestResult, place: str) -> None:
    """Say which labels do not fit the recording. Raises UserError if none does."""
    if not result.foreign:
        return
    first = result.foreign[0]
    told = f"are of no sensor and time in the recording; the first: {first.sensor_id} {first.start} .. {first.end}"
    if not result.labels:
        raise UserError(
            f"all {len(result.foreign)} labels {told}", where=place, todo="Give the labels of this recording"
        )
    total = len(result.labels) + len(result.foreign)
    sys.stderr.write(f"detector: warning: {len(result.foreign)} of {total} labels {told} ({place})\n")


def _replay_file(
    args: argparse.Namespace,
    *,
    since: int | None,
    until: int | None,
    labels: Sequence[Label] | None,
    curves: Curves | None,
) -> tuple[BacktestResult, Model]:
    from detector.cli.options import duration_option, sensor_option
    from detector.recording import read_recording
    from detector.service.assemble import load_model, make_decoder
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
    batches = read_recording(data, stream)
    return _run(config, model, _ranged(decoder, start, until), batches, labels, curves), model


def _replay_topic(
    args: argparse.Namespace,
    *,
    since: int | None,
    until: int | None,
    labels: Sequence[Label] | None,
    curves: Curves | None,
) -> tuple[BacktestResult, Model]:
    from detector.cli.options import duration_option, sensor_option
    from detector.cli.topics import recorded
    from detector.service.assemble import load_model, make_decoder
    from detector.service.supported import refuse_unsupported

    config = args.config
    refuse_unsupported(config)
    model = load_model(config)
    interval = duration_option("--interval", args.interval)
    # As live: the records have their broker's time, by which the daemon refuses readings of the future.
    decoder = make_decoder(config, sensor=sensor_option(args.sensor), interval=interval, live=True)
    with recorded(config, decoder, since=since, until=until) as (batches, start):
        return _run(config, model, _ranged(decoder, start, until), batches, labels, curves), model


def _run(
    config: Config,
    model: Model,
    decoder: Decoder,
    batches: Iterable[Batch],
    labels: Sequence[Label] | None,
    curves: Curves | None,
) -> BacktestResult:
    from detector.reports.backtest import Seen, run_backtest
    from detector.scorer import score_block
    from detector.service.assemble import pipeline_factory
    from detector.trace import traced

    seen = Seen(decoder)
    score = score_block if curves is None else traced(curves)
    return run_backtest(batches, pipeline_factory(config, model, seen, score=score), labels, seen.sensors)


def _ranged(decoder: Decoder, start: int | None, until: int | None) -> Decoder:
    from detector.timerange import TimeRange

    return decoder if start is None and until is None else TimeRange(decoder, start, until)


def _write(directory: Path, args: argparse.Namespace, result: BacktestResult, curves: Curves, model: Model) -> None:
    from detector.reports.page import About, page, settings_text

    about = About(
        data=f"topic {args.config.readings.input}" if args.data == "kafka" else args.data,
        model=f"{model.name} {model.version}",
        channels=args.config.readings.channels,
        settings=settings_text(args.config),
    )
    html = page(result, curves, about)
    write_file(directory, ALERTS, b"".join(alert + b"\n" for alert in result.alerts))
    write_file(directory, REPORT, html.encode("utf-8", "replace"))


def write_file(directory: Path, name: str, content: bytes) -> None:
    """Write a file into a directory, which is made if need be; whole or not at all. Raises UserError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        part = directory / f".{name}.part"
        part.write_bytes(content)
        part.replace(directory / name)
    except OSError as error:
        raise UserError(f"cannot write {name}: {error.strerror}", where=str(directory)) from error
