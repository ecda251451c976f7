"""Stops a daemon that is fed something other than what it expects, before it drains a topic into the dead letters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.arrays import Bools
from detector.errors import OperationError
from detector.wire.alerts import Kind

JUDGED_FROM = 100
"""Fewer records are no evidence."""


class RejectGuard:
    """Watches the share of rejected records among the last `over` of each kind.

    >>> guard = RejectGuard(max_share=0.5, over=1000)
    >>> guard.judge(200, refused=range(50))
    >>> guard.judge(200, refused=range(200), example="timestamp_invalid")
    Traceback (most recent call last):
    detector.errors.OperationError: ...
    """

    def __init__(self, max_share: float, over: int) -> None:
        self._max_share = max_share
        self._over = over
        self._recent: dict[Kind, Bools] = {}

    def judge(self, records: int, refused: Sequence[int], example: str = "", *, of: Kind = "readings") -> None:
        """Take in a batch of `records` of which those at `refused` were rejected; `example` says why one of them was.

        Raises OperationError if too many were.
        """
        flags = np.zeros(records, dtype=bool)
        flags[list(refused)] = True
        recent = np.concatenate([self._recent.get(of, flags[:0]), flags])[-self._over :]
        self._recent[of] = recent
        seen = len(recent)
        if seen >= JUDGED_FROM and recent.mean() > self._max_share:
            # The batch goes nowhere, its dead letters neither: the line itself has to show what came.
            told = f"; one of them: {example}" if example else ""
            raise OperationError(
                f"{int(recent.sum())} of the last {seen} records were rejected, more than the allowed share of "
                f"{self._max_share:g}{told}",
                where="rejects.max_share",
                todo=f"Correct the producer{' or `readings.fields`' if of == 'readings' else ''}, and start again",
            )
