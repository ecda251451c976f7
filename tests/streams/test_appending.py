"""A line behind the last complete one of a file that others write, too."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from detector.errors import OperationError, UserError
from detector.streams.appending import PATIENCE, append_line


def test_a_line_comes_behind_the_others(tmp_path: Path) -> None:
    path = tmp_path / "stream.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    append_line(path, b'{"b": 2}')
    append_line(path, b'{"c": 3}')
    assert path.read_bytes() == b'{"a": 1}\n{"b": 2}\n{"c": 3}\n'


def test_an_empty_file_begins_with_it(tmp_path: Path) -> None:
    path = tmp_path / "stream.jsonl"
    path.touch()
    append_line(path, b"{}")
    assert path.read_bytes() == b"{}\n"


def test_whoever_is_within_a_line_ends_it_first(tmp_path: Path) -> None:
    path = tmp_path / "stream.jsonl"
    path.write_bytes(b'{"a": 1}\n{"value"')
    waits = iter((b": ", b"7", b"}\n"))

    def sleep(_: float) -> None:
        with path.open("ab") as file:
            file.write(next(waits))

    append_line(path, b"{}", clock=lambda: 0.0, sleep=sleep)
    assert path.read_bytes() == b'{"a": 1}\n{"value": 7}\n{}\n'


def test_a_line_that_gets_no_end_is_not_torn(tmp_path: Path) -> None:
    path = tmp_path / "stream.jsonl"
    path.write_bytes(b'{"value"')
    times = iter((0.0, 0.0, PATIENCE / 2, PATIENCE))
    with pytest.raises(OperationError, match="last line has no end"):
        append_line(path, b"{}", clock=lambda: next(times), sleep=lambda _: None)
    assert path.read_bytes() == b'{"value"'


def test_many_at_once_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "stream.jsonl"
    path.touch()
    lines = [b'{"%d": "%s"}' % (number, b"x" * 5000) for number in range(24)]
    threads = [threading.Thread(target=append_line, args=(path, line)) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_bytes().splitlines()) == sorted(lines)


@pytest.mark.parametrize(
    ("name", "content"),
    [("pump.csv", b""), ("pump.txt", b"timestamp,value\n"), ("pump.jsonl.gz", b"\x1f\x8b"), ("pump.parquet", b"PAR1")],
)
def test_what_holds_no_lines_of_json_carries_none(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot carry a verdict"):
        append_line(path, b"{}")
    assert path.read_bytes() == content
