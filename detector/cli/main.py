"""`detector`: finds the command, loads the configuration, and turns every failure into one line and an exit status.

A command is a module `detector.cli.<name>` with `add_parser(subparsers)`, which adds the parser of that name, and
`run(args) -> int`, which returns the exit status. Only the module of the command that was asked for is imported, so a
command pays for nothing another one needs. Unless the module says `NEEDS_CONFIG = False`, `args.config` is the loaded
`Config`; with it, `args.config` is None when neither `--config` nor `--set` was given.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import io
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn

from detector import __version__
from detector.cli.command import DAEMONS, find_command
from detector.errors import DetectorError, OperationError, UserError
from detector.service import logs

# name -> what it does, in the order of the help text
COMMANDS: Final = {
    "run": "the daemon: readings and frames in, alerts out",
    "incidents": "alerts in, incidents out: episodes that belong together",
    "notify": "incidents in, people told: Alertmanager, webhooks",
    "rekey": "copy a topic, its records under other keys, exactly once",
    "train": "train a model on normal data and write a bundle",
    "backtest": "run the same detection over recorded readings and sum up",
    "tune": "what other false-alarm budgets would have cost on recorded readings",
    "prove": "which faults would be told on recorded readings, and which sensors are as good as unwatched",
    "check": "validate the configuration and the models, change nothing",
    "simulate": "write the readings and frames of a simulated plant, with labelled faults",
    "alerts": "list the episodes that were published",
    "inspect": "draw one alert as a picture",
    "feedback": "say what an alert was: real, false, expected",
    "models": "list, activate and roll back the bundles on disk",
    "schema": "print a JSON Schema",
    "demo": "simulate, train, run, report: the whole thing in two minutes",
}

# what the end of each command's help shows
EXAMPLES: Final = {
    "run": "run --input pump.csv --output alerts.jsonl --until-end",
    "incidents": "incidents --input alerts.jsonl --output incidents.jsonl --until-end",
    "notify": "notify --input incidents.jsonl --dry-run",
    "rekey": "rekey --key {machine} --from tags --to readings",
    "train": "train --data pump.csv --rows 2000",
    "backtest": "backtest --data pump.csv --labels labels.json --out report",
    "tune": "tune --data pump.csv --alerts 3/week --write",
    "prove": "prove --data pump.csv --out proof",
    "check": "check --connect --set streams.backend=kafka",
    "simulate": "simulate --out plant --sensors 3 --rows 4000",
    "alerts": "alerts alerts.jsonl --open",
    "feedback": "feedback 1f3a9c real --by Ann",
    "inspect": "inspect alerts.jsonl --alert 1f3a9c -o alert.png",
    "models": "models activate 20261122T0300",
    "schema": "schema alert",
    "demo": "demo --dir var/demo",
}

INTERRUPTED: Final = 130


class _Parser(argparse.ArgumentParser):
    """argparse with our form of an error: one line, exit status 2. Options are never abbreviated."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        message = " ".join(message.split())
        self.exit(2, f"detector: error: {message}. See `{self.prog} --help`.\n")


class _ClosedOutput(io.TextIOBase):
    """Standard output where there is none: a command that has nothing to say there never notices."""

    def write(self, _: str, /) -> int:
        raise OperationError("standard output is closed", todo="Send it to a file or to /dev/null")


class _Nowhere(io.TextIOBase):
    """Standard error where there is none: lines are lost, the command goes on."""

    def write(self, text: str, /) -> int:
        return len(text)


COLLECT: Final = 50_000, 20, 100
"""When to look for cycles of objects, of which there are few here. A batch alone has thousands of objects, and looking
as often as by default takes a tenth of the time of a reading."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (see `detector.errors` for what the numbers mean)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    gc.set_threshold(*COLLECT)
    _occupy_descriptors()
    if sys.stdout is None:  # closed when the process was started
        sys.stdout = _ClosedOutput()
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names as they are, whatever their bytes
    if sys.stderr is None:
        sys.stderr = _Nowhere()
    debug = False
    try:
        module, args = _parse(argv)
        debug = args.log_level == "debug"
        _configure(module, args)
        debug = debug or logs.debugging()
        status = int(module.run(args))
        sys.stdout.flush()
        return status
    except SystemExit as stop:  # argparse: 0 after --help and --version, 2 after a usage error
        return _flushed(stop.code if isinstance(stop.code, int) else 1)
    except DetectorError as error:
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()
        return 1
    except Exception as error:
        if debug:
            _print_stderr(traceback.format_exc())
        if (refused := _refused_place(error)) is not None:
            _say(str(refused))
            return refused.exit_code
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        _say(f"internal error: {detail}. `--log-level debug` shows where.")
        return 1


def _refused_place(error: Exception) -> DetectorError | None:
    """Of a place that the system does not let us use, and whose user did not expect that, the error for a person."""
    from detector.streams.files import failure

    if not isinstance(error, OSError) or not isinstance(error.filename, str | bytes):
        return None
    told = failure("use this path", Path(os.fsdecode(error.filename)), error)
    return told if isinstance(told, UserError) else None


def _occupy_descriptors() -> None:
    """Of input, output and error, those that are closed are taken, so that no file of ours gets one of their numbers.

    A library that complains to standard error would write into it. To these nothing can be written.
    """
    while (number := os.open(os.devnull, os.O_RDONLY)) <= 2:
        pass
    os.close(number)


def _parse(argv: Sequence[str]) -> tuple[ModuleType, argparse.Namespace]:
    """Parse the command line, importing the module of the chosen command only. Exits like argparse does."""
    parser = _Parser(
        prog="detector",
        description="Streaming anomaly detection: sensor readings and camera frames in, alert episodes out.",
        epilog="Results go to standard output; logs, progress and errors to standard error.",
    )
    _add_global_options(parser, "before")
    chosen = find_command(argv)
    if chosen is not None and chosen not in COMMANDS:
        parser.error(f"there is no command `{chosen}`{_perhaps(chosen, COMMANDS)}; there are {', '.join(COMMANDS)}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for name, summary in COMMANDS.items():
        if name == chosen:
            _module(name).add_parser(subparsers)
            subparsers.choices[name].epilog = f"Example: detector {EXAMPLES[name]}" if name in EXAMPLES else None
            _add_global_options(subparsers.choices[name], "after")
        else:
            subparsers.add_parser(name, help=summary, add_help=False)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        # By the command's own parser, whose help says what there is; argparse would ask the outer one.
        own = subparsers.choices[args.command]
        options = [option for action in own._actions for option in action.option_strings]  # noqa: SLF001
        own.error(f"unrecognized arguments: {' '.join(unknown)}{_perhaps(unknown[0].partition('=')[0], options)}")
    args.overrides = [*(args.set_before or ()), *(args.set_after or ())]
    del args.set_before, args.set_after
    return _module(args.command), args


def _perhaps(written: str, known: Iterable[str]) -> str:
    """What may have been meant, as the end of a sentence; nothing if nothing is like it."""
    import difflib

    close = difflib.get_close_matches(written, list(known), n=1)
    return f", perhaps {close[0]} is meant" if close else ""


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"detector.cli.{command}")


def _add_global_options(parser: argparse.ArgumentParser, place: str) -> None:
    """Add the options that may stand before and after the command.

    A subparser's defaults would overwrite what was given before the command, so it has none (SUPPRESS), and `--set`,
    which adds up, is collected in one list for either place.
    """
    before = place == "before"
    group = parser.add_argument_group("options of every command")
    default = None if before else argparse.SUPPRESS
    group.add_argument(
        "-c",
        "--config",
        dest="config_path",
        metavar="PATH",
        default=default,
        help="configuration file (else $DETECTOR_CONFIG, ./config.yaml, /etc/detector/config.yaml)",
    )
    group.add_argument(
        "--set",
        dest=f"set_{place}",
        action="append",
        metavar="KEY=VALUE",
        help="override one key, e.g. readings.alerts.close_after=50 (repeatable)",
    )
    group.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default=default)
    group.add_argument("--log-format", choices=("auto", "json", "text"), default=default)
    group.add_argument("--version", action="version", version=f"detector {__version__}")
    if before:
        parser.set_defaults(set_after=None)


def _configure(module: ModuleType, args: argparse.Namespace) -> None:
    """Load the configuration into `args.config` and set logging up as it says."""
    overrides = args.overrides
    if getattr(module, "NEEDS_CONFIG", True) or args.config_path or overrides:
        from detector.config.load import load_config  # pydantic: 0.2 s that `--help` and `schema` do not pay

        overrides = [
            *overrides,
            *(f"log.{key}={value}" for key in ("level", "format") if (value := getattr(args, f"log_{key}"))),
        ]
        path = Path(args.config_path) if args.config_path else None
        args.reload = lambda: load_config(path, overrides)
        args.config = args.reload()
        logs.configure(args.config.log.level, args.config.log.format)
    else:
        args.config = None
        logs.configure(args.log_level or "info", args.log_format or "auto")
    if module.__name__.rpartition(".")[2] not in DAEMONS:
        logs.leave_errors_to_commands()


def _say(line: str) -> None:
    _print_stderr(f"detector: error: {line}\n")


def _print_stderr(text: str) -> None:
    # Closed, full or never there: the exit status still tells.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _flushed(status: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
        return 1
    return status


def _discard_stdout() -> None:
    """Point standard output at nothing, so that the interpreter's own flush at exit does not complain again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
