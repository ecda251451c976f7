"""What was published before: incidents, from which a lost state is made, and what people may look back at."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from detector.config.load import Config
from detector.errors import DetectorError
from detector.incidents.history import History
from detector.service.logs import event
from detector.streams.base import Batch
from detector.streams.directory import DirectoryStreams
from detector.wire.incidents import Incident, decode_incident, read_alert

TAIL_BYTES: Final = 64 << 20
"""Of a file of alerts, or of incidents, what is looked back at."""
DAYS: Final = 3
"""Of a topic."""
LONGEST_SECONDS: Final = 20.0
"""Looking back takes no longer; what is not reached is not shown."""

_log = logging.getLogger(__name__)


def recall(config: Config, files: DirectoryStreams | None, history: History, pulse: Callable[[], None]) -> None:
    """Fill the history from the files of `files`, else from the topics. What cannot be read is only not shown."""
    until = time.monotonic() + LONGEST_SECONDS
    sources: tuple[tuple[str, Callable[[bytes], None]], ...] = (
        (config.incidents.input, lambda value: history.alert(read_alert(value))),
        (config.incidents.output, lambda value: history.incident(decode_incident(value))),
    )
    for stream, take in sources:
        try:
            for value in _lines(files, stream) if files is not None else _records(config, stream):
                with suppress(ValueError):
                    take(value)
                pulse()
                if time.monotonic() > until:
                    break
        except (DetectorError, OSError) as error:
            event(_log, logging.WARNING, "history_not_read", stream=stream, error=str(error))


def _lines(files: DirectoryStreams, stream: str) -> Iterator[bytes]:
    """The last lines of a file; of the one that the beginning of these bytes is in, nothing."""
    place = {**files.inputs, **files.outputs}[stream]
    if not isinstance(place, Path) or not place.exists() or place.suffix == ".gz":
        return
    with place.open("rb") as file:
        beginning = max(0, file.seek(0, 2) - TAIL_BYTES)
        file.seek(beginning)
        if beginning:
            file.readline()
        yield from file


def _records(config: Config, stream: str) -> Iterator[bytes]:
    from detector.streams.kafka_reader import TopicReader

    # Before the first start there is nothing to look back at, and the topics may still have to be made.
    with TopicReader(config.streams.kafka, stream, may_lack=True) as reader:
        for batch in reader.read(time.time_ns() - DAYS * 86_400_000_000_000):
            yield from (record.value for record in batch.records if record.value)


def published_on_kafka(config: Config) -> Iterator[Incident]:
    """The incidents that were published so far. Raises DetectorError."""
    from detector.streams.kafka_reader import TopicReader

    with TopicReader(config.streams.kafka, config.incidents.output) as reader:
        yield from incidents_in(reader.read())


def incidents_in(batches: Iterable[Batch]) -> Iterator[Incident]:
    """The incidents of a stream; what is none is told and passed over."""
    for batch in batches:
        for record in batch.records:
            try:
                yield decode_incident(record.value or b"")
            except ValueError:
                event(_log, logging.WARNING, "no_incident", stream=batch.partition.stream, offset=record.offset)
