"""Gzip files, uncompressed piece by piece: a bounded amount of work a call, whatever the file holds."""

from __future__ import annotations

import zlib
from typing import BinaryIO, Final

_PIECE: Final = 32 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS
"""Tells zlib to expect a gzip header, and to check length and CRC."""


class GzipText:
    """The text of an open file of gzip members one after the other; zeros between and behind them are padding."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._held = b""  # read and not uncompressed yet
        self._member: zlib._Decompress | None = None
        self.ended = False
        """Whether the file was read to its end."""

    @property
    def held(self) -> int:
        """Bytes of the file that were read and not uncompressed yet."""
        return len(self._held)

    def read(self, length: int) -> bytes:
        """The next `length` bytes at most, for which up to about as many bytes of the file are read, too.

        Less, or nothing, does not say that the text has ended. Raises `zlib.error` where the file is no gzip, EOFError
        where it ends within a member, OSError.
        """
        pieces: list[bytes] = []
        text, file = length, length
        while text > 0 and file > 0 and not self.ended:
            if not self._held:
                self._held = self._file.read(_PIECE)
                file -= len(self._held)
                if not self._held:
                    if self._member is not None:
                        raise EOFError("the file ends before its end-of-stream marker")
                    self.ended = True
            piece = self._uncompressed(text)
            text -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _uncompressed(self, length: int) -> bytes:
        """Up to `length` bytes of what is held."""
        if self._member is None:
            self._held = self._held.lstrip(b"\0")
            if not self._held:
                return b""
            self._member = zlib.decompressobj(_GZIP)
        piece = self._member.decompress(self._held, length)
        if self._member.eof:
            self._held, self._member = self._member.unused_data, None
        else:
            self._held = self._member.unconsumed_tail
        return piece
