"""What people say of alerts, for the pages of `detector incidents`: heard beside its loop, which needs none of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from detector.config.load import Config
from detector.errors import DetectorError
from detector.incidents.history import History
from detector.service.logs import event
from detector.streams.directory import DirectoryStreams
from detector.streams.places import folders_of
from detector.wire.verdicts import decode_acknowledgement

EVERY_SECONDS: Final = 2.0
"""From one look at a file to the next."""
AGAIN_SECONDS: Final = 30.0
"""After a failure."""
DAYS: Final = 3
"""Of a topic."""
_PIECE: Final = 1 << 20

_log = logging.getLogger(__name__)


@contextmanager
def verdicts_heard(config: Config, files: DirectoryStreams | None, history: History) -> Iterator[None]:
    """Meanwhile a thread tells the history of every verdict that is acknowledged."""
    stream = config.output.verdicts
    if stream is None:
        yield
        return
    over = threading.Event()

    def hear(value: bytes) -> None:
        with suppress(ValueError):
            said = decode_acknowledgement(value)
            history.verdict(said.alert_id, said.word)

    place = None if files is None else files.inputs[config.incidents.input]
    if files is None:
        follow = partial(_follow_topic, config, stream, hear, over)
    elif isinstance(place, Path):
        follow = partial(_follow_file, Tail([folder / f"{stream}.jsonl" for folder in folders_of(place)]), hear, over)
    else:
        yield
        return
    thread = threading.Thread(target=_again_and_again, args=(follow, stream, over), name="verdicts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _again_and_again(follow: Callable[[], None], stream: str, over: threading.Event) -> None:
    """Until it is over; what cannot be read is only not shown."""
    told = False
    while not over.is_set():
        try:
            follow()
        except (DetectorError, OSError) as error:
            if not told:
                told = True
                event(_log, logging.WARNING, "verdicts_not_read", stream=stream, error=str(error))
        over.wait(AGAIN_SECONDS)


def _follow_file(tail: Tail, hear: Callable[[bytes], None], over: threading.Event) -> None:
    while not over.is_set():
        for line in tail.read():
            hear(line)
        over.wait(EVERY_SECONDS)


class Tail:
    """The complete lines of the first of some files that is there, as they come; from the beginning if it is cut."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._position = 0

    def read(self) -> list[bytes]:
        """Those that were not read yet. Raises OSError."""
        path = next((path for path in self._paths if path.is_file()), None)
        if path is None:
            return []
        with path.open("rb") as file:
            if file.seek(0, 2) < self._position:
                self._position = 0
            file.seek(self._position)
            text = file.read(_PIECE)
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        return whole.splitlines()


def _follow_topic(config: Config, topic: str, hear: Callable[[bytes], None], over: threading.Event) -> None:
    from detector.streams.kafka_reader import follow_topic

    since = time.time_ns() - DAYS * 86_400_000_000_000
    for value in follow_topic(config.streams.kafka, topic, since, over.is_set):
        hear(value)
