"""Which part of a plant a sensor belongs to, by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Final

ALL: Final = "all"
"""The one group where no patterns are given."""
OTHERS: Final = "others"
"""The group of sensors that no pattern matches."""
_REMEMBERED: Final = 10_000
_CAPTURE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Groups:
    """Patterns as a shell has them, in which `{name}` stands for a part of the sensor's id; the first match counts.

    What is captured, joined with `/`, is the group; of a pattern without captures the pattern itself is.

    >>> groups = Groups(["{line}/*", "boiler-*"])
    >>> groups.of("line 2/pressure-03"), groups.of("boiler-7"), groups.of("door")
    ('line 2', 'boiler-*', 'others')
    >>> Groups(None).of("door")
    'all'
    """

    def __init__(self, patterns: Sequence[str] | None) -> None:
        self._patterns = None if patterns is None else [(pattern, _compile(pattern)) for pattern in patterns]
        self.of = lru_cache(maxsize=_REMEMBERED)(self._find)

    def _find(self, sensor_id: str) -> str:
        if self._patterns is None:
            return ALL
        for pattern, expression in self._patterns:
            if found := expression.fullmatch(sensor_id):
                return "/".join(found.groups()) or pattern
        return OTHERS


def _compile(pattern: str) -> re.Pattern[str]:
    """Between the captures the pattern is one of a shell; a capture is as short as it can be, and within one `/`."""
    pieces = _CAPTURE.split(pattern)
    literal = ["" if not piece else f"(?:{_body(piece)})" for piece in pieces[::2]]
    return re.compile("([^/]+?)".join(literal), re.DOTALL)


def _body(piece: str) -> str:
    """The expression of a piece, without the flags and the end that `translate` puts around it."""
    return translate(piece).removeprefix("(?s:").removesuffix(r")\Z").removesuffix(r")\z")
