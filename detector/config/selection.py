"""Which sensors are watched: shell patterns of sensor ids."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


class Selection:
    """A sensor is watched if a pattern of `include` matches its id and none of `exclude` does."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include, self._exclude = tuple(include), tuple(exclude)

    @property
    def includes_all(self) -> bool:
        """Whether every sensor is watched."""
        return "*" in self._include and not self._exclude

    def includes(self, sensor_id: str) -> bool:
        """Whether the sensor is watched."""
        return any(fnmatchcase(sensor_id, pattern) for pattern in self._include) and not any(
            fnmatchcase(sensor_id, pattern) for pattern in self._exclude
        )
