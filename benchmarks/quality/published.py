"""Published results of rivals on the series at hand."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.quality.data import DEFAULT, NAB_CATEGORIES, VARIABLE, Source
from benchmarks.quality.scoring import Counts

_NAB_SPLITS = {58: "all", 41: "dev@global_thr", 17: "heldout@global_thr"}
"""Published NAB scores are of all files or of a part of them, known by its number of files."""


def _rows(data: Path, name: str) -> list[dict[str, str]]:
    """A table of `published/`: of the data, or of what lies beside it, since a part that was held back has none."""
    beside = (data, data.parent, Path(os.environ.get(VARIABLE) or DEFAULT))
    path = next((file for place in beside if (file := place / "published" / name).is_file()), None)
    if path is None:
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def overlap_of_rivals(data: Path, sources: Iterable[Source]) -> dict[str, dict[str, tuple[Counts, int]]]:
    """By rival and group: overlap counts summed over the series at hand, and how many of them were published."""
    wanted = {(s.category, s.name): s.group for s in sources}
    found: dict[str, dict[str, tuple[Counts, int]]] = {}
    for row in _rows(data, "orion_0.7.1_per_signal.csv"):
        group = wanted.get((row["dataset"], row["signal"]))
        if group is None:
            continue
        counts = Counts(*(int(float(row[name] or 0)) for name in ("tp", "fp", "fn")))
        groups = found.setdefault(row["pipeline"], {})
        total, files = groups.get(group, (Counts(), 0))
        groups[group] = total + counts, files + 1
    return found


def ranking_of_rivals(data: Path, names: Iterable[str]) -> dict[str, tuple[float, int]]:
    """By rival: mean VUS-PR over the files at hand, and over how many of them."""
    table = {row["file"]: row for row in _rows(data, "tsb_ad_u_per_file_VUS-PR.csv")}
    chosen = [table[name] for name in names if name in table]
    if not chosen:
        return {}
    columns = list(chosen[0])
    rivals = columns[1 : columns.index("ts_len")]
    values = {rival: [float(row[rival]) for row in chosen if row[rival]] for rival in rivals}
    return {rival: (float(np.mean(v)), len(v)) for rival, v in values.items() if v}


def nab_of_rivals(data: Path, files: int) -> tuple[str, dict[str, float]]:
    """The split of NAB that the scores are of, and the score of each rival on it."""
    column = _NAB_SPLITS.get(files, "all")
    rows = _rows(data, "nab_split_scores.csv")
    return column.partition("@")[0], {row["det"]: float(row[column]) for row in rows}


def in_nab_categories(source: Source) -> bool:
    """Whether a series counts for alerts: of NAB only some categories do."""
    return source.group != "NAB" or source.category in NAB_CATEGORIES
