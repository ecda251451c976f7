"""`detector simulate`: a plant with labelled faults, as a directory of streams or on standard output."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING

from detector.cli import options
from detector.cli.atomic import atomic_write
from detector.errors import UserError, unwritable
from detector.simulation import plant as simulation
from detector.streams.places import stream_file
from detector.times import rfc3339

if TYPE_CHECKING:
    from detector.config.load import Config
    from detector.simulation.cameras import Camera


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "simulate",
        help="write the readings and frames of a simulated plant, with labelled faults",
        description="Write the readings of a simulated plant in the order of time, and where its faults are. "
        "The first part of every sensor and camera (40 %, or 2000 rows if that leaves half) has no fault: train on it.",
    )
    parser.add_argument(
        "--out",
        metavar="DIR|-|kafka",
        help="directory for the stream and labels.json, - for readings on standard output, or kafka for the topic "
        "readings.input, with labels.json in streams.directory.path (which is the default directory)",
    )
    parser.add_argument("--sensors", type=options.count, default=20, metavar="N", help="number of sensors (20)")
    parser.add_argument(
        "--rows", type=options.count, default=10_000, metavar="N", help="readings of each sensor (10000)"
    )
    parser.add_argument(
        "--rate",
        type=options.rate,
        metavar="N/s",
        help="write as it happens, with the time at which it is, N readings a second together on average",
    )
    parser.add_argument("--history", action="store_true", help="with --rate: write what training needs at once")
    parser.add_argument(
        "--faults",
        type=_faults,
        default=simulation.FAULTS,
        metavar="LIST|none",
        help=f"kinds of fault of sensors, separated by commas (all: {','.join(simulation.FAULTS)}); cameras have all "
        "of theirs, with none as little as sensors",
    )
    parser.add_argument("--cameras", type=options.count_or_none, default=0, metavar="N", help="number of cameras (0)")
    parser.add_argument("--frames", type=options.count, default=1500, metavar="N", help="frames of each camera (1500)")
    parser.add_argument(
        "--seed", type=options.count_or_none, default=0, metavar="N", help="another seed, another plant (0)"
    )


def run(args: argparse.Namespace) -> int:
    """Simulate, write, and say where it is."""
    if args.sensors * args.rows > simulation.MAX_READINGS:
        raise UserError(
            f"{args.sensors} sensors of {args.rows} rows are too many at once",
            todo=f"Ask for {simulation.MAX_READINGS} readings or fewer",
        )
    _check_cameras(args)
    plant = simulation.simulate(sensors=args.sensors, rows=args.rows, seed=args.seed, faults=args.faults)
    at_once = simulation.lines_of_history(plant) if args.history else 0
    if args.rate is not None:
        plant = simulation.told_live(plant, args.rate, time_ns(), since=at_once)
    cameras = _cameras(args, plant)
    readings, frames = args.config.readings, args.config.frames
    names = simulation.FieldNames(readings.fields.sensor_id, readings.fields.timestamp, readings.fields.value)
    lines: Iterator[bytes] = simulation.lines(plant, names)
    if args.rate is not None:
        lines = itertools.chain(
            itertools.islice(lines, at_once), simulation.paced(lines, simulation.due(plant, at_once).tolist())
        )
    if args.out == "-":
        _write_stdout(lines, live=args.rate is not None)
        return 0
    to_topic = args.out == "kafka"
    directory = args.config.streams.directory.path if args.out is None or to_topic else Path(args.out)
    stream = directory / f"{readings.input}.jsonl"
    labels = directory / "labels.json"
    known = sorted([*plant.labels, *(label for camera in cameras for label in camera.labels)], key=_start_of)
    if to_topic:
        _write_topic(args.config, labels, known, lines, live=args.rate is not None)
    else:
        eyes = (directory / f"{frames.input}.jsonl", _frame_lines(cameras)) if cameras else None
        _write_directory(stream, labels, known, lines, eyes, live=args.rate is not None)
    place = f"topic {readings.input}" if to_topic else str(stream)
    _tell(place, plant.readings, "readings", len(plant.series), "sensor", plant.series[0].healthy_rows)
    if cameras:
        if to_topic:
            _fill_frames(args.config, cameras)
        place = f"topic {frames.input}" if to_topic else str(directory / f"{frames.input}.jsonl")
        _tell(place, args.cameras * args.frames, "frames", args.cameras, "camera", cameras[0].healthy_frames)
    from detector.errors import counted

    sys.stdout.write(f"{labels}: {counted(len(known), 'fault')}\n")
    return 0


def _tell(place: str, count: int, what: str, owners: int, owner: str, healthy: int) -> None:
    part = "rows" if what == "readings" else what
    sys.stdout.write(
        f"{place}: {count} {what} of {owners} {owner}{'s' if owners != 1 else ''}, "
        f"the first {healthy} {part} of each without faults\n"
    )


def _start_of(label: simulation.Label) -> tuple[int, str]:
    return label.start, label.sensor_id


def _check_cameras(args: argparse.Namespace) -> None:
    """Raise UserError for cameras where there is no place for them, or too many at once."""
    if not args.cameras:
        return
    from detector.simulation.cameras import MAX_FRAMES

    if args.out == "-":
        raise UserError("standard output carries readings alone", where="--cameras", todo="Give a directory as --out")
    if args.rate is not None:
        raise UserError("frames are written at once", where="--rate", todo="Leave out --rate or --cameras")
    if args.cameras * args.frames > MAX_FRAMES:
        raise UserError(
            f"{args.cameras} cameras of {args.frames} frames are too many at once",
            todo=f"Ask for {MAX_FRAMES} frames or fewer",
        )


def _cameras(args: argparse.Namespace, plant: simulation.Plant) -> tuple[Camera, ...]:
    if not args.cameras:
        return ()
    from detector.simulation.cameras import simulate_cameras

    end = max(int(one.times[-1]) for one in plant.series)
    return simulate_cameras(cameras=args.cameras, frames=args.frames, end=end, seed=args.seed, faults=bool(args.faults))


def _frame_lines(cameras: tuple[Camera, ...]) -> Iterator[bytes]:
    from detector.simulation.cameras import frame_lines

    return frame_lines(cameras)


def _fill_frames(config: Config, cameras: tuple[Camera, ...]) -> None:
    """Fill the topic of the frames, keyed by camera."""
    from detector.streams.kafka_writer import ensure_topic, fill_topic

    ensure_topic(config.streams.kafka, config.frames.input)
    records = ((json.loads(line)["camera_id"].encode(), line.rstrip()) for line in _frame_lines(cameras))
    fill_topic(config.streams.kafka, config.frames.input, records, live=False)


def _write_stdout(lines: Iterable[bytes], *, live: bool) -> None:
    for line in lines:
        sys.stdout.buffer.write(line)
        if live:
            sys.stdout.buffer.flush()


def _write_directory(
    stream: Path,
    labels: Path,
    known: Sequence[simulation.Label],
    lines: Iterable[bytes],
    eyes: tuple[Path, Iterable[bytes]] | None,
    *,
    live: bool,
) -> None:
    """Write the files; `eyes`: that of the frames. What is not paced appears all at once, nobody sees half a plant."""
    others = [] if eyes is None else [stream_file(eyes[0].parent, eyes[0].stem)]
    for path in (stream_file(stream.parent, stream.stem), *others, labels):
        if path is not None and path.exists():
            raise UserError(
                "there is already something here", where=str(path), todo="Choose another --out or remove it"
            )
    try:
        stream.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(labels, [labels_json(known)])
        if eyes is not None:
            _write_whole(*eyes)
        if live:
            with stream.open("xb", buffering=0) as out:
                for line in lines:
                    out.write(line)
        else:
            _write_whole(stream, lines)
    except OSError as error:
        place = str(error.filename or stream.parent)
        raise unwritable(error, "the plant", where=place, todo="Make room, or choose another --out") from error
    finally:
        if not stream.exists():
            # What was to go with it would be in the way of the next try.
            for path in (labels, *([] if eyes is None else [eyes[0]])):
                with contextlib.suppress(OSError):
                    path.unlink()


def _write_topic(
    config: Config, labels: Path, known: Sequence[simulation.Label], lines: Iterable[bytes], *, live: bool
) -> None:
    """Fill the topic of the readings, keyed by sensor; the labels lie beside where a directory's stream would."""
    from detector.streams.kafka_writer import ensure_topic, fill_topic

    faults = labels_json(known)
    sensor_id = config.readings.fields.sensor_id
    try:
        if labels.exists() and labels.read_bytes() != faults:
            raise UserError(
                "here are the labels of another plant",
                where=str(labels),
                todo="Remove it, or set streams.directory.path",
            )
        ensure_topic(config.streams.kafka, config.readings.input)
        labels.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(labels, [faults])
    except OSError as error:
        raise UserError(
            f"cannot write the labels: {error.strerror}", where=str(labels), todo="Set streams.directory.path"
        ) from error
    records = ((json.loads(line)[sensor_id].encode(), line.rstrip()) for line in lines)
    fill_topic(config.streams.kafka, config.readings.input, records, live=live)


def _write_whole(path: Path, lines: Iterable[bytes]) -> None:
    with atomic_write(path) as part, part.open("wb") as out:
        out.writelines(lines)


def labels_json(labels: Sequence[simulation.Label]) -> bytes:
    """The faults as `--labels` of other commands reads them: sensor, first and last reading, kind."""
    rows = [
        {
            "sensor_id": label.sensor_id,
            "start": rfc3339(label.start),
            "end": rfc3339(label.end),
            "kind": label.kind,
        }
        for label in labels
    ]
    return (json.dumps(rows, indent=1) + "\n").encode()


def _faults(text: str) -> tuple[str, ...]:
    if text == "none":
        return ()
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in simulation.FAULTS:
            raise argparse.ArgumentTypeError(f"`{name}` is no fault; there are {', '.join(simulation.FAULTS)}, or none")
    return names
