"""Readings of single tags as readings of the machines they belong to, one channel each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.config.machines import MachineConfig
from detector.streams.base import Batch
from detector.wire.readings import Decoder, Readings


class MachineDecoder:
    """Decodes with another decoder, of one channel, whose sensors are tags.

    The readings have the machine's id and, by run, the number of the channel. Those of a tag that is in no machine keep
    their id and have no channel, -1.
    """

    def __init__(self, decoder: Decoder, machines: Sequence[MachineConfig], channels: Sequence[str]) -> None:
        self._decoder = decoder
        number = {channel: at for at, channel in enumerate(channels)}
        self._places = {
            tag: (machine.id, number[channel]) for machine in machines for channel, tag in machine.channels.items()
        }

    def decode(self, batch: Batch) -> Readings:
        """Decode every record of the batch."""
        readings = self._decoder.decode(batch)
        places = [self._places.get(tag, (tag, -1)) for tag in readings.ids]
        readings.ids = [machine for machine, _ in places]
        readings.channels = np.array([channel for _, channel in places], dtype=np.int64)
        return readings
