"""Under another model: a sensor it does not know keeps its profile until the model has seen enough of its readings.

What a profile says of the reconstruction holds for the model it was made with. So that signal is *mute* from the switch
on: it has no maximum, does not count, and of the other signals their own largest deviation is the measure. The sensor
is judged by those meanwhile. As many readings are collected as a warm-up takes, and the one that completes them builds
the profile again, by the same function, with the model of then. Readings of an episode are not collected: a fault at
the time of a switch does not become the normal case. The episode goes on under its id.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from detector.detection.block import Block
from detector.detection.episodes import Closing, Opening
from detector.detection.profile import Carry
from detector.detection.signals import WINDOW
from detector.detection.table import SensorTable, Slots
from detector.detection.views import several
from detector.detection.warmup import WarmUp
from detector.detection.windows import WindowRows, window_of
from detector.engine.alertwriter import BACK_DATE


def keep_profile(table: SensorTable, slot: int) -> None:
    """The present model does not know the sensor in this slot: it keeps its profile, and is mute where that is void.

    One that is mute already goes on collecting: its profile will be made with the newest model in any case.
    """
    if several(table.channels) and not np.isnan(table["typical"][slot]).any():
        table["typical"][slot, table.channels] = np.inf  # see views.py
    else:
        table["worst"][slot, table.channels] = np.inf
    if np.isfinite(others := table["worst_zz_of_others"][slot]):  # state of before has none
        table["worst_zz"][slot] = others
    table.relearning.setdefault(slot, WarmUp(table.channels))


def split(table: SensorTable, rows: WindowRows, warmup: int) -> tuple[WindowRows, WindowRows | None]:
    """Rows in which no collection can become complete but with a sensor's last one, and what comes after them."""
    if not len(rows.slots) or _most(table) + int((rows.last - rows.first).max()) <= warmup:
        return rows, None
    now = np.ones(len(rows.times), dtype=bool)
    for slot, first, last in zip(rows.slots.tolist(), rows.first.tolist(), rows.last.tolist(), strict=True):
        if (collected := table.relearning.get(slot)) is not None:
            now[first + warmup - collected.count : last] = False
    return (rows, None) if now.all() else (rows.only(now), rows.only(~now))


def complete(table: SensorTable, slots: Slots, warmup: int) -> list[int]:
    """Those of the slots whose collection is complete."""
    if _most(table) < warmup:
        return []
    collected = [(slot, table.relearning.get(slot)) for slot in slots.tolist()]
    return [slot for slot, one in collected if one is not None and one.count >= warmup]


def _most(table: SensorTable) -> float:
    """The readings of the sensor that has collected most."""
    return max((one.count for one in table.relearning.values()), default=-np.inf)


def collect(
    table: SensorTable, block: Block, transitions: Sequence[Opening | Closing], open_before: Collection[int]
) -> None:
    """Collect the rows of a block that lie in no episode: those that complete no window, then those that do.

    `open_before`: the slots with an open episode before the block; `transitions`: what episodes do in it. When one
    opens, the rows just before it turn out to belong to it, too.
    """
    relearning = table.relearning
    by_sensor: dict[int, list[Opening | Closing]] = {}
    for transition in transitions:
        by_sensor.setdefault(transition.at, []).append(transition)
    times, values = block.times, block.marked
    first_rows = block.first.tolist()
    for at, (slot, first, end) in enumerate(zip(block.slots.tolist(), first_rows, first_rows[1:], strict=False)):
        collected = relearning.get(slot)
        if collected is None:
            continue
        begin = end if slot in open_before else first
        if begin == first and len(block.filling):
            mine = block.filling[block.filling_owner == at]
            collected.extend(block.rows.times[mine], block.marked_rows(mine))
        for transition in by_sensor.get(at, ()):
            row = first + transition.tick
            begin = min(begin, row)
            if isinstance(transition, Opening):
                collected.extend(times[begin:row], values[begin:row])
                collected.drop_last(BACK_DATE)
                begin = end
        if end - begin == 1:
            collected.append(times[begin], values[begin])
        elif begin < end:
            collected.extend(times[begin:end], values[begin:end])


def moving_cells(carry: Carry, last_scores: int) -> dict[str, Any]:
    """The moving state at the end of the readings a profile was built of, where `last_scores` = m of n-of-m."""
    return {
        "prediction": carry.prediction,
        "level": carry.level,
        "relation": carry.relation,
        "drift_quick": carry.drift_quick,
        "drift_slow": carry.drift_slow,
        "noise_quick": carry.noise_quick,
        "noise_slow": carry.noise_slow,
        "recent": carry.recent_u[len(carry.recent_u) - (last_scores - 1) :],
        "held_error": carry.held_error,
        "completions": carry.completions,
    }


def unbroken(table: SensorTable, slot: int, collected: WarmUp) -> bool:
    """Whether the sensor's last 100 rows completed windows and were collected, all of those that were not filled in."""
    if table["completions"][slot] < WINDOW:
        return False
    times, _, imputed = window_of(table, slot)
    real = times[~imputed]
    return bool(np.array_equal(collected.times[-len(real) :], real))
