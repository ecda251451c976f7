"""The two ways the product fails, told apart by their exit code."""

from __future__ import annotations

import errno
import re
from collections.abc import Collection
from typing import Final

TRANSIENT: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
"""What the system says where a disk is full or fails; what else it says of a place to write is for a person to mend."""

_BRIEF: Final = 200
_MEMORY: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_USER_OF_ADDRESS: Final = re.compile(r"(?<=://)[^\s/]*@")


class DetectorError(Exception):
    """A failure that is told to a person in one line: what is wrong, where, and what to do.

    Raise one of the subclasses. `str()` gives the line without the leading ``detector: error:``.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, todo: str | None = None) -> None:
        super().__init__(what)
        self.what = what.rstrip(".")
        self.where = where
        self.todo = todo.rstrip(".") if todo else None

    def __str__(self) -> str:
        line = self.what
        if self.where:
            line += f" ({self.where})"
        line += "."
        if self.todo:
            line += f" {self.todo}."
        return " ".join(line.split())


class OperationError(DetectorError):
    """It failed while running and may go away by itself: broker, disk, lock, reject limit. Exit code 1."""

    exit_code = 1


class UserError(DetectorError):
    """It will fail again until a person changes something: usage, configuration, missing input. Exit code 2."""

    exit_code = 2


class StopAskedError(OperationError):
    """A stop was asked for while something was waited for: what was done before can be committed."""


def is_foreseen(error: Exception) -> bool:
    """Whether a failure is of the place, the memory or a limit that a person set: no record or sensor is to blame."""
    return isinstance(error, DetectorError | OSError | MemoryError)


def counted(number: int, what: str) -> str:
    """`1 sensor`, `2 sensors`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def in_brief(said: Exception | str, secrets: Collection[str] = ()) -> str:
    """What a library or a server says is wrong, fit to be a part of one line: short, without what disturbs a terminal.

    Secrets are taken out as by `without`, and before it is cut, so that none is left in part. Where an object lies in
    memory is left out: what is run again has to lead to the same words.
    """
    text = _MEMORY.sub("", " ".join(without(str(said), secrets).split())) or type(said).__name__
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= _BRIEF else text[:_BRIEF] + "…"


def without(text: str, secrets: Collection[str] = ()) -> str:
    """The text without any of `secrets`, in whatever case of letters, and without the users of addresses.

    >>> without("no https://ann:pw@example.org/T0/XYZ", ("/t0/xyz",))
    'no https://example.org(secret)'
    """
    text = _USER_OF_ADDRESS.sub("", text)
    longest_first = sorted(filter(None, secrets), key=len, reverse=True)
    if not longest_first:
        return text
    return re.sub("|".join(map(re.escape, longest_first)), "(secret)", text, flags=re.IGNORECASE)


def unwritable(error: OSError, what: str, *, where: str, todo: str) -> DetectorError:
    """The error to raise where `what` could not be written."""
    kind = OperationError if error.errno in TRANSIENT else UserError
    return kind(f"cannot write {what}: {error.strerror}", where=where, todo=todo)
