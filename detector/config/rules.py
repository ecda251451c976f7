"""Which sensors are watched, and what applies to each: the settings of all, and the first override that matches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np

from detector.config.load import AlertsConfig, ReadingsConfig

UNWATCHED: Final = -1
"""In place of a number: no rules apply, because the sensor is left out."""
ENDLESS: Final = int(np.iinfo(np.int64).max)
AUTO: Final = 0
"""In place of a length: one of the sensor's own."""
REMEMBERED: Final = 100_000
"""Sensors of which it is kept whether they are watched: ids may be made up without end."""
_SIGNS: Final = {"both": 0.0, "above": 1.0, "below": -1.0}


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


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of some sensors. Durations are ns; None: none; `silence_after` may be `auto`."""

    enabled: bool
    alerts: AlertsConfig
    max_gap: int | None
    max_fill: int
    silence_after: int | Literal["auto"] | None

    @property
    def open_after(self) -> tuple[int, int]:
        """(n, m): an episode opens when n of the last m rows exceed."""
        return self.alerts.open_after.n, self.alerts.open_after.of


class RuleBook:
    """The rules of all sensors, by number: 0 are those without an override, i + 1 those of override i.

    A sensor's number is looked up once, when it is met. What the stages need of many sensors at once are arrays by
    number: `open_after` (R, 2), `close_after`, `max_gap` and `silence_after` (ns, `ENDLESS`: any, `AUTO`), `max_fill`,
    and of `deviation.matters` `direction`, `absolute` and `relative` (R,), which `need_deviation` says whether any are.

    >>> config = ReadingsConfig.model_validate({
    ...     "sensors": {"exclude": ("test-*",)},
    ...     "overrides": ({"match": "pump-*", "alerts": {"close_after": 5}},),
    ... })
    >>> book = RuleBook(config)
    >>> [book.number(sensor_id) for sensor_id in ("fan-1", "pump-1", "test-1")], book.close_after.tolist()
    ([0, 1, -1], [100, 5])
    """

    def __init__(self, config: ReadingsConfig) -> None:
        self._selection = Selection(config.sensors.include, config.sensors.exclude)
        self._patterns = [override.match for override in config.overrides]
        self._rules = _resolve(config)
        self.open_after = np.array([rules.open_after for rules in self._rules])
        self.close_after = np.array([rules.alerts.close_after for rules in self._rules])
        self.max_gap = np.array([ENDLESS if rules.max_gap is None else rules.max_gap for rules in self._rules])
        self.max_fill = np.array([rules.max_fill for rules in self._rules])
        self.silence_after = np.array([_as_number(rules.silence_after) for rules in self._rules])
        alerts = [rules.alerts for rules in self._rules]
        self.direction = np.array([_SIGNS[one.direction] for one in alerts])
        self.absolute = np.array([one.min_deviation.absolute for one in alerts])
        self.relative = np.array([one.min_deviation.relative for one in alerts])
        self.need_deviation = (self.direction != 0) | (self.absolute > 0) | (self.relative > 0)
        self._alike = self.watches_all and not self._patterns
        self._watches = lru_cache(REMEMBERED)(lambda sensor_id: self.number(sensor_id) != UNWATCHED)

    def __iter__(self) -> Iterator[Rules]:
        return iter(self._rules)

    def __getitem__(self, number: int) -> Rules:
        return self._rules[number]

    def number(self, sensor_id: str) -> int:
        """Which rules apply to a sensor; `UNWATCHED` if it is excluded or not enabled."""
        if self._alike:
            return 0
        if not self._selection.includes(sensor_id):
            return UNWATCHED
        number = self.override(sensor_id)
        return number if self._rules[number].enabled else UNWATCHED

    def numbers(self, sensor_ids: Collection[str]) -> list[int]:
        """The same of many."""
        return [0] * len(sensor_ids) if self._alike else list(map(self.number, sensor_ids))

    @property
    def watches_all(self) -> bool:
        """Whether no sensor at all is left out."""
        return self._selection.includes_all and all(rules.enabled for rules in self._rules)

    def watches(self, sensor_id: str) -> bool:
        """Whether the sensor is watched; to be asked of every reading where not `watches_all`."""
        return self._watches(sensor_id)

    def override(self, sensor_id: str) -> int:
        """The number that a sensor has by its id alone, watched or not."""
        matching = (i for i, pattern in enumerate(self._patterns, start=1) if fnmatchcase(sensor_id, pattern))
        return next(matching, 0)

    def of(self, sensor_id: str) -> Rules:
        """The rules of a sensor, watched or not."""
        return self._rules[self.override(sensor_id)]

    @property
    def most_rows(self) -> int:
        """The largest m of n-of-m in use."""
        return int(self.open_after[:, 1].max())

    @property
    def longest_durations(self) -> list[int]:
        """The limits of an episode's duration that are in use, ns."""
        return [rules.alerts.max_duration for rules in self._rules if rules.alerts.max_duration is not None]

    def without_sensors(self, sensor_ids: Iterable[str]) -> list[int]:
        """The overrides (by index) that are the first match of none of these sensors."""
        used = {self.override(sensor_id) for sensor_id in sensor_ids}
        return [i for i in range(len(self._patterns)) if i + 1 not in used]


def _as_number(silence_after: int | Literal["auto"] | None) -> int:
    if silence_after is None:
        return ENDLESS
    return AUTO if silence_after == "auto" else silence_after


def _resolve(config: ReadingsConfig) -> tuple[Rules, ...]:
    """An override has the settings of all, but for the keys it was given; `null` is a value like any other."""
    window = config.window
    common = Rules(True, config.alerts, window.max_gap, window.max_fill, config.silence_after)
    found = [common]
    for override in config.overrides:
        gaps = _given(override.window)
        found.append(
            Rules(
                enabled=override.enabled,
                alerts=config.alerts.model_copy(update=_given(override.alerts)),
                max_gap=gaps.get("max_gap", common.max_gap),
                max_fill=gaps.get("max_fill", common.max_fill),
                silence_after=_given(override).get("silence_after", common.silence_after),
            )
        )
    return tuple(found)


def _given(section: Any) -> dict[str, Any]:
    """The keys of a section that stand in the configuration."""
    return {name: getattr(section, name) for name in section.model_fields_set}
