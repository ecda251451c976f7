"""From the places a person names to the files of a directory backend.

A directory holds one file a stream, ``<stream>.jsonl``, ``.csv``, ``.jsonl.gz`` or ``.csv.gz``. Outputs are always
``<stream>.jsonl``. The checkpoint of a directory lies in ``.detector`` below it, that of a single output file in
``<file>.state`` beside it, with the dead letters.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from detector.errors import UserError
from detector.streams.checkpoint import CheckpointFile
from detector.streams.directory import DirectoryStreams, Encoder, InputPlace, OutputPlace
from detector.streams.files import failing_as, legible
from detector.streams.lines import Recognise

_LONGEST_SENSOR = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

STATE = ".detector"
"""The folder of a directory of streams in which the detector keeps its checkpoint."""
ENDINGS = (".jsonl", ".csv", ".jsonl.gz", ".csv.gz")


def directory_streams_for(
    directory: Path,
    *,
    inputs: Sequence[str],
    alerts: str,
    dead_letters: str,
    scores: str | None = None,
    verdicts: str | None = None,
    input_option: str | None = None,
    output_option: str | None = None,
    checkpoint_interval: float = 1.0,
    until_end: bool = False,
    fresh: bool = False,
    encoders: Mapping[str, Encoder] | None = None,
    state: str = STATE,
    writer: str | None = None,
    may_come: bool = False,
    recognisers: Mapping[str, Recognise] | None = None,
    max_records: int = 5000,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> DirectoryStreams:
    """The streams of `run`: `directory` is the configured place of everything that no option puts elsewhere.

    `input_option` is a file (the stream ``inputs[0]``; the others have no input then), a directory of streams or
    ``-``. `output_option` is a file for the alerts, a directory, or ``-``; a name that does not exist yet is a file
    if it has a suffix. With ``-`` on either side there is no checkpoint, and dead letters are lines of the log; with
    standard input, `until_end` is implied. `checkpoint_interval` is in seconds. Opens nothing.

    `state` is the folder of the checkpoint in a directory, `writer` that of the process whose output is read, where the
    inputs are outputs of one. With `may_come` a file named by option need not exist yet.

    Raises `UserError` for an input named by option that does not exist, or a place that cannot be.
    """
    sources = _inputs(directory, inputs, input_option, until_end, may_come)
    from_pipe = input_option == "-"
    sinks, state_dir = _outputs(directory, alerts, dead_letters, scores, verdicts, output_option, state)
    if from_pipe and state_dir is not None:
        _refuse_checkpoint(state_dir)
        state_dir = None
        sinks[dead_letters] = "log"
    return DirectoryStreams(
        sources,
        sinks,
        state_dir,
        checkpoint_interval,
        clock,
        max_records,
        until_end=until_end or from_pipe,
        fresh=fresh,
        encoders=encoders,
        finals=None if writer is None else finals_of(sources, writer),
        recognisers=recognisers,
        sleep=sleep,
        stdin=stdin,
        stdout=stdout,
    )


def finals_of(inputs: Mapping[str, InputPlace], writer: str) -> dict[str, list[Path]]:
    """Where the checkpoint of the process may lie whose outputs these inputs are: beside the file, or in `writer`."""
    return {
        stream: [place.with_name(f"{place.name}.state"), place.parent / writer]
        for stream, place in inputs.items()
        if isinstance(place, Path)
    }


def folders_of(data: Path) -> list[Path]:
    """Where the other streams of a detector lie whose alerts are at a place: its directory, or that of its checkpoint.

    >>> [str(one) for one in folders_of(Path("var/alerts.jsonl"))]
    ['var/alerts.jsonl.state', 'var']
    """
    return [data] if data.is_dir() else [data.with_name(f"{data.name}.state"), data.parent]


def input_file(
    directory: Path, stream: str, option: str | None, *, until_end: bool, may_come: bool = False
) -> InputPlace:
    """The place of one input, as for `directory_streams_for`. Raises `UserError`."""
    return _inputs(directory, [stream], option, until_end, may_come)[stream]


def stream_file(directory: Path, stream: str) -> Path | None:
    """The file of a stream in a directory of streams, None if there is none. Raises `UserError` if there are two."""
    with failing_as("look into the directory", directory):
        found = [path for ending in ENDINGS if (path := directory / f"{stream}{ending}").exists()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise UserError(f"one stream has several files: {names}", where=str(directory), todo="Leave one of them")
    return found[0] if found else None


def recording_file(place: Path, stream: str) -> Path:
    """The file meant by `place`, a file itself or a directory of streams. Raises `UserError` if it is missing."""
    with failing_as("look at the input", place):
        if not place.exists():
            raise UserError("the input does not exist", where=str(place), todo="Name an existing file or directory")
        if not place.is_dir():
            return place
    path = stream_file(place, stream)
    if path is None:
        raise UserError(
            f"the directory has no file of the stream {stream}",
            where=str(place),
            todo=f"Add one of {', '.join(stream + ending for ending in ENDINGS)}",
        )
    return path


def default_sensor(place: InputPlace) -> str:
    """The sensor that readings without a sensor id belong to: the file's name without suffixes, ``stdin`` for ``-``.

    What no sensor may be called is escaped (control characters, bytes that are no UTF-8), and cut to what fits.
    """
    if not isinstance(place, Path):
        return "stdin"
    name = place.name
    name = next((name[: -len(end)] for end in reversed(ENDINGS) if name.lower().endswith(end)), place.stem)
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], legible(name))[:_LONGEST_SENSOR]


def _inputs(
    directory: Path, streams: Sequence[str], option: str | None, until_end: bool, may_come: bool
) -> dict[str, InputPlace]:
    if option == "-":
        return {streams[0]: "-"}
    if option is None:
        return {stream: _expected(directory, stream) for stream in streams}
    place = Path(option)
    if may_come and not os.path.exists(option):
        return {streams[0]: place}
    if not os.path.isdir(option):
        return {streams[0]: recording_file(place, streams[0])}
    if until_end and not any(stream_file(place, stream) for stream in streams):
        return {streams[0]: recording_file(place, streams[0])}  # says what is missing
    return {stream: _expected(place, stream) for stream in streams}


def _expected(directory: Path, stream: str) -> Path:
    return stream_file(directory, stream) or directory / f"{stream}.jsonl"


def _outputs(
    directory: Path,
    alerts: str,
    dead_letters: str,
    scores: str | None,
    verdicts: str | None,
    option: str | None,
    state: str,
) -> tuple[dict[str, OutputPlace], Path | None]:
    if option == "-":
        if scores is not None:
            raise UserError(
                f"the scores ({scores}) have no place beside alerts on standard output",
                where="--output -",
                todo="Name a file or a directory, or set output.scores to null",
            )
        logged = [stream for stream in (dead_letters, verdicts) if stream is not None]
        return {alerts: "-", **dict.fromkeys(logged, "log")}, None
    place = directory if option is None else Path(option)
    named = option is not None and not option.endswith(os.sep) and (place.suffix or os.path.exists(option))
    if not named or os.path.isdir(place):
        state_dir = place / state
        beside = place
        outputs: dict[str, OutputPlace] = {alerts: place / f"{alerts}.jsonl"}
    else:
        state_dir = place.with_name(f"{place.name}.state")
        beside = state_dir
        outputs = {alerts: place}
    outputs |= {stream: beside / f"{stream}.jsonl" for stream in (dead_letters, scores, verdicts) if stream is not None}
    return outputs, state_dir


def _refuse_checkpoint(state_dir: Path) -> None:
    """Lines written without a checkpoint would be cut off by the next run that has one."""
    if CheckpointFile(state_dir).path.exists():
        raise UserError(
            "the output belongs to a run with a checkpoint, and standard input has none",
            where=str(state_dir),
            todo="Name another output, or delete this directory",
        )
