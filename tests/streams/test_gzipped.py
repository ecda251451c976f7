from __future__ import annotations

import gzip
import io
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.streams.gzipped import GzipText


def text_of(data: bytes, length: int = 1000) -> bytes:
    text = GzipText(io.BytesIO(data))
    pieces = []
    while not text.ended:
        pieces.append(text.read(length))
        assert len(pieces[-1]) <= length
    assert text.read(length) == b""
    return b"".join(pieces)


@given(
    members=st.lists(st.binary(max_size=2000).map(lambda data: data * 3)),
    padding=st.integers(0, 50),
    length=st.integers(1, 5000),
)
def test_the_text_of_any_members_is_whole(members: list[bytes], padding: int, length: int) -> None:
    data = b"".join(gzip.compress(member, mtime=0) + bytes(padding) for member in members)
    assert text_of(data, length) == b"".join(members)


def test_a_large_text_comes_in_pieces() -> None:
    whole = bytes(range(256)) * 20_000
    assert text_of(gzip.compress(whole, mtime=0), 100_000) == whole


@pytest.mark.parametrize(
    "data", [gzip.compress(b"", mtime=0) * 100_000, gzip.compress(b"\n" * 10**8), gzip.compress(b"") + bytes(10**7)]
)
def test_no_call_reads_or_gives_more_than_it_was_asked_for(data: bytes) -> None:
    file = io.BytesIO(data)
    text = GzipText(file)
    assert len(text.read(50_000)) <= 50_000
    assert file.tell() <= 100_000
    assert not text.ended


@pytest.mark.parametrize("cut", [1, 8, 9, 100])
def test_a_file_that_ends_within_a_member_is_no_end(cut: int) -> None:
    with pytest.raises(EOFError, match="before its end-of-stream marker"):
        text_of(gzip.compress(bytes(range(256)))[:-cut])


@pytest.mark.parametrize("data", [b"{}\n", gzip.compress(b"{}\n", mtime=0) + b"{}\n"])
def test_what_is_no_gzip_is_an_error(data: bytes) -> None:
    with pytest.raises(zlib.error):
        text_of(data)


def test_a_changed_byte_is_an_error() -> None:
    data = bytearray(gzip.compress(b"timestamp,value\n" * 10))
    data[-6] ^= 1
    with pytest.raises(zlib.error, match="incorrect data check"):
        text_of(bytes(data))
