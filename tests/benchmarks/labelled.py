"""A tiny directory of labelled series in the layout that the benchmarks read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

from tests import plant

TRAIN, ROWS = 300, 900
FAULT = (600, 660)


def series(seed: int, fault: bool = True) -> list[float]:
    """A sensor in good health, but for a fault at `FAULT`."""
    values = plant.healthy(np.random.default_rng(seed), ROWS)[:, 0]
    if fault:
        values[FAULT[0] : FAULT[1] + 1] += 15
    return values.tolist()  # type: ignore[no-any-return]


def make(directory: Path) -> Path:
    """One series of each group, with published results for some."""
    labels = [int(FAULT[0] <= row <= FAULT[1]) for row in range(ROWS)]
    nab = directory / "nab"
    _write(nab / "data/realTweets/one.csv", "timestamp,value", [f"2020-01-01 00:00:00,{v}" for v in series(1)])
    _write(nab / "data/realKnownCause/two.csv", "timestamp,value", [f"2020-01-01 00:00:00,{v}" for v in series(2)])
    windows = {"realTweets/one.csv": [list(FAULT)], "realKnownCause/two.csv": [list(FAULT)]}
    (nab / "labels").mkdir()
    (nab / "labels/windows_row_index.json").write_text(json.dumps(windows), encoding="utf-8")
    for number, craft in enumerate(("SMAP", "MSL")):
        values = series(3 + number)
        test = [f"{v},{label}" for v, label in zip(values[TRAIN:], labels[TRAIN:], strict=True)]
        _write(directory / f"smap_msl/{craft}/A-1.train.csv.gz", "value", [str(v) for v in values[:TRAIN]])
        _write(directory / f"smap_msl/{craft}/A-1.test.csv.gz", "value,label", test)
    rows = [f"{v},{label}" for v, label in zip(series(5), labels, strict=True)]
    _write(directory / "ucr/007_UCR_Anomaly_NOISEpump_2_300_600_660.csv.gz", "value,label", rows)
    _write(directory / "tsb_ad_u/001_UCR_id_1_Sensor_tr_300_1st_600.csv.gz", "Data,Label", rows)
    _write(
        directory / "published/orion_0.7.1_per_signal.csv",
        "dataset,pipeline,signal,tp,fp,fn",
        [
            "realTweets,rival,one,1,1,0",
            "realTweets,rival,elsewhere,9,9,9",
            "SMAP,rival,A-1,1,0,0",
            "MSL,rival,A-1,0,0,1",
            "UCR,rival,007-NOISEpump_2,1,2,0",
            "SMAP,incomplete,A-1,1,0,0",
        ],
    )
    _write(
        directory / "published/tsb_ad_u_per_file_VUS-PR.csv",
        "file,Rival,ts_len",
        ["001_UCR_id_1_Sensor_tr_300_1st_600.csv,0.25,900", "another.csv,0.75,900"],
    )
    _write(directory / "published/nab_split_scores.csv", "det,all,dev@global_thr", ["rival,51.5,40.5"])
    return directory


def _write(path: Path, header: str, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join([header, *rows]) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
