"""Which kernel runs: the compiled one where its library can be used, else the interpreted one, with the same bits."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, I64, Bools
from detector.detection.columns import cells_of, columns
from detector.detection.kernel.build import LIBRARY
from detector.detection.kernel.cells import Cells, Rules, rules_for
from detector.detection.kernel.compiled import Compiled, UnusableError
from detector.detection.kernel.interpreted import Interpreted
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
    ) -> tuple[F64, F64]:
        """The scores of rows (N,), and what of them counts towards an alert (N,).

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
    rows, channels, sensors = 460, 2, 2
    first = np.arange(sensors + 1) * rows
    rng = np.random.Generator(np.random.PCG64(0))
    raw = rng.random((2 * channels, sensors * rows)) ** 4
    errors = rng.random(sensors * rows) ** 4
    values = rng.normal(0.0, 1.0, (sensors * rows, channels))
    for begin in (0, rows):
        raw[:, begin + 30 : begin + 365] += 9.0
        errors[begin + 20 : begin + 25] += 1e3
        errors[begin + 30 : begin + 365 : 2] = np.nan
        errors[begin + 366 : begin + rows] *= 1e-3
    cells = np.zeros(sensors, dtype=cells_of(columns(channels, 10)))
    for column in columns(channels, 10):
        if column.name in (cells.dtype.names or ()):
            cells[column.name] = column.empty
    cells["budget"], cells["horizon"], cells["rows"] = (400.0, 1e5), (450.0, 1e5), (100.0, 3000.0)
    cells["peaks"][:, :4] = -0.5, -0.7, -1.1, -1.9
    cells["peaks_kept"], cells["peaks_seen"], cells["worst_zz"], cells["count"] = 4, 9, 3.0, (900.0, 9000.0)
    cells["unlearnt_age"] = 0
    cells["unlearnt"][:, 1:] = np.linspace(0.0, 5.0, UNLEARNT - 1)  # with one more they are a habit
    cells["worst"], cells["mean"], cells["variance"] = 2.0, 0.4, 0.01
    cells["worst"][1, channels] = np.inf
    rules = rules_for(sensors, np.array([(10, 10), (3, 5)]), np.array([12, 100]))
    rules["deviates"], rules["direction"], rules["absolute"] = (0, 1), (0.0, 1.0), 0.01
    inside = np.arange(sensors * rows) % 97 < 5
    said = kernel.score(cells, rules, first, raw, errors, values, inside)
    told = kernel.judge(cells, rules, first, said[1], np.arange(sensors * rows), inside)
    kernel.fill(cells, first, raw[channels:])
    return b"".join(array.tobytes() for array in (*said, errors, *told, cells))
