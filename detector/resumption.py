"""What a pipeline goes on from when it has stored state: the journal's last word, another model, another budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from detector.journal import unpack_entry
from detector.state import Episode, SensorTable, WarmUp
from detector.threshold import HORIZON

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
            differing += _overrule(table, slot, None)
            continue
        episode, position = unpack_entry(data)
        if position > table["known"][slot]:
            differing += _overrule(table, slot, episode)
    for slot, episode in list(table.episodes.items()):
        # Opened by records that were run again, and nobody was told.
        if episode.opened_offset >= table["known"][slot] and table.name(slot) not in journal:
            differing += _overrule(table, slot, None)
    return differing


def _overrule(table: SensorTable, slot: int, episode: Episode | None) -> bool:
    """Put the episode in place of the one a sensor has; whether it was another."""
    if table.episodes.get(slot) == episode:
        return False
    table["open"][slot] = episode is not None
    if episode is None:
        del table.episodes[slot]
    else:
        table.episodes[slot] = episode
    return True


def take_model(
    table: SensorTable,
    profiles: Mapping[str, P],
    cells_of: Callable[[P], dict[str, Any]],
    forget_scores: Callable[[int], None],
) -> None:
    """Sensors that a new model knows from training take its profile; the others warm up anew.

    `cells_of` gives the cells of a profile; `forget_scores` lets the averages of a slot start anew.
    """
    for slot in table.occupied().tolist():
        forget_scores(slot)
        profile = profiles.get(table.name(slot))
        if profile is not None:
            table.set(slot, cells_of(profile))
            table.warming.pop(slot, None)
        else:
            table.set(slot, {"live": False})
            table.warming[slot] = WarmUp(table.channels)


def take_budget(table: SensorTable, budget_of: Callable[[int], float]) -> None:
    """Horizon and N follow a new budget, peaks stay, the credit starts anew.

    `budget_of` gives the rows per allowed alarm for a median interval (ns).
    """
    slots = table.occupied()
    for slot in slots[table["live"][slots]].tolist():
        budget = budget_of(int(table["median"][slot]))
        if budget != table["budget"][slot]:
            horizon = HORIZON * budget
            rows = min(float(table["rows"][slot]), horizon)
            table.set(slot, {"budget": budget, "horizon": horizon, "rows": rows, "credit": 0.0})
