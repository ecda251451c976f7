"""`detector tune`: what other false-alarm budgets would have cost on recorded data, and which one to take."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.cli import options
from detector.cli.atomic import atomic_write, write_file
from detector.cli.recordings import add_options, need_readings, place_of, recording, refuse_poor, widened
from detector.errors import UserError, unwritable

if TYPE_CHECKING:
    from detector.config.load import Config, FalseAlarms
    from detector.detection.scorer import ScoreBlock
    from detector.engine.readings import BuildProfile, MakeWriter
    from detector.reports.tuning import Choice, Cost, MakePipeline
    from detector.streams.base import Partition
    from detector.wire.readings import Decoder

REPORT = "tune.html"


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "tune",
        help="what other false-alarm budgets would have cost on recorded readings",
        description="Runs a recording under several budgets and tells what each would have cost: episodes, sensors, "
        "time in alarm. The numbers are those of `backtest` with that budget.",
    )
    add_options(parser)
    parser.add_argument(
        "--alerts",
        type=options.alarm_rate,
        metavar="RATE",
        help='this many episodes of all sensors together, e.g. "3/week": find the budget',
    )
    parser.add_argument("--out", metavar="DIR", help="write tune.html there: pictures of what each budget adds")
    parser.add_argument("--write", action="store_true", help="put the budget found into the configuration file")


def run(args: argparse.Namespace) -> int:
    """Replay, and print."""
    # Here, because `detector tune --help` needs none of it.
    from rich.console import Console

    from detector.errors import counted
    from detector.reports.text import duration
    from detector.reports.tuning import (
        SEARCHED,
        SHOWN,
        added_lines,
        choose,
        costs_of,
        judged,
        period,
        remarks,
        sensors_of,
        spoken,
        table_of,
    )
    from detector.service.pipelines import load_model
    from detector.service.supported import refuse_unsupported
    from detector.times import rfc3339

    config: Config = args.config
    asked: FalseAlarms | None = args.alerts
    if args.write and asked is None:
        raise UserError("which budget to write is not said", where="--write", todo="Give --alerts as well")
    refuse_unsupported(config)
    need_readings(args)
    config = args.config = widened(config, args, args.data)
    model = load_model(config)
    with recording(args) as (batches, decoder):
        # What is under maintenance learns by what was judged, so there the scores do depend on the budget.
        costs = costs_of(
            batches,
            decoder,
            _pipelines(config, model),
            SHOWN if asked is None else SEARCHED,
            once=not config.maintenance,
            pictured=args.out is not None,
        )
    first = costs[0].result
    refuse_poor(first, args.data)
    if asked is not None and costs[0].watched < period(asked):
        raise UserError(
            f"sensors were watched for {duration(costs[0].watched)}, too short to know what {spoken(asked)} takes",
            where=args.data,
            todo="Give a longer one",
        )
    if asked is not None and not any(cost.known for cost in costs):
        raise UserError(
            f"sensors were watched for {duration(costs[0].watched)}, shorter than the time of every budget",
            where=args.data,
            todo="Give a longer recording",
        )
    choice = None if asked is None else choose(costs, asked)
    told = costs if asked is None else [cost for cost in costs if cost.known]
    console = Console(highlight=False, markup=False, soft_wrap=True)  # sensor ids may have brackets
    console.print(table_of(costs, None if choice is None else choice.cost))
    if any(cost.result.episodes for cost in costs):
        console.print(sensors_of(costs))
    for line in added_lines(told):
        console.print(line)
    for line in remarks(costs):
        console.print(line)
    if first.first is not None and first.last is not None:
        console.print(
            f"{rfc3339(first.first)} .. {rfc3339(first.last)} ({duration(first.last - first.first)}), "
            f"{first.sensors} sensor{'' if first.sensors == 1 else 's'} ({first.warming} still warming up), "
            f"watched for {duration(costs[0].watched)} each."
        )
    if args.out is not None:
        console.print(f"Report: {_report(Path(args.out), args, told, choice)}")
    if asked is None:
        return 0
    if choice is None:
        raise UserError(_none_found(costs, asked), where=args.data, todo="Give a longer recording or a higher rate")
    chosen = choice.cost
    rate = chosen.rate(period(asked))
    for more in choice.unclear:
        console.print(
            f"{spoken(more.budget)} keeps to {spoken(asked)}, too; it would add "
            f"{counted(len(more.episodes), 'episode')} to {spoken(chosen.budget)}, {judged(more)}."
        )
    console.print(
        f"{spoken(chosen.budget)} for each sensor keeps to {spoken(asked)} for all: {rate:.3g} a {asked.per} here."
    )
    if args.write:
        console.print(f"Written: {_write(args.config_path, chosen.budget)}")
    return 0


def _report(directory: Path, args: argparse.Namespace, costs: list[Cost], choice: Choice | None) -> Path:
    from detector.reports.tuningpage import page

    write_file(directory, REPORT, page(costs, choice, place_of(args)).encode("utf-8", "replace"))
    return directory / REPORT


def _none_found(costs: list[Cost], asked: FalseAlarms) -> str:
    from detector.reports.tuning import period, spoken

    strictest = [cost for cost in costs if cost.known][-1]
    fewest = f"{spoken(strictest.budget)} has {strictest.rate(period(asked)):.3g} a {asked.per}"
    return f"no budget that this recording can judge keeps to {spoken(asked)}; {fewest}"


def _pipelines(config: Config, model: Any) -> Any:
    """What makes a pipeline under some budget, for a decoder."""
    from detector.service.pipelines import pipeline_factory

    def for_decoder(decoder: Decoder) -> MakePipeline:
        def make(
            partition: Partition, budget: FalseAlarms, score: ScoreBlock, writer: MakeWriter, build: BuildProfile
        ) -> Any:
            alerts = config.readings.alerts.model_copy(update={"false_alarms": budget})
            readings = config.readings.model_copy(update={"alerts": alerts})
            changed = config.model_copy(update={"readings": readings})
            return pipeline_factory(changed, model, decoder, score=score, writer=writer, build=build)(partition)

        return make

    return for_decoder


def _write(config_path: str | None, budget: FalseAlarms) -> str:
    """Put the budget into the configuration in force, or a new one; what was done. Raises DetectorError."""
    from detector.config import yamledit
    from detector.config.load import find_config
    from detector.config.yamltext import YamlError

    found = find_config(Path(config_path) if config_path else None)
    file = Path(os.path.realpath(found)) if found is not None else Path("config.yaml")
    value = f"{{per_sensor: {budget.per_sensor:g}, per: {budget.per}}}"
    try:
        raw = file.read_bytes() if found is not None else b""
        mark = b"\xef\xbb\xbf" if raw.startswith(b"\xef\xbb\xbf") else b""
        changed = yamledit.put(raw[len(mark) :].decode(), ("readings", "alerts", "false_alarms"), value)
        with atomic_write(file) as part:
            part.write_bytes(mark + changed.encode())
            if found is not None:
                part.chmod(file.stat().st_mode & 0o7777)
    except YamlError as problem:
        raise UserError(problem.what, where=str(file), todo=problem.todo) from None
    except OSError as error:
        raise unwritable(error, "the configuration", where=str(file), todo="Make room, or write it by hand") from error
    return f"readings.alerts.false_alarms: {value} ({found or file})"
