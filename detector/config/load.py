"""Reading the configuration: the file, the `--set` options, and errors that a person can act on.

The settings themselves are declared in `detector.config.settings` and imported from here.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from detector.config import yamltext
from detector.config.alerts import (
    AlertsConfig,
    AlertsOverride,
    FalseAlarms,
    FrameAlertsConfig,
    FrameOpenAfter,
    MinDeviation,
    OpenAfter,
    OverrideConfig,
    WindowOverride,
)
from detector.config.base import resolve_secret
from detector.config.fields import FieldsConfig
from detector.config.machines import AlignConfig, MachineConfig
from detector.config.people import IncidentsConfig, NotifyConfig, TargetConfig
from detector.config.settings import (
    CalendarConfig,
    Config,
    FramesConfig,
    HttpConfig,
    LimitsConfig,
    LogConfig,
    MaintenanceConfig,
    MetricsConfig,
    OutputConfig,
    ReadingsConfig,
    RejectsConfig,
    SensorsConfig,
    StateConfig,
    TrainingConfig,
    WindowConfig,
    config_schema,
)
from detector.config.streams import DirectoryConfig, KafkaConfig, SchemaRegistryConfig, StreamsConfig
from detector.config.values import DURATION_FORM, Duration, format_duration, parse_duration
from detector.errors import UserError, without

__all__ = [
    "AlertsConfig",
    "AlertsOverride",
    "AlignConfig",
    "CalendarConfig",
    "Config",
    "DirectoryConfig",
    "Duration",
    "FalseAlarms",
    "FieldsConfig",
    "FrameAlertsConfig",
    "FrameOpenAfter",
    "FramesConfig",
    "HttpConfig",
    "IncidentsConfig",
    "KafkaConfig",
    "LimitsConfig",
    "LogConfig",
    "MachineConfig",
    "MaintenanceConfig",
    "MetricsConfig",
    "MinDeviation",
    "NotifyConfig",
    "OpenAfter",
    "OutputConfig",
    "OverrideConfig",
    "ReadingsConfig",
    "RejectsConfig",
    "SchemaRegistryConfig",
    "SensorsConfig",
    "StateConfig",
    "StreamsConfig",
    "TargetConfig",
    "TrainingConfig",
    "WindowConfig",
    "WindowOverride",
    "config_schema",
    "find_config",
    "format_duration",
    "load_config",
    "parse_duration",
    "resolve_secret",
]

SEARCH: Final = (Path("config.yaml"), Path("/etc/detector/config.yaml"))

_BOOLEANS: Final = {"no": "false", "off": "false", "n": "false", "yes": "true", "on": "true", "y": "true"}
# pydantic's error types, in words. `{...}` are filled from the error's context.
_EXPECTED: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "tuple_type": "a list",
    "model_type": "a mapping of settings",
    "literal_error": "{expected}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "string_too_short": "text of at least {min_length} character",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "a list of at least {min_length} entry",
    "too_long": "a list of at most {max_length} entries",
}


def find_config(path: Path | str | None) -> Path | None:
    """Return the configuration file in force: `path`, $DETECTOR_CONFIG, ./config.yaml, /etc/detector/config.yaml.

    None where there is none, which means the defaults. Raises UserError if a file that was named is not there, or where
    one may not be looked for.
    """
    try:
        return _in_force(path)
    except OSError as error:
        raise UserError(
            f"cannot look for the configuration: {error.strerror}",
            where=os.fsdecode(error.filename),
            todo="Give the detector that right, or name a file with --config",
        ) from None


def _in_force(path: Path | str | None) -> Path | None:
    variable = os.environ.get("DETECTOR_CONFIG")
    if path is not None:
        return _named(Path(path), f"--config {path}", "Correct the path")
    if variable:
        return _named(Path(variable), f"$DETECTOR_CONFIG: {variable}", "Correct or unset the variable")
    return next((candidate for candidate in SEARCH if candidate.is_file()), None)


def _named(path: Path, where: str, todo: str) -> Path:
    if path.is_dir():
        raise UserError("the configuration is a directory, not a file", where=where, todo=todo)
    if not path.exists():
        raise UserError("the configuration file is not there", where=where, todo=todo)
    return path


def load_config(path: Path | str | None, overrides: Sequence[str] = ()) -> Config:
    """Read and validate the configuration.

    `overrides` are `key.path=VALUE` texts; each replaces the value at its path, and is validated like the file.
    Raises UserError: the first problem with its key path, what was expected and what was written.

    >>> load_config(None, ["readings.warmup=300"]).readings.warmup
    300
    """
    file = find_config(path)
    tree = _read(file) if file is not None else yamltext.Tree(None)
    if tree.value is None:
        tree = yamltext.Tree({})
    source = _Source(file, tree)
    if not isinstance(tree.value, dict):
        raise UserError("the configuration is no mapping", where=str(file), todo="Write `key: value` lines")
    for override in overrides:
        source.override(override)
    try:
        return Config.model_validate_json(json.dumps(tree.value))
    except ValidationError as error:
        raise source.explain(error.errors(include_url=False)) from None


def _read(file: Path) -> yamltext.Tree:
    try:
        with file.open("rb") as stream:
            raw = stream.read(yamltext.MAX_BYTES + 1)
    except OSError as error:
        what = f"cannot read the configuration: {error.strerror}"
        raise UserError(what, where=str(file), todo="Correct it") from None
    if len(raw) > yamltext.MAX_BYTES:
        raise UserError("the configuration is larger than 1 MB", where=str(file), todo="Give a configuration file")
    try:
        return yamltext.parse(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError("the configuration is not UTF-8 text", where=str(file), todo="Save it as UTF-8") from None
    except yamltext.YamlError as problem:
        place = dotted(problem.path) if problem.path else ""
        if problem.line is not None:
            place = f"{place} line {problem.line}" if place else f"line {problem.line}"
        raise UserError(problem.what, where=f"{file}:{place}" if place else str(file), todo=problem.todo) from None


def dotted(path: Sequence[str | int]) -> str:
    """Write a key path as in `maintenance[0].from`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class _Source:
    """Where every value came from, to say so in errors."""

    def __init__(self, file: Path | None, tree: yamltext.Tree) -> None:
        self._file = file
        self._tree = tree
        self._overrides: list[yamltext.Path] = []

    def override(self, text: str) -> None:
        """Put the value of one `key.path=VALUE` into the tree."""
        key, equals, value = text.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            raise UserError(
                f"`{without(text)[:60]}` sets nothing",
                where="--set",
                todo="Write --set key.path=VALUE, such as log.level=debug",
            )
        try:
            parsed = yamltext.parse_value(value)
        except yamltext.YamlError as problem:
            raise UserError(problem.what, where=f"--set {key}", todo=problem.todo) from None
        section = self._tree.value
        for depth, part in enumerate(path[:-1], start=1):
            if section.get(part) is None:
                section[part] = {}
                self._tree.written[path[:depth]] = "a mapping"
            section = section[part]
            if not isinstance(section, dict):
                raise UserError(
                    f"{'.'.join(path[:depth])} has no keys of its own",
                    where=f"--set {key}",
                    todo=f"Set {'.'.join(path[:depth])} as a whole",
                )
        section[path[-1]] = parsed.value
        written = self._tree.written
        for old in [known for known in written if known[: len(path)] == path]:
            del written[old]
        written.update({(*path, *below): shown for below, shown in parsed.written.items()})
        self._overrides.append(path)

    def explain(self, errors: Sequence[ErrorDetails]) -> UserError:
        """The first error as one line, with the number of the others."""
        error = errors[0]
        path = tuple(error["loc"])
        what, todo = self._words(error, path)
        if len(errors) > 1:
            rest = f"{len(errors) - 1} more {'problem' if len(errors) == 2 else 'problems'} after this one"
            todo = f"{todo}. {rest}" if todo else rest
        return UserError(what, where=self._where(path), todo=todo)

    def _where(self, path: yamltext.Path) -> str:
        for override in reversed(self._overrides):
            common = min(len(override), len(path))
            if override[:common] == path[:common]:
                return f"--set {'.'.join(str(part) for part in override)}"
        return ":".join(part for part in (str(self._file or ""), dotted(path)) if part)

    def _words(self, error: ErrorDetails, path: yamltext.Path) -> tuple[str, str]:
        kind = error["type"]
        context = error.get("ctx", {})
        if kind == "extra_forbidden":
            return f"unknown key `{path[-1]}`", _suggest(path)
        if kind == "missing":
            return f"{dotted(path)} is missing", "Add it"
        if kind == "refused":
            return str(context["what"]), str(context["todo"])
        if kind == "expected":
            form, todo = str(context["what"]), str(context["todo"])
        elif kind in _EXPECTED:
            form, todo = _EXPECTED[kind].format_map(context).replace("'", "`"), ""
        else:
            form, todo = error["msg"], ""
        if path[-1] == "[key]":  # pydantic's name for a key that is wrong itself
            return f"expected {form} as a key, but `{path[-2]}` is written", todo or "Correct it"
        # What stands at a key that names a secret may be the secret itself, and so may what is sent along in a header.
        secret = str(path[-1]).endswith(("_env", "_file")) or "headers" in path
        written = "something else" if secret else f"`{without(self._tree.written.get(path, 'nothing'))}`"
        written = written.replace("`a mapping`", "a mapping").replace("`a list`", "a list")
        return f"expected {form}, but {written} is written", todo or self._hint(kind, form, path, secret=secret)

    def _hint(self, kind: str, form: str, path: yamltext.Path, *, secret: bool) -> str:
        text = self._tree.written.get(path, "")
        value: Any = self._tree.value
        for part in path:
            value = value[part]
        if kind == "bool_type" and text.lower() in _BOOLEANS:
            return f"Write {_BOOLEANS[text.lower()]}"
        if kind.startswith("int_") and isinstance(value, float) and value.is_integer() and abs(value) < 1e18:
            return f"Write {int(value)}"
        if kind == "string_type" and not isinstance(value, dict | list) and value is not None:
            return "Write it in quotes" if secret else f'Write "{text}" in quotes'
        if kind == "model_type" and value is None:
            return "Write settings under it, or remove it"
        if form.endswith(DURATION_FORM):
            return "Write a whole number and ms, s, m, h or d"
        return "Correct it"


def _suggest(path: yamltext.Path) -> str:
    """What may have been meant by an unknown key: a similar one in its section, or the same one elsewhere."""
    key = str(path[-1])
    section = _model_at(path[:-1])
    names = _names(section) if section is not None else []
    if any(f"{key}{end}" in names for end in ("_env", "_file")) and ("password" in key or "token" in key):
        return f"A secret is given as {key}_file or {key}_env"
    elsewhere = [place for place in _paths(Config) if place.rpartition(".")[2] == key]
    close = difflib.get_close_matches(key, names, n=1)
    if close:
        return f"Perhaps {close[0]} is meant"
    if len(elsewhere) == 1:
        return f"Perhaps {elsewhere[0]} is meant"
    return f"Known here: {', '.join(names)}" if names else "Remove it"


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        place = f"{prefix}{field.alias or name}"
        yield place
        inner = _inner(field.annotation)
        if inner is not None and not place.endswith("overrides"):
            yield from _paths(inner, f"{place}.")


def _model_at(path: yamltext.Path) -> type[BaseModel] | None:
    model: type[BaseModel] | None = Config
    for part in path:
        if isinstance(part, int) or model is None:
            continue
        fields: Mapping[str, Any] = {field.alias or name: field for name, field in model.model_fields.items()}
        model = _inner(fields[part].annotation)
    return model


def _inner(annotation: object) -> type[BaseModel] | None:
    """The section a field holds, be it `Section`, `Section | None` or `tuple[Section, ...]`."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
