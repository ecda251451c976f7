"""Settings that are well-formed and make no sense for a process: refused, or told where they may be meant."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from detector.config.load import Config
from detector.config.rules import AUTO, ENDLESS, RuleBook
from detector.detection.hours import Hours
from detector.detection.profile import Profile
from detector.engine.maintenance import Maintenance
from detector.errors import UserError
from detector.service.logs import event

_log = logging.getLogger(__name__)


def refuse_unsupported(config: Config) -> None:
    """Raise UserError naming the first key with which there is nothing to do."""
    if config.streams.backend == "memory":
        raise UserError(
            "nothing can be read from memory but by tests",
            where="streams.backend: memory",
            todo="Set it to directory or kafka",
        )
    if not config.readings.enabled and not config.frames.enabled:
        raise UserError("nothing is enabled", where="readings.enabled", todo="Set it or frames.enabled to true")


def unmatched(
    config: Config, sensor_ids: Collection[str], cameras: Collection[str] = ()
) -> Iterator[tuple[str, str, int]]:
    """Patterns that match none of the sensors or cameras they are for: (key, pattern, how many of these are known).

    None where none is known; of maintenance none either where there are cameras and nobody knows their names.
    """
    if sensor_ids:
        for i in RuleBook(config.readings).without_sensors(sensor_ids):
            yield f"readings.overrides[{i}]", config.readings.overrides[i].match, len(sensor_ids)
        for i in Hours("UTC", config.calendar).without_sensors(sensor_ids):
            yield f"calendar[{i}]", config.calendar[i].match, len(sensor_ids)
    everyone = [*sensor_ids, *cameras]
    if everyone and (cameras or not config.frames.enabled):
        for i in Maintenance(config.maintenance).without_sensors(everyone):
            yield f"maintenance[{i}]", config.maintenance[i].match, len(everyone)


def tell_unmatched(config: Config, sensor_ids: Collection[str], cameras: Collection[str] = ()) -> None:
    """Log what applies to none of the sensors: they may still come, but more likely a pattern is wrong."""
    for key, match, known in unmatched(config, sensor_ids, cameras):
        event(_log, logging.WARNING, "pattern_matches_nothing", key=key, match=match, known_sensors=known)


def impatient(config: Config, profiles: Mapping[str, Profile]) -> list[str]:
    """Sensors known from training that may be silent for less than two of their usual intervals: they often will be."""
    book = RuleBook(config.readings)
    if np.isin(book.silence_after, (ENDLESS, AUTO)).all():
        return []  # nobody is asked of, however many there are
    after = {sensor_id: book.of(sensor_id).silence_after for sensor_id in profiles}
    return [
        sensor_id
        for sensor_id, allowed in after.items()
        if isinstance(allowed, int) and allowed < 2 * profiles[sensor_id].median_interval
    ]


def tell_impatient(config: Config, profiles: Mapping[str, Profile]) -> None:
    """Log how many such sensors there are, with the first of them."""
    found = impatient(config, profiles)
    if found:
        event(_log, logging.WARNING, "silence_after_is_short", sensors=len(found), sensor_id=found[0])
