"""`detector check`: everything `run` needs, looked at without changing anything."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detector.cli import options
from detector.config.load import Config, find_config
from detector.errors import DetectorError, UserError
from detector.times import rfc3339

if TYPE_CHECKING:
    from detector.detection.profile import Profile


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "check",
        help="validate the configuration and the models, change nothing",
        description="Look at everything `run` needs: the configuration, the active model and whether it fits, "
        "and the files or, with --connect, the Kafka brokers, also where there is no model. Stops at the first thing "
        "that is wrong; changes nothing.",
    )
    parser.add_argument(
        "--connect", action="store_true", help="also brokers, credentials, topics and rights, where Kafka is used"
    )
    options.add_companions(parser, "with --connect: also what these daemons need of the brokers")
    parser.add_argument(
        "--sensor",
        type=options.sensor_id,
        metavar="ID",
        help="say also which settings apply to this sensor, which readings belong to that name none",
    )
    parser.add_argument(
        "--data",
        type=options.place,
        metavar="PATH|kafka",
        help="instead: what is understood of the first thousand records, and which settings would mend the rest",
    )
    options.add_csv_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print a line for each thing that is right; what is not is the UserError that ends it."""
    if args.data is not None:
        return _look_at_data(args)
    source = find_config(Path(args.config_path) if args.config_path else None)
    if args.companions and not args.connect:
        raise UserError("`--with` is about the brokers", where="--with", todo="Add --connect")
    asked = args.companions if args.connect else None
    for name, finding in _checks(args.config, source, args.sensor, asked):
        sys.stdout.write(f"OK  {name:<14} {finding}\n")
    return 0


def _look_at_data(args: argparse.Namespace) -> int:
    """Say what is understood of a file or the topic; 2 if nothing is."""
    from rich.console import Console

    from detector.cli.recordings import file_reader, widened
    from detector.reports.understood import look_at, mending
    from detector.reports.understoodtext import lines_of, table_of

    config = widened(args.config, args, args.data, trained=False)
    channels, machines = config.readings.channels, bool(config.readings.machines)
    if args.data == "kafka":
        from detector.cli.topics import recorded
        from detector.service.pipelines import make_decoder
        from detector.service.schemas import topic_documents

        topic = make_decoder(
            config, sensor=args.sensor, interval=args.interval, live=True, documents=topic_documents(config)
        )
        with recorded(config, topic, since=None, until=None) as (batches, _):
            seen = look_at(batches, topic, config.readings)
    else:
        decoder, read = file_reader(config, args, Path(args.data))
        seen = look_at(read(), decoder, config.readings)
    if not seen.records:
        raise UserError("there are no records here", where=args.data, todo="Name data that has some")
    console = Console(highlight=False, markup=False, soft_wrap=True)  # sensor ids may have brackets
    if seen.sensors:
        console.print(table_of(seen, channels, machines=machines))
    for line in lines_of(seen, mending(seen, config.readings, has_times=args.data == "kafka"), machines=machines):
        console.print(line)
    if args.sensor is not None:
        if args.sensor not in seen.sensors:
            console.print(f"no reading of {args.sensor} is among them")
        console.print(_settings_of(config, args.sensor))
    return 0 if seen.readings else 2


def _checks(
    config: Config, source: Path | None, sensor: str | None, asked: Sequence[str] | None
) -> Iterator[tuple[str, str]]:
    """Yield what was looked at and what was found. Raises UserError at the first thing `run` could not work with.

    `asked`: the daemons beside `run` for which the brokers are asked; None: they are not asked.
    """
    from detector.service.supported import refuse_unsupported

    # It was validated in full when it was loaded; what is left is whether this version acts on it.
    refuse_unsupported(config)
    yield "configuration", str(source) if source is not None else "defaults, there is no file"
    if sensor is not None:
        yield "sensor", _settings_of(config, sensor)
    yield from _targets(config)
    if config.streams.backend != "kafka":
        yield from _models(config)
        yield from _directory(config)
    elif asked is not None:
        yield from _models_and_brokers(config, asked)
    else:
        yield from _models(config)
        yield "brokers", f"{', '.join(config.streams.kafka.bootstrap_servers)}, not asked; --connect does"


def _targets(config: Config) -> Iterator[tuple[str, str]]:
    """Whom `notify` would tell: their secrets and templates are there. `notify --test` sends something."""
    if config.notify.targets:
        from detector.service.telling import form_of, sender_of

        for target in config.notify.targets:
            form_of(target)
            with sender_of(target):
                yield "target", f"{target.name}, {target.kind}"


def _models(config: Config) -> Iterator[tuple[str, str]]:
    sensors: dict[str, Profile] = {}
    cameras: list[str] = []
    if config.readings.enabled:
        yield from _model(config, sensors)
    if config.frames.enabled:
        yield from _frame_model(config, cameras)
    _warn(config, sensors, cameras)


def _models_and_brokers(config: Config, companions: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Brokers are mostly set up before there is data to train on, so they are asked whatever is wrong with a model."""
    lacking: UserError | None = None
    try:
        yield from _models(config)
    except UserError as error:
        lacking = error
    try:
        yield from _brokers(config, companions)
    except DetectorError as error:
        if lacking is None:
            raise
        sys.stderr.write(f"detector: error: {error}\n")
    if lacking is not None:
        raise lacking


def _brokers(config: Config, companions: Sequence[str]) -> Iterator[tuple[str, str]]:
    from detector.service.assemble import kafka_topics, optional_topics
    from detector.service.people import topics_of_companions
    from detector.service.schemas import asked_registry
    from detector.streams.kafka.inspection import inspect, inspect_group

    kafka = config.streams.kafka
    yield from inspect(kafka, *kafka_topics(config), optional_topics(config))
    for group, state_topics, outputs in topics_of_companions(config, companions):
        yield from inspect_group(kafka.model_copy(update={"group_id": group}), state_topics, outputs)
    if (registry := asked_registry(config)) is not None:
        yield "registry", f"{registry} answers"


def _warn(config: Config, sensors: dict[str, Profile], cameras: list[str]) -> None:
    """Print what is most likely a slip, and may be meant."""
    from detector.errors import counted
    from detector.service.supported import impatient, unmatched

    for key, match, known in unmatched(config, sensors, cameras):
        those = f"nothing known from training, which is {counted(known, 'sensor')}"
        sys.stderr.write(f"detector: warning: {key} (`{match}`) applies to {those}\n")
    if short := impatient(config, sensors):
        those = f"{counted(len(short), 'sensor')}, such as {short[0]}"
        sys.stderr.write(f"detector: warning: silence_after is less than two usual intervals of {those}\n")


def _model(config: Config, sensors: dict[str, Profile]) -> Iterator[tuple[str, str]]:
    """Adds the sensors known from training."""
    # Here, because `detector check --help` needs none of it.
    from detector.config.rules import RuleBook
    from detector.errors import counted
    from detector.models.bundle.bundles import check_fits, check_profiles, load_bundle
    from detector.models.runtime.onnx import open_runtime

    readings = config.readings
    bundle = load_bundle(readings.model)
    yield "model", f"{bundle.path}, {bundle.kind}, digest {bundle.digest[:12]}"
    check_fits(bundle, channels=readings.channels, stride=readings.window.stride)
    yield "windows", f"shape {bundle.shape}, channels {', '.join(bundle.channels)}, stride {bundle.stride}"
    profiles, book = bundle.profiles(), RuleBook(readings)
    check_profiles(bundle, profiles, lambda sensor_id: book.of(sensor_id).open_after)
    yield "profiles", f"{counted(len(profiles), 'sensor')} known from training"
    sensors |= profiles
    runtime = open_runtime(bundle, readings.runtime)
    yield "runtime", f"{readings.runtime} opens the model, {runtime.name} runs it"


def _frame_model(config: Config, cameras: list[str]) -> Iterator[tuple[str, str]]:
    """Adds the cameras known from training."""
    from detector.errors import counted
    from detector.models.bundle.bundles import check_frames_fit, load_bundle
    from detector.models.bundle.frame_bundles import open_frame_model
    from detector.models.bundle.spec import FRAME_KINDS

    frames = config.frames
    bundle = load_bundle(frames.model, kinds=FRAME_KINDS)
    yield "frame model", f"{bundle.path}, {bundle.kind}, digest {bundle.digest[:12]}"
    check_frames_fit(bundle, open_after=(frames.alerts.open_after.n, frames.alerts.open_after.of))
    model = open_frame_model(bundle, frames.runtime)
    cameras += model.profiles
    known = counted(len(model.profiles), "camera")
    yield "frames", f"shape {model.shape}, {known} known from training, {frames.runtime}"


def _settings_of(config: Config, sensor: str) -> str:
    """What applies to a sensor, one key a line; those of its override are marked."""
    from detector.config.rules import RuleBook, Selection
    from detector.engine.maintenance import Maintenance

    readings, book = config.readings, RuleBook(config.readings)
    number, rules = book.override(sensor), book.of(sensor)
    override = readings.overrides[number - 1] if number else None
    name = f"readings.overrides[{number - 1}] (`{override.match}`)" if override else ""
    watched = "watched" if rules.enabled else f"not watched, {name} says so"
    if not Selection(readings.sensors.include, readings.sensors.exclude).includes(sensor):
        watched = "not watched, readings.sensors leaves it out"
    lines = [f"{sensor}: {watched}"]
    window = {"max_gap": rules.max_gap, "max_fill": rules.max_fill}
    given = {
        "": override.model_fields_set if override else set(),
        "alerts.": override.alerts.model_fields_set if override else set(),
        "window.": override.window.model_fields_set if override else set(),
    }
    settings = {
        "alerts.": rules.alerts.model_dump(mode="json"),
        "window.": readings.window.model_copy(update=window).model_dump(mode="json", include=set(window)),
        "": readings.model_copy(update={"silence_after": rules.silence_after}).model_dump(
            mode="json", include={"silence_after"}
        ),
    }
    for section, keys in settings.items():
        for key, value in keys.items():
            mark = f"   {name}" if key in given[section] else ""
            lines.append(f"{section + key:<22} {_written(value)}{mark}")
    for number in Maintenance(config.maintenance).of(sensor):
        one = config.maintenance[number]
        times = f"{rfc3339(one.start)} to {rfc3339(one.end)}"
        lines.append(f"{'maintenance':<22} {times}   maintenance[{number}] (`{one.match}`)")
    return ("\n" + " " * 19).join(lines)


def _written(value: object) -> str:
    """A setting as it may stand in the configuration."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_written(inner)}" for key, inner in value.items()) + "}"
    return "null" if value is None else str(value)


def _directory(config: Config) -> Iterator[tuple[str, str]]:
    from detector.streams.files import size_of_regular
    from detector.streams.places import stream_file

    directory = config.streams.directory.path
    for stream in (path.input for path in (config.readings, config.frames) if path.enabled):
        file = stream_file(directory, stream) if directory.is_dir() else None
        size = size_of_regular(file) if file is not None else None
        if file is None or size is None:
            yield "input", f"{directory}: no file of {stream} yet, `run` waits for it"
        elif os.access(file, os.R_OK):
            yield "input", f"{file}, {size} bytes"
        else:
            raise UserError("the input may not be read", where=str(file), todo="Give the detector that right")
    # What is not there yet is made below the nearest directory that is.
    existing = next(place for place in (directory, *directory.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(
            f"{directory} cannot be written",
            where=f"streams.directory.path: {existing}",
            todo="Give the detector that right, or another path",
        )
    yield "output", f"{directory} can be written"
