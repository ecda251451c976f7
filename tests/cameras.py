"""Cameras for tests: their frames as records, a model that needs no network, and a pipeline to feed them to."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

from detector.arrays import F32
from detector.config.load import FalseAlarms, FrameAlertsConfig, FrameOpenAfter, FramesConfig, MaintenanceConfig
from detector.config.settings import LimitsConfig
from detector.detection.framesignal import FrameModel, score_frames
from detector.detection.profile import Calibration, build_frame_profile
from detector.detection.table import camera_table
from detector.engine.frames import FramesPipeline
from detector.engine.slices import unpack_slices
from detector.streams.base import Batch, Message, Partition, Record, unpack_state
from detector.wire.frames import FrameDecoder
from tests.framemodels import frame_model, textured_frames

SHAPE = (12, 16)
SECOND = 10**9
START = 1_790_000_000 * SECOND
PARTITION = Partition("image-frames", 0)
THREADS = ThreadPoolExecutor(2, thread_name_prefix="test-decode")


@lru_cache(maxsize=4)
def model_of(*cameras: str, version: str = "1") -> FrameModel:
    """A model that knows these cameras."""
    plain = frame_model(SHAPE)
    profiles = {camera: profile_of(plain) for camera in cameras}
    return dataclasses.replace(plain, version=version, digest=f"sha256:{version}", profiles=profiles)


def profile_of(model: FrameModel) -> Calibration:
    frames = textured_frames(300, SHAPE, seed=2)
    times = START - SECOND * np.arange(300, 0, -1)
    return build_frame_profile(times, score_frames(model, frames))[0]


def frames_config(
    *,
    false_alarms: FalseAlarms | None = None,
    open_after: tuple[int, int] = (3, 5),
    idle_eviction: int | None = None,
    update_every: int | None = None,
    max_duration: int | None = None,
    warmup: int = 150,
    **alerts: Any,
) -> FramesConfig:
    """A configuration without timers and without a budget, unless asked for. Durations are ns."""
    return FramesConfig(
        warmup=warmup,
        idle_eviction=idle_eviction,
        alerts=FrameAlertsConfig(
            false_alarms=false_alarms,
            open_after=FrameOpenAfter(n=open_after[0], of=open_after[1]),
            update_every=update_every,
            max_duration=max_duration,
            **alerts,
        ),
    )


def pipeline_of(
    config: FramesConfig,
    model: FrameModel,
    decoder: FrameDecoder | None = None,
    pulse: Callable[[], None] = lambda: None,
    maintenance: Sequence[MaintenanceConfig] = (),
) -> FramesPipeline:
    """A pipeline that knows nothing yet."""
    return FramesPipeline(
        PARTITION, config, model, decoder or FrameDecoder(SHAPE, LimitsConfig()), THREADS,
        dead_letters="dead-letters", alerts="alerts", pulse=pulse, maintenance=maintenance,
    )  # fmt: skip


def watched(count: int, *, seed: int = 5, faults: Sequence[tuple[int, int]] = ()) -> F32:
    """Frames of one camera; during faults something bright and striped stands in the picture."""
    frames = textured_frames(count, SHAPE, seed=seed)
    for begin, end in faults:
        frames[begin:end, 3:9, 4:12:2] = 1.0
        frames[begin:end, 3:9, 5:12:2] = 0.0
    return frames


def raw_record(camera: str, frame: F32, time: int, offset: int = 0) -> Record:
    """A frame as its pixels; `time` in ns."""
    shape = ",".join(map(str, frame.shape)).encode()
    headers = [("shape", shape), ("dtype", b"float32"), ("timestamp", str(time).encode())]
    return Record(offset, camera.encode(), frame.tobytes(), None, headers)


def numbered(records: Sequence[Record]) -> list[Record]:
    """The records with offsets that rise in uneven steps."""
    return [record._replace(offset=7 * i + i % 3) for i, record in enumerate(records)]


def records_of(cameras: Mapping[str, F32], *, interval: int = SECOND) -> list[Record]:
    """The frames of all cameras in the order of time, one of each every `interval` ns."""
    longest = max(map(len, cameras.values()))
    rows = [
        raw_record(camera, frames[i], START + i * interval + j)
        for i in range(longest)
        for j, (camera, frames) in enumerate(cameras.items())
        if i < len(frames)
    ]
    return numbered(rows)


def batches_of(records: Sequence[Record], cuts: Sequence[int] = ()) -> list[Batch]:
    """The records as batches that end at the cuts and at the end."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(records)}), len(records)]
    return [
        Batch(PARTITION, records[first:last], records[last - 1].offset + 1)
        for first, last in itertools.pairwise(edges)
        if first < last
    ]


def finish(pipeline: FramesPipeline) -> list[Message]:
    """What becomes of everything that is pending."""
    alerts: list[Message] = []
    while pipeline.pending:
        alerts += pipeline.advance().alerts
    return alerts


def play(pipeline: FramesPipeline, records: Sequence[Record], cuts: Sequence[int] = ()) -> list[Message]:
    """What the pipeline publishes of the records."""
    alerts: list[Message] = []
    for batch in batches_of(records, cuts):
        alerts += pipeline.process(batch).alerts
    return alerts + finish(pipeline)


def state_of(pipeline: FramesPipeline, config: FramesConfig) -> dict[str, Any]:
    """Everything the pipeline knows, to the bit, by camera."""
    table = camera_table(SHAPE, config.alerts.open_after.of)
    unpack_slices(table, unpack_state(pipeline.snapshot())[0])
    state: dict[str, Any] = {"clock": pipeline.clock, "position": pipeline.position}
    for camera, slot in table.slots.items():
        warming = table.warming.get(slot)
        state[camera] = {
            "cells": {c.name: table[c.name][slot].tobytes() for c in table.columns if c.name != "known"},
            "episode": table.episodes.get(slot),
            "warming": warming and (warming.times.tobytes(), warming.values.tobytes()),
        }
    return state
