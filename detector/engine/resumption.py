"""What a pipeline goes on from when it has stored state: the journal's last word, another model, another budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import numpy as np
from msgspec import structs

from detector.arrays import I64, Bools
from detector.detection.opened import Episode, Silence
from detector.detection.table import SensorTable, Slots
from detector.detection.threshold import HORIZON
from detector.detection.warmup import WarmUp
from detector.engine.slices import unpack_entry

P = TypeVar("P")
"""A profile."""


def take_journal(table: SensorTable, journal: Mapping[str, bytes]) -> int:
    """At the end of a replay the journal decides which episodes are open; returns in how many cases it differed.

    Raises `StateError` if an entry cannot be read.
    """
    differing = 0
    for sensor_id, data in sorted(journal.items()):
        slot = table.slots.get(sensor_id)
        if slot is None:
            continue
        if not data:
            differing += _overrule(table, slot, None) + _overrule_silence(table, slot, None)
            continue
        episode, silence, position = unpack_entry(data)
        if position > table["known"][slot]:
            differing += _overrule(table, slot, episode) + _overrule_silence(table, slot, silence)
    for slot, episode in list(table.episodes.items()):
        # Opened by records that were run again, and nobody was told.
        if episode.opened_offset >= table["known"][slot] and table.name(slot) not in journal:
            differing += _overrule(table, slot, None)
    for slot, silence in list(table.silences.items()):
        if silence.opened_offset >= table["known"][slot] and table.name(slot) not in journal:
            differing += _overrule_silence(table, slot, None)
    return differing


def _overrule(table: SensorTable, slot: int, episode: Episode | None) -> bool:
    """Put the episode in place of the one a sensor has; whether it was another."""
    known = table.episodes.get(slot)
    if known == episode:
        return False
    if episode is None:
        table.set(slot, {"open": False, "muted": False, "excused": False})
        del table.episodes[slot]
    else:
        table.put_episode(slot, episode)
    return not _as_of_before(known, episode)


def _as_of_before(known: Episode | None, written: Episode | None) -> bool:
    """Whether the journal differs in nothing but what an older release did not write into it."""
    if known is None or written is None:
        return False
    unwritten = [name for name in ("until", "finding", "shown", "called") if getattr(written, name) is None]
    return bool(unwritten) and structs.replace(known, **dict.fromkeys(unwritten)) == written


def _overrule_silence(table: SensorTable, slot: int, silence: Silence | None) -> bool:
    """The same for the silent episode."""
    if table.silences.get(slot) == silence:
        return False
    if silence is None:
        del table.silences[slot]
    else:
        table.silences[slot] = silence
        table["unheard"][slot] = False
    return True


def take_model(
    table: SensorTable,
    slots: Slots,
    profiles: Mapping[str, P],
    cells_of: Callable[[int, P], dict[str, Any]],
    forget_scores: Callable[[int], None],
    unknown: Callable[[int], None],
) -> None:
    """Sensors that a new model knows from training take its profile; for the slot of any other `unknown` is called.

    `cells_of` gives the cells of a slot with a profile; `forget_scores` lets the averages of a slot start again.
    """
    for slot in slots.tolist():
        profile = profiles.get(table.name(slot))
        if profile is None:
            unknown(slot)
            continue
        forget_scores(slot)
        table.set(slot, cells_of(slot, profile))
        table.warming.pop(slot, None)
        table.relearning.pop(slot, None)


def warm_up_again(table: SensorTable, slot: int, forget_scores: Callable[[int], None]) -> None:
    """What the sensor's profile says is of no use, nor what it has collected for another."""
    forget_scores(slot)
    table.set(slot, {"live": False, "filled": 0, "wanted": 0})
    table.warming[slot] = WarmUp(table.channels)
    table.relearning.pop(slot, None)


def take_rules(table: SensorTable, numbers_of: Callable[[Collection[str]], list[int]]) -> None:
    """Which rules apply to each sensor, by number, under the present settings."""
    slots = np.fromiter(table.slots.values(), dtype=np.intp, count=len(table.slots))
    table["rules"][slots] = np.array(numbers_of(table.slots.keys()), dtype=np.int16)


def judged_otherwise(table: SensorTable, open_after: I64) -> Slots:
    """The slots whose profile is for another n-of-m than `open_after` (R, 2), by rules, has by now."""
    slots = table.occupied()
    slots = slots[table["live"][slots] & (table["rules"][slots] >= 0)]
    differs: Bools = (table["open_after"][slots] != open_after[table["rules"][slots]]).any(axis=1)
    return slots[differs]


def take_budget(table: SensorTable, budget_of: Callable[[int], float]) -> None:
    """Horizon and N follow a new budget, peaks stay, the credit starts again.

    `budget_of` gives the rows per allowed alarm of the sensor in a slot, which its rules and its median interval say.
    """
    slots = table.occupied()
    slots = slots[table["live"][slots]]
    if not len(slots):
        return
    # There are many sensors and few kinds of them.
    kind = np.unique(table["median"][slots], return_inverse=True)[1].astype(np.int64)
    if any(column.name == "rules" for column in table.columns):
        kind = (kind << 16) + table["rules"][slots]
    _, first, kind = np.unique(kind, return_index=True, return_inverse=True)
    budgets = np.array([budget_of(slot) for slot in slots[first].tolist()])[kind]
    changed = budgets != table["budget"][slots]
    for slot, budget in zip(slots[changed].tolist(), budgets[changed].tolist(), strict=True):
        horizon = HORIZON * budget
        rows = min(float(table["rows"][slot]), horizon)
        table.set(slot, {"budget": budget, "horizon": horizon, "rows": rows, "credit": 0.0})
        if slot in table.last_episodes:
            table.last_episodes[slot] = table.last_episodes[slot].without_lessons(peaks=False)
