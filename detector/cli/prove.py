"""`detector prove`: the smallest faults that would be told on the user's own recorded data."""

from __future__ import annotations

import argparse
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from detector.cli import options
from detector.cli.atomic import write_file
from detector.cli.recordings import about, add_options, need_readings, recording, refuse_records, widened
from detector.errors import UserError

if TYPE_CHECKING:
    from detector.config.load import Config
    from detector.detection.scorer import Model, ScoreBlock
    from detector.engine.readings import ReadingsPipeline
    from detector.reports.provetext import Proof
    from detector.reports.proving import Proved
    from detector.reports.sampled import Sampled
    from detector.reports.trials import MakePipeline
    from detector.wire.readings import Decoder

SENSORS: Final = 20
PAGE: Final = "prove.html"
RESULT: Final = "prove.json"
DRAWN: Final = 12
"""Sensors with examples on the page."""
Choice = int | tuple[str, ...]
"""How many sensors, or the patterns of their names."""


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "prove",
        help="which faults would be told on recorded readings, and which sensors are as good as unwatched",
        description="Puts faults into a recording where it is quiet. Tells of each sensor the smallest step and drift "
        "that would be told, for how long a value has to stick or nothing has to come, and which sensors are as good "
        "as unwatched. Changes nothing.",
    )
    add_options(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--sensors",
        type=chosen,
        default=SENSORS,
        metavar="N|NAMES",
        help=f"a sample of N sensors, or those with these names or patterns, such as 'pump-*,fan-2' ({SENSORS})",
    )
    which.add_argument("--all", action="store_true", help="every sensor; takes long where there are many")
    parser.add_argument(
        "--within",
        type=options.count,
        default=2_000,
        metavar="N",
        help="readings within which a fault has to be told (2000)",
    )
    parser.add_argument("--out", metavar="DIR", help=f"write {PAGE}, with examples, and {RESULT} there")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def chosen(text: str) -> Choice:
    """A number of sensors, or patterns of names."""
    if text.strip().isdecimal():
        return options.count(text)
    patterns = tuple(part for part in (piece.strip() for piece in text.split(",")) if part)
    if not patterns:
        raise ArgumentTypeError("this is empty; give a number, or names such as 'pump-*'")
    return patterns


def run(args: argparse.Namespace) -> int:
    """Try, and print."""
    # Here, because `detector prove --help` needs none of it.
    import msgspec
    from rich.console import Console

    from detector.config.rules import RuleBook, Selection
    from detector.reports.provetext import Proof, remarks, summary, table_of
    from detector.reports.sampled import sample
    from detector.service.pipelines import load_model
    from detector.service.supported import refuse_unsupported

    refuse_unsupported(args.config)
    need_readings(args)
    config: Config = widened(args.config, args, args.data)
    args.config = config
    model = load_model(config)
    choice: Choice | None = None if args.all else args.sensors
    most, patterns = (choice, ("*",)) if isinstance(choice, int) else (None, choice or ("*",))
    wanted = Selection(patterns, ()).includes
    with recording(args) as (batches, decoder):
        found = sample(batches, decoder, RuleBook(config.readings).watches, most=most, wanted=wanted)
    _refuse_poor(found, args.data, choice)
    lines = _proved(config, model, found, args.within, examples=args.out is not None)
    proof = Proof(lines, len(found.known), most is not None and len(found.known) > most, args.within, found.cut)
    if args.out is not None:
        _write(Path(args.out), args, proof, model)
    if args.json:
        sys.stdout.write(msgspec.json.encode(summary(proof)).decode() + "\n")
        return 0
    console = Console(highlight=False, markup=False, soft_wrap=True)  # sensor ids may have brackets
    console.print(table_of(proof))
    for line in remarks(proof):
        console.print(line)
    if args.out is not None:
        console.print(f"Page: {Path(args.out) / PAGE}   result: {Path(args.out) / RESULT}")
    return 0


def _refuse_poor(found: Sampled, place: str, choice: Choice | None) -> None:
    """Raise UserError where there is nothing to try."""
    refuse_records(found, place)
    if found.sensors:
        return
    if found.known and isinstance(choice, tuple):
        raise UserError(
            f"none of {len(found.known)} sensors is called so; there is {min(found.known)}",
            where=f"--sensors {','.join(choice)}",
            todo="Name others",
        )
    raise UserError(
        "no reading of a watched sensor lies in the time asked for",
        where=place,
        todo="Look at --since, --until, readings.sensors and overrides",
    )


def _proved(config: Config, model: Model, found: Sampled, within: int, *, examples: bool) -> list[Proved]:
    from detector.cli.replaying import sensors_progress
    from detector.config.rules import RuleBook
    from detector.reports.proving import prove

    make, book, lines = _pipelines(config, model), RuleBook(config.readings), list[Any]()
    with sensors_progress("trying", len(found.sensors)) as tried:
        for number, (sensor_id, recorded) in enumerate(found.sensors.items()):
            lines += prove(
                make, recorded, config.readings.channels, book.of(sensor_id),
                other=found.another(sensor_id), within=within, examples=examples and number < DRAWN,
            )  # fmt: skip
            tried()
    return lines


def _pipelines(config: Config, model: Model) -> MakePipeline:
    """What makes a pipeline for laid-out readings."""
    from detector.service.pipelines import pipeline_factory
    from detector.streams.base import Partition

    partition, unheard = Partition(config.readings.input, 0), _without_silence(config)

    def make(decoder: Decoder, score: ScoreBlock, *, silence: bool) -> ReadingsPipeline:
        return pipeline_factory(config if silence else unheard, model, decoder, score=score)(partition)

    return make


def _without_silence(config: Config) -> Config:
    off: dict[str, Any] = {"silence_after": None}
    overrides = tuple(
        one.model_copy(update=off) if "silence_after" in one.model_fields_set else one
        for one in config.readings.overrides
    )
    readings = config.readings.model_copy(update={**off, "overrides": overrides})
    return config.model_copy(update={"readings": readings})


def _write(directory: Path, args: argparse.Namespace, proof: Proof, model: Model) -> None:
    import msgspec

    from detector.reports.provepage import page
    from detector.reports.provetext import summary

    html = page(proof, about(args, model))
    write_file(directory, RESULT, msgspec.json.format(msgspec.json.encode(summary(proof))) + b"\n")
    write_file(directory, PAGE, html.encode("utf-8", "replace"))
