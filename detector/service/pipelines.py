"""How records become results: the models of a configuration, and what makes the pipelines of partitions of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import ValidationError

from detector import zones
from detector.config.load import Config, FramesConfig, ReadingsConfig
from detector.config.rules import RuleBook
from detector.detection.framesignal import FrameModel
from detector.detection.profile import build_profile
from detector.detection.scorer import Model, ScoreBlock, score_block
from detector.engine.alertwriter import AlertWriter
from detector.engine.partition import PartitionPipeline
from detector.engine.readings import BuildProfile, MakeWriter, ReadingsPipeline
from detector.engine.slices import FramesProvenance, Provenance, ReadingsProvenance, as_meant
from detector.errors import UserError
from detector.models.bundle.bundles import bundle_with, check_fits, check_frames_fit, check_profiles, load_bundle
from detector.models.bundle.frame_bundles import open_frame_model
from detector.models.bundle.spec import FRAME_KINDS
from detector.models.runtime.onnx import open_runtime
from detector.service.kernel import ready_kernel
from detector.service.supported import tell_impatient, tell_unmatched
from detector.service.web.status import ModelStatus, Setup, setup_of
from detector.streams.base import Partition
from detector.wire.alerts import Kind
from detector.wire.csv_form import CsvOptions
from detector.wire.csv_recognition import Recogniser
from detector.wire.documents import Documents
from detector.wire.json_readings import ReadingDecoder
from detector.wire.machines import MachineDecoder
from detector.wire.readings import Decoder

if TYPE_CHECKING:
    from detector.engine.frames import FramesPipeline

AnyModel = TypeVar("AnyModel", Model, FrameModel)
MakePipeline = Callable[[Partition], PartitionPipeline]
MakeReplay = Callable[[Partition, Provenance], PartitionPipeline]


@dataclass(frozen=True, slots=True)
class Engine:
    """What turns records into results: a configuration, the models in use, and how pipelines are made of them.

    `make_replay` makes the pipeline that runs records again which were processed with another model or other settings;
    without it the configured ones count at once.
    """

    config: Config
    setup: Setup
    make_pipeline: MakePipeline
    make_replay: MakeReplay | None


def make_engine(
    config: Config,
    *,
    sensor: str | None = None,
    interval: int | None = None,
    place: str | None = None,
    csv: CsvOptions | None = None,
    documents: Documents | None = None,
    pulse: Callable[[], None] = lambda: None,
) -> Engine:
    """Load and verify the models and put everything together that the main loop processes with.

    `sensor`, `interval`, `place`, `csv` and `documents` are those of `make_decoder`; `pulse` is called between pieces
    of long work. Raises UserError for what is wrong with a bundle, or does not fit it.
    """

    def of_readings(config: Config, model: Model) -> MakePipeline:
        decoder = make_decoder(
            config, sensor=sensor, interval=interval, live=True, place=place, csv=csv, documents=documents
        )
        return pipeline_factory(config, model, decoder, pulse, keep_rows=config.output.scores is not None)

    def of_frames(config: Config, model: FrameModel) -> MakePipeline:
        return frame_pipeline_factory(config, model, pulse=pulse)

    flows: list[Flow[Any]] = []
    if config.readings.enabled:
        flows.append(Flow("readings", load_model, of_readings, ReadingsProvenance))
    if config.frames.enabled:
        flows.append(Flow("frames", load_frame_model, of_frames, FramesProvenance))
    makers: dict[str, MakePipeline] = {}
    replays: dict[str, MakeReplay] = {}
    models: dict[Kind, ModelStatus] = {}
    known: dict[Kind, Mapping[str, Any]] = {"readings": {}, "frames": {}}
    for flow in flows:
        model = flow.load(config, None)
        stream = flow.settings(config).input
        makers[stream], replays[stream] = flow.factory(config, model), flow.replays(config, model)
        models[flow.kind] = ModelStatus(model.name, model.version, model.digest)
        known[flow.kind] = model.profiles
    tell_impatient(config, known["readings"])
    tell_unmatched(config, known["readings"], known["frames"])
    return Engine(
        config=config,
        setup=setup_of(config, models),
        make_pipeline=lambda partition: makers[partition.stream](partition),
        make_replay=lambda partition, provenance: replays[partition.stream](partition, provenance),
    )


@dataclass(frozen=True, slots=True)
class Flow(Generic[AnyModel]):
    """One kind of input and what it needs to become alerts. `kind` is also the section of the configuration.

    `load` reads the model, of the version with a digest or the active one; `factory` gives what makes pipelines with
    it; `provenance` is the form in which the settings were stored that results rest on.
    """

    kind: Kind
    load: Callable[[Config, str | None], AnyModel]
    factory: Callable[[Config, AnyModel], MakePipeline]
    provenance: type[ReadingsProvenance | FramesProvenance]

    def settings(self, config: Config) -> ReadingsConfig | FramesConfig:
        """The kind's section of a configuration."""
        return config.readings if self.kind == "readings" else config.frames

    def replays(self, config: Config, model: AnyModel) -> MakeReplay:
        """What makes a replay pipeline: it runs records again with the model and the settings of the first time.

        The provenance names the model's version in the directory of bundles, and holds the settings. What this returns
        raises UserError where either cannot be had. `model` is that of `config`.
        """

        @lru_cache(maxsize=1)  # the partitions of a process were mostly processed with the same ones
        def make_for(provenance: Provenance) -> MakePipeline:
            settings = self._settings_then(config, provenance)
            then = config.model_copy(update={self.kind: settings, "maintenance": settings.maintenance})
            if isinstance(settings, ReadingsProvenance):
                then = then.model_copy(update={"calendar": settings.calendar})
            same = provenance.model == model.digest
            return self.factory(then, model if same else self.load(then, provenance.model))

        return lambda partition, provenance: make_for(provenance)(partition)

    def _settings_then(self, config: Config, provenance: Provenance) -> ReadingsProvenance | FramesProvenance:
        """The settings that were stored; where the input and the models lie is as it is now. Raises UserError."""
        now = self.settings(config)
        try:
            found = self.provenance.model_validate_json(as_meant(provenance.settings, self.kind))
        except ValidationError as error:
            raise UserError(
                f"{self.kind} have to be run again with settings this version does not know: "
                f"{error.errors()[0]['msg']} ({'.'.join(map(str, error.errors()[0]['loc']))})",
                todo="Start the version that ran before once more and stop it with SIGTERM",
            ) from None
        if isinstance(found, ReadingsProvenance) and found.zone_data not in (None, zones.DATA):
            raise UserError(
                f"{self.kind} have to be run again with the time zones of {found.zone_data}, and those here are of "
                f"{zones.DATA} (tzdata)",
                todo="Start the version that ran before once more and stop it with SIGTERM",
            )
        return found.model_copy(update={"input": now.input, "model": now.model, "enabled": True})


def load_model(config: Config, digest: str | None = None) -> Model:
    """The active bundle of the readings, verified, checked against the configuration, and ready to score.

    `digest` asks for another version. Raises UserError.
    """
    readings, book = config.readings, RuleBook(config.readings)
    bundle = load_bundle(readings.model) if digest is None else bundle_with(readings.model, digest)
    check_fits(bundle, channels=readings.channels, stride=readings.window.stride)
    profiles = bundle.profiles()
    check_profiles(bundle, profiles, lambda sensor_id: book.of(sensor_id).open_after)
    return Model(
        name=bundle.name,
        version=bundle.version,
        digest=bundle.digest,
        scaler=bundle.scaler,
        stride=bundle.stride,
        reconstruct=open_runtime(bundle, readings.runtime),
        profiles=profiles,
    )


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


def make_decoder(
    config: Config,
    *,
    sensor: str | None,
    interval: int | None,
    live: bool,
    place: str | None = None,
    csv: CsvOptions | None = None,
    documents: Documents | None = None,
) -> Decoder:
    """The decoder of the readings stream. `live`: a reading far ahead of its broker's clock is refused.

    `place` names the input in errors about a CSV header; `csv` is what was said of CSV files.
    `documents` reads values that need not be JSON.
    """
    readings = config.readings
    decoder = ReadingDecoder(
        readings.fields,
        readings.decoded,
        default_sensor=sensor,
        interval=interval,
        max_future=readings.window.max_future if live else None,
        place=place,
        coerce=readings.coerce,
        csv=csv,
        documents=documents,
    )
    return MachineDecoder(decoder, readings.machines, readings.channels) if readings.machines else decoder


def make_recogniser(
    config: Config, csv: CsvOptions, *, interval: int | None, has_sensor: bool, named: bool
) -> Recogniser:
    """What recognises CSV files of readings, for the decoder of `make_decoder`.

    `has_sensor`: rows without a sensor belong to some; `named`: it was named by a person.
    """
    readings = config.readings
    return Recogniser(readings.fields, readings.decoded, csv, has_sensor, interval, named)


def pipeline_factory(
    config: Config,
    model: Model,
    decoder: Decoder,
    pulse: Callable[[], None] = lambda: None,
    score: ScoreBlock = score_block,
    *,
    keep_rows: bool = False,
    writer: MakeWriter = AlertWriter,
    build: BuildProfile = build_profile,
) -> Callable[[Partition], ReadingsPipeline]:
    """What makes the pipeline of a partition when it is assigned.

    `pulse`, `score`, `keep_rows`, `writer`, `build` are those of `ReadingsPipeline`. Raises UserError if the compiled
    kernel is wrong.
    """
    ready_kernel()

    def make(partition: Partition) -> ReadingsPipeline:
        return ReadingsPipeline(
            partition,
            config.readings,
            model,
            decoder,
            dead_letters=config.output.dead_letters,
            alerts=config.output.alerts,
            verdicts=config.output.verdicts,
            pulse=pulse,
            score=score,
            keep_rows=keep_rows,
            maintenance=config.maintenance,
            calendar=config.calendar,
            writer=writer,
            build=build,
        )

    return make


def frame_pipeline_factory(
    config: Config, model: FrameModel, *, pulse: Callable[[], None] = lambda: None
) -> Callable[[Partition], FramesPipeline]:
    """What makes the pipeline of a partition of frames when it is assigned.

    `pulse` is that of `FramesPipeline`. Raises UserError if the compiled kernel is wrong.
    """
    ready_kernel()
    # Here, because a daemon without cameras needs no decoder of images.
    from detector.engine.framequeue import decoding_threads
    from detector.engine.frames import FramesPipeline
    from detector.wire.frames import FrameDecoder

    frames = config.frames
    decoder = FrameDecoder(model.shape, frames.limits, max_future=frames.max_future)
    threads = decoding_threads()

    def make(partition: Partition) -> FramesPipeline:
        return FramesPipeline(
            partition, frames, model, decoder, threads,
            dead_letters=config.output.dead_letters, alerts=config.output.alerts, verdicts=config.output.verdicts,
            pulse=pulse, maintenance=config.maintenance,
        )  # fmt: skip

    return make
