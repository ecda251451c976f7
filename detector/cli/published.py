"""What a detector has published, for the commands that list it: alerts, and what people said of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detector.errors import UserError, in_brief

if TYPE_CHECKING:
    from detector.config.load import Config

KAFKA: Final = "kafka"


def default_place(config: Config) -> str:
    """Where the configured detector publishes: `kafka`, or its directory of streams."""
    return KAFKA if config.streams.backend == KAFKA else str(config.streams.directory.path)


def alerts_at(data: str, config: Config) -> Iterator[bytes]:
    """The messages at a place: a file of alerts, a directory of streams, `kafka`. Raises UserError, OperationError."""
    if data == KAFKA:
        yield from _of_topic(config, config.output.alerts)
        return
    path = Path(data)
    try:
        if path.is_dir():
            path /= f"{config.output.alerts}.jsonl"
        yield from _lines(path)
    except OSError as error:
        raise UserError(
            f"cannot read the alerts: {error.strerror}", where=str(path), todo="Name a file of alerts"
        ) from None


def verdicts_at(data: str, config: Config) -> Iterator[bytes]:
    """What acknowledges the verdicts on these alerts; nothing where there is no such stream."""
    stream = config.output.verdicts
    if stream is None:
        return
    if data == KAFKA:
        from detector.streams.kafka.clients import connection_settings
        from detector.streams.kafka_reader import admin_of, partitions_of, told_by_name

        kafka = config.streams.kafka
        with told_by_name(kafka, stream), admin_of(kafka, connection_settings(kafka)) as admin:
            there = partitions_of(admin, kafka, stream) is not None
        if there:
            yield from _of_topic(config, stream)
        return
    from detector.streams.places import folders_of

    beside = [folder / f"{stream}.jsonl" for folder in folders_of(Path(data))]
    for path in beside:
        with contextlib.suppress(FileNotFoundError):
            yield from _lines(path)
            return


@contextlib.contextmanager
def listed(data: str) -> Iterator[None]:
    """Turn what is wrong with a message into an error that names the place."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"this is no stream of alerts: {in_brief(error)}", where=data, todo="Give a file of alerts"
        ) from None


def _of_topic(config: Config, topic: str) -> Iterator[bytes]:
    from detector.streams.kafka_reader import TopicReader

    with TopicReader(config.streams.kafka, topic) as reader:
        for batch in reader.read(None):
            yield from (record.value for record in batch.records if record.value is not None)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        # A line without its end is being written.
        yield from (line for line in file if line.strip() and line.endswith(b"\n"))
