"""Short names for the types of arrays; docstrings give shapes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I16 = NDArray[np.int16]
U8 = NDArray[np.uint8]
Bools = NDArray[np.bool_]


def integers(numbers: Sequence[object]) -> I64:
    """An array (n,) of Python's integers. Raises TypeError if there is anything else, or what no int64 holds."""
    return np.frombuffer(_packed("q", numbers), dtype=np.int64)


def only_floats(numbers: Sequence[object]) -> F64:
    """An array (n,) of Python's floats and integers.

    Raises TypeError if there is anything else, OverflowError for an integer that no float is near to.
    """
    return np.frombuffer(_packed("d", numbers), dtype=np.float64)


def floats(numbers: Sequence[float | None]) -> F64:
    """An array (n,) of Python's floats, None: NaN."""
    try:
        return only_floats(numbers)
    except TypeError:  # there is a None
        return np.array(numbers, dtype=np.float64)


def _packed(kind: str, numbers: Sequence[object]) -> bytearray:
    """The bytes of numbers: up to three times as fast as numpy and `array` make them."""
    made = bytearray(8 * len(numbers))
    try:
        struct.pack_into(f"{len(numbers)}{kind}", made, 0, *numbers)
    except struct.error as error:
        raise TypeError(str(error)) from None
    return made


def stable_order(numbers: NDArray[np.integer]) -> NDArray[np.intp]:
    """The order (n,) that sorts numbers (n,), none of them negative; equal ones stay in theirs."""
    small = len(numbers) > 0 and numbers.max() < 1 << 16  # which numpy sorts by their digits
    return np.argsort(numbers.astype(np.uint16) if small else numbers, kind="stable")


def in_any_channel(flags: Bools) -> Bools:
    """Which of n rows have a flag in any of C channels; `flags` (n, C)."""
    # With one channel `any` would look at each row by itself.
    return flags[:, 0] if flags.shape[1] == 1 else np.asarray(flags.any(axis=1))


def in_all_channels(flags: Bools) -> Bools:
    """Which of n rows have a flag in each of C channels; `flags` (n, C)."""
    return flags[:, 0] if flags.shape[1] == 1 else np.asarray(flags.all(axis=1))
