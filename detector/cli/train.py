"""`detector train`: recorded readings in, a new version of the model out."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detector.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from detector.config.load import Config
    from detector.config.rules import RuleBook
    from detector.models.bundle.bundles import Bundle
    from detector.models.training.dataset import Collected
    from detector.models.training.loop import TrainReport
    from detector.models.training.sampling import Series
    from detector.streams.base import Batch

_LISTED: Final = 5
"""Sensors named in a warning; of the others the number is told."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "train",
        help="train a model on normal data and write a bundle",
        description="Train a model on readings without faults, write it as a new version and make that the active one. "
        "Each sensor needs at least 150 readings; some thousands are better.",
    )
    parser.add_argument(
        "--data",
        metavar="PATH|kafka",
        help="CSV or JSON lines (.gz too), a directory of streams, or the topic readings.input "
        "(default: where the configuration says the daemon reads); of frames also a directory of images or an IDX file",
    )
    parser.add_argument(
        "--sensor", type=_sensor, metavar="ID", help="sensor of CSV rows without a sensor column (the file's name)"
    )
    parser.add_argument("--interval", type=_duration, metavar="D", help="time between CSV rows without a timestamp")
    parser.add_argument("--since", type=_duration, metavar="D", help="only this long before the newest reading")
    parser.add_argument("--until", type=_time, metavar="T", help="only readings before this time (RFC 3339)")
    parser.add_argument("--rows", type=_count, metavar="N", help="only the first N readings of each sensor")
    parser.add_argument(
        "--model",
        choices=("dense", "lstm", "conv"),
        default="dense",
        help="architecture (dense); conv: of camera frames",
    )
    parser.add_argument("--out", metavar="DIR", help="directory of versions (default: readings.model, frames.model)")
    parser.add_argument("--name", metavar="NAME", help="name of the model, part of its version (the architecture)")
    parser.add_argument("--epochs", type=_count, metavar="N", help="passes over the data (training.epochs)")
    parser.add_argument("--seed", type=_seed, metavar="N", help="another seed, another model (training.seed)")
    parser.add_argument("--no-activate", action="store_true", help="leave the active version as it is")


def run(args: argparse.Namespace) -> int:
    """Read, train, write, and print where the version is and how well it reconstructs."""
    if args.model == "conv":
        from detector.cli import train_frames

        return train_frames.run(args)
    # Here, because `detector train --help` needs none of it.
    from detector.models.training.tensorflow_setup import require_training_packages

    require_training_packages()
    from detector.cli.progress import training_progress
    from detector.config.rules import RuleBook
    from detector.models.bundle.bundles import check_name
    from detector.models.bundle.spec import ModelSpec
    from detector.models.bundle.versions import activate, check_writable
    from detector.models.training.building import build_bundle

    config: Config = args.config
    readings = config.readings
    directory = Path(args.out) if args.out else readings.model
    if args.name:
        check_name(args.name)
    book = RuleBook(readings)
    place, collected = _read(args, config, book)
    series = _usable(collected, place)
    check_writable(directory)
    chosen = {"epochs": args.epochs, "seed": args.seed}
    settings = config.training.model_copy(update={key: value for key, value in chosen.items() if value is not None})
    spec = ModelSpec(
        kind=args.model,
        channels=readings.channels,
        hidden=settings.hidden,
        units=settings.units,
        activation=settings.activation,
        scaler=settings.scaler,
    )
    with training_progress(len(series)) as (progress, profiled):
        bundle, report = build_bundle(
            directory,
            series,
            spec,
            settings,
            stride=readings.window.stride,
            open_after=book[0].open_after,
            other_open_after={sensor_id: book.of(sensor_id).open_after for sensor_id in series},
            created=datetime.now(UTC),
            name=args.name,
            progress=progress,
            profiled=profiled,
        )
    if not args.no_activate:
        activate(directory, bundle.version)
    sys.stdout.write(_report(bundle, report, active=not args.no_activate))
    return 0


def _read(args: argparse.Namespace, config: Config, book: RuleBook) -> tuple[str, Collected]:
    """The place the readings come from and what was there. Raises UserError where it cannot be trained on."""
    from detector.models.training.dataset import collect
    from detector.streams.places import default_sensor, recording_file
    from detector.wire.json_readings import ReadingDecoder
    from detector.wire.recording import read_recording

    readings = config.readings

    def collected_from(batches: Iterable[Batch], decoder: ReadingDecoder) -> Collected:
        return collect(
            batches,
            decoder,
            includes=book.watches,
            rows=args.rows,
            since=args.since,
            until=args.until,
        )

    def decoder_for(sensor: str | None, max_future: int | None) -> ReadingDecoder:
        return ReadingDecoder(
            readings.fields, readings.channels, sensor, args.interval, max_future=max_future, place=args.data
        )

    if args.data == "kafka" or (args.data is None and config.streams.backend == "kafka"):
        from detector.cli.topics import recorded

        decoder = decoder_for(args.sensor, readings.window.max_future)
        with recorded(config, decoder, since=args.since, until=args.until) as (batches, _):
            collected = collected_from(batches, decoder)
        place, cure = f"topic {readings.input}", "Send readings, or name their fields in readings.fields"
    else:
        file = recording_file(Path(args.data) if args.data else config.streams.directory.path, readings.input)
        decoder = decoder_for(args.sensor or default_sensor(file), None)
        collected = collected_from(read_recording(file, readings.input), decoder)
        place, cure = str(file), "Correct the file, or name its columns in readings.fields"
    if 2 * collected.refused > collected.records:
        raise UserError(
            f"{collected.refused} of {collected.records} records are no readings; the first: {collected.first_refusal}",
            where=place,
            todo=cure,
        )
    if not collected.readings:
        raise UserError("there are no readings here", where=place, todo="Give data with readings")
    return place, collected


def _usable(collected: Collected, place: str) -> Series:
    """The sensors that can be trained on; says on standard error what is left out or looks odd."""
    from detector.detection.profile import MIN_ROWS
    from detector.models.training.dataset import constant_sensors

    usable = {name: rows for name, rows in collected.series.items() if len(rows[0]) >= MIN_ROWS}
    lengths = {name: len(rows[0]) for name, rows in collected.series.items()}
    dropped = {
        "rejected records": collected.refused,
        "missing values": collected.missing,
        "late": collected.late,
        "duplicates": collected.duplicate,
    }
    told = ", ".join(f"{count} {what}" for what, count in dropped.items() if count)
    if told:
        refusal = f"; first rejected: {collected.first_refusal}" if collected.first_refusal else ""
        _warn(f"not all of the {collected.records} records are used: {told}{refusal} ({place})")
    if not usable:
        if not lengths:
            left = f"{collected.excluded} are of sensors that are not watched, {collected.outside} were cut off"
            raise UserError(
                f"none of the {collected.readings} readings is left: {left}",
                where=place,
                todo="Look at --since, --until and readings.sensors",
            )
        longest = sorted(lengths, key=lambda name: -lengths[name])
        raise UserError(
            f"no sensor has the {MIN_ROWS} usable readings that a profile needs: "
            f"{_some([f'{name} has {lengths[name]}' for name in longest])}",
            where=place,
            todo="Give more data",
        )
    short = [f"{name} ({lengths[name]})" for name in lengths if name not in usable]
    if short:
        _warn(f"left out, with fewer than {MIN_ROWS} usable readings: {_some(short)}")
    flat = [f"{name}: all {rows} values are equal" for name, rows in constant_sensors(collected) if name in usable]
    if flat:
        _warn(f"{_some(flat)}; any other value will look like an anomaly")
    if collected.resets:
        _warn(f"time was set back ({collected.resets} x); rows go on from the new time")
    return usable


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more


def _warn(line: str) -> None:
    sys.stderr.write(f"detector: warning: {line}\n")


def _report(bundle: Bundle, report: TrainReport, *, active: bool) -> str:
    """The path on the first line, then what was trained on and the errors."""
    training = bundle.manifest.training
    lines = [
        str(bundle.path),
        f"{report.sensors} sensor{'s' if report.sensors > 1 else ''}, {report.rows} rows "
        f"from {training['from']} to {training['to']}; "
        f"{report.epochs} epochs, {report.steps} steps, {report.seconds:.1f} s; {'active' if active else 'not active'}",
        *error_table(report, "windows"),
    ]
    return "\n".join(lines) + "\n"


def error_table(report: TrainReport, what: str) -> list[str]:
    """The distribution of errors over the windows, or frames, trained on and held back."""
    columns = ("mean", "median", "p95", "p99", "max")
    lines = [f"{'squared error':<14}{what:>9}" + "".join(f"{name:>10}" for name in columns)]
    for name, errors in (("trained on", report.train), ("held back", report.tail)):
        if errors is not None:
            numbers = (errors.mean, errors.median, errors.p95, errors.p99, errors.max)
            lines.append(f"{name:<14}{errors.windows:>9}" + "".join(f"{number:>10.4g}" for number in numbers))
    return lines


def _sensor(text: str) -> str:
    from detector.wire.readings import is_sensor_id

    if not is_sensor_id(text):
        raise argparse.ArgumentTypeError("a sensor id has 1 to 256 printable characters")
    return text


def _duration(text: str) -> int:
    from detector.config.values import parse_duration

    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if duration == 0:
        raise argparse.ArgumentTypeError(f"`{text}` is no time")
    return duration


def _time(text: str) -> int:
    from detector.times import parse_time

    try:
        return parse_time(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"`{text}`: {error}") from None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is not a whole number from 1 on")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"`{text}` is not a whole number from 0 to 4294967295")
    return int(text)
