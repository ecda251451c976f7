"""The kernel: the same bits compiled and interpreted, however rows are cut; and which libraries are not used."""

from __future__ import annotations

import importlib.util
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.detection.kernel import build as build_module
from detector.detection.kernel import choice
from detector.detection.kernel.build import SOURCE, BuildError, build, compilers
from detector.detection.kernel.cells import OPENED, Cells, Paces, Rings, Rows, Spans, rules_for
from detector.detection.kernel.choice import VARIABLE, Kernel, choose, chosen, trial
from detector.detection.kernel.compiled import Compiled
from detector.detection.kernel.interpreted import Interpreted
from detector.detection.sensor import load, store
from detector.detection.threshold import LONG_AGO, UNLEARNT, first_reservoir
from detector.errors import UserError
from tests.sensors import cells_for

STORIES = settings(max_examples=25)
NAN, INFINITY = math.nan, math.inf
EXTREMES = (0.0, 1e-300, 1e300, INFINITY, NAN)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, as this machine's compiler makes it."""
    if not any(compilers()):
        pytest.skip("there is no C compiler")
    return build(tmp_path_factory.mktemp("kernel") / "recurrences.so")


@pytest.fixture(scope="session")
def compiled(library: Path) -> Compiled:
    return Compiled(library)


class Story:
    """Rows of some sensors with faults long and short, strides, maintenance windows and rules; all by a seed."""

    def __init__(self, seed: int, *, most_rows: int = 900, extreme: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.channels, sensors = int(rng.integers(0, 4)), int(rng.integers(1, 5))
        last_scores = int(rng.choice([5, 10, 14]))
        self.ticks = rng.integers(1, most_rows, sensors)
        self.first = np.concatenate([[0], np.cumsum(self.ticks)])
        rows = int(self.first[-1])
        self.raw = rng.random((2 * self.channels, rows)) ** 4
        self.errors = rng.random(rows) ** 4
        begin = 0
        while begin < rows:
            begin += int(rng.integers(10, most_rows))
            end = begin + int(rng.choice([1, 15, 60, 310, 700]))
            self.raw[:, begin:end] *= rng.choice([5, 40, 1e9])
            self.errors[begin:end] *= rng.choice([1, 40, 1e3])
            begin = end
        if self.channels and rng.random() < 0.5:
            held = np.arange(rows) % 3 != 0
            held[self.first[:-1]] = False
            self.errors[held] = NAN
        self.values = 50 + rng.normal(0, 1, (rows, self.channels))
        for channel in range(self.channels):
            stuck = int(rng.integers(rows))
            self.values[stuck : stuck + int(rng.integers(200)), channel] = 50 + rng.choice([0.0, 1e-9])
        self.values[rng.random(self.values.shape) < rng.choice([0.0, 0.01])] = NAN
        self.times = 5 + 10 * np.arange(rows)
        self.inside = np.repeat(rng.random(rows // 50 + 1) < 0.3, 50)[:rows].copy() if rng.random() < 0.5 else None
        self.cells = self._cells(rng, sensors, last_scores)
        self.rules = rules_for(sensors, self._open_after(rng, sensors, last_scores), rng.integers(1, 120, sensors))
        self.rules["deviates"] = self.channels > 0 and rng.random() < 0.5
        self.rules["direction"] = rng.choice([0.0, 1.0, -1.0], sensors)
        self.rules["absolute"] = rng.choice([0.0, 0.5], sensors)
        if extreme:
            self._be_extreme(rng)

    def _cells(self, rng: np.random.Generator, sensors: int, last_scores: int) -> Cells:
        signals = 2 * self.channels + 1
        cells = cells_for(
            sensors, self.channels, last_scores, worst=rng.uniform(0.5, 3, (sensors, signals)),
            mean=rng.uniform(0.1, 0.5, (sensors, signals)), variance=rng.uniform(0.01, 0.1, (sensors, signals)),
            count=rng.integers(60, 9000, sensors), worst_zz=rng.uniform(1, 8, sensors), usual=50.0,
            still_limit=rng.choice([20.0, 33.3, INFINITY], (sensors, self.channels)),
            resolution=rng.choice([0.0, 1e-6]), completions=rng.choice([0, 450, 9000], sensors),
            drift_worst=rng.choice([1e-3, 0.1, INFINITY], (sensors, self.channels)), center=50.0,
            drift_variance=rng.uniform(1e-4, 0.1, (sensors, self.channels)),
            noise_hush=rng.choice([1.1, 3.0, INFINITY], (sensors, self.channels)), noise_usual=rng.choice([0.05, 1.0]),
        )  # fmt: skip
        for at in range(sensors):
            budget = float(rng.choice([300.0, 1000.0, 5e4, 1e6, INFINITY]))
            peaks = rng.normal(-0.5, 1, int(rng.integers(1, 20))).tolist()
            for name, value in first_reservoir(peaks, int(rng.integers(60, 3000)), budget).items():
                cells[name][at] = value
        cells["credit"] = rng.uniform(-4, 17, sensors)
        kept, places = rng.random((sensors, UNLEARNT)) < 0.7, (sensors, UNLEARNT)
        cells["unlearnt"] = np.where(kept, rng.uniform(0, 3, places).round(1), -INFINITY)
        cells["unlearnt_age"] = np.where(kept, rng.integers(0, 6000, places), LONG_AGO)
        cells["unlearnt_rows"] = rng.integers(0, 900, sensors)
        if self.channels and rng.random() < 0.3:
            cells["worst"][:, self.channels] = INFINITY
        if self.channels > 1:
            self._look_at_channels_together(rng, cells)
        return cells

    def _look_at_channels_together(self, rng: np.random.Generator, cells: Cells) -> None:
        """Of some sensors, of which some are mute; some rows lack channels."""
        machines = np.flatnonzero(rng.random(len(cells)) < 0.7)
        cells["center"], cells["scale"] = 50.0, rng.uniform(0.5, 2.0)
        for at in machines.tolist():
            typical = rng.uniform(0.05, 0.4, (cells["typical"].shape[1],))
            typical[: self.channels] *= rng.random(self.channels) < 0.8
            typical[self.channels] = INFINITY if rng.random() < 0.3 else 0.2
            cells["typical"][at] = typical
            cells["components"][at] = rng.normal(0, 0.4, cells["components"].shape[1:])
            cells["worst"][at, :2] = rng.uniform(0.5, 3, 2)
        lacks = rng.random(self.values.shape) < rng.choice([0.0, 0.1])
        self.values[lacks] = NAN
        self.raw[: self.channels][lacks.T] = NAN
        self.raw[self.channels :][lacks.T] = NAN

    @staticmethod
    def _open_after(rng: np.random.Generator, sensors: int, last_scores: int) -> Any:
        kinds = [(last_scores, last_scores), (2, last_scores), (3, 4), (1, 1)]
        return np.array([kinds[int(rng.integers(len(kinds)))] for _ in range(sensors)])

    def _be_extreme(self, rng: np.random.Generator) -> None:
        for array in (self.raw, self.errors, self.values):
            at = rng.random(array.shape) < rng.choice([0.001, 0.02])
            array[at] = rng.choice(EXTREMES, int(at.sum()))
        for name in (
            "mean",
            "variance",
            "drift_mean",
            "drift_variance",
            "drift_quick",
            "noise_quick",
            "noise_slow",
            "credit",
            "forgotten",
            "pending",
            "rows",
            "recent",
            "peaks",
        ):
            column = self.cells[name]
            at = rng.random(column.shape) < 0.1
            column[at] = rng.choice(EXTREMES, int(at.sum()))

    def run(self, kernel: Kernel, *, step: int | None = None) -> dict[str, bytes]:
        """What a kernel makes of the rows, given to it all at once, or a few of each sensor at a time."""
        cells, steps = self.cells.copy(), step or int(self.ticks.max())
        told: list[list[list[Any]]] = [[] for _ in self.ticks]
        happened: list[list[Any]] = [[] for _ in self.ticks]
        for begin in range(0, int(self.ticks.max()), steps):
            at = np.flatnonzero(self.ticks > begin)
            begins = self.first[at] + begin
            lengths = np.minimum(self.ticks[at] - begin, steps)
            rows = np.concatenate([np.arange(b, b + n) for b, n in zip(begins, lengths, strict=True)])
            first = np.concatenate([[0], np.cumsum(lengths)])
            records, errors = cells[at], self.errors[rows]
            inside = None if self.inside is None else self.inside[rows]
            raw = np.ascontiguousarray(self.raw[:, rows])
            scores = kernel.score(records, self.rules[at], first, raw, errors, self.values[rows], inside)
            judged = kernel.judge(records, self.rules[at], first, scores.eligible, self.times[rows], inside)
            cells[at] = records
            for place, sensor in enumerate(at.tolist()):
                part = slice(first[place], first[place + 1])
                told[sensor].append([column[part] for column in (*scores, errors, *judged[:2])])
            for place, row, *event in judged[2].tolist():
                happened[at[place]].append((int(self.times[rows[row]]), *event))
        kernel.fill(cells, self.first, np.ascontiguousarray(self.raw[self.channels :]))
        found = {name: cells[name].tobytes() for name in cells.dtype.names or ()}
        for number, name in enumerate(("u", "alarm", "eligible", "errors", "v", "limits")):
            found[name] = b"".join(part[number].tobytes() for parts in told for part in parts)
        return found | {"events": repr(happened).encode()}


def test_a_trial_has_everything_that_a_library_could_get_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule of a row is used by it, and it tells what each comes to."""
    for name in ("remember", "learn", "deviations"):
        with monkeypatch.context() as patched:
            patched.setattr(f"detector.detection.score.{name}", _broken)
            with pytest.raises(ZeroDivisionError):
                trial(Interpreted())
    for place, name in (
        ("faultmemory", "watch"), ("faultmemory", "rounded"), ("threshold", "insert_peak"), ("threshold", "habit_of"),
        ("episodes", "end_episode"),
        ("episodes", "open_episode"), ("episodes", "spend"), ("kernel.interpreted", "deviates"),
        ("kernel.interpreted", "still"), ("kernel.interpreted", "drift"),
    ):  # fmt: skip
        with monkeypatch.context() as patched:
            patched.setattr(f"detector.detection.{place}.{name}", _broken)
            with pytest.raises(ZeroDivisionError):
                trial(Interpreted())


def _broken(*_: object) -> float:
    return 1 / 0


def test_a_story_has_episodes_and_long_faults() -> None:
    kinds, kept, ruled = set(), 0, 0
    for seed in range(12):
        found = Story(seed).run(Interpreted())
        kinds |= {kind for kind in (1, 2, 3) if f", {kind}, " in found["events"].decode()}
        kept += any(found["kept_rows"])
        ruled += found["alarm"] != found["u"]
    assert kinds == {1, 2, 3}
    assert kept
    assert ruled


@STORIES
@given(st.integers(0, 2**32 - 1))
def test_compiled_and_interpreted_are_the_same_to_the_bit(compiled: Compiled, seed: int) -> None:
    story = Story(seed)
    assert story.run(compiled) == story.run(Interpreted())


@STORIES
@given(st.integers(0, 2**32 - 1))
def test_so_they_are_where_numbers_are_extreme(compiled: Compiled, seed: int) -> None:
    story = Story(seed, most_rows=300, extreme=True)
    ours, theirs = story.run(compiled), story.run(Interpreted())
    assert {name: _quiet(cell) for name, cell in ours.items()} == {name: _quiet(cell) for name, cell in theirs.items()}


def _quiet(told: bytes) -> bytes:
    """With one kind of what is no number: its sign and payload are open, and nothing reads them."""
    if len(told) % 8:
        return told
    numbers = np.frombuffer(told).copy()
    numbers[np.isnan(numbers)] = NAN
    return numbers.tobytes()


@pytest.mark.parametrize("step", [1, 7, 100])
@STORIES
@given(st.integers(0, 2**32 - 1))
def test_it_does_not_matter_how_rows_are_cut(compiled: Compiled, step: int, seed: int) -> None:
    story = Story(seed, most_rows=400)
    assert story.run(compiled, step=step) == story.run(compiled)


def a_stretch(seed: int) -> tuple[Cells, Rings, Rows]:
    """Windows with their ends anywhere, and rows of some sensors, of which a random choice completes one."""
    rng = np.random.default_rng(seed)
    channels, sensors = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    lengths = rng.choice([1, 3, 99, 101, 700], sensors)
    end = np.cumsum(lengths)
    count, size = int(end[-1]), float(rng.choice([1.0, 1e6, 1e150]))
    rings = Rings(
        values=rng.normal(0, size, (9, 100, channels)), times=rng.integers(0, 99, (9, 100)),
        imputed=np.packbits(rng.random((9, 100)) < 0.2, axis=1), head=rng.integers(0, 100, 9).astype(np.uint8),
        ridge=rng.normal(0, 0.3, (9, channels, 99)).astype(np.float32), bias=rng.normal(0, 1, (9, channels)),
    )  # fmt: skip
    source = np.flatnonzero(rng.random(count) < rng.choice([0.05, 0.9]))
    rows = Rows(
        slots=rng.permutation(9)[:sensors], begin=end - lengths, end=end, values=rng.normal(0, size, (count, channels)),
        times=np.arange(count), imputed=rng.random(count) < 0.2, owner=np.searchsorted(end, source, side="right"),
        source=source,
    )  # fmt: skip
    cells = cells_for(sensors, channels, 10, center=rng.normal(0, 1, (sensors, channels)))
    cells["scale"] = rng.uniform(0.01, 2, (sensors, channels))
    return cells, rings, rows


def looked_at(kernel: Kernel, seed: int, step: int) -> list[bytes]:
    """What a kernel makes of the windows of a stretch, `step` rows at a time, and of the windows themselves."""
    cells, rings, rows = a_stretch(seed)
    count, channels = len(rows.source), rows.values.shape[1]
    inputs, raw = np.empty((count, 100, channels), dtype=np.float32), np.empty((2 * channels, count))
    gather = kernel.windows(cells, rings, rows, raw)
    for begin in range(0, count, step):
        part = slice(begin, min(begin + step, count))
        gather(part, inputs[part])
    rebuilt = kernel.rebuilt(inputs, np.flip(inputs, axis=1).copy())
    kernel.push(rings, rows)
    return [array.tobytes() for array in (inputs, raw, rebuilt, *rings)]


@STORIES
@given(st.integers(0, 2**32 - 1))
def test_windows_are_the_same_to_the_bit_however_rows_are_cut(compiled: Compiled, seed: int) -> None:
    ours = looked_at(compiled, seed, 512)
    assert ours == looked_at(Interpreted(), seed, 512)
    assert ours == looked_at(compiled, seed, 7)


@STORIES
@given(st.integers(0, 2**32 - 1))
def test_intervals_are_judged_alike(compiled: Compiled, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sensors, ends = 6, np.sort(rng.integers(1, 60, 6)).cumsum()
    first = np.append(0, ends[:-1])
    paces = Paces(
        times=rng.integers(0, 900, (9, 100)), head=rng.integers(0, 100, 9).astype(np.uint8),
        filled=rng.choice([0, 1, 100], 9).astype(np.int16), regular=rng.random(9) < 0.8,
        median=rng.choice([0, 1, 10, 60], 9), unfit=rng.choice([0, 0, 3], 9).astype(np.int16),
        rules=rng.integers(-1, 3, 9).astype(np.int16),
    )  # fmt: skip
    odd = rng.random(ends[-1]) < rng.choice([0.0, 0.02, 0.5])
    times = 1000 + np.where(odd, rng.integers(-30, 500, ends[-1]), 10).cumsum()
    before = rng.random(ends[-1]) < rng.choice([0.0, 0.05])
    limits = rng.choice([15, 300, 2**62], 3), rng.choice([0, 2, 5], 3)
    spans = Spans(rng.permutation(9)[:sensors], first, ends, times)
    said = []
    for kernel in (compiled, Interpreted()):
        restarts = before.copy()
        missing = kernel.missing(paces, spans, restarts, *limits)
        said.append([kernel.uneven(paces, spans).tobytes(), missing.tobytes(), restarts.tobytes()])
    assert said[0] == said[1]


def test_cells_come_back_from_plain_numbers_as_they_were() -> None:
    cells = Story(3).cells
    again = cells.copy()
    for name in cells.dtype.names or ():
        again[name] = 0
    store(load(cells), again)
    assert all(again[name].tobytes() == cells[name].tobytes() for name in cells.dtype.names or ())


# -- which kernel runs ----------------------------------------------------------------------------------------------


@pytest.fixture
def asking() -> Iterator[None]:
    """`choose` forgets what it chose before and after."""
    choose.cache_clear()
    yield
    choose.cache_clear()


def test_a_library_that_passes_its_trial_is_used(library: Path) -> None:
    found = chosen(library)
    assert isinstance(found.kernel, Compiled)
    assert found.reason is None


def test_without_a_library_it_is_interpreted_and_says_why(tmp_path: Path) -> None:
    found = chosen(tmp_path / "recurrences.so")
    assert isinstance(found.kernel, Interpreted)
    assert found.reason == "it has not been built"


def test_what_is_no_library_of_this_machine_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "recurrences.so"
    path.write_bytes(b"\x7fELF of another machine")
    found = chosen(path)
    assert isinstance(found.kernel, Interpreted)
    assert str(found.reason).startswith("it cannot be loaded: ")


@pytest.mark.parametrize("function", ['const char *kernel_digest(void) { return "0"; }', "int nothing;"])
def test_a_library_of_another_source_is_not_used(tmp_path: Path, function: str) -> None:
    found = chosen(_made_of(tmp_path, function))
    assert isinstance(found.kernel, Interpreted)
    assert found.reason == "it was built from another source"


def test_a_library_that_calculates_otherwise_ends_the_process(tmp_path: Path) -> None:
    """As one would that was built with fast-math, or by a compiler with a fault."""
    path = _made_of(tmp_path, SOURCE.read_text().replace("2.0 / 8001", "2.0 / 8002"))
    with pytest.raises(UserError) as caught:
        chosen(path)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)


def _made_of(directory: Path, source: str) -> Path:
    """A library of another source, which says that it is of ours."""
    command = next(compilers(), None) or pytest.skip("there is no C compiler")
    (directory / "other.c").write_text(source)
    target = directory / "recurrences.so"
    told = f'-DKERNEL_DIGEST="{build_module.digest()}"'
    subprocess.run(
        [*command, *build_module.FLAGS, told, "-o", str(target), str(directory / "other.c"), "-lm"], check=True
    )
    return target


@pytest.mark.usefixtures("asking")
def test_a_person_may_ask_for_the_interpreted_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "interpreted")
    assert choose() == (choose().kernel, None)
    assert isinstance(choose().kernel, Interpreted)


@pytest.mark.usefixtures("asking")
def test_another_wish_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "fast")
    with pytest.raises(UserError, match="`fast` is no kernel"):
        choose()


# -- how it is built ------------------------------------------------------------------------------------------------


def test_without_a_compiler_nothing_is_built_and_what_was_there_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "recurrences.so"
    target.write_bytes(b"of before")
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(BuildError, match="there is no C compiler"):
        build(target)
    assert not target.exists()


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = tmp_path / "cc"
    failing.write_text("#!/bin/sh\necho 'out of order' >&2\nexit 3\n")
    failing.chmod(0o755)
    monkeypatch.setattr(build_module, "compilers", lambda: [[str(failing)]])
    with pytest.raises(BuildError, match="out of order"):
        build(tmp_path / "recurrences.so")
    assert [path.name for path in tmp_path.iterdir()] == ["cc"]


def test_the_wheel_ziglang_is_a_compiler_where_the_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "ziglang")
    assert list(compilers()) == [[sys.executable, "-m", "ziglang", "cc"]]


def test_the_kinds_of_events_are_those_of_the_source() -> None:
    assert "OPENED = 1, CLOSED = 2" in SOURCE.read_text()
    assert (OPENED, choice.INTERPRETED) == (1, "interpreted")
