"""What a `Daemon` needs to make pipelines, of nothing but the pipelines."""

from __future__ import annotations

from detector.config.load import Config
from detector.service.pipelines import Engine, MakePipeline, MakeReplay
from detector.service.web.status import Setup


def engine_making(make: MakePipeline, replay: MakeReplay | None = None, setup: Setup | None = None) -> Engine:
    """An engine whose configuration and models nobody asks for."""
    return Engine(Config(), setup or Setup(), make, replay)
