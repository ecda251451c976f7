"""The parts of a daemon that watch cameras, made from the configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from pydantic import ValidationError

from detector.config.load import Config, FramesConfig
from detector.detection.framesignal import FrameModel
from detector.engine.framequeue import decoding_threads
from detector.engine.frames import FramesPipeline
from detector.engine.slices import FramesProvenance, Provenance
from detector.errors import UserError
from detector.models.bundle.bundles import bundle_with, check_frames_fit, load_bundle
from detector.models.bundle.frame_bundles import open_frame_model
from detector.models.bundle.spec import FRAME_KINDS
from detector.streams.base import Partition
from detector.wire.frames import FrameDecoder


def load_frame_model(config: Config, digest: str | None = None) -> FrameModel:
    """The active bundle of the frames, verified, checked against the configuration, and ready to score.

    `digest` asks for another version. Raises UserError.
    """
    frames = config.frames
    if digest is None:
        bundle = load_bundle(frames.model, kinds=FRAME_KINDS)
    else:
        bundle = bundle_with(frames.model, digest, kinds=FRAME_KINDS)
    check_frames_fit(bundle, open_after=(frames.alerts.open_after.n, frames.alerts.open_after.of))
    return open_frame_model(bundle, frames.runtime)


def frame_pipeline_factory(
    config: Config, model: FrameModel, *, pulse: Callable[[], None]
) -> Callable[[Partition], FramesPipeline]:
    """What makes the pipeline of a partition of frames when it is assigned.

    `pulse` is that of `FramesPipeline`.
    """
    frames = config.frames
    decoder = FrameDecoder(model.shape, frames.limits, max_future=frames.max_future)
    threads = decoding_threads()

    def make(partition: Partition) -> FramesPipeline:
        return FramesPipeline(
            partition, frames, model, decoder, threads,
            dead_letters=config.output.dead_letters, alerts=config.output.alerts, pulse=pulse,
            maintenance=config.maintenance,
        )  # fmt: skip

    return make


def frame_replay_factory(
    config: Config, model: FrameModel, *, pulse: Callable[[], None]
) -> Callable[[Partition, Provenance], FramesPipeline]:
    """What makes a replay pipeline: it runs frames again with the model and the settings of the first time.

    What it returns raises UserError where the provenance's model or settings cannot be had.
    """

    @lru_cache(maxsize=1)
    def make_for(provenance: Provenance) -> Callable[[Partition], FramesPipeline]:
        frames = _frames_of(provenance, config.frames)
        former = config.model_copy(update={"frames": frames, "maintenance": frames.maintenance})
        found = model if provenance.model == model.digest else load_frame_model(former, provenance.model)
        return frame_pipeline_factory(former, found, pulse=pulse)

    return lambda partition, provenance: make_for(provenance)(partition)


def _frames_of(provenance: Provenance, frames: FramesConfig) -> FramesProvenance:
    try:
        found = FramesProvenance.model_validate_json(provenance.settings)
    except ValidationError as error:
        raise UserError(
            "frames have to be run again with settings this version does not know: "
            f"{error.errors()[0]['msg']} ({'.'.join(map(str, error.errors()[0]['loc']))})",
            todo="Start the version that ran before once more and stop it with SIGTERM",
        ) from None
    return found.model_copy(update={"input": frames.input, "model": frames.model, "enabled": True})
