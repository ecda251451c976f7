from __future__ import annotations

import os
from pathlib import Path

import pytest

from detector.cli.atomic import atomic_write
from detector.errors import UserError


def test_a_file_is_there_in_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    with atomic_write(path) as part:
        assert part.read_bytes() == b""
        part.write_bytes(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert os.listdir(tmp_path) == ["out"]


def test_or_not_at_all(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_write(tmp_path / "out") as part:
            part.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_written_anew_and_nothing_else(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".out.part").hardlink_to(victim)
    with atomic_write(tmp_path / "out") as part:
        part.write_bytes(b"x")
    assert victim.read_bytes() == b"precious"


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".out.part").symlink_to(victim)
    with pytest.raises(UserError, match=r"this is a symbolic link.*\.out\.part"), atomic_write(tmp_path / "out"):
        pytest.fail("nothing is to be written")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / ".out.part").is_symlink()
