"""`detector train`: recorded readings, or frames, in, a new version of the model out."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detector.cli import options
from detector.cli.recordings import file_reader, widened
from detector.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detector.config.load import Config, TrainingConfig
    from detector.config.rules import RuleBook
    from detector.models.bundle.bundles import Bundle
    from detector.models.training.cameras import Cameras
    from detector.models.training.dataset import Collected
    from detector.models.training.frame_dataset import CollectedFrames
    from detector.models.training.loop import TrainReport
    from detector.models.training.sampling import Series
    from detector.models.training.sensors import Sensors

_LISTED: Final = 5
"""Sensors named in a warning; of the others the number is told."""
_SECOND: Final = 10**9


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
    options.add_sensor_option(parser)
    parser.add_argument("--since", type=options.duration, metavar="D", help="only this long before the newest reading")
    parser.add_argument("--until", type=options.instant, metavar="T", help="only readings before this time (RFC 3339)")
    parser.add_argument("--rows", type=options.count, metavar="N", help="only the first N readings of each sensor")
    parser.add_argument(
        "--model",
        choices=("dense", "lstm", "conv"),
        default="dense",
        help="architecture (dense); conv: of camera frames",
    )
    parser.add_argument(
        "--preset",
        choices=("textbook",),
        help="textbook: layers, sizes, activations and scaler as tutorials of Keras have them, in place of training.*",
    )
    options.add_csv_options(parser)
    parser.add_argument("--out", metavar="DIR", help="directory of versions (default: readings.model, frames.model)")
    parser.add_argument("--name", metavar="NAME", help="name of the model, part of its version (the architecture)")
    parser.add_argument(
        "--epochs",
        type=options.count,
        metavar="N",
        help="exactly this number of passes over the data (else training.epochs, and at least training.min_steps)",
    )
    parser.add_argument("--seed", type=options.seed, metavar="N", help="another seed, another model (training.seed)")
    parser.add_argument("--no-activate", action="store_true", help="leave the active version as it is")


def run(args: argparse.Namespace) -> int:
    """Read, train, write, and print where the version is and how well it reconstructs."""
    # Here, because `detector train --help` needs none of it.
    from detector.models.training.tensorflow_setup import require_training_packages

    require_training_packages()
    from detector.cli.progress import training_progress
    from detector.models.bundle.bundles import check_name
    from detector.models.bundle.versions import activate, check_writable
    from detector.models.training.building import build_bundle

    config: Config = args.config
    of_frames = args.model == "conv"
    directory = Path(args.out) if args.out else (config.frames if of_frames else config.readings).model
    if args.name:
        check_name(args.name)
    settings = config.training
    if args.epochs is not None:
        settings = settings.model_copy(update={"epochs": args.epochs, "min_steps": None})
    if args.seed is not None:
        settings = settings.model_copy(update={"seed": args.seed})
    material = (_cameras if of_frames else _sensors)(args, config, settings)
    check_writable(directory)
    with training_progress(len(material.times)) as (progress, profiled):
        bundle, report = build_bundle(
            directory,
            material,
            settings,
            created=datetime.now(UTC),
            name=args.name,
            progress=progress,
            profiled=profiled,
        )
    if not args.no_activate:
        activate(directory, bundle.version)
    sys.stdout.write(_report(bundle, report, settings, active=not args.no_activate))
    return 0


def _report(bundle: Bundle, report: TrainReport, settings: TrainingConfig, *, active: bool) -> str:
    """The path on the first line, then what was trained on and the errors over windows, or frames."""
    training = bundle.manifest.training
    of_frames = bundle.image is not None
    source, rows, what = (
        ("camera", f"frames of {bundle.image}", "frames") if of_frames else ("sensor", "rows", "windows")
    )
    sources = f"{report.sensors} {source}{'' if report.sensors == 1 else 's'}, " if report.sensors else ""
    span = f" from {training['from']} to {training['to']}" if training["from"] else ""
    exact = report.epochs == settings.epochs
    wanted = "" if exact else f" (epochs: {settings.epochs}, min_steps: {settings.min_steps})"
    columns = ("mean", "median", "p95", "p99", "max")
    lines = [
        str(bundle.path),
        f"{sources}{report.rows} {rows}{span}; {report.epochs} epoch{'' if report.epochs == 1 else 's'}{wanted}, "
        f"{report.steps} step{'' if report.steps == 1 else 's'}, "
        f"{report.seconds:.1f} s; {'active' if active else 'not active'}",
        f"{'squared error':<14}{what:>9}" + "".join(f"{name:>10}" for name in columns),
    ]
    for name, errors in (("trained on", report.train), ("held back", report.tail)):
        if errors is not None:
            numbers = (errors.mean, errors.median, errors.p95, errors.p99, errors.max)
            lines.append(f"{name:<14}{errors.windows:>9}" + "".join(f"{number:>10.4g}" for number in numbers))
    return "\n".join(lines) + "\n"


# -- readings ------------------------------------------------------------------------------------------------------


def _sensors(args: argparse.Namespace, config: Config, settings: TrainingConfig) -> Sensors:
    """The sensors to train on. Raises UserError where there are none."""
    from detector.config.rules import RuleBook
    from detector.detection.hours import Hours
    from detector.models.bundle.spec import ModelSpec, textbook_of_readings
    from detector.models.training.sensors import Sensors

    config = widened(config, args, None if _is_topic(args, config) else str(_path(args, config)), trained=False)
    readings, book = config.readings, RuleBook(config.readings)
    spec = (
        textbook_of_readings(args.model, readings.channels)
        if args.preset
        else ModelSpec(
            kind=args.model,
            channels=readings.channels,
            hidden=settings.hidden,
            units=settings.units,
            activation=settings.activation,
            scaler=settings.scaler,
        )
    )
    collected, place = _read_readings(args, config, book)
    series = _usable_sensors(collected, place, spec.scaler, spec.channels)
    return Sensors(
        series,
        spec,
        readings.window.stride,
        open_after=book[0].open_after,
        other_open_after={sensor_id: book.of(sensor_id).open_after for sensor_id in series},
        refused=_leave_out,
        hours=Hours(readings.timezone, config.calendar),
    )


def _read_readings(args: argparse.Namespace, config: Config, book: RuleBook) -> tuple[Collected, str]:
    """What was read, and the place it came from. Raises UserError where that cannot be trained on."""
    from detector.detection.alignment import alignment_of
    from detector.models.training.dataset import Machines, collect

    stream = config.readings.input
    collected_from = partial(
        collect,
        includes=book.watches,
        rows=args.rows,
        since=args.since,
        until=args.until,
        lateness=config.readings.window.allowed_lateness,
        machines=Machines(len(config.readings.channels), alignment_of(config.readings))
        if config.readings.machines
        else None,
    )
    if _is_topic(args, config):
        from detector.cli.topics import recorded
        from detector.service.pipelines import make_decoder
        from detector.service.schemas import topic_documents

        decoder = make_decoder(
            config, sensor=args.sensor, interval=args.interval, live=True, csv=options.csv_options(args),
            documents=topic_documents(config),
        )  # fmt: skip
        with recorded(config, decoder, since=args.since, until=args.until) as (batches, _):
            collected = collected_from(batches, decoder)
        place, cure = f"topic {stream}", "Send readings, or name their fields in readings.fields"
    else:
        from detector.streams.places import recording_file

        file = recording_file(_path(args, config), stream)
        decoder, read = file_reader(config, args, file)
        collected = collected_from(read(), decoder)
        place, cure = str(file), "Correct the file, or name its columns in readings.fields"
    _refuse_poor(collected, "records are no readings", place, cure)
    if not collected.readings:
        raise UserError("there are no readings here", where=place, todo="Give data with readings")
    if _is_topic(args, config):
        _tell_what_was_seen(collected, place)
    return collected, place


def _tell_what_was_seen(collected: Collected, place: str) -> None:
    """Of a topic nobody sees what is in it: say how many readings each sensor has, from when to when."""
    import numpy as np

    from detector.errors import counted
    from detector.reports.text import duration, span

    longest = sorted(collected.series.items(), key=lambda item: (-len(item[1][0]), item[0]))
    for sensor_id, (times, _) in longest[:_LISTED]:
        every = f", one every {duration(float(np.median(np.diff(times))))}" if len(times) > 1 else ""
        seen = f"{counted(len(times), 'reading')}, {span(int(times[0]), int(times[-1]))}{every}"
        sys.stderr.write(f"detector: {place}: {sensor_id}: {seen}\n")
    if len(longest) > _LISTED:
        sys.stderr.write(f"detector: {place}: and {counted(len(longest) - _LISTED, 'more sensor')}\n")


def _usable_sensors(collected: Collected, place: str, scaler: str, channels: Sequence[str]) -> Series:
    """The sensors that can be trained on; says on standard error what is left out or looks odd."""
    from detector.detection.profile import MIN_ROWS
    from detector.models.training.dataset import constant_sensors
    from detector.models.training.sensors import nothing_left, taken_as_missing, with_a_scale

    told = _counted(
        {
            "rejected records": collected.refused,
            "missing values": collected.missing,
            "late": collected.late,
            "duplicates": collected.duplicate,
            "held back at the end": collected.held,
        }
    )
    if told:
        _warn(f"not all of the {collected.records} records are used: {told}{_first_refusal(collected)} ({place})")
    lengths = {name: len(times) for name, (times, _) in collected.series.items()}
    never = [f"{name}{_of(lacking, channels)}" for name, lacking in collected.never.items()]
    if never and not lengths:
        raise UserError(
            f"no sensor has a value of each of its channels: those without are of {_some(never)}",
            where=place,
            todo="Correct the data, or leave these channels out of readings.channels",
        )
    if never:
        _warn(f"left out, with channels that never have a value: {_some(never)}")
    if not lengths:
        left = f"{collected.excluded} are of sensors that are not watched, {collected.outside} were cut off"
        if collected.held:
            left += f", {collected.held} are held back by readings.window.allowed_lateness"
        raise UserError(
            f"none of the {collected.readings} readings is left: {left}",
            where=place,
            todo="Look at --since, --until and readings.sensors",
        )
    usable = {name: rows for name, rows in collected.series.items() if lengths[name] >= MIN_ROWS}
    if not usable:
        longest = sorted(lengths, key=lambda name: -lengths[name])
        raise UserError(
            f"no sensor has the {MIN_ROWS} usable readings that a profile needs: "
            f"{_some([f'{name} has {lengths[name]}' for name in longest])}",
            where=place,
            todo="Give more data",
        )
    short = [f"{name} ({rows})" for name, rows in lengths.items() if name not in usable]
    if short:
        _warn(f"left out, with fewer than {MIN_ROWS} usable readings: {_some(short)}")
    flat = [
        f"{name}: all {rows} values{_of(flat, channels)} are equal"
        for name, rows, flat in constant_sensors(collected)
        if name in usable
    ]
    if flat:
        _warn(f"{_some(flat)}; any other value will look like an anomaly")
    if collected.sorted:
        _warn(f"the readings of these sensors ran backwards and were sorted by time: {_some(collected.sorted)}")
    if collected.resets:
        _warn(f"time was set back ({collected.resets} x); rows go on from the new time")
    series, refused = with_a_scale(usable, scaler)
    for sensor_id, why in refused.items():
        _leave_out(sensor_id, why)
    if sentinels := list(taken_as_missing(series, channels)):
        _warn(f"taken as missing, as the daemon will: {_some(sentinels)}")
    if not series:
        raise nothing_left()
    return series


def _leave_out(sensor_id: str, why: str) -> None:
    _warn(f"{sensor_id} is left out, its readings cannot be calibrated: {why}")


# -- frames --------------------------------------------------------------------------------------------------------


def _cameras(args: argparse.Namespace, config: Config, settings: TrainingConfig) -> Cameras:
    """The cameras to train on. Raises UserError where there is too little."""
    from detector.models.bundle.spec import TEXTBOOK_FRAMES, FrameSpec
    from detector.models.training.cameras import Cameras

    spec = (
        TEXTBOOK_FRAMES
        if args.preset
        else FrameSpec(
            image=settings.image,
            filters=settings.filters,
            units=settings.units,
            activation=settings.activation,
            scaler=settings.scaler,
        )
    )
    collected, place = _read_frames(args, config, spec.image)
    _check_frames(collected, place)
    open_after = config.frames.alerts.open_after
    return Cameras(collected.cameras, spec, open_after=(open_after.n, open_after.of))


def _read_frames(args: argparse.Namespace, config: Config, shape: tuple[int, int]) -> tuple[CollectedFrames, str]:
    """What was read, and the place it came from. Raises UserError where that cannot be read."""
    from detector.models.training.frame_dataset import collect_frames, frames_of_directory, frames_of_idx, image_files
    from detector.models.training.idx import is_idx
    from detector.streams.files import failing_as
    from detector.streams.places import default_sensor, recording_file, stream_file
    from detector.wire.frames import FrameDecoder
    from detector.wire.recording import read_recording

    if asked := str(options.csv_options(args)):
        raise UserError("frames are in no CSV file", where=asked, todo="Leave it out")
    frames = config.frames
    decoder_for = partial(FrameDecoder, shape, frames.limits)
    collected_from = partial(collect_frames, rows=args.rows, since=args.since, until=args.until)
    if _is_topic(args, config):
        from detector.streams.kafka_reader import TopicReader

        with TopicReader(config.streams.kafka, frames.input) as reader:
            collected = collected_from(reader.read(None), decoder_for(default_camera=args.sensor))
        return collected, f"topic {frames.input}"
    place = _path(args, config)
    with failing_as("read the input", place):
        images = place.is_dir() and stream_file(place, frames.input) is None and bool(image_files(place))
    if images:
        interval = _interval_of_images(args, place)
        collected = frames_of_directory(
            place, shape, frames.limits, camera=args.sensor, interval=interval, rows=args.rows
        )
        return collected, str(place)
    with failing_as("read the input", place):
        idx = place.is_file() and is_idx(place)
    if idx:
        interval = _interval_of_images(args, place)
        return frames_of_idx(place, shape, camera=args.sensor, interval=interval, rows=args.rows), str(place)
    file = recording_file(place, frames.input)
    decoder = decoder_for(default_camera=args.sensor or default_sensor(file))
    return collected_from(read_recording(file, frames.input), decoder), str(file)


def _interval_of_images(args: argparse.Namespace, place: Path) -> int:
    """Time between two images, ns: of a camera it must be known, as its budget rests on it."""
    if args.since is not None or args.until is not None:
        raise UserError(
            "images have no times that --since or --until could choose by", where=str(place), todo="Use --rows"
        )
    if args.sensor is not None and args.interval is None:
        raise UserError(
            f"images do not say how often camera {args.sensor} takes one",
            where=str(place),
            todo="Give --interval too, or leave --sensor out: every camera then warms up",
        )
    return int(args.interval or _SECOND)


def _check_frames(collected: CollectedFrames, place: str) -> None:
    """Raise UserError unless there is enough to train on; say on standard error what is left out."""
    from detector.detection.profile import MIN_ROWS
    from detector.models.training.frame_sampling import LEAST, held_back

    _refuse_poor(collected, "are no frames", place, "Give PNG or JPEG images, an IDX file, or a stream of frames")
    told = _counted(
        {
            "rejected": collected.refused,
            "not newer than the one before": collected.late,
            "resized": collected.resized,
        }
    )
    if told:
        _warn(f"of {collected.records} frames {told}{_first_refusal(collected)} ({place})")
    if collected.frames < LEAST:
        cut = f", {collected.outside} were cut off" if collected.outside else ""
        raise UserError(
            f"there are {collected.frames} frames here{cut}; training needs at least {LEAST}",
            where=place,
            todo="Give more data",
        )
    small = [
        f"{camera} ({len(times)})"
        for camera, (times, _) in collected.cameras.items()
        if camera is not None and held_back(len(times)) < MIN_ROWS
    ]
    if small:
        _warn(f"too few frames for a profile, these cameras will warm up: {_some(small)}")
    if None in collected.cameras:
        _warn("these images are of no camera (--sensor): every camera will warm up")


# -- both ----------------------------------------------------------------------------------------------------------


def _is_topic(args: argparse.Namespace, config: Config) -> bool:
    return args.data == "kafka" or (args.data is None and config.streams.backend == "kafka")


def _path(args: argparse.Namespace, config: Config) -> Path:
    return Path(args.data) if args.data else config.streams.directory.path


def _refuse_poor(collected: Collected | CollectedFrames, what: str, place: str, cure: str) -> None:
    """Raise UserError where most of the records are something else."""
    if 2 * collected.refused > collected.records:
        raise UserError(
            f"{collected.refused} of {collected.records} {what}; the first: {collected.first_refusal}",
            where=place,
            todo=cure,
        )


def _counted(left_out: dict[str, int]) -> str:
    """How many of each kind, whose names are plurals or no nouns."""
    named = {what: what.removesuffix("s") if count == 1 else what for what, count in left_out.items()}
    return ", ".join(f"{count} {named[what]}" for what, count in left_out.items() if count)


def _first_refusal(collected: Collected | CollectedFrames) -> str:
    return f"; first rejected: {collected.first_refusal}" if collected.first_refusal else ""


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more


def _of(chosen: list[int], channels: Sequence[str]) -> str:
    """Which of several channels."""
    return f" of {_some([channels[one] for one in chosen])}" if len(channels) > 1 else ""


def _warn(line: str) -> None:
    sys.stderr.write(f"detector: warning: {line}\n")
