"""Recorded readings for the commands that replay them: a file, a directory of streams, or the topic."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detector.cli import options
from detector.errors import UserError

if TYPE_CHECKING:
    from detector.config.load import Config
    from detector.detection.scorer import Model
    from detector.reports.backtest import BacktestResult
    from detector.reports.page import About
    from detector.reports.sampled import Sampled
    from detector.streams.base import Batch
    from detector.wire.readings import Decoder


SORT: Final = "Sort the readings of each sensor by time, oldest first"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what says which readings are meant."""
    parser.add_argument(
        "--data",
        type=options.place,
        required=True,
        metavar="PATH|kafka",
        help="a CSV or JSON lines file, a directory, or the topic readings.input",
    )
    options.add_sensor_option(parser)
    parser.add_argument(
        "--since", type=options.duration, metavar="D", help="only so much of the end of the data, e.g. 7d"
    )
    options.add_csv_options(parser)
    parser.add_argument("--until", type=options.instant, metavar="T", help="only readings before this time (RFC 3339)")


def need_readings(args: argparse.Namespace) -> None:
    """Raise UserError where readings, which alone can be replayed, are switched off."""
    if not args.config.readings.enabled:
        raise UserError(
            f"`{args.command}` replays readings, and they are switched off",
            where="readings.enabled",
            todo="Set it to true; frames cannot be replayed",
        )


@contextlib.contextmanager
def recording(args: argparse.Namespace) -> Iterator[tuple[Iterator[Batch], Decoder]]:
    """The batches of the recording and what decodes them, with the options of `add_options`. Raises DetectorError."""
    from detector.cli.replaying import replay_progress
    from detector.service.pipelines import make_decoder

    config, since, until, interval, sensor = args.config, args.since, args.until, args.interval, args.sensor
    if args.data == "kafka":
        from detector.cli.topics import recorded
        from detector.service.schemas import topic_documents

        # As live: the records have their broker's time, by which the daemon refuses readings of the future.
        decoder = make_decoder(
            config, sensor=sensor, interval=interval, live=True, csv=options.csv_options(args),
            documents=topic_documents(config),
        )  # fmt: skip
        with (
            recorded(config, decoder, since=since, until=until) as (batches, start),
            replay_progress(batches, None) as shown,
        ):
            yield shown, _ranged(decoder, start, until)
        return

    from detector.streams.places import recording_file
    from detector.streams.texts import TABLES
    from detector.wire.recording import newest_time

    decoder, read = file_reader(config, args, Path(args.data))
    start = None
    if since is not None:
        newest = newest_time(read(), decoder, until)
        start = None if newest is None else newest - since
    file = recording_file(Path(args.data), config.readings.input)
    # Of what is compressed, or is no text, offsets are those of the text within.
    end = None if file.suffix.lower() in {".gz", *TABLES} else file.stat().st_size
    with replay_progress(read(), end) as shown:
        yield shown, _ranged(decoder, start, until)


def file_reader(config: Config, args: argparse.Namespace, data: Path) -> tuple[Decoder, Callable[[], Iterator[Batch]]]:
    """What decodes a file, or that of a directory, and what reads it from its beginning. Raises DetectorError."""
    from detector.service.pipelines import make_decoder, make_recogniser
    from detector.streams.places import default_sensor, recording_file
    from detector.wire.recording import read_recording

    stream, csv = config.readings.input, options.csv_options(args)
    sensor = args.sensor or default_sensor(recording_file(data, stream))
    decoder = make_decoder(config, sensor=sensor, interval=args.interval, live=False, place=str(data), csv=csv)
    recogniser = make_recogniser(config, csv, interval=args.interval, has_sensor=True, named=args.sensor is not None)

    def read() -> Iterator[Batch]:
        return read_recording(data, stream, recogniser.header)

    return decoder, read


def widened(config: Config, args: argparse.Namespace, place: str | None, *, trained: bool = True) -> Config:
    """The configuration with the numeric columns of a CSV file as channels, where --wide says so. Raises DetectorError.

    `place` is the file, or the directory of its stream. Once there is a model (`trained`), its channels are taken, so
    that a file is read the same at each start, whatever its newest columns and rows are.
    """
    if args.wide is None:
        return config
    if place in (None, "kafka", "-"):
        raise UserError("only a CSV file has columns", where=f"--wide {args.wide}", todo="Name a file, or leave it out")
    if args.wide == "sensors":
        if len(config.readings.channels) > 1:
            raise UserError(
                f"a column is one sensor with one channel, and there are {len(config.readings.channels)}",
                where="readings.channels",
                todo="Give one channel, or --wide channels",
            )
        return config
    if trained:
        from detector.models.bundle.bundles import load_bundle

        channels = load_bundle(config.readings.model).channels
    else:
        channels = _numeric(config, args, place)
    return config.model_copy(update={"readings": config.readings.model_copy(update={"channels": channels})})


def _numeric(config: Config, args: argparse.Namespace, place: str) -> tuple[str, ...]:
    """The names of a file's numeric columns, by its first rows. Raises DetectorError."""
    from detector.service.pipelines import make_recogniser
    from detector.streams.lines import SEEN
    from detector.wire.recording import read_recording

    found: list[tuple[str, ...]] = []
    recogniser = make_recogniser(
        config, options.csv_options(args), interval=args.interval, has_sensor=True, named=args.sensor is not None
    )

    def look(header: bytes, rows: Sequence[bytes], where: str) -> bytes:
        found.append(recogniser.numeric(header, rows[:SEEN], where))
        return header

    for _ in read_recording(Path(place), config.readings.input, look):
        break
    if not found:
        raise UserError("no CSV file with rows is here", where=place, todo="Name one, or leave --wide out")
    return found[0]


def place_of(args: argparse.Namespace) -> str:
    """Where the readings came from, for a page."""
    return f"topic {args.config.readings.input}" if args.data == "kafka" else str(args.data)


def about(args: argparse.Namespace, model: Model) -> About:
    """What a page says of how it came about."""
    from detector.reports.page import About, settings_text

    return About(
        data=place_of(args),
        model=f"{model.name} {model.version}",
        channels=args.config.readings.channels,
        settings=settings_text(args.config),
    )


def refuse_records(found: BacktestResult | Sampled, place: str) -> None:
    """Raise UserError if there were no records, or most of them were something else than readings."""
    if not found.records:
        raise UserError("the recording has no readings", where=place, todo="Name one that has")
    if 2 * found.refused > found.records:
        raise UserError(
            f"{found.refused} of {found.records} records are no readings; the first: {found.first_refusal}",
            where=place,
            todo="Correct them, or name their parts in readings.fields",
        )


def refuse_poor(result: BacktestResult, place: str) -> None:
    """Raise UserError if there was nothing to replay, or something else than readings."""
    refuse_records(result, place)
    if result.disorder is not None and place != "kafka":
        raise UserError(result.disorder, where=place, todo=SORT)
    if not sum(result.readings.values()):
        raise UserError("no reading lies in the time asked for", where=place, todo="Look at --since and --until")


def _ranged(decoder: Decoder, start: int | None, until: int | None) -> Decoder:
    from detector.wire.recording import TimeRange

    return decoder if start is None and until is None else TimeRange(decoder, start, until)
