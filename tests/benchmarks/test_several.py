"""Machines of several channels: faults are where they are said to be, and it is told which of them were announced."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks.quality import several
from benchmarks.quality.budget import SEED
from benchmarks.quality.detection import Setup
from benchmarks.quality.machines import CHANNELS, FAULTS, faulty, machine
from detector.detection.scorer import Model
from tests import plant


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_in_one_channel_and_in_its_rows(kind: str) -> None:
    span = slice(300, 340)
    healthy, broken = machine(3, 500, SEED), faulty(3, 500, SEED, kind, 1, span)
    changed = healthy != broken
    assert not np.delete(changed, 1, axis=1).any()
    assert not np.delete(changed[:, 1], np.r_[span]).any()
    assert changed[span, 1].mean() > 0.9


def test_a_fault_that_is_none_is_an_error() -> None:
    with pytest.raises(KeyError):
        faulty(0, 10, SEED, "haunted", 0, slice(0, 5))


def test_machines_are_three_sensors_one_by_one() -> None:
    together, alone = (several.sensors_of(group, 2, 50) for group in ("machines", "one by one"))
    assert list(alone)[:3] == [f"machine 0/{name}" for name in CHANNELS]
    assert np.stack(list(alone.values())[3:], axis=1).tolist() == together["machine 1"].tolist()
    assert several.sensors_of("unrelated", 2, 50)["unrelated 1"].shape == (50, 3)


@pytest.mark.parametrize("group", several.COMPARED)
def test_the_channel_at_fault_is_named(group: several.Group, monkeypatch: pytest.MonkeyPatch, setup: Setup) -> None:
    channels = 3 if group == "machines" else 1

    def model(*_: object) -> Model:
        return dataclasses.replace(plant.model_of(channels=channels), reconstruct=np.zeros_like)

    monkeypatch.setattr(several, "opened_model", model)
    found = several.faults(group, "shift", 1, setup, "")
    assert [one.channel for one in found] == list(CHANNELS)
    assert all(one.blamed == one.channel and one.delay is not None and one.delay < 60 for one in found)


@pytest.fixture
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup("dense", tmp_path_factory.mktemp("models"))
