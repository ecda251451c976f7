"""The detector in a Python program or a notebook: readings in, scored rows and alerts out, without streams or files.

It is the pipeline of `detector run`, so the same readings in the same order lead to the same alerts.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.arrays import F64
from detector.config.load import Config, FieldsConfig, load_config
from detector.engine.output import Output
from detector.errors import counted
from detector.models.bundle.bundles import Bundle, load_bundle
from detector.models.bundle.spec import READING_KINDS
from detector.models.bundle.versions import list_versions
from detector.service.pipelines import load_model, make_decoder, pipeline_factory
from detector.streams.base import Batch, Partition, Record
from detector.times import rfc3339
from detector.wire.alerts import Alert, decode_alert

Settings = Mapping[str, Any]
"""Keys of the configuration, such as `readings.warmup`, and their values."""

_AT_ONCE: Final = 10_000
"""Readings that go through the pipeline together; how many does not change results."""
_SURELY_NS: Final = 10**17
"""From here on a number is nanoseconds wherever times are read (`docs/messages.md`)."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What became of the readings that were scored, n rows, oldest first. C is the number of channels.

    `times` (n,) datetime64[ns], UTC; `values` (n, C), as given; `expected` (n, C): what the model made of the newest
    value of the window, NaN where the model was not asked (`readings.window.stride`); `scores` (n,): 1 is as bad as the
    worst of training; `judged` (n,): the n-th largest of the last m scores, by `open_after`, which opens an episode
    where it exceeds `thresholds` (n,).
    """

    times: NDArray[np.datetime64]
    values: F64
    expected: F64
    scores: F64
    judged: F64
    thresholds: F64

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, slots=True)
class Update:
    """What readings led to: `rows` that were scored, and `episodes`, the messages as `run` publishes them.

    One message opens an episode, others may update it, one closes it. `rejected` counts readings that could not be
    used, by reason; `late` and `duplicate` those that came after their time or twice.
    """

    rows: Rows
    episodes: tuple[Alert, ...]
    rejected: Mapping[str, int]
    late: int
    duplicate: int


class Detector:
    """Watches any number of sensors with one model. Not for several threads at once.

    >>> Detector.from_bundle("none")
    Traceback (most recent call last):
    detector.errors.UserError: there is no trained model (none). Run `detector train --data FILE --out none`.
    """

    def __init__(self, config: Config, bundle: Bundle) -> None:
        # Its messages are made here, so they have their plain form whatever other tools send.
        readings = config.readings.model_copy(update={"fields": FieldsConfig(), "coerce": False})
        config = config.model_copy(update={"readings": readings})
        self._config = config
        model = load_model(config, bundle.digest)
        decoder = make_decoder(config, sensor=None, interval=None, live=False)
        self._partition = Partition(readings.input, 0)
        self._pipeline = pipeline_factory(config, model, decoder, keep_rows=True)(self._partition)
        self._pipeline.begin(0)
        self._position = 0

    @classmethod
    def from_bundle(
        cls, path: str | Path, *, config: str | Path | None = None, settings: Settings | None = None
    ) -> Detector:
        """A detector without memory, with the model at `path`: a directory of versions, of which the active one is
        taken, or one version.

        `config` is a configuration file; without one, defaults count and no file is looked for. `settings` go before
        it. Channels, stride and, if nothing else is said, `open_after` are the model's. Raises UserError.
        """
        place = Path(path)
        one = (place / "manifest.json").is_file() and not list_versions(place)
        directory, version = (place.parent, place.name) if one else (place, None)
        bundle = load_bundle(directory, version, kinds=READING_KINDS)
        n, m = bundle.manifest.open_after
        own: dict[str, Any] = {"readings.channels": list(bundle.channels), "readings.window.stride": bundle.stride}
        if config is None and not any(key.startswith("readings.alerts") for key in settings or {}):
            own["readings.alerts.open_after"] = {"n": n, "of": m}
        # What is given is rows already.
        rows: dict[str, Any] = {"readings.machines": [], "readings.align": None}
        chosen = {**own, **(settings or {}), **rows, "readings.model": str(directory)}
        overrides = [f"{key}={json.dumps(value)}" for key, value in chosen.items()]
        return cls(load_config(config or os.devnull, overrides), bundle)

    def update(self, sensor_id: str, times: ArrayLike, values: ArrayLike | Mapping[str, ArrayLike]) -> Update:
        """Take in readings of one sensor, in the order in which they came, and say what they led to.

        `times` (n,): datetime64, datetimes or RFC 3339 texts (UTC where they name no zone), or numbers as in messages:
        seconds, ms, us or ns since 1970, by their size. `values`: (n,) for one channel, (n, C) or a mapping of the
        channels' names for several; NaN is a missing value. Raises ValueError for lengths that differ, an infinite
        value and a time NaT; nothing is taken then.
        """
        stamps, columns = _stamps(times), self._columns(values)
        for column in columns.values():
            if len(column) != len(stamps):
                raise ValueError(f"there are {counted(len(stamps), 'time')} and {counted(len(column), 'value')}")
        messages = list(self._messages(sensor_id, stamps, columns))
        outputs = [self._process(messages[i : i + _AT_ONCE]) for i in range(0, len(messages), _AT_ONCE)]
        return _summed(outputs, len(columns))

    def _columns(self, values: ArrayLike | Mapping[str, ArrayLike]) -> dict[str, list[float | None]]:
        """The values of each channel; None where one is missing."""
        names = self._config.readings.channels
        if isinstance(values, Mapping):
            if values.keys() != set(names):
                raise ValueError(
                    f"the model's channels are {', '.join(names)}; given are {', '.join(map(str, values))}"
                )
            table = np.stack([np.atleast_1d(np.asarray(values[name], dtype=np.float64)) for name in names], axis=-1)
        else:
            table = np.atleast_1d(np.asarray(values, dtype=np.float64))
            table = table[:, None] if table.ndim == 1 and len(names) == 1 else np.atleast_2d(table)
        if table.ndim != 2 or table.shape[1] != len(names):
            raise ValueError(
                f"the model has {counted(len(names), 'channel')} ({', '.join(names)}); values have shape {table.shape}"
            )
        if np.isinf(table).any():
            raise ValueError("a value is infinite")
        return {
            name: [None if math.isnan(value) else value for value in column]
            for name, column in zip(names, table.T.tolist(), strict=True)
        }

    def _messages(
        self, sensor_id: str, stamps: Sequence[Any], columns: Mapping[str, Sequence[float | None]]
    ) -> Iterator[bytes]:
        """Each reading as the message that `run` would get."""
        encode, names = msgspec.json.Encoder().encode, list(columns)
        for stamp, row in zip(stamps, zip(*columns.values(), strict=True), strict=True):
            reading: dict[str, Any] = {"sensor_id": sensor_id, "timestamp": stamp}
            if len(names) == 1:
                reading["value"] = row[0]
            else:
                reading["values"] = dict(zip(names, row, strict=True))
            yield encode(reading)

    def _process(self, messages: Sequence[bytes]) -> Output:
        first, self._position = self._position, self._position + len(messages)
        records = [Record(first + i, None, message) for i, message in enumerate(messages)]
        return self._pipeline.process(Batch(self._partition, records, next_offset=self._position))


def _stamps(times: ArrayLike) -> list[Any]:
    """Times as messages have them."""
    array = np.atleast_1d(np.asarray(times))
    if array.ndim != 1:
        raise ValueError(f"times have shape {array.shape}")
    if array.dtype.kind == "M":
        if np.isnat(array).any():
            raise ValueError("a time is NaT")
        ns: list[int] = array.astype("datetime64[ns]").astype(np.int64).tolist()
        return ns if ns and min(ns) >= _SURELY_NS else [rfc3339(one) for one in ns]
    stamps: list[Any] = array.tolist()
    return [one.isoformat() if hasattr(one, "isoformat") else one for one in stamps]


def _summed(outputs: Sequence[Output], channels: int) -> Update:
    blocks = [block for output in outputs for block in output.rows]
    rejected: dict[str, int] = {}
    for output in outputs:
        for reason, count in output.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count

    def joined(name: str, empty: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([empty, *(getattr(block, name) for block in blocks)])

    none, nothing = np.empty(0), np.empty((0, channels))
    return Update(
        rows=Rows(
            times=joined("times", np.empty(0, dtype=np.int64)).astype("datetime64[ns]"),
            values=joined("values", nothing),
            expected=joined("expected", nothing),
            scores=joined("scores", none),
            judged=joined("judged", none),
            thresholds=joined("thresholds", none),
        ),
        episodes=tuple(decode_alert(message.value) for output in outputs for message in output.alerts),
        rejected=rejected,
        late=sum(output.tally.late for output in outputs),
        duplicate=sum(output.tally.duplicate for output in outputs),
    )
