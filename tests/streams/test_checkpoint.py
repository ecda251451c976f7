from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import OperationError, UserError
from detector.streams.base import Partition, joined, pack_state, state_pieces, unpack_state
from detector.streams.checkpoint import Checkpoint, CheckpointFile, PartitionCheckpoint
from detector.streams.lines import Start

SAMPLE = Checkpoint(
    {
        Partition("a", 0): PartitionCheckpoint("a.csv", Start(12, 3, b"timestamp,value"), b"f" * 32, b"state" * 100),
        Partition("b", 0): PartitionCheckpoint("b.jsonl", Start(), None, None),
        Partition("c", 2): PartitionCheckpoint("c.jsonl", Start(1, 1), b"g", b""),
        Partition("d", 0): PartitionCheckpoint("d.jsonl", Start(9, 1, within_line=True), b"g", b""),
    },
    {"alerts": 123, "letters": 0},
    {"alerts": b"e" * 32},
)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path)
    assert file.load() is None
    for checkpoint in (SAMPLE, Checkpoint()):
        file.save(checkpoint)
        assert file.load() == checkpoint
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@given(data=st.data())
def test_any_damage_is_seen(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = CheckpointFile(tmp_path_factory.mktemp("state"))
    file.save(SAMPLE)
    content = bytearray(file.path.read_bytes())
    kind = data.draw(st.sampled_from(["flip", "cut", "more"]))
    if kind == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content += b"x"
    file.path.write_bytes(content)
    with pytest.raises(UserError, match="the checkpoint"):
        file.load()


def test_the_error_names_the_file_and_the_way_out(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path)
    file.path.write_bytes(b"")
    with pytest.raises(UserError) as caught:
        file.load()
    assert str(caught.value) == f"the checkpoint is damaged ({file.path}). Start over with --fresh."


def test_another_format_is_refused(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path)
    file.path.write_bytes(b"detector checkpoint 2\nwhatever")
    with pytest.raises(UserError, match="has format 2, this detector knows format 1"):
        file.load()


@pytest.mark.parametrize("name", ["write", "fsync", "replace"])
def test_a_failure_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    file = CheckpointFile(tmp_path)
    file.save(SAMPLE)

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(OperationError, match=r"cannot write the checkpoint: No space left .*checkpoint\)"):
            file.save(Checkpoint())
    assert file.load() == SAMPLE
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 300, 70_000])
def test_a_state_is_packed_piece_by_piece_as_it_would_be_whole(count: int) -> None:
    slices, journal = [b"x" * (i % 300) for i in range(count)], {"a": b"entry", "b": b""}
    packed = pack_state(slices, journal)
    assert packed == msgspec.msgpack.encode({"slices": slices, "journal": journal})
    assert packed == joined(state_pieces(iter(slices), count, journal))
    found, entries = unpack_state(packed)
    assert ([bytes(one) for one in found], entries) == (slices, journal)
