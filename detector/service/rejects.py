"""Stops a daemon that is fed something other than readings, before it drains a topic into the dead letters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.errors import OperationError

JUDGED_FROM = 100
"""Fewer records are no evidence."""


class RejectGuard:
    """Watches the share of rejected records among the last `over`."""

    def __init__(self, max_share: float, over: int) -> None:
        self._max_share = max_share
        self._over = over
        self._recent = np.zeros(0, dtype=bool)

    def judge(self, records: int, refused: Sequence[int], example: str = "") -> None:
        """Take in a batch of `records` of which those at `refused` were rejected; `example` says why one of them was.

        Raises OperationError if too many were.
        """
        flags = np.zeros(records, dtype=bool)
        flags[list(refused)] = True
        self._recent = np.concatenate([self._recent, flags])[-self._over :]
        seen = len(self._recent)
        if seen >= JUDGED_FROM and self._recent.mean() > self._max_share:
            # The batch goes nowhere, its dead letters neither: the line itself has to show what came.
            told = f"; one of them: {example}" if example else ""
            raise OperationError(
                f"{int(self._recent.sum())} of the last {seen} records were rejected, more than the allowed share of "
                f"{self._max_share:g}{told}",
                where="rejects.max_share",
                todo="Correct the producer or `readings.fields`, and start again",
            )
