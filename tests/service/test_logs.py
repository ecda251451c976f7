"""The log: one line an event, readable by a machine or a person, never the end of the process."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from detector.service import logs
from detector.service.logs import configure, event

log = logging.getLogger("detector.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def write(self, text: str, /) -> int:
        raise OSError(28, "No space left on device")


def test_json_lines_have_their_five_parts() -> None:
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    event(log, logging.INFO, "checkpoint_written", positions=3, path=Path("/x"), share=np.float64(0.5))
    line = json.loads(stream.getvalue())
    assert list(line) == ["ts", "level", "event", "logger", "fields"]
    assert line["level"] == "info"
    assert line["event"] == "checkpoint_written"
    assert line["logger"] == "detector.test"
    assert line["fields"] == {"positions": 3, "path": "/x", "share": 0.5}
    assert len(line["ts"]) == len("2026-01-01T00:00:00.000Z")
    assert line["ts"].endswith("Z")


def test_fields_in_extra_are_the_same_as_event() -> None:
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    log.info("started", extra={"fields": {"sensors": 4}})
    assert json.loads(stream.getvalue())["fields"] == {"sensors": 4}


def test_what_json_has_no_word_for_does_not_lose_the_line() -> None:
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    event(log, logging.INFO, "odd", nan=float("nan"), half="\ud800", nested={"a": ("\udfff", 1)}, thing=object)
    fields = json.loads(stream.getvalue())["fields"]
    assert fields["nan"] is None
    assert fields["half"] == "\\ud800"
    assert fields["nested"] == {"a": ["\\udfff", 1]}
    assert "object" in fields["thing"]


def test_lines_of_libraries_carry_their_text_as_a_field() -> None:
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    logging.getLogger("library").warning("%d of %d", 1, 2)
    line = json.loads(stream.getvalue())
    assert line["event"] == "log"
    assert line["fields"] == {"message": "1 of 2"}


def said(stream: io.StringIO, seconds: float, message: str, *arguments: object) -> bool:
    """Whether a line of the Kafka client is written that it says so many seconds after 1970."""
    before = stream.tell()
    record = logging.LogRecord("kafka.net.manager", logging.WARNING, __file__, 1, message, arguments, None)
    record.created = seconds
    logging.getLogger("kafka").handle(record)
    return stream.tell() > before


def test_what_a_library_says_over_and_over_is_written_once_a_minute() -> None:
    stream = io.StringIO()
    configure("info", "text", stream=stream)
    assert said(stream, 1000, "node %s is away", 1)
    assert not said(stream, 1000.1, "node %s is away", 2)
    assert not said(stream, 1059, "node %s is away", 1)
    assert said(stream, 1001, "something else")
    assert said(stream, 1060, "node %s is away", 3)
    assert "node 3 is away (and 2 more of this kind)" in stream.getvalue()
    assert said(stream, 1000, "node %s is away", 1)  # the clock was set back
    configure("debug", "text", stream=stream)
    assert said(stream, 1000, "node %s is away", 1)
    assert said(stream, 1000, "node %s is away", 1)


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_is_kept(form: str) -> None:
    stream = io.StringIO()
    configure("info", form, stream=stream)
    try:
        raise ValueError("inside")
    except ValueError:
        log.exception("route_failed", extra={"fields": {"path": "/"}})
    assert "ValueError: inside" in stream.getvalue()
    assert stream.getvalue().count("\n") == (1 if form == "json" else stream.getvalue().rstrip().count("\n") + 1)


def test_text_is_for_people() -> None:
    stream = io.StringIO()
    configure("info", "text", stream=stream)
    event(log, logging.WARNING, "late", sensor="pump 7", count=2)
    logging.getLogger("library").info("all good")
    first, second = stream.getvalue().splitlines()
    assert first.endswith('WARNING late sensor="pump 7" count=2')
    assert second.endswith("INFO    all good")


def test_text_shows_control_characters_instead_of_obeying_them() -> None:
    stream = io.StringIO()
    configure("info", "text", stream=stream)
    event(log, logging.INFO, "seen", sensor="a\x1b[2J\nb\ud800")
    assert stream.getvalue().endswith("sensor=a\\x1b[2J\\x0ab\\ud800\n")


@pytest.mark.parametrize(("stream", "starts"), [(Terminal(), "2"), (io.StringIO(), "{")])
def test_auto_is_text_on_a_terminal_only(stream: io.StringIO, starts: str) -> None:
    configure("info", "auto", stream=stream)
    event(log, logging.INFO, "started")
    assert stream.getvalue().startswith(starts)


def test_auto_copes_with_a_closed_stream() -> None:
    stream = io.StringIO()
    stream.close()
    configure("info", "auto", stream=stream)
    event(log, logging.INFO, "nobody_hears")


def test_levels_and_a_second_call() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("error", "json", stream=first)
    event(log, logging.WARNING, "quiet")
    assert not logs.debugging()
    configure("debug", "json", stream=second)
    event(log, logging.DEBUG, "loud")
    assert logs.debugging()
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["event"] == "loud"


def test_advice_to_authors_of_models_is_not_shown() -> None:
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    logging.getLogger("tensorflow").warning("retracing")
    assert stream.getvalue() == ""
    logging.getLogger("tensorflow").error("out of memory")
    assert "out of memory" in stream.getvalue()


@pytest.mark.parametrize("name", ["kafka", "kafka.conn", "absl"])
def test_noisy_libraries_are_held_to_warnings(name: str) -> None:
    stream = io.StringIO()
    configure("debug", "json", stream=stream)
    logging.getLogger(name).info("payload")
    logging.getLogger(name).warning("lost")
    assert [json.loads(line)["fields"]["message"] for line in stream.getvalue().splitlines()] == ["lost"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_broken_stream_costs_the_line_only(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", form, stream=Broken())
    event(log, logging.ERROR, "nobody_hears")
    assert capsys.readouterr() == ("", "")


def test_standard_error_is_the_one_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    event(log, logging.INFO, "started")
    assert json.loads(capsys.readouterr().err)["event"] == "started"


def test_a_process_whose_standard_error_is_full_ends_well() -> None:
    script = (
        "import logging; from detector.service.logs import configure, event; configure('info', 'json')\n"
        "event(logging.getLogger('x'), logging.INFO, 'gone'); print('done')"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stderr=full, stdout=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (0, "done\n")


@pytest.mark.parametrize(("says", "begins"), [("{dev}:{ino}", "<4>{"), ("1:1", "{"), ("", "{")])
def test_the_journal_is_told_the_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, begins: str) -> None:
    with (tmp_path / "journal").open("w+") as file:
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", says.format(dev=status.st_dev, ino=status.st_ino))
        monkeypatch.setattr(sys, "stderr", file)
        configure("info", "json")
        event(log, logging.WARNING, "late")
        file.seek(0)
        assert file.read().startswith(begins + '"ts"')


def test_recent_problems_can_be_shown_whatever_a_file_is_called() -> None:
    problems = logs.RecentProblems()
    problems.emit(logging.LogRecord("x", logging.WARNING, "", 0, "%s is gone", (os.fsdecode(b"\xfc"),), None))
    assert problems.entries[0].text == "\\udcfc is gone"


def test_recent_problems_are_kept_for_people() -> None:
    problems = logs.RecentProblems(keep=2)
    own = logging.getLogger("detector.test.problems")
    own.addHandler(problems)
    try:
        event(own, logging.INFO, "started")
        event(own, logging.WARNING, "first")
        for records in (1, 5):
            event(own, logging.WARNING, "readings_rejected", records=records)
        own.error("%s is gone", "it")
    finally:
        own.removeHandler(problems)
    assert len(problems.entries) == 2
    repeated, gone = problems.entries
    assert (repeated.event, repeated.times, repeated.text, repeated.level) == (
        "readings_rejected", 2, "records=5", "warning",
    )  # fmt: skip
    assert (gone.event, gone.times, gone.text, gone.level) == ("log", 1, "it is gone", "error")
