"""`detector feedback`: say what an alert was, and have what was said as labels."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detector.cli import options
from detector.errors import UserError

if TYPE_CHECKING:
    from detector.config.load import Config
    from detector.reports.feedback import NamedAlert
    from detector.wire.readings import Word

EXPORT: Final = "export"
_SHORTEST: Final = 4
"""Characters of an alert's id that are enough to name it, if only one begins so."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "feedback",
        help="say what an alert was: real, false, expected",
        description="Say what an alert was: a true fault (real), a false alarm (false), or something that was known "
        "beforehand (expected). The verdict is written to the stream the alert came from, and takes effect when the "
        "detector reads it. `feedback export` writes what was judged real as labels for `backtest`.",
    )
    parser.add_argument("alert", metavar="ALERT_ID|export", help="the alert_id or its beginning, or `export`")
    parser.add_argument("word", nargs="?", choices=("real", "false", "expected"), metavar="real|false|expected")
    parser.add_argument("--note", type=_text(2_000), metavar="TEXT", help="why, or what was found")
    parser.add_argument("--by", type=_text(256), metavar="NAME", help="who says so (you)")
    parser.add_argument(
        "--data",
        type=options.place,
        metavar="PATH|kafka",
        help="where the alerts are: a file, a directory of streams, or the topic output.alerts (as configured)",
    )
    parser.add_argument(
        "--input",
        type=options.place,
        metavar="PATH",
        help="the stream the alert came from, where that does not lie beside the alerts: its file or directory",
    )
    parser.add_argument("-o", "--output", metavar="FILE", default="labels.json", help="of export (labels.json)")


def run(args: argparse.Namespace) -> int:
    """Write a verdict, or the labels."""
    from detector.cli.published import default_place

    data = args.data or default_place(args.config)
    if args.alert == EXPORT:
        if args.word is not None:
            raise UserError("`export` takes no verdict", todo="Leave it out")
        return _export(data, args)
    if args.word is None:
        raise UserError("nothing is said of the alert", todo="Add one of real, false, expected")
    return _say(data, args)


def _say(data: str, args: argparse.Namespace) -> int:
    from detector.cli.published import KAFKA, alerts_at, listed, readable
    from detector.reports.feedback import alerts_named, named_alert
    from detector.wire.readings import Verdict
    from detector.wire.verdicts import encode_verdict

    with listed(data):
        found = alerts_named(readable(alerts_at(data, args.config), named_alert), args.alert, _SHORTEST)
    if len(found) > 1:
        raise UserError(f"{args.alert} may be any of {', '.join(sorted(found)[:5])}", where=data, todo="Name one")
    if not found:
        raise UserError(f"there is no alert `{args.alert}`", where=data, todo="See `detector alerts`")
    (alert,) = found.values()
    word: Word = args.word
    verdict = Verdict(alert.sensor_id, alert.alert_id, word, args.by or _user(), args.note)
    record = encode_verdict(verdict, camera=alert.kind == "frames")
    if data == KAFKA:
        from detector.streams.base import Partition
        from detector.streams.kafka_writer import append_record

        partition = Partition(alert.source.stream, alert.source.partition)
        append_record(args.config.streams.kafka, partition, alert.sensor_id.encode(), record)
        place = f"topic {partition.stream} partition {partition.number}"
    else:
        from detector.streams.appending import append_line

        path = _input_of(alert, Path(data), args.input, args.config)
        append_line(path, record)
        place = str(path)
    sys.stdout.write(f"{place}: {alert.sensor_id}, alert {alert.alert_id}: {word}\n")
    return 0


def _input_of(alert: NamedAlert, data: Path, given: str | None, config: Config) -> Path:
    """The file of the stream that an alert came from. Raises UserError."""
    from detector.streams.files import failing_as

    with failing_as("look for the input", Path(given or data)):
        return _found_input(alert, data, given, config)


def _found_input(alert: NamedAlert, data: Path, given: str | None, config: Config) -> Path:
    from detector.streams.checkpoint import CheckpointFile
    from detector.streams.places import STATE, folders_of, stream_file

    stream, folders = alert.source.stream, folders_of(data)
    states = [folder / below for folder in folders for below in ("", STATE)]
    name = next((found for at in states if (found := CheckpointFile(at).places().get(stream)) is not None), None)
    if given is not None and not Path(given).is_dir():
        path: Path | None = Path(given)
    else:
        places = [Path(given)] if given is not None else [*folders, Path(config.streams.directory.path)]
        inside = [folder for folder in places if folder.is_dir()]
        named = [folder / name for folder in inside if name is not None]
        path = next((one for one in named if one.is_file()), None)
        path = path or next((one for folder in inside if (one := stream_file(folder, stream)) is not None), None)
    if path is None or not path.is_file() or path.name != (name or path.name):
        what = stream if name is None else f"{stream} ({name})"
        raise UserError(
            f"the stream {what}, from which the alert came, is not here",
            where=str(given or data),
            todo="Name its file, or the directory it is in, with --input",
        )
    return path


def _export(data: str, args: argparse.Namespace) -> int:
    from detector.cli.atomic import atomic_write
    from detector.cli.published import alerts_at, listed, readable, verdicts_at
    from detector.errors import counted, unwritable
    from detector.reports.episodelist import Wanted, episodes_of, listed_alert
    from detector.reports.feedback import labels_json, labels_of, said_of, with_verdicts
    from detector.wire.verdicts import decode_acknowledgement

    with listed(data):
        episodes = episodes_of(readable(alerts_at(data, args.config), listed_alert), Wanted())
        said = said_of(readable(verdicts_at(data, args.config), decode_acknowledgement))
        labels = labels_of(with_verdicts(episodes, said))
    try:
        with atomic_write(Path(args.output)) as part:
            part.write_bytes(labels_json(labels))
    except OSError as error:
        raise unwritable(error, "the labels", where=args.output, todo="Make room, or name another file") from None
    sys.stdout.write(f"{args.output}: {counted(len(labels), 'label')}\n")
    return 0


def _user() -> str | None:
    """Who runs this, as the system calls them."""
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return None


def _text(most: int) -> Callable[[str], str]:
    """A text of 1 to `most` characters."""

    def text(given: str) -> str:
        if not 0 < len(given) <= most:
            raise ArgumentTypeError(f"this has {len(given)} characters; give 1 to {most}")
        return given.encode(errors="replace").decode()

    return text
