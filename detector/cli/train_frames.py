"""`detector train --model conv`: recorded frames or images in, a new version of the frames' model out."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detector.errors import UserError

if TYPE_CHECKING:
    from detector.config.load import Config
    from detector.models.bundle.bundles import Bundle
    from detector.models.training.frame_dataset import CollectedFrames
    from detector.models.training.loop import TrainReport
    from detector.wire.frames import FrameDecoder

SECOND: Final = 10**9


def run(args: argparse.Namespace) -> int:
    """Read, train, write, and print where the version is and how well it reconstructs."""
    from detector.cli.progress import training_progress
    from detector.models.bundle.bundles import check_name
    from detector.models.bundle.spec import FrameSpec
    from detector.models.bundle.versions import activate, check_writable
    from detector.models.training.frame_building import build_frame_bundle

    config: Config = args.config
    directory = Path(args.out) if args.out else config.frames.model
    if args.name:
        check_name(args.name)
    chosen = {"epochs": args.epochs, "seed": args.seed}
    settings = config.training.model_copy(update={key: value for key, value in chosen.items() if value is not None})
    spec = FrameSpec(
        image=settings.image,
        filters=settings.filters,
        units=settings.units,
        activation=settings.activation,
        scaler=settings.scaler,
    )
    place, collected = _read(args, config, spec.image)
    _usable(collected, place)
    check_writable(directory)
    open_after = config.frames.alerts.open_after
    with training_progress(0) as (progress, _):
        bundle, report = build_frame_bundle(
            directory,
            collected.cameras,
            spec,
            settings,
            open_after=(open_after.n, open_after.of),
            created=datetime.now(UTC),
            name=args.name,
            progress=progress,
        )
    if not args.no_activate:
        activate(directory, bundle.version)
    sys.stdout.write(_report(bundle, report, active=not args.no_activate))
    return 0


def _read(args: argparse.Namespace, config: Config, shape: tuple[int, int]) -> tuple[str, CollectedFrames]:
    """The place the frames come from and what was there. Raises UserError where it cannot be trained on."""
    from detector.models.training.frame_dataset import collect_frames, frames_of_directory, frames_of_idx, image_files
    from detector.models.training.idx import is_idx
    from detector.streams.files import failing_as
    from detector.streams.places import default_sensor, recording_file, stream_file
    from detector.wire.recording import read_recording

    frames = config.frames
    if args.data == "kafka" or (args.data is None and config.streams.backend == "kafka"):
        return _read_topic(args, config, shape)
    place = Path(args.data) if args.data else config.streams.directory.path
    images = place.is_dir() and stream_file(place, frames.input) is None and bool(image_files(place))
    with failing_as("read the input", place):
        idx = place.is_file() and is_idx(place)
    if images or idx:
        interval = _interval_of_images(args, place)
        if images:
            collected = frames_of_directory(
                place, shape, frames.limits, camera=args.sensor, interval=interval, rows=args.rows
            )
        else:
            collected = frames_of_idx(place, shape, camera=args.sensor, interval=interval, rows=args.rows)
        return str(place), collected
    file = recording_file(place, frames.input)
    decoder = _decoder(args, config, shape, default_sensor(file))
    batches = read_recording(file, frames.input)
    return str(file), collect_frames(batches, decoder, rows=args.rows, since=args.since, until=args.until)


def _read_topic(args: argparse.Namespace, config: Config, shape: tuple[int, int]) -> tuple[str, CollectedFrames]:
    from detector.models.training.frame_dataset import collect_frames
    from detector.streams.kafka_reader import TopicReader

    decoder = _decoder(args, config, shape, None)
    with TopicReader(config.streams.kafka, config.frames.input) as reader:
        collected = collect_frames(reader.read(None), decoder, rows=args.rows, since=args.since, until=args.until)
    return f"topic {config.frames.input}", collected


def _decoder(args: argparse.Namespace, config: Config, shape: tuple[int, int], camera: str | None) -> FrameDecoder:
    from detector.wire.frames import FrameDecoder

    return FrameDecoder(shape, config.frames.limits, default_camera=args.sensor or camera)


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
    return int(args.interval or SECOND)


def _usable(collected: CollectedFrames, place: str) -> None:
    """Raise UserError unless there is enough to train on; say on standard error what is left out."""
    from detector.detection.profile import MIN_ROWS
    from detector.models.training.frame_sampling import LEAST, held_back

    if 2 * collected.refused > collected.records:
        raise UserError(
            f"{collected.refused} of {collected.records} are no frames; the first: {collected.first_refusal}",
            where=place,
            todo="Give PNG or JPEG images, an IDX file, or a stream of frames",
        )
    left_out = {
        "rejected": collected.refused,
        "not newer than the one before": collected.late,
        "resized": collected.resized,
    }
    told = ", ".join(f"{count} {what}" for what, count in left_out.items() if count)
    if told:
        first = f"; first rejected: {collected.first_refusal}" if collected.first_refusal else ""
        _warn(f"of {collected.records} frames {told}{first} ({place})")
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
        _warn(f"too few frames for a profile, these cameras will warm up: {', '.join(small[:5])}")
    if None in collected.cameras:
        _warn("these images are of no camera (--sensor): every camera will warm up")


def _warn(line: str) -> None:
    sys.stderr.write(f"detector: warning: {line}\n")


def _report(bundle: Bundle, report: TrainReport, *, active: bool) -> str:
    """The path on the first line, then what was trained on and the errors."""
    from detector.cli.train import error_table

    training = bundle.manifest.training
    span = f" from {training['from']} to {training['to']}" if training["from"] else ""
    cameras = f"{report.sensors} camera{'' if report.sensors == 1 else 's'}, " if report.sensors else ""
    head = (
        f"{cameras}{report.rows} frames of {bundle.image}{span}; {report.epochs} epochs, {report.steps} steps, "
        f"{report.seconds:.1f} s; {'active' if active else 'not active'}"
    )
    return "\n".join([str(bundle.path), head, *error_table(report, "frames")]) + "\n"
