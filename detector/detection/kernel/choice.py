"""Which kernel runs: the compiled one where its library can be used, else the interpreted one, with the same bits."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F32, F64, I64, Bools
from detector.detection.columns import cells_of, columns
from detector.detection.kernel.build import LIBRARY
from detector.detection.kernel.cells import Cells, Gather, Paces, Rings, Rows, Rules, Scores, Spans, rules_for
from detector.detection.kernel.compiled import Compiled, UnusableError
from detector.detection.kernel.interpreted import Interpreted
from detector.detection.signals import WINDOW
from detector.detection.threshold import UNLEARNT
from detector.errors import UserError

VARIABLE: Final = "DETECTOR_KERNEL"
INTERPRETED: Final = "interpreted"


class Kernel(Protocol):
    """What is done with the rows of n sensors, N in all. Arrays are C-contiguous.

    `cells` (n,): the sensors' records, changed in place. `first` (n + 1,): where the rows of each begin; they come one
    sensor after the other, in order of time. `inside` (N,): which lie in a maintenance window, None: none.
    """

    @property
    def name(self) -> str: ...

    def uneven(self, paces: Paces, spans: Spans) -> Bools:
        """Which sensors (n,) have, or recently had, an interval that does not fit their usual one.

        A sensor without a usual one has none. No interval lies before the first row of a window.
        """
        ...

    def missing(self, paces: Paces, spans: Spans, restarts: Bools, max_gap: I64, max_fill: I64) -> I64:
        """How many rows (N,) are to be filled in before each of such rows.

        Adds to `restarts` (N,) the rows before which more than `max_fill` would have to be, or more than `max_gap` ns
        lie, both by the number of a sensor's rules.
        """
        ...

    def windows(self, cells: Cells, rings: Rings, rows: Rows, raw: F64) -> Gather:
        """What gathers the windows that rows complete, and fills `raw` (2 C, N) with what they say by themselves.

        That is squared prediction errors, then squared values. It changes nothing else.
        """
        ...

    def rebuilt(self, inputs: F32, outputs: F32) -> F64:
        """The reconstruction errors (k,) of windows (k, 100, C), of which the model made `outputs`."""
        ...

    def push(self, rings: Rings, rows: Rows) -> None:
        """All rows go into their sensors' windows."""
        ...

    def whitening(self, alike: F64) -> F64:
        """What turns k <= 100 rows into white noise: the inverse (k, k) of the Cholesky factor of their covariance.

        `alike` (k,): the covariance of rows by how far they are apart, which has to be positive definite.
        """
        ...

    def fill(self, cells: Cells, first: I64, squares: F64) -> None:
        """Rows that complete no window yet move the level average; `squares` (C, N): of their standardised values."""
        ...

    def score(
        self,
        cells: Cells,
        rules: Rules,
        first: I64,
        raw: F64,
        errors: F64,
        values: F64,
        inside: Bools | None,
    ) -> Scores:
        """What rows are worth.

        `raw` (2 C, N): squared prediction errors, then squared values. `errors` (N,): of the reconstruction; where one
        is NaN, the one before is held and put there. `values` (N, C): as they came.
        """
        ...

    def judge(
        self,
        cells: Cells,
        rules: Rules,
        first: I64,
        eligible: F64,
        times: I64,
        inside: Bools | None,
    ) -> tuple[F64, F64, NDArray[np.void]]:
        """What follows from the scores that count: v (N,), ln thresholds (N,), and events of the dtype `EVENT`.

        `times` (N,) ns.
        """
        ...


class Choice(NamedTuple):
    """A kernel, and why it is not the compiled one; None where it is, or where a person asked for the other."""

    kernel: Kernel
    reason: str | None


@cache
def choose() -> Choice:
    """The kernel of this process. Raises UserError if there is a library that calculates otherwise."""
    if (asked := os.environ.get(VARIABLE)) == INTERPRETED:
        return Choice(Interpreted(), None)
    if asked:
        raise UserError(
            f"`{asked}` is no kernel", where=f"${VARIABLE}", todo=f"Set it to `{INTERPRETED}` or not at all"
        )
    return chosen(LIBRARY)


def chosen(path: Path) -> Choice:
    """The kernel of the library at `path`, if it can be used. Raises UserError if it calculates otherwise."""
    try:
        compiled = Compiled(path)
    except UnusableError as error:
        return Choice(Interpreted(), str(error))
    if trial(compiled) != trial(Interpreted()):
        raise UserError(
            "the compiled kernel calculates otherwise than its source says",
            where=str(path),
            todo=f"Build it again, or set {VARIABLE}={INTERPRETED}",
        )
    return Choice(compiled, None)


def trial(kernel: Kernel) -> bytes:
    """What a kernel makes of a story that has everything: long faults and short ones, peaks, episodes, strides, rules.

    It is the test vector that a library has to pass before it is used.
    """
    rows, channels, sensors = 460, 2, 3
    first = np.arange(sensors + 1) * rows
    rng = np.random.Generator(np.random.PCG64(0))
    raw = rng.random((2 * channels, sensors * rows)) ** 4
    errors = rng.random(sensors * rows) ** 4
    values = rng.normal(0.0, 1.0, (sensors * rows, channels))
    values[60:130, 0], values[rows + 60 : 2 * rows : 9, 1] = 1.0 + 1e-7 * np.arange(70), np.nan
    for begin in first[:-1].tolist():
        raw[:, begin + 30 : begin + 365] += 9.0
        errors[begin + 20 : begin + 25] += 1e3
        errors[begin + 30 : begin + 365 : 2] = np.nan
        errors[begin + 366 : begin + rows] *= 1e-3
    cells = np.zeros(sensors, dtype=cells_of(columns(channels, 10)))
    for column in columns(channels, 10):
        if column.name in (cells.dtype.names or ()):
            cells[column.name] = column.empty
    values[1100:1110, 1] = np.nan
    cells["budget"], cells["horizon"], cells["rows"] = (400.0, 1e5, 400.0), (450.0, 1e5, 450.0), (100.0, 3000.0, 100.0)
    cells["peaks"][:, :4] = -0.5, -0.7, -1.1, -1.9
    cells["peaks_kept"], cells["peaks_seen"], cells["worst_zz"], cells["count"] = 4, 9, 3.0, (900.0, 9000.0, 900.0)
    cells["unlearnt_age"] = 0
    cells["unlearnt"][:, 1:] = np.linspace(0.0, 5.0, UNLEARNT - 1)  # with one more they are a habit
    cells["worst"], cells["mean"], cells["variance"] = 2.0, 0.4, 0.01
    cells["worst"][1, channels] = np.inf
    cells["still_limit"][:, 0], cells["resolution"] = 30.0, 4e-6
    cells["completions"][0], cells["drift_worst"][0], cells["drift_variance"] = 480, (0.1, 1e9), 1e-3
    cells["noise_quick"], cells["noise_slow"] = 0.3, (0.3, 0.05)
    cells["noise_hush"] = (2.0, 3.0), (1.5, np.inf), (4.0, 2.0)
    cells["typical"][2] = 0.5, 0.0, 0.6, 0.4, 0.3, 1.2
    cells["components"][2, 0] = 0.6, 0.8
    rules = rules_for(sensors, np.array([(10, 10), (3, 5), (3, 5)]), np.array([12, 100, 12]))
    rules["deviates"], rules["direction"], rules["absolute"] = (0, 1, 0), (0.0, 1.0, 0.0), 0.01
    inside = np.arange(sensors * rows) % 97 < 5
    rings, kept = _trial_windows(rng, 2, channels)
    inputs, seen = np.empty((len(kept.source), WINDOW, channels), dtype=np.float32), np.empty((2 * channels, 7))
    cells["center"], cells["scale"] = 0.3, (0.7, 1.9)
    gather = kernel.windows(cells, rings, kept, seen)
    gather(slice(0, 3), inputs[:3])
    gather(slice(3, 7), inputs[3:])
    rebuilt = kernel.rebuilt(inputs, np.flip(inputs, axis=1).copy())
    kernel.push(rings, kept)
    due = _trial_intervals(kernel, rings, kept)
    said = kernel.score(cells, rules, first, raw, errors, values, inside)
    told = kernel.judge(cells, rules, first, said.eligible, np.arange(sensors * rows), inside)
    kernel.fill(cells, first, raw[channels:])
    white = kernel.whitening(np.cos(0.3 * np.arange(WINDOW)) + 0.1 * (np.arange(WINDOW) == 0))
    return b"".join(
        array.tobytes() for array in (*said, errors, *told, cells, inputs, seen, rebuilt, white, *rings, *due)
    )


def _trial_intervals(kernel: Kernel, rings: Rings, rows: Rows) -> tuple[Bools, I64, Bools]:
    """What is said of intervals that are short, long and too long, of two sensors of which one has a usual one."""
    paces = Paces(
        rings.times, rings.head, filled=np.array([100, 3], dtype=np.int16), regular=np.array([True, False]),
        median=np.array([7, 7]), unfit=np.array([0, 2], dtype=np.int16), rules=np.array([-1, 0], dtype=np.int16),
    )  # fmt: skip
    times = 640 + np.cumsum(np.where(rows.times % 31, 7, 5 + rows.times % 64))
    restarts = rows.times % 200 == 77
    spans = Spans(rows.slots, rows.begin, rows.end, times)
    found = kernel.missing(paces, spans, restarts, max_gap=np.array([60, 60]), max_fill=np.array([0, 5]))
    return kernel.uneven(paces, spans), found, restarts


def _trial_windows(rng: np.random.Generator, sensors: int, channels: int) -> tuple[Rings, Rows]:
    """Windows with their ends anywhere, and rows: few of one sensor, more than a window of the other."""
    rings = Rings(
        values=rng.normal(0.0, 1.0, (sensors, WINDOW, channels)), times=np.arange(sensors * WINDOW).reshape(-1, WINDOW),
        imputed=np.packbits(rng.random((sensors, WINDOW)) < 0.1, axis=1), head=np.array([0, 57], dtype=np.uint8),
        ridge=rng.normal(0.0, 0.1, (sensors, channels, WINDOW - 1)).astype(np.float32),
        bias=rng.normal(0.0, 0.1, (sensors, channels)),
    )  # fmt: skip
    count, source = 640, np.array([0, 4, 5, 30, 31, 160, 639])
    rows = Rows(
        slots=np.array([1, 0]), begin=np.array([0, 30]), end=np.array([30, count]),
        values=rng.normal(0.0, 1.0, (count, channels)), times=np.arange(count), imputed=np.arange(count) % 31 == 3,
        owner=(source >= 30).astype(np.int64), source=source,
    )  # fmt: skip
    return rings, rows
