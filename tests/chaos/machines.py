"""Machines under fire: their tags come one channel a message, are copied under other keys, and joined into rows.

Producers key by tag, so a machine's tags may lie in different partitions; `detector rekey`, whose processes are killed
as all others are, brings them together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from detector.arrays import F64
from detector.config.load import Config
from detector.streams.base import Record
from detector.streams.kafka_reader import TopicReader
from detector.wire.documents import Rejected
from detector.wire.rekeying import Rekeying
from tests.chaos.load import Item, name_of, oddly, values_without_faults

MACHINES = 100
TAGS = "plant-tags"
"""The topic that tags come in by."""
TAG_PARTITIONS = 4
CHANNELS = ("temperature", "pressure")
KEY = "{machine}"
_HEALTHY_TICKS = 400
_APART_EVERY = 5
"""Every fifth machine has its tags in two partitions: one of them may be copied long after the other."""
_HASTY_EVERY, _HASTY_FROM = 10, 450
"""Every tenth sends twice as often from a tick on, and learns its interval again."""


def tag_of(machine: int, channel: int) -> str:
    """The id that a channel of a machine comes under."""
    return f"{name_of(machine)}/{CHANNELS[channel]}"


def settings() -> dict[str, Any]:
    """What the configuration says of them, in `readings`."""
    return {
        "channels": list(CHANNELS),
        "machines": [
            {"id": name_of(machine), "channels": {name: tag_of(machine, i) for i, name in enumerate(CHANNELS)}}
            for machine in range(MACHINES)
        ],
        "align": {"within": "2s", "fill": "last", "max_age": "10s"},
    }


def healthy_rows(machine: int, rows: int, seed: int) -> tuple[str, F64]:
    """A machine's id and (rows, channels) of healthy values like those of its tags."""
    columns = [values_without_faults(_like(machine, i), rows, seed)[1] for i in range(len(CHANNELS))]
    return name_of(machine), np.concatenate(columns, axis=1)


def _like(machine: int, channel: int) -> int:
    """The sensor of the usual load that a tag behaves as."""
    return machine + channel * MACHINES


def tag_items(seed: int, started: int) -> Iterator[Item]:
    """All records, without end: one for every tag and second of event time from `started` (epoch s) on."""
    rng = np.random.default_rng([seed, 7])
    period, length = rng.integers(500, 1500, MACHINES), rng.integers(20, 90, MACHINES)
    phase = rng.integers(0, 1500, MACHINES)
    block = 0
    while True:
        healthy = np.stack([healthy_rows(machine, 500, seed + block)[1] for machine in range(MACHINES)], axis=1)
        for row, values in enumerate(healthy):
            tick = 500 * block + row
            faulty = ((tick + phase) % period < length) & (tick > _HEALTHY_TICKS)
            kinds = np.where(faulty, (np.arange(MACHINES) + (tick + phase) // period) % 4, -1)
            for machine, kind in enumerate(kinds.tolist()):
                yield from _of_machine(machine, kind, tick, started + tick, values[machine], rng)
        block += 1


def _of_machine(
    machine: int, kind: int, tick: int, stamp: int, values: F64, rng: np.random.Generator
) -> Iterator[Item]:
    """Its tags of a second, in any order; of what is faulty one is too high, stands still or says nothing, or none
    says anything."""
    for channel in rng.permutation(len(CHANNELS)).tolist():
        ill = channel == machine % len(CHANNELS)
        if kind == 3 or (kind == 2 and ill):
            continue
        value = 50.0 if kind == 1 and ill else float(values[channel]) + 12.0 * (kind == 0 and ill)
        yield from _odd(machine, channel, stamp + channel * 0.1, f"{value:.4f}", rng.random())
        if machine % _HASTY_EVERY == _HASTY_EVERY - 1 and tick >= _HASTY_FROM:
            yield _tag(machine, channel, stamp + 0.5 + channel * 0.1, f"{value + rng.random():.4f}")


def _odd(machine: int, channel: int, stamp: float, value: str, odd: float) -> Iterator[Item]:
    if not 0.007 <= odd <= 0.02:  # else it never comes, and its last value stands for it
        yield from oddly(partial(_tag, machine, channel), stamp, value, odd)


def _tag(machine: int, channel: int, stamp: float, value: str) -> Item:
    tag = tag_of(machine, channel)
    partition = (machine + (channel if machine % _APART_EVERY == 0 else 0)) % TAG_PARTITIONS
    body = f'{{"sensor_id":"{tag}","timestamp":{stamp:.1f},"value":{value}}}'
    return Item(partition, tag.encode(), body.encode(), 1)


class Copies(NamedTuple):
    """`records`: that were copied. `wrong`: how many break each rule. `dead`: (topic, partition, offset) of what cannot
    be copied."""

    records: int = 0
    wrong: Mapping[str, int] = {}
    dead: Sequence[tuple[str, int, int]] = ()


Found = tuple[int, Record]
"""A record, with the number of its partition."""


def copies(config: Config) -> Copies:
    """Whether the topic of readings has each record of the tags once, under its machine, and a machine in one place."""
    machines = {tag: one.id for one in config.readings.machines for tag in one.channels.values()}
    keys = Rekeying(config.readings.fields, KEY, machines=machines)
    return judge_copies(keys, _records(config, TAGS), _records(config, config.readings.input))


def judge_copies(keys: Rekeying, tags: Iterable[Found], copied: Iterable[Found]) -> Copies:
    """The same of records that were read. Verdicts are no copies: people write them beside."""
    wanted: Counter[tuple[bytes, bytes]] = Counter()
    found: Counter[tuple[bytes, bytes]] = Counter()
    homes: dict[bytes, set[int]] = {}
    dead: list[tuple[str, int, int]] = []
    for partition, record in tags:
        try:
            wanted[keys.key(record), record.value or b""] += 1
        except Rejected:
            dead.append((TAGS, partition, record.offset))
    for partition, record in copied:
        key, value = record.key or b"", record.value or b""
        homes.setdefault(key, set()).add(partition)
        if b'"verdict"' not in value:
            found[key, value] += 1
    wrong = {
        "missing": (wanted - found).total(),
        "too many": (found - wanted).total(),
        "machines in two partitions": sum(len(places) > 1 for places in homes.values()),
    }
    return Copies(found.total(), wrong, dead)


def _records(config: Config, topic: str) -> Iterator[Found]:
    with TopicReader(config.streams.kafka, topic) as reader:
        for batch in reader.read():
            for record in batch.records:
                yield batch.partition.number, record
