"""Machines whose channels come as tags of their own, and how these are joined."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from detector.config.base import Section
from detector.config.values import PositiveDuration, Text, parse_duration


class MachineConfig(Section):
    """A machine, and by channel the tag, which is the sensor id of the readings, that has its values."""

    id: Text
    channels: Annotated[dict[Text, Text], Field(min_length=1)]


class AlignConfig(Section):
    """How readings of a machine's tags become rows."""

    within: PositiveDuration = parse_duration("2s")
    """Readings at most so far apart are one row."""
    fill: Literal["last"] | None = "last"
    """What stands for a channel that a row lacks: its last value, which does not count; null: the row is missing."""
    max_age: PositiveDuration = parse_duration("1m")
    """How old that value may be."""
