from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detector.streams.directory import DirectoryStreams
from tests.streams.contract import numbered
from tests.streams.files import INPUT, Open, streams_in


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    every: list[DirectoryStreams] = []

    def open_streams(source: Path | None = None, **options: Any) -> DirectoryStreams:
        streams = streams_in(tmp_path, source, **options)
        every.append(streams)
        streams.open()
        return streams

    yield open_streams
    for streams in every:
        streams.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / f"{INPUT}.jsonl"
    path.write_bytes(b"".join(value + b"\n" for value in numbered(0, 10)))
    return path
