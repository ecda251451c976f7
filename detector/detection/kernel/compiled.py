"""The kernel from the library that recurrences.c was built into."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F32, F64, I64, Bools
from detector.detection.kernel.build import LIBRARY, SOURCE, digest
from detector.detection.kernel.cells import EVENT, Cells, Gather, Paces, Rings, Rows, Rules, Spans
from detector.detection.signals import ROOT_WEIGHTS

_first_of: Final[Callable[[Any], Any]] = (ctypes.c_char * 0).from_buffer


class UnusableError(Exception):
    """There is no library, or it is not that of this source, or of another machine."""


class Compiled:
    """See `kernel.Kernel`."""

    name: ClassVar = "compiled"

    def __init__(self, path: Path = LIBRARY) -> None:
        """Load a library. Raises UnusableError."""
        self.path = path
        library = opened(path, SOURCE)
        self._uneven = _function(library.kernel_uneven, 7)
        self._missing = _function(library.kernel_missing, 11)
        self._windows = _function(library.kernel_windows, 13)
        self._rebuilt = _function(library.kernel_rebuilt, 7)
        self._push = _function(library.kernel_push, 9)
        self._whitening = _function(library.kernel_whitening, 3)
        self._fill = _function(library.kernel_fill, 5)
        self._score = _function(library.kernel_score, 12)
        self._judge = _function(library.kernel_judge, 11)

    def uneven(self, paces: Paces, spans: Spans) -> Bools:
        (slots, first, last, times), columns = spans, _columns(paces)
        found = np.empty(len(slots), dtype=bool)
        self._uneven(_at(columns), _at(slots), _at(first), _at(last), len(slots), _at(times), _at(found))
        return found

    def missing(self, paces: Paces, spans: Spans, restarts: Bools, max_gap: I64, max_fill: I64) -> I64:
        (slots, first, last, times), columns = spans, _columns(paces)
        found = np.empty(len(times), dtype=np.int64)
        self._missing(
            _at(columns), _at(slots), _at(first), _at(last), len(slots), _at(times), _at(restarts), _at(max_gap),
            _at(max_fill), len(max_fill), _at(found),
        )  # fmt: skip
        return found

    def windows(self, cells: Cells, rings: Rings, rows: Rows, raw: F64) -> Gather:
        arrays = (
            _shape(cells),
            cells,
            _columns(rings),
            rows.slots,
            rows.begin,
            rows.owner,
            rows.source,
            rows.values,
            raw,
        )
        return _Gathering(self._windows, arrays, raw.shape[1])

    def rebuilt(self, inputs: F32, outputs: F32) -> F64:
        rows, window, channels = inputs.shape
        errors, weights = np.empty(rows), _weights(channels)
        self._rebuilt(_at(inputs), _at(outputs), _at(weights), rows, window * channels, channels, _at(errors))
        return errors

    def push(self, rings: Rings, rows: Rows) -> None:
        columns = _columns(rings)
        self._push(
            _at(columns), rows.values.shape[1], _at(rows.slots), _at(rows.begin), _at(rows.end), len(rows.slots),
            _at(rows.values), _at(rows.times), _at(rows.imputed),
        )  # fmt: skip

    def whitening(self, alike: F64) -> F64:
        white = np.empty((len(alike), len(alike)))
        self._whitening(_at(alike), len(alike), _at(white))
        return white

    def fill(self, cells: Cells, first: I64, squares: F64) -> None:
        shape = _shape(cells)
        self._fill(_at(shape), _at(cells), len(cells), _at(first), _at(squares))

    def score(
        self,
        cells: Cells,
        rules: Rules,
        first: I64,
        raw: F64,
        errors: F64,
        values: F64,
        inside: Bools | None,
    ) -> tuple[F64, F64, F64]:
        u, alarm, eligible, shape = np.empty(n := len(errors)), np.empty(n), np.empty(n), _shape(cells)
        self._score(
            _at(shape), _at(cells), len(cells), _at(first), _at(rules), _at(raw), _at(errors), _at(values), _at(inside),
            _at(u), _at(alarm), _at(eligible),
        )  # fmt: skip
        return u, alarm, eligible

    def judge(
        self,
        cells: Cells,
        rules: Rules,
        first: I64,
        eligible: F64,
        times: I64,
        inside: Bools | None,
    ) -> tuple[F64, F64, NDArray[np.void]]:
        v, limits, shape = np.empty(len(times)), np.empty(len(times)), _shape(cells)
        events = np.empty(len(times), dtype=EVENT)
        count = self._judge(
            _at(shape), _at(cells), len(cells), _at(first), _at(rules), _at(eligible), _at(times), _at(inside),
            _at(v), _at(limits), _at(events),
        )  # fmt: skip
        return v, limits, events[:count]


class _Gathering:
    """A `Gather`. Where an array lies is asked once: it takes as long as gathering some windows."""

    def __init__(self, function: Any, arrays: Sequence[NDArray[Any]], count: int) -> None:
        self._function, self._arrays = function, arrays  # which have to be there as long as they are used
        self._known = (*map(_at, arrays), count)

    def __call__(self, part: slice, inputs: F32) -> None:
        if not self._function(*self._known, part.start, part.stop, _at(inputs)):
            raise MemoryError


def opened(path: Path, source: Path) -> ctypes.CDLL:
    """The library at `path`, which was built from `source`. Raises UnusableError."""
    if not path.exists():
        raise UnusableError("it has not been built")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise UnusableError(f"it cannot be loaded: {error}") from None
    if _digest_of(library) != digest(source):
        raise UnusableError("it was built from another source")
    return library


def _digest_of(library: ctypes.CDLL) -> str:
    try:
        told = library.kernel_digest
    except AttributeError:
        return ""
    told.restype = ctypes.c_char_p
    return (told() or b"").decode("ascii", "replace")


def _function(function: Any, arguments: int) -> Any:
    """With every argument, pointer or number, 64 bits wide."""
    function.argtypes = [ctypes.c_int64] * arguments
    function.restype = ctypes.c_int64
    return function


def _shape(cells: Cells) -> I64:
    return np.array([cells.dtype["level"].shape[0], cells.dtype["recent"].shape[0], cells.dtype.itemsize])


def _columns(named: Rings | Paces) -> I64:
    """Where each column lies, and how far apart its cells are."""
    return np.array([(_at(column[:1]), column.strides[0]) for column in named])


@cache
def _weights(channels: int) -> F32:
    """Of the errors of a window's values, flat."""
    return np.repeat(ROOT_WEIGHTS, channels)


def _at(array: NDArray[Any] | None) -> int:
    """Where a C-contiguous array lies."""
    if array is None:
        return 0
    try:
        return ctypes.addressof(_first_of(array))  # `array.ctypes` takes several times as long
    except TypeError:  # it may only be read
        if not array.flags.c_contiguous:
            raise ValueError("the kernel takes contiguous arrays only") from None
        return array.ctypes.data
