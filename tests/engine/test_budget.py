"""Observed against asked."""

from __future__ import annotations

import pytest

from detector.engine.budget import SLOT, BudgetAccount


def test_counts_everything_without_a_span() -> None:
    account = BudgetAccount()
    assert account.ratio is None
    account.add(0, 1, 0.5)
    account.add(10**18, 1, 0.5)
    assert account.ratio == pytest.approx(2.0)


def test_forgets_what_is_older_than_the_span() -> None:
    account = BudgetAccount(span=10 * SLOT)
    account.add(0, 3, 1.0)
    account.add(5 * SLOT, 1, 1.0)
    assert account.ratio == pytest.approx(2.0)
    account.add(11 * SLOT, 0, 1.0)
    assert account.opened == 1
    assert account.allowed == pytest.approx(2.0)


def test_a_minute_is_kept_together() -> None:
    account = BudgetAccount(span=2 * SLOT)
    for clock in range(0, SLOT, SLOT // 10):
        account.add(clock, 1, 1.0)
    assert account.opened == 10
    account.add(2 * SLOT, 0, 1.0)
    assert account.opened == 0
