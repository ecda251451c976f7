"""Thinned rows: bounded in number, and nothing that stood out is lost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from detector.arrays import F64
from detector.engine.output import ScoredRows
from detector.reports import curves as module
from detector.reports.curves import POINTS, Curves, broken

SECOND = 10**9
START = 1_790_000_000 * SECOND


def rows(
    names: list[str], times: list[np.ndarray[tuple[int], np.dtype[np.int64]]], values: list[F64], scores: list[F64]
) -> ScoredRows:
    joined = np.concatenate(values)
    return ScoredRows(
        ids=names,
        counts=np.array([len(column) for column in times]),
        records=np.zeros(len(joined), dtype=np.int64),
        times=np.concatenate(times),
        values=joined[:, None],
        expected=joined[:, None] + 1,
        scores=np.concatenate(scores),
        judged=np.concatenate(scores) / 2,
        thresholds=np.full(len(joined), 2.0),
    )


def fed(count: int, pieces: int = 1) -> tuple[Curves, F64, F64]:
    """A sensor with that many rows, one a second, and a spike in one of them; its values and scores."""
    rng = np.random.default_rng(count)
    values, scores = rng.normal(50, 1, count), rng.uniform(0, 1, count)
    values[count // 3], scores[count // 3] = 500.0, 40.0
    times = START + np.arange(count) * SECOND
    curves = Curves(1)
    for begin, end in itertools.pairwise(np.linspace(0, count, pieces + 1).astype(int).tolist()):
        part = slice(begin, end)
        curves(rows(["a"], [times[part]], [values[part]], [scores[part]]))
    return curves, values, scores


def test_a_few_rows_stay_as_they_are() -> None:
    curves, values, scores = fed(300)
    curve = curves.of("a")
    assert curve is not None
    assert curve.times.tolist() == (START + np.arange(300) * SECOND).tolist()
    for column in (curve.low[:, 0], curve.high[:, 0], curve.expected[:, 0] - 1):
        assert column == pytest.approx(values)
    assert curve.scores.tolist() == scores.tolist()
    assert curve.judged.tolist() == (scores / 2).tolist()
    assert set(curve.thresholds) == {2.0}
    assert not len(curve.gaps)


@pytest.mark.parametrize("pieces", [1, 7])
def test_many_rows_become_few_points_that_keep_the_extremes(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENDING", 1000)
    curves, values, _ = fed(20_000, pieces)
    curve = curves.of("a")
    assert curve is not None
    assert POINTS / 2 < len(curve.times) <= 2 * POINTS
    assert (np.diff(curve.times) > 0).all()
    assert (curve.low.min(), curve.high.max()) == (values.min(), 500.0)
    assert curve.scores.max() == 40.0
    assert np.average(curve.expected) == pytest.approx(values.mean() + 1, abs=1)
    assert curves.worst() == {"a": 40.0 / 2 / 2}


def test_of_many_sensors_each_gets_fewer_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALL_POINTS", 400)
    curves = Curves(1)
    times = START + np.arange(1000) * SECOND
    flat = np.full(1000, 0.5)
    names = [f"s{number}" for number in range(20)]
    curves(rows(names, [times] * 20, [flat] * 20, [flat] * 20))
    lengths = [len(curve.times) for name in names if (curve := curves.of(name)) is not None]
    assert len(lengths) == 20
    assert max(lengths) <= 2 * module.LEAST_POINTS


@pytest.mark.parametrize("count", [400, 20_000])
def test_a_gap_breaks_the_line(count: int) -> None:
    times = START + np.arange(count) * SECOND
    times[count // 2 :] += count * SECOND
    curves = Curves(1)
    column = np.arange(count) / count
    curves(rows(["a"], [times], [column], [column]))
    curve = curves.of("a")
    assert curve is not None
    (gap,) = curve.gaps.tolist()
    assert curve.times[gap] - curve.times[gap - 1] > 0.9 * count * SECOND
    drawn = broken(curve.low[:, 0], curve.gaps)
    assert np.flatnonzero(np.isnan(drawn)).tolist() == [gap]
    assert len(drawn) == len(curve.low) + 1


def test_a_clock_that_was_set_back_is_put_in_order() -> None:
    curves = Curves(1)
    times, column = START + np.arange(100) * SECOND, np.full(100, 0.5)
    curves(rows(["a"], [times + 50 * SECOND], [column], [column]))
    curves(rows(["a"], [times], [column], [column]))
    curve = curves.of("a")
    assert curve is not None
    assert (np.diff(curve.times) >= 0).all()


def test_an_unknown_sensor_has_no_curve() -> None:
    assert Curves(1).of("a") is None
    assert Curves(1).worst() == {}


def test_what_was_never_expected_stays_unknown() -> None:
    curves = Curves(1)
    column = np.full(10, 0.5)
    told = rows(["a"], [START + np.arange(10) * SECOND], [column], [column])
    told.expected[:] = np.nan
    told.expected[4] = 7
    curves(told)
    curve = curves.of("a")
    assert curve is not None
    assert np.flatnonzero(~np.isnan(curve.expected[:, 0])).tolist() == [4]
