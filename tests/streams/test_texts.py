"""A text is read in pieces of at most the length that was asked for, whatever encoding it is in."""

from __future__ import annotations

import io

import pytest

from detector.streams.texts import PlainText, Utf8Text

TEXT = "\ntimestamp,value\n1,中文\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 1000])
def test_no_piece_is_longer_than_was_asked_for(encoding: str, length: int) -> None:
    text = Utf8Text(PlainText(io.BytesIO(TEXT.encode(encoding))))
    pieces = []
    while not text.ended:
        pieces.append(text.read(length))
    assert max(map(len, pieces)) <= length
    assert b"".join(pieces).decode() == TEXT
