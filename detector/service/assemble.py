"""The parts of a daemon, made from the configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from detector.config import Config
from detector.decoding import ReadingDecoder
from detector.messages import dead_letter_line
from detector.models.bundles import check_fits, load_bundle
from detector.models.onnx_runtime import open_runtime
from detector.pipeline import Pipeline
from detector.scorer import Model
from detector.streams.base import Partition
from detector.streams.directory import DirectoryStreams
from detector.streams.places import directory_streams_for
from detector.timerange import Decoder

NANOSECONDS = 1e9


def load_model(config: Config) -> Model:
    """The active bundle of the readings, verified, checked against the configuration, and ready to score.

    Raises UserError.
    """
    readings = config.readings
    bundle = load_bundle(readings.model)
    open_after = readings.alerts.open_after
    check_fits(
        bundle,
        channels=readings.channels,
        stride=readings.window.stride,
        open_after=(open_after.n, open_after.of),
    )
    return Model(
        name=bundle.name,
        version=bundle.version,
        digest=bundle.digest,
        scaler=bundle.scaler,
        stride=bundle.stride,
        reconstruct=open_runtime(bundle, readings.runtime),
        profiles=bundle.profiles(),
    )


def make_streams(
    config: Config, *, input_option: str | None, output_option: str | None, until_end: bool, fresh: bool
) -> DirectoryStreams:
    """The streams of the daemon. Opens nothing. Raises UserError for places that cannot be."""
    directory = config.streams.directory
    return directory_streams_for(
        Path(directory.path),
        inputs=[config.readings.input],
        alerts=config.output.alerts,
        dead_letters=config.output.dead_letters,
        input_option=input_option,
        output_option=output_option,
        checkpoint_interval=directory.checkpoint_interval / NANOSECONDS,
        until_end=until_end,
        fresh=fresh,
        encoders={config.output.dead_letters: dead_letter_line},
    )


def make_decoder(config: Config, *, sensor: str | None, interval: int | None, live: bool) -> ReadingDecoder:
    """The decoder of the readings stream. `live`: a reading far ahead of its broker's clock is refused."""
    readings = config.readings
    return ReadingDecoder(
        readings.fields,
        readings.channels,
        default_sensor=sensor,
        interval=interval,
        max_future=readings.window.max_future if live else None,
    )


def pipeline_factory(
    config: Config, model: Model, decoder: Decoder, pulse: Callable[[], None] = lambda: None
) -> Callable[[Partition], Pipeline]:
    """What makes the pipeline of a partition when it is assigned."""

    def make(partition: Partition) -> Pipeline:
        return Pipeline(
            partition,
            config.readings,
            model,
            decoder,
            dead_letters=config.output.dead_letters,
            alerts=config.output.alerts,
            pulse=pulse,
        )

    return make
