"""The labelled series of a data directory. Nothing here depends on which series there are.

Layout:
- `nab/data/<category>/*.csv`, with `nab/labels/windows_row_index.json`
- `smap_msl/<spacecraft>/<channel>.train.csv.gz` and `.test.csv.gz`
- `ucr/<number>_UCR_Anomaly_<name>_<trainEnd>_<start>_<end>.csv.gz`
- `tsb_ad_u/<index>_<source>_*_tr_<trainEnd>_1st_*.csv.gz`
- `multichannel/<machine>.train.csv.gz` and `.test.csv.gz`, of many channels: `machine-*` is SMD, `omi-*` is ASD
- `published/`, results of others
"""

from __future__ import annotations

import fnmatch
import gzip
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.arrays import F64, Bools
from detector.errors import UserError

Interval = tuple[int, int]
"""First and last row, both included."""

VARIABLE = "DETECTOR_DATASETS"
DEFAULT = Path("../shared/datasets")
SOURCES = (
    "github.com/numenta/NAB, github.com/khundman/telemanom, wu.renjie.im (UCR Anomaly Archive), thedatum.org (TSB-AD), "
    "github.com/NetManAIOps/OmniAnomaly (SMD), github.com/zhhlee/InterFusion (ASD)"
)
NAB_CATEGORIES = ("artificialWithAnomaly", "realAdExchange", "realAWSCloudwatch", "realTraffic", "realTweets")
"""The categories that the published overlap counts cover."""
PROBATION_SHARE, PROBATION_LIMIT = 0.15, 750


@dataclass(frozen=True, slots=True)
class Source:
    """Where a series lies. `name`: as published results have it; `group`: NAB, SMAP, MSL, UCR, TSB-AD-U, SMD or ASD."""

    group: str
    name: str
    category: str
    files: tuple[Path, ...]
    train_rows: int | None
    windows: tuple[Interval, ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """One series: values (L,), of a machine (L, C), the number of training rows, and where labels say it is wrong."""

    source: Source
    values: F64
    train_rows: int
    intervals: tuple[Interval, ...]

    @property
    def labels(self) -> Bools:
        """Whether each row is within a labelled interval (L,)."""
        marked = np.zeros(len(self.values), dtype=bool)
        for first, last in self.intervals:
            marked[first : last + 1] = True
        return marked


def find_data(given: str | None) -> Path:
    """The data directory: the one given, else $DETECTOR_DATASETS, else beside the project. Raises UserError."""
    path = Path(given or os.environ.get(VARIABLE) or DEFAULT)
    if not any((path / folder).is_dir() for folder in ("nab", "smap_msl", "ucr", "tsb_ad_u", "multichannel")):
        raise UserError(
            "there are no labelled series here", where=str(path),
            todo=f"Give their directory with --data or ${VARIABLE}; their public sources are {SOURCES}",
        )  # fmt: skip
    return path


def find_sources(data: Path, group: str, glob: str | None = None) -> list[Source]:
    """The series of one group, by name; `glob` chooses by file or series name."""
    found = _FINDERS[group](data)
    if glob is not None:
        found = [s for s in found if any(fnmatch.fnmatch(n, glob) for n in (s.name, *(f.name for f in s.files)))]
    return sorted(found, key=lambda source: source.name)


def load(source: Source) -> Series:
    """Read a series. Raises UserError where a file is not what its name says."""
    parts = [_columns(path) for path in source.files]
    values = np.concatenate([part[0] for part in parts])
    if source.group == "NAB":
        probation = int(min(PROBATION_SHARE * len(values), PROBATION_LIMIT))
        return Series(source, values, probation, source.windows)
    train = len(parts[0][0]) if source.train_rows is None else source.train_rows
    labels = np.concatenate([np.zeros(len(part[0])) if part[1] is None else part[1] for part in parts])
    return Series(source, values, train, runs(labels > 0))


def runs(marked: Bools) -> tuple[Interval, ...]:
    """The runs of True as intervals of rows."""
    edges = np.diff(np.concatenate([[0], marked.astype(np.int8), [0]]))
    first, after = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return tuple((int(a), int(b) - 1) for a, b in zip(first, after, strict=True))


def _columns(path: Path) -> tuple[F64, F64 | None]:
    """The values and the `label` column of a CSV file: the column `value`, or all that are no label of a machine."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
            header = stream.readline().strip().lower().split(",")
            single = next((name for name in ("data", "value") if name in header), None)
            names = [single] if single else [name for name in header if re.fullmatch(r"c\d+", name)]
            if not names:
                raise ValueError("neither `value` nor `c00`, `c01`, ...")
            used = [*names, "label"] if "label" in header else names
            table = np.loadtxt(stream, delimiter=",", usecols=[header.index(name) for name in used], ndmin=2)
    except (OSError, ValueError) as error:
        what = f"this is no series: {error}"
        raise UserError(what, where=str(path), todo="Expected a CSV file with a column `value`") from None
    values = table[:, 0] if single else table[:, : len(names)]
    return np.ascontiguousarray(values), table[:, -1] if len(used) > len(names) else None


def _nab(data: Path) -> list[Source]:
    index = data / "nab" / "labels" / "windows_row_index.json"
    windows = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    sources = []
    for path in (data / "nab" / "data").glob("*/*.csv"):
        labelled = windows.get(f"{path.parent.name}/{path.name}", [])
        intervals = tuple((int(first), int(last)) for first, last in labelled)
        sources.append(Source("NAB", path.stem, path.parent.name, (path,), None, intervals))
    return sources


def _in_two_parts(directory: Path, group: str, pattern: str = "*") -> list[Source]:
    sources = []
    for train in directory.glob(f"{pattern}.train.csv.gz"):
        name = train.name.removesuffix(".train.csv.gz")
        test = train.with_name(f"{name}.test.csv.gz")
        if test.is_file():
            sources.append(Source(group, name, group, (train, test), None))
    return sources


def _ucr(data: Path) -> list[Source]:
    named = ((re.fullmatch(r"(\d+)_UCR_Anomaly_(.+)_(\d+)_\d+_\d+\.csv\.gz", path.name), path)
             for path in (data / "ucr").glob("*.csv.gz"))  # fmt: skip
    return [Source("UCR", f"{name[1]}-{name[2]}", "UCR", (path,), int(name[3])) for name, path in named if name]


def _tsb(data: Path) -> list[Source]:
    named = ((re.fullmatch(r"(\d+_([^_]+)_.*_tr_(\d+)_.*\.csv)\.gz", path.name), path)
             for path in (data / "tsb_ad_u").glob("*.csv.gz"))  # fmt: skip
    return [Source("TSB-AD-U", name[1], name[2], (path,), int(name[3])) for name, path in named if name]


_FINDERS: Mapping[str, Callable[[Path], list[Source]]] = {
    "NAB": _nab,
    "SMAP": lambda data: _in_two_parts(data / "smap_msl" / "SMAP", "SMAP"),
    "MSL": lambda data: _in_two_parts(data / "smap_msl" / "MSL", "MSL"),
    "UCR": _ucr,
    "TSB-AD-U": _tsb,
    "SMD": lambda data: _in_two_parts(data / "multichannel", "SMD", "machine-*"),
    "ASD": lambda data: _in_two_parts(data / "multichannel", "ASD", "omi-*"),
}
