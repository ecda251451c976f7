"""The configured topic, for the commands that read or fill it without being a daemon."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detector.config.load import Config
    from detector.streams.base import Batch
    from detector.wire.readings import Decoder


@contextlib.contextmanager
def recorded(
    config: Config, decoder: Decoder, *, since: int | None, until: int | None
) -> Iterator[tuple[Iterator[Batch], int | None]]:
    """What the readings topic holds now, and the time (ns) from which on `since` wants it (None: from its beginning).

    Batches may begin earlier than that time. Raises UserError, OperationError.
    """
    from detector.streams.kafka_reader import TopicReader
    from detector.wire.recording import newest_time

    readings = config.readings
    with TopicReader(config.streams.kafka, readings.input) as reader:
        start = after = None
        if since is not None:
            start, after = reader.start_of(
                since, until, readings.window.max_future, lambda batches: newest_time(batches, decoder, until)
            )
        yield reader.read(after), start
