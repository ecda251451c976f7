"""Logging of the process: one handler on standard error, JSON lines for machines or text for a person.

A line of ours is an *event*: a stable name and fields, so that a search or a rule does not depend on wording. Lines of
libraries carry the event `log` and their text as the field `message`. A standard error that is closed, full or
broken costs log lines, never the process.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from dataclasses import dataclass, replace
from typing import Any, Final, TextIO

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

# At DEBUG the Kafka client prints payloads and costs a good part of the throughput; TensorFlow logs through absl; the
# client of HTTP prints addresses, which may be secrets.
_NOISY: Final = ("kafka", "absl", "tensorflow", "h5py", "asyncio", "httpx", "httpcore")

_SPARING_SECONDS: Final = 60.0
_KINDS: Final = 1_000
"""Of lines that are remembered."""

# What the journal calls the levels, as syslog numbers them.
_PRIORITIES: Final = (
    (logging.CRITICAL, "<2>"),
    (logging.ERROR, "<3>"),
    (logging.WARNING, "<4>"),
    (logging.INFO, "<6>"),
)

# A sensor id may hold anything; on a terminal none of it may move the cursor or end the line.
_VISIBLE: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def event(logger: logging.Logger, level: int, name: str, /, **fields: object) -> None:
    """Log the event `name` with `fields` at `level` (a constant of `logging`). Never raises, seldom blocks."""
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={"fields": fields})


def configure(level: str = "info", form: str = "auto", *, stream: TextIO | None = None) -> None:
    """Send the whole process's log to `stream` (default: standard error as it is when a line is written).

    `level` is a key of LEVELS, `form` is `json`, `text` or `auto` (text on a terminal). A second call replaces what
    the first one set.
    """
    if form == "auto":
        form = "text" if _is_terminal(stream or sys.stderr) else "json"
    handler = _Handler(stream, journal=stream is None and _is_journal(sys.stderr))
    handler.setFormatter(_TextFormatter() if form == "text" else _JsonFormatter())
    if level != "debug":
        handler.addFilter(_Sparing())
    root = logging.getLogger()
    root.handlers = [*(old for old in root.handlers if not isinstance(old, _Handler)), handler]
    root.setLevel(LEVELS[level])
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(LEVELS[level], logging.WARNING))
    # Its warnings are advice to whoever writes models (how often a function was traced), not to whoever trains one.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.raiseExceptions = False


def leave_errors_to_commands() -> None:
    """The Kafka client's errors are no lines of the log: a command that ends says in its own words what went wrong."""
    if not debugging():
        logging.getLogger("kafka").setLevel(logging.CRITICAL)


def debugging() -> bool:
    """Whether the log is written down to its finest level."""
    return logging.getLogger().isEnabledFor(logging.DEBUG)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _is_journal(stream: TextIO | None) -> bool:
    """Whether systemd's journal reads what is written: it says which file that is in the environment."""
    try:
        status = os.fstat(stream.fileno()) if stream is not None else None
    except (OSError, ValueError):
        return False
    return status is not None and os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Handler(logging.Handler):
    """Writes a line at a time. `stream` None means the standard error of the moment, which may be replaced or gone.

    `journal`: a line begins with its level in the form the journal takes off again, for `journalctl --priority`.
    """

    def __init__(self, stream: TextIO | None, *, journal: bool = False) -> None:
        super().__init__()
        self._stream = stream
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        try:
            stream = self._stream or sys.stderr
            stream.write(self._priority(record.levelno) + self.format(record) + "\n")
            stream.flush()
        except Exception:
            self.handleError(record)

    def _priority(self, level: int) -> str:
        return next((text for least, text in _PRIORITIES if level >= least), "<7>") if self._journal else ""


class _Sparing(logging.Filter):
    """Of what a noisy library says over and over lets one line a minute through, which tells of those left out.

    While a broker is away its client writes some 30 lines a second, all day.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in _NOISY or not isinstance(record.msg, str):
            return True
        key = record.name, record.msg
        since, left_out = self._said.get(key, (-_SPARING_SECONDS, 0))
        if 0 <= record.created - since < _SPARING_SECONDS:
            self._said[key] = since, left_out + 1
            return False
        self._said[key] = record.created, 0
        if left_out:
            record.msg += f" (and {left_out} more of this kind)"
        if len(self._said) > _KINDS:
            self._said.clear()
        return True


@dataclass(frozen=True, slots=True)
class Problem:
    """A line of the log at `warning` or above; `times` in a row of this event, `text` of the newest of them."""

    at: float
    level: str
    event: str
    text: str
    times: int = 1


class RecentProblems(logging.Handler):
    """Keeps the newest problems for people to see, newest last. `entries` may be read by any thread."""

    def __init__(self, keep: int = 20) -> None:
        super().__init__(logging.WARNING)
        self._keep = keep
        self.entries: tuple[Problem, ...] = ()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            name, fields = _parts(record)
            fields.pop("traceback", None)
            text = str(fields.pop("message", "")) if name == "log" else ""
            text += " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())
            problem = Problem(record.created, record.levelname.lower(), name, _encodable(text))
            kept = self.entries
            if kept and kept[-1].event == name != "log":
                problem, kept = replace(problem, times=kept[-1].times + 1), kept[:-1]
            # One assignment of a value that never changes: readers need no lock.
            self.entries = (*kept, problem)[-self._keep :]
        except Exception:
            self.handleError(record)


def _parts(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    """Return the event's name and its fields."""
    fields = getattr(record, "fields", None)
    if isinstance(fields, dict):
        name, found = record.getMessage(), dict(fields)
    else:
        name, found = "log", {"message": record.getMessage()}
    if record.exc_info and record.exc_info[0] is not None:
        found["traceback"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
    return name, found


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        import msgspec  # here, because `--help` configures nothing and should not load it

        name, fields = _parts(record)
        line = {
            "ts": f"{_utc(record.created, 'T')}Z",
            "level": record.levelname.lower(),
            "event": name,
            "logger": record.name,
            "fields": fields,
        }
        # Text taken from a broken message may hold half a surrogate pair, which UTF-8 cannot; the line must go out.
        return msgspec.json.encode(_encodable(line), enc_hook=_plain).decode()


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        name, fields = _parts(record)
        trace = fields.pop("traceback", None)
        if name == "log":
            name = str(fields.pop("message", ""))
        pairs = "".join(f" {key}={_quoted(value)}" for key, value in fields.items())
        line = f"{_utc(record.created, ' ')} {record.levelname:<7} {name}{pairs}"
        line = line.translate(_VISIBLE).encode("utf-8", "backslashreplace").decode()
        return f"{line}\n{trace}" if trace else line


def _utc(seconds: float, separator: str) -> str:
    moment = time.gmtime(seconds)
    return time.strftime(f"%Y-%m-%d{separator}%H:%M:%S", moment) + f".{int(seconds % 1 * 1000):03d}"


def _quoted(value: object) -> str:
    text = str(value)
    return f'"{text}"' if " " in text or not text else text


def _plain(value: Any) -> object:
    """Turn what JSON has no word for into what it has: numpy scalars into numbers, the rest into text."""
    if hasattr(value, "item") and getattr(value, "size", 0) == 1:
        return value.item()
    return str(value)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {str(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(item) for item in value]
    return value
