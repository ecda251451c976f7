"""`detector backtest`: the daemon's own path over recorded data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from detector.cli.atomic import write_file
from detector.cli.recordings import about, add_options, need_readings, recording, refuse_poor, widened
from detector.errors import UserError

if TYPE_CHECKING:
    from detector.detection.scorer import Model
    from detector.engine.budget import BudgetAccount
    from detector.reports.backtest import BacktestResult
    from detector.reports.curves import Curves

ALERTS: Final = "alerts.jsonl"
REPORT: Final = "report.html"


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "backtest",
        help="run the same detection over recorded readings and sum up",
        description="Feeds a recording through the same code as `run`; its alerts are those `run` would publish.",
    )
    add_options(parser)
    parser.add_argument("--labels", metavar="FILE", help="known faults, to compare with (JSON as of `simulate`)")
    parser.add_argument("--out", metavar="DIR", help="write alerts.jsonl and report.html there")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Backtest and print."""
    # Here, because `detector backtest --help` needs none of it.
    import msgspec
    from rich.console import Console

    from detector.config.rules import RuleBook
    from detector.detection.scorer import score_block
    from detector.engine.output import traced
    from detector.errors import counted
    from detector.reports.backtest import Seen, run_backtest, summary, table_of, unwatched_lines, verdicts_line
    from detector.reports.curves import Curves
    from detector.reports.demo import print_board
    from detector.reports.scoreboard import read_labels
    from detector.reports.text import duration
    from detector.service.pipelines import load_model, pipeline_factory
    from detector.service.supported import refuse_unsupported, tell_unmatched
    from detector.times import rfc3339

    labels = None if args.labels is None else read_labels(Path(args.labels))
    refuse_unsupported(args.config)
    need_readings(args)
    config = args.config = widened(args.config, args, args.data)
    curves = None if args.out is None else Curves(len(config.readings.channels))
    model = load_model(config)
    tell_unmatched(config, model.profiles)
    with recording(args) as (batches, decoder):
        seen = Seen(decoder, RuleBook(config.readings).watches)
        make = pipeline_factory(config, model, seen, score=score_block if curves is None else traced(curves))
        result = run_backtest(batches, make, labels, seen.sensors)
    for failure in result.failures:
        why = failure.traceback.strip().rpartition("\n")[2]
        sys.stderr.write(
            f"detector: warning: {failure.sensor_id} is set aside from offset {failure.offset} on: {why}\n"
        )
    refuse_poor(result, args.data)
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
        f"{counted(result.sensors, 'sensor')} ({result.warming} still warming up), readings: {counts or 'none'}; "
        f"{counted(len(result.episodes), 'episode')}{_others(result)}{_budget(result.budget)}."
    )
    for line in (*unwatched_lines(result), *filter(None, [verdicts_line(result)])):
        console.print(line)
    if args.out is not None:
        console.print(f"Alerts: {Path(args.out) / ALERTS}   report: {Path(args.out) / REPORT}")
    return 0


def _others(result: BacktestResult) -> str:
    """How many of the episodes have nothing to do with the budget."""
    muted = sum(episode.muted for episode in result.episodes)
    silent = sum(episode.silent for episode in result.episodes)
    told = [f"{number} {what}" for number, what in ((muted, "muted"), (silent, "about silence")) if number]
    return f" ({', '.join(told)})" if told else ""


def _budget(account: BudgetAccount) -> str:
    """What was allowed, and observed / allowed once enough was allowed to say so."""
    if account.allowed <= 0:
        return ""
    ratio = f" (observed / allowed: {account.ratio:.3g})" if account.ratio is not None and account.allowed >= 1 else ""
    return f", the budget allows {account.allowed:.3g}{ratio}"


def _judge_labels(result: BacktestResult, place: str) -> None:
    """Say which labels do not fit the recording. Raises UserError if none does."""
    if not result.foreign:
        return
    first = result.foreign[0]
    told = (
        f"are of no watched sensor and time in the recording; the first: {first.sensor_id} {first.start} .. {first.end}"
    )
    if not result.labels:
        raise UserError(
            f"all {len(result.foreign)} labels {told}", where=place, todo="Give the labels of this recording"
        )
    total = len(result.labels) + len(result.foreign)
    sys.stderr.write(f"detector: warning: {len(result.foreign)} of {total} labels {told} ({place})\n")


def _write(directory: Path, args: argparse.Namespace, result: BacktestResult, curves: Curves, model: Model) -> None:
    from detector.reports.page import page

    html = page(result, curves, about(args, model))
    write_file(directory, ALERTS, b"".join(alert + b"\n" for alert in result.alerts))
    write_file(directory, REPORT, html.encode("utf-8", "replace"))
