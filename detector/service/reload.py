"""Another configuration or another model without a restart: noticed, loaded and verified beside the main loop.

A thread of its own looks for a reason (SIGHUP, another version in `current`) and prepares what is new; the main loop
takes it when it is ready, and switches between two records. What cannot be used is said and changes nothing.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from detector.config.load import Config
from detector.errors import DetectorError, UserError
from detector.models.bundle.versions import active_version
from detector.service import logs
from detector.service.logs import event
from detector.service.pipelines import Engine
from detector.service.supported import refuse_unsupported
from detector.wire.alerts import Kind

_log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 0.5
"""How often the thread looks: a file is read, which may be on a network."""

RELOADABLE: Final = (
    "readings.sensors", "readings.warmup", "readings.window", "readings.silence_after", "readings.idle_eviction",
    "readings.alerts", "readings.overrides", "frames.warmup", "frames.limits", "frames.max_future",
    "frames.idle_eviction", "frames.alerts", "readings.timezone", "maintenance", "calendar", "log",
    "training",
)  # fmt: skip
"""Keys that take effect without a restart. `training` has none on a daemon."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Something new to switch to. `changed`: keys of the configuration; `reason`: `SIGHUP` or `current`."""

    engine: Engine
    changed: tuple[str, ...]
    reason: str

    @property
    def only_logging(self) -> bool:
        """Whether nothing that makes results has changed in the configuration."""
        return all(key.startswith(("log.", "training.")) for key in self.changed)


@dataclass(frozen=True, slots=True)
class Failed:
    """What is new cannot be used, for reasons that the log has."""


class Reloads(Protocol):
    """What the main loop asks. Neither call waits."""

    def take(self) -> Ready | Failed | None:
        """What has been prepared since the last call, the newest of it."""
        ...

    def taken(self, ready: Ready) -> None:
        """It is in use from now on."""

    def refused(self, ready: Ready, why: str) -> None:
        """It does not fit the state, and what was in use stays."""


class NoReloads:
    """Nothing ever changes."""

    def take(self) -> Ready | Failed | None:
        return None

    def taken(self, ready: Ready) -> None:
        raise AssertionError("there was nothing to take")

    def refused(self, ready: Ready, why: str) -> None:
        raise AssertionError("there was nothing to refuse")


class Reloader:
    """Prepares what is new on a thread of its own, from `start` to `stop`.

    `engine` is in use. `load` reads the configuration again, `make` builds an engine of one; both may raise
    DetectorError. `hangups` counts the signals received. `look` is one turn of the thread.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        load: Callable[[], Config],
        make: Callable[[Config], Engine],
        hangups: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._newest = engine.config  # of what was prepared, if the loop has not taken it yet
        self._load = load
        self._make = make
        self._hangups = hangups
        self._heard = 0
        self._active = {kind: model.version for kind, model in engine.setup.models.items()}
        self._outcomes: queue.SimpleQueue[Ready | Failed] = queue.SimpleQueue()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="reload", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch; what is being prepared is given up with the process."""
        self._done.set()

    def take(self) -> Ready | Failed | None:
        found: Ready | Failed | None = None
        while True:
            try:
                found = self._outcomes.get_nowait()
            except queue.Empty:
                return found

    def taken(self, ready: Ready) -> None:
        config, before = ready.engine.config, self._engine.config
        self._engine = ready.engine
        if config.log != before.log:
            logs.configure(config.log.level, config.log.format)

    def refused(self, ready: Ready, why: str) -> None:
        self._newest = self._engine.config
        event(_log, logging.ERROR, "reload_failed", reason=ready.reason, error=why)

    def look(self) -> None:
        """Prepare what is new, if anything is. Signals that come meanwhile count as one."""
        hangups, active = self._hangups(), self._versions()
        if hangups != self._heard:
            self._heard, self._active = hangups, active
            self._prepare("SIGHUP", self._load)
        elif active != self._active:
            self._active = active
            self._prepare("current", lambda: self._newest)

    def _watch(self) -> None:
        while not self._done.wait(CHECK_SECONDS):
            self.look()

    def _versions(self) -> dict[Kind, str]:
        """The version that `current` names, by kind; what it said before where it cannot be read."""
        found = dict(self._active)
        for kind, directory in _directories(self._engine.config).items():
            if kind not in found:
                continue
            try:
                found[kind] = active_version(directory) or found[kind]
            except UserError:
                continue
        return found

    def _prepare(self, reason: str, load: Callable[[], Config]) -> None:
        event(_log, logging.INFO, "reloading", reason=reason)
        try:
            config = load()
            refuse_unsupported(config)
            changed = tuple(changes(self._engine.config, config))
            fixed = [key for key in changed if not key.startswith(RELOADABLE)]
            if fixed:
                raise UserError(f"{', '.join(fixed)} cannot change while the daemon runs", todo="Restart it")
            ready = Ready(self._make(config), changed, reason)
            self._newest = config
            self._outcomes.put(ready)
        except DetectorError as error:
            event(_log, logging.ERROR, "reload_failed", reason=reason, error=str(error))
            self._outcomes.put(Failed())
        except Exception as error:
            # A library's own complaint about a file; the loop goes on with what it has.
            event(_log, logging.ERROR, "reload_failed", reason=reason, error=f"{type(error).__name__}: {error}")
            self._outcomes.put(Failed())


def changes(old: Config, new: Config) -> Iterator[str]:
    """The keys, such as `readings.alerts.close_after`, that two configurations differ in."""
    return _differing("", old.model_dump(mode="json"), new.model_dump(mode="json"))


def _differing(prefix: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            yield from _differing(f"{prefix}.{key}" if prefix else key, old.get(key), new.get(key))
    elif old != new:
        yield prefix


def _directories(config: Config) -> dict[Kind, Path]:
    return {"readings": config.readings.model, "frames": config.frames.model}
