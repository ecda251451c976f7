"""The stream of scores: every scored row of every sensor, for whoever wants to plot everything.

How rows are cut into messages follows the commits, and so depends on how the records came in; the rows of a sensor,
one message after the other, do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from detector.engine.output import ScoredRows
from detector.streams.base import Message, Partition
from detector.times import MILLISECOND
from detector.wire.alerts import SensorScores, encode_scores, rounded

MAX_NUMBERS: Final = 8_000
"""Values and expected values in one message: some 100 kB. What is more goes into further messages."""


class ScoreStream:
    """Holds scored rows until a commit takes them, and writes one message a sensor then.

    `stream` is the output; `channels` are the names of the value columns. One sensor belongs to one partition.
    """

    def __init__(self, stream: str, channels: Sequence[str]) -> None:
        self._stream = stream
        self._channels = tuple(channels)
        self._most = max(1, MAX_NUMBERS // (2 * len(self._channels)))
        self._held: dict[Partition, list[ScoredRows]] = {}

    def add(self, partition: Partition, rows: Sequence[ScoredRows]) -> None:
        """Hold rows of a partition, which follow those that are held."""
        if rows:
            self._held.setdefault(partition, []).extend(rows)

    def drop(self, partition: Partition) -> None:
        """Forget what is held of a partition: whoever has it next scores the rows again."""
        self._held.pop(partition, None)

    def take(self) -> list[Message]:
        """Messages of everything that is held, which is held no longer."""
        held, self._held = self._held, {}
        return [message for rows in held.values() for message in self._messages(rows)]

    def _messages(self, parts: Sequence[ScoredRows]) -> Iterator[Message]:
        numbers: dict[str, int] = {}
        owners = [[numbers.setdefault(sensor, len(numbers)) for sensor in part.ids] for part in parts]
        owner = np.concatenate(
            [np.repeat(np.array(own, dtype=np.intp), part.counts) for own, part in zip(owners, parts, strict=True)]
        )
        order = np.argsort(owner, kind="stable")
        stamps: list[int] = (np.concatenate([part.times for part in parts])[order] // MILLISECOND).tolist()
        scores, thresholds = (
            rounded(np.concatenate(column)[order]).tolist()
            for column in ([part.scores for part in parts], [part.thresholds for part in parts])
        )
        values, expected = (
            rounded(np.concatenate(column)[order].T).tolist()
            for column in ([part.values for part in parts], [part.expected for part in parts])
        )
        ends = np.cumsum(np.bincount(owner, minlength=len(numbers)))
        begin = 0
        for sensor, end in zip(numbers, ends.tolist(), strict=True):
            for first in range(begin, end, self._most):
                part = slice(first, min(first + self._most, end))
                message = SensorScores(
                    sensor_id=sensor,
                    timestamps=stamps[part],
                    values=self._by_channel(values, part),
                    expected=self._by_channel(expected, part),
                    scores=scores[part],
                    thresholds=thresholds[part],
                )
                yield Message(self._stream, sensor.encode(), encode_scores(message))
            begin = end

    def _by_channel(self, columns: list[list[float]], part: slice) -> Any:
        """A list for one channel, an object of lists for several."""
        if len(columns) == 1:
            return columns[0][part]
        return {name: column[part] for name, column in zip(self._channels, columns, strict=True)}
