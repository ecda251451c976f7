"""The frame of all commands: options before and after the command, lazy modules, one line for every failure."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from detector import __version__
from detector.cli.main import COMMANDS, EXAMPLES, _parse, main
from detector.config.load import Config
from detector.errors import OperationError, UserError

Body = Callable[[argparse.Namespace], int]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a body in place of the command `run`."""

    def install(body: Body, *, needs_config: bool = True) -> None:
        def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
            subparsers.add_parser("run").add_argument("--input")

        module = types.ModuleType("detector.cli.run")
        module.__dict__.update(add_parser=add_parser, run=body, NEEDS_CONFIG=needs_config)
        monkeypatch.setitem(sys.modules, "detector.cli.run", module)

    return install


def recorded(command: Callable[..., None], *, needs_config: bool = True) -> list[argparse.Namespace]:
    seen: list[argparse.Namespace] = []

    def body(args: argparse.Namespace) -> int:
        seen.append(args)
        return 0

    command(body, needs_config=needs_config)
    return seen


def raising(error: BaseException) -> Body:
    def body(args: argparse.Namespace) -> int:
        raise error

    return body


def only_error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("detector: error: ")
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1
    return captured.err


def test_options_are_accepted_before_and_after_the_command(command: Callable[..., None], tmp_path: Path) -> None:
    seen = recorded(command)
    (tmp_path / "a.yaml").write_text("shutdown_timeout: 7s\n")
    before = ["-c", "a.yaml", "--log-level", "error", "--set", "readings.warmup=200"]
    assert main([*before, "run", "--input", "x"]) == 0
    assert main(["run", "--input", "x", *before]) == 0
    assert main([*before[:4], "run", *before[4:], "--input", "x"]) == 0
    for args in seen:
        assert isinstance(args.config, Config)
        assert args.config.shutdown_timeout == 7_000_000_000
        assert args.config.readings.warmup == 200
        assert args.config.log.level == "error"
        assert args.input == "x"


def test_overrides_add_up_and_the_last_one_wins(command: Callable[..., None]) -> None:
    seen = recorded(command)
    assert (
        main(["--set", "readings.warmup=200", "--set", "log.level=error", "run", "--set", "readings.warmup=300"]) == 0
    )
    assert seen[0].config.readings.warmup == 300
    assert seen[0].config.log.level == "error"


def test_an_option_after_the_command_wins(command: Callable[..., None]) -> None:
    seen = recorded(command)
    assert main(["--log-level", "error", "run", "--log-level", "warning"]) == 0
    assert seen[0].config.log.level == "warning"
    assert logging.getLogger().level == logging.WARNING


def test_a_value_named_like_a_command_is_a_value(command: Callable[..., None], tmp_path: Path) -> None:
    seen = recorded(command)
    (tmp_path / "train").write_text("shutdown_timeout: 9s\n")
    assert main(["-c", "train", "run"]) == 0
    assert main(["--config=train", "run"]) == 0
    assert [args.config.shutdown_timeout for args in seen] == [9_000_000_000] * 2


def test_a_command_without_need_for_it_gets_a_configuration_only_when_one_is_given(
    command: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("broken: [")
    seen = recorded(command, needs_config=False)
    assert main(["run"]) == 0
    assert seen[0].config is None
    assert main(["run", "--set", "readings.warmup=200"]) == 2
    (tmp_path / "config.yaml").unlink()
    assert main(["run", "--set", "readings.warmup=200"]) == 0
    assert seen[1].config.readings.warmup == 200


def test_a_wrong_configuration_is_one_line(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    recorded(command)
    assert main(["run", "--set", "readings.warmup=soon"]) == 2
    assert "--set readings.warmup" in only_error(capsys)


def test_the_status_of_the_command_is_returned(command: Callable[..., None]) -> None:
    command(lambda args: 1)
    assert main(["run"]) == 1


@pytest.mark.parametrize(("kind", "status"), [(UserError, 2), (OperationError, 1)])
def test_our_errors_are_one_line(
    kind: type[UserError | OperationError],
    status: int,
    command: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command(raising(kind("the disk\nis full", where="/x", todo="Make room")))
    assert main(["run"]) == status
    assert only_error(capsys) == "detector: error: the disk is full (/x). Make room.\n"


def test_a_place_that_the_system_refuses_is_no_internal_error(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(PermissionError(errno.EACCES, "no", "/etc/shadow")))
    assert main(["run"]) == 2
    said = "cannot use this path: Permission denied (/etc/shadow). Give the detector that right, or another path."
    assert only_error(capsys) == f"detector: error: {said}\n"
    command(raising(PermissionError(errno.EACCES, "no")))  # of no place
    assert main(["run"]) == 1
    assert "internal error: PermissionError" in only_error(capsys)


LONG = "x" * 300
"""No file may be called so, which even root is told."""


@pytest.mark.parametrize(
    "arguments",
    [
        ("alerts", LONG),
        ("feedback", "a", "real", "--data", LONG),
        ("inspect", LONG, "--alert", "a", "-o", "a.png"),
        ("check", "-c", f"{LONG}.yaml"),
        ("train", "--data", LONG, "--model", "conv"),
        ("train", "--data", LONG),
        ("check", "--data", LONG),
    ],
)
def test_a_place_that_cannot_be_is_told(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = only_error(capsys)
    assert "File name too long" in error
    assert LONG in error


def test_an_unexpected_error_is_one_line(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(ZeroDivisionError("by\nzero")))
    assert main(["run"]) == 1
    assert only_error(capsys).startswith("detector: error: internal error: ZeroDivisionError: by zero.")


@pytest.mark.parametrize("how", [["--log-level", "debug"], ["--set", "log.level=debug"]])
def test_debug_shows_where_an_unexpected_error_came_from(
    how: list[str], command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(ZeroDivisionError("by zero")))
    assert main(["run", *how]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_keyboard_ends_with_130_and_no_word(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(KeyboardInterrupt()))
    assert main(["run"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "there is no command `fly`; there are run, "),
        (["trian"], "there is no command `trian`, perhaps train is meant; there are run, "),
        (["run", "--outptu", "x"], "unrecognized arguments: --outptu x"),
        (["run", "--conf", "x"], "unrecognized arguments: --conf x"),
        (["--log-level", "loud", "run"], "argument --log-level: invalid choice: 'loud'"),
        (["run", "--input"], "argument --input: expected one argument"),
        (["--log-format"], "argument --log-format: expected one argument"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], says: str, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(command)
    assert main(arguments) == 2
    message = only_error(capsys)
    assert says in message
    assert "--help`" in message


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n    {name}" in out for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str], command: Callable[..., None]) -> None:
    recorded(command)
    assert main(["--version"]) == 0
    assert main(["run", "--version"]) == 0
    assert capsys.readouterr().out == f"detector {__version__}\n" * 2


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_and_takes_the_common_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: detector {name}" in out
    for option in ("--config", "--set", "--log-level", "--log-format", "--version"):
        assert option in out


def test_arguments_default_to_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["detector", "--version"])
    assert main() == 0
    assert capsys.readouterr().out == f"detector {__version__}\n"


def test_a_closed_pipe_ends_quietly() -> None:
    """More than a pipe holds, so that the write fails while the command runs."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as broken:
        done = subprocess.run(
            [sys.executable, "-m", "detector.cli.main", "simulate", "--out", "-", "--sensors", "1", "--rows", "5000"],
            stdout=broken,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b""


def test_a_pipe_closed_before_little_output_ends_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as broken:
        done = subprocess.run(
            [sys.executable, "-m", "detector.cli.main", "--version"],
            stdout=broken,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b""


def test_an_error_without_a_standard_error_still_has_its_status(
    command: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(raising(UserError("nobody hears this")))
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["run"]) == 2


def test_an_unknown_option_points_to_the_help_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "alert", "--colour"]) == 2
    assert capsys.readouterr().err == (
        "detector: error: unrecognized arguments: --colour. See `detector schema --help`.\n"
    )


@pytest.mark.parametrize("written", ["--lables", "--lables=x", "--label"])
def test_an_option_like_it_is_named(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backtest", "--data", "x", written]) == 2
    assert f"unrecognized arguments: {written}, perhaps --labels is meant. See" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["schema", "alert"], ["--help"]])
def test_a_standard_output_that_was_never_there_is_said(command: list[str]) -> None:
    words = " ".join(["-m", "detector.cli.main", *command])
    done = subprocess.run(["sh", "-c", f'"{sys.executable}" {words} >&-'], stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == (b"detector: error: standard output is closed. Send it to a file or to /dev/null.\n")


def test_a_file_name_that_is_no_utf_8_is_printed_as_it_is() -> None:
    name = b"c\xf6nf.yaml"
    Path(os.fsdecode(name)).write_text("readings: {warmup: 200}\n")
    done = subprocess.run(
        [sys.executable, "-m", "detector.cli.main", "check", "--config", os.fsdecode(name)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert name in done.stdout
    assert b"internal error" not in done.stderr


def test_numbers_of_standard_streams_that_were_never_there_go_to_no_file_of_ours(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from detector.cli.main import main\n"
        "status = main(['schema', 'alert'])\n"
        "found = [os.readlink(f'/proc/self/fd/{number}') for number in range(3)]\n"
        "open(sys.argv[1], 'w').write(f'{status} {found}')\n"
    )
    (tmp_path / "script.py").write_text(script)
    subprocess.run(["sh", "-c", f'"{sys.executable}" script.py told <&- >&- 2>&-'], cwd=tmp_path, check=True)
    assert (tmp_path / "told").read_text() == f"1 {['/dev/null'] * 3}"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example_that_works(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    words = EXAMPLES[command].split()
    assert shown.endswith(f"Example: detector {' '.join(words)}")
    assert _parse(words)[1].command == command
