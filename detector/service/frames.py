"""The parts of a daemon that watch cameras, made from the configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from pydantic import ValidationError

from detector.config.load import Config, FramesConfig
from detector.detection.framesignal import FrameModel
from detector.engine.framequeue import decoding_threads
from detector.engine.frames import FramePipeline
from detector.engine.slices import Basis, FramesBasis
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
) -> Callable[[Partition], FramePipeline]:
    """What makes the pipeline of a partition of frames when it is assigned.

    `pulse` is that of `FramePipeline`.
    """
    frames = config.frames
    decoder = FrameDecoder(model.shape, frames.limits, max_future=frames.max_future)
    threads = decoding_threads()

    def make(partition: Partition) -> FramePipeline:
        return FramePipeline(
            partition, frames, model, decoder, threads,
            dead_letters=config.output.dead_letters, alerts=config.output.alerts, pulse=pulse,
            maintenance=config.maintenance,
        )  # fmt: skip

    return make


def frame_former_factory(
    config: Config, model: FrameModel, *, pulse: Callable[[], None]
) -> Callable[[Partition, Basis], FramePipeline]:
    """What makes a pipeline that processes as on another basis: frames are run again as they were the first time.

    What it returns raises UserError where the model or the settings of that basis cannot be had.
    """

    @lru_cache(maxsize=1)
    def make_for(basis: Basis) -> Callable[[Partition], FramePipeline]:
        frames = _frames_of(basis, config.frames)
        former = config.model_copy(update={"frames": frames, "maintenance": frames.maintenance})
        found = model if basis.model == model.digest else load_frame_model(former, basis.model)
        return frame_pipeline_factory(former, found, pulse=pulse)

    return lambda partition, basis: make_for(basis)(partition)


def _frames_of(basis: Basis, frames: FramesConfig) -> FramesBasis:
    try:
        found = FramesBasis.model_validate_json(basis.settings)
    except ValidationError as error:
        raise UserError(
            "frames have to be run again with settings this version does not know: "
            f"{error.errors()[0]['msg']} ({'.'.join(map(str, error.errors()[0]['loc']))})",
            todo="Start the version that ran before once more and stop it with SIGTERM",
        ) from None
    return found.model_copy(update={"input": frames.input, "model": frames.model, "enabled": True})
