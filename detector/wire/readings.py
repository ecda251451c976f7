"""What decoding yields: readings in columns, verdicts, and a reason for every record that is not (wholly) either."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol, get_args

import numpy as np

from detector.arrays import F64, I64, Bools, floats, in_any_channel, integers
from detector.streams.base import Batch, Record
from detector.streams.lines import MAX_LINE
from detector.times import EARLIEST, LATEST, OK, OUT_OF_RANGE, instants, rfc3339

Reason = Literal[
    "empty",  # no value, no text, or a list without readings
    "malformed",  # not UTF-8, not JSON, not the shape of a reading; a CSV row with other columns than the header
    "missing_sensor_id",  # neither in the message nor as the record's key
    "bad_sensor_id",  # not text, empty, longer than 256 characters, or with control characters
    "bad_timestamp",  # neither RFC 3339 nor an epoch number
    "timestamp_out_of_range",  # outside the years 2000 to 2100
    "timestamp_in_future",  # later than the broker's timestamp by more than `max_future`
    "bad_value",  # neither a finite number nor null
    "value_out_of_range",  # a number beyond 1e150, whose square a float cannot hold
    "channel_mismatch",  # other channels than the configured ones
    "length_mismatch",  # lists of unequal length
    "internal",  # the program could not deal with the record: its log says why
    "too_many_sensors",  # a new sensor beyond `readings.sensors.max`
    "line_too_long",  # a line of a file of which only the beginning was handed out
    "bad_verdict",  # not on an alert that the sensor remembers, or with another word than there are
]
FrameReason = Literal[
    "damaged",  # an image that ends early or cannot be decoded
    "too_many_bytes",  # a frame above `frames.limits.bytes`; a record that `detector rekey` cannot copy
    "too_many_pixels",  # a frame above `frames.limits.pixels`, known before it is decoded
    "shape_mismatch",  # raw pixels of another length than their shape and type say
]
"""Of frames and copies alone, which are rejected for most of the reasons above as well."""
Word = Literal["real", "false", "expected"]
"""What a person may say of an alert."""
REASONS: Final[frozenset[str]] = frozenset(get_args(Reason))

INTERNAL: Final = "the program could not deal with this record; its log has the traceback"
"""What is said of a reject of that reason."""
TOO_MANY: Final = "every place of readings.sensors.max is taken by a sensor with a profile"
EXEMPT: Final = frozenset({"too_many_sensors", "bad_verdict"})
"""Reasons that say nothing of the records: they do not count towards `rejects.max_share`."""
MAX_SENSOR_ID: Final = 256
MAX_VALUE: Final = 1e150
"""No value may be larger, so that squares and their sums stay finite. No sensor has such values."""
LINE_TOO_LONG: Final = f"the line has more than {MAX_LINE} bytes"
PORTION: Final = 4_000
_MILLISECOND: Final = 1_000_000


class Reject(NamedTuple):
    """Why a record, or a part of it, holds no readings.

    `record` is its index in the batch; `elements` are the indices of the rejected readings within the message, None
    where nothing of the message was accepted. `reason` and `message` are those of the first rejected reading.
    """

    record: int
    reason: Reason | FrameReason
    message: str
    elements: list[int] | None


class Verdict(NamedTuple):
    """What was said of the alert of a sensor, or camera; by whom, and why, where that was said."""

    sensor_id: str
    alert_id: str
    word: Word
    by: str | None = None
    note: str | None = None


@dataclass(slots=True)
class Readings:
    """The readings of one batch in arrival order, n of them in r runs.

    A run holds the readings of one sensor that follow each other in one record. A missing value is NaN.
    """

    ids: list[str]
    """(r,) the sensor of each run."""
    counts: I64
    """(r,) readings in each run, at least 1."""
    records: I64
    """(r,) index of each run's record in the batch."""
    elements: I64
    """(n,) index of each reading within its message."""
    times: I64
    """(n,) ns since the epoch."""
    values: F64
    """(n, channels), C-contiguous."""
    rejects: list[Reject]
    """At most one a record, in the order of the records."""
    channels: I64 | None = None
    """(r,) of a machine that has several channels, the one each run is of; -1: its tag is in no machine. None: all."""
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    """Those among the records, by their index in the batch, ascending."""

    def __len__(self) -> int:
        return len(self.times)

    def sensor_of(self, index: int) -> str:
        """The sensor of one reading."""
        return self.ids[int(np.searchsorted(np.cumsum(self.counts), index, side="right"))]

    def only(self, kept: Bools) -> Readings:
        """Some of the readings (n,), with all rejects."""
        runs = np.repeat(np.arange(len(self.ids)), self.counts)
        counts = np.bincount(runs[kept], minlength=len(self.ids))
        left = np.flatnonzero(counts)
        return Readings(
            ids=[self.ids[run] for run in left.tolist()],
            counts=counts[left],
            records=self.records[left],
            elements=self.elements[kept],
            times=self.times[kept],
            values=self.values[kept],
            rejects=self.rejects,
            channels=None if self.channels is None else self.channels[left],
            verdicts=self.verdicts,
        )


class Decoder(Protocol):
    """Turns a batch of records into readings."""

    def decode(self, batch: Batch) -> Readings:
        """Decode every record of the batch."""
        ...


class Problem(NamedTuple):
    """One rejected reading, or with `element` None a whole rejected message."""

    record: int
    element: int | None
    reason: Reason
    message: str


class Draft:
    """Readings under way, in arrival order.

    Python's numbers are turned into arrays in portions, while they are still in the processor's cache.
    """

    __slots__ = (
        "_bad",
        "_done",
        "_pieces",
        "channels",
        "columns",
        "counts",
        "firsts",
        "ids",
        "problems",
        "records",
        "times",
        "verdicts",
    )

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.ids: list[str] = []
        self.counts: list[int] = []
        self.records: list[int] = []
        self.firsts: list[int] = []
        """The element index with which each run begins."""
        self.times: list[str | int | float] = []
        """Of the readings since the last portion, as they came."""
        self.columns: list[list[float | None]] = [[] for _ in range(channels)]
        """Likewise the values, one list a channel."""
        self.problems: list[Problem] = []
        self.verdicts: dict[int, Verdict] = {}
        """By record."""
        self._pieces: list[tuple[I64, Bools, F64]] = []
        self._bad: list[tuple[int, Reason, str]] = []
        self._done = 0

    def add(
        self, record: int, element: int, sensor: str, time: str | int | float, values: Sequence[float | None]
    ) -> None:
        """Append one reading; it joins the last run where it continues that."""
        ids = self.ids
        if ids and self.records[-1] == record and ids[-1] == sensor and self.firsts[-1] + self.counts[-1] == element:
            self.counts[-1] += 1
        else:
            self.add_run(record, element, sensor, 1)
        self.times.append(time)
        for column, value in zip(self.columns, values, strict=True):
            column.append(value)

    def add_run(self, record: int, first: int, sensor: str, count: int) -> None:
        """Begin a run. The caller appends its `count` times and values."""
        if len(self.times) >= PORTION:
            self._convert()
        self.ids.append(sensor)
        self.counts.append(count)
        self.records.append(record)
        self.firsts.append(first)

    def reject(self, record: int, element: int | None, reason: Reason, message: str) -> None:
        """Note that a reading, or with `element` None the whole message, is not among the readings."""
        self.problems.append(Problem(record, element, reason, message))

    def _convert(self) -> None:
        times, codes = instants(self.times)
        good = codes == OK
        if not good.all():
            for index in np.flatnonzero(~good).tolist():
                self._bad.append((self._done + index, *explain_time(self.times[index], int(codes[index]))))
        values = np.column_stack([floats(column) for column in self.columns])
        self._pieces.append((times, good, values))
        self._done += len(times)
        self.times = []
        self.columns = [[] for _ in range(self.channels)]

    def finish(self, batch: Sequence[Record], max_future: int | None) -> Readings:
        """Put everything into columns, without the readings whose time is bad. `max_future` is in ns."""
        self._convert()
        times, good, values = (np.concatenate(pieces) for pieces in zip(*self._pieces, strict=True))
        ids = self.ids
        counts = np.array(self.counts, dtype=np.int64)
        records = np.array(self.records, dtype=np.int64)
        firsts = np.array(self.firsts, dtype=np.int64)
        elements = np.arange(len(times)) - np.repeat(np.cumsum(counts) - counts - firsts, counts)
        late = too_far_ahead(batch, records, counts, times, max_future)
        if late is not None and (late := late & good).any():
            for index in np.flatnonzero(late).tolist():
                message = f"timestamp {rfc3339(times[index])} is further beyond the record's than max_future allows"
                self._bad.append((index, "timestamp_in_future", message))
            good &= ~late
        wild = out_of_range(values) & good
        if wild.any():
            for index in np.flatnonzero(wild).tolist():
                largest = values[index][np.nanargmax(np.abs(values[index]))]
                self._bad.append((index, "value_out_of_range", f"value {show(float(largest))} is beyond {MAX_VALUE:g}"))
            good &= ~wild
        if self._bad:
            runs = np.repeat(np.arange(len(counts)), counts)
            for index, reason, message in self._bad:
                self.reject(self.records[runs[index]], int(elements[index]), reason, message)
            counts = np.bincount(runs[good], minlength=len(counts))
            kept = counts > 0
            ids = [sensor for sensor, keep in zip(ids, kept.tolist(), strict=True) if keep]
            counts, records = counts[kept], records[kept]
            elements, times, values = elements[good], times[good], values[good]
        rejects = _summarize(self.problems, set(records.tolist())) if self.problems else []
        values = np.ascontiguousarray(values)
        return Readings(ids, counts, records, elements, times, values, rejects, verdicts=self.verdicts)


def out_of_range(values: F64) -> Bools:
    """(n,) in which rows of values (n, channels) one is larger than `MAX_VALUE`; NaN is not."""
    return in_any_channel(np.abs(values) > MAX_VALUE)


def too_far_ahead(
    batch: Sequence[Record],
    records: I64,
    counts: I64,
    times: I64,
    max_future: int | None,
) -> Bools | None:
    """(n,) which times lie more than `max_future` ns beyond their record's own timestamp; None where nothing limits.

    `records` (r,) are the records of the runs, `counts` (r,) the times in each.
    """
    if max_future is None:
        return None
    stamps = [record.timestamp for record in batch]
    if stamps.count(None) == len(stamps):
        return None
    # What lies beyond LATEST limits nothing, so it may be cut there.
    limit = LATEST // _MILLISECOND
    try:
        known = np.minimum(integers(stamps), limit)
    except TypeError:  # some have none, or one that is no time
        known = np.array([limit if stamp is None else min(stamp, limit) for stamp in stamps], dtype=np.int64)
    known[known < EARLIEST // _MILLISECOND] = limit  # see `plausible`
    return times > np.repeat((known * _MILLISECOND + min(max_future, LATEST))[records], counts)


def plausible(stamp: int | None) -> int | None:
    """A record's own timestamp (ms); None if there is none or it lies before the year 2000.

    A broker says -1 for no timestamp. Some producers leave 0, or write seconds.
    """
    return None if stamp is None or stamp * _MILLISECOND < EARLIEST else stamp


def explain_time(raw: str | int | float, code: int) -> tuple[Reason, str]:
    """The reason and the words for a timestamp that is not `OK`."""
    if code == OUT_OF_RANGE:
        years = f"{rfc3339(EARLIEST)[:4]} to {rfc3339(LATEST)[:4]}"
        return "timestamp_out_of_range", f"timestamp {show(raw)} lies outside the years {years}"
    return "bad_timestamp", f"timestamp {show(raw)} is neither RFC 3339 nor an epoch number"


def is_sensor_id(text: str) -> bool:
    r"""Whether a sensor may be called this: 1 to 256 characters, no control characters, no halves of characters.

    >>> is_sensor_id("pump 1"), is_sensor_id("pump\t1"), is_sensor_id("")
    (True, False, False)
    """
    if not 0 < len(text) <= MAX_SENSOR_ID:
        return False
    return text.isprintable() or not any(
        char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" for char in text
    )


def show(raw: object) -> str:
    """A value of a message, short enough for one line and free of what disturbs one."""
    if isinstance(raw, list | dict):
        return kind_of(raw)
    text = raw if isinstance(raw, str) else json.dumps(raw)
    text = text[:40] + "…" if len(text) > 41 else text
    return "`" + "".join(char if char.isprintable() else "?" for char in text) + "`"


def kind_of(value: object) -> str:
    """What kind of JSON value this is, in words."""
    kinds = {type(None): "null", bool: "a boolean", str: "text", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")


def _summarize(problems: list[Problem], accepted: set[int]) -> list[Reject]:
    """One reject a record, from the first of its problems."""
    by_record: dict[int, list[Problem]] = {}
    for problem in problems:
        by_record.setdefault(problem.record, []).append(problem)
    rejects = []
    for record, found in sorted(by_record.items()):
        found.sort(key=lambda problem: -1 if problem.element is None else problem.element)
        elements = [problem.element for problem in found if problem.element is not None]
        first = found[0]
        whole = record not in accepted
        message = first.message
        if not whole or len(elements) > 1:
            message = f"reading {first.element}: {message}"
        rejects.append(Reject(record, first.reason, message, None if whole else elements))
    return rejects
