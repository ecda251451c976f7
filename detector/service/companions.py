"""`run --with`: the small daemons in the detector's own process, on files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from detector.config.load import Config
from detector.errors import UserError
from detector.service.assemble import RunOptions, make_streams
from detector.service.crew import Crew
from detector.service.signals import StopSignals
from detector.service.systemd import Notifier
from detector.streams.checkpoint import CheckpointFile
from detector.streams.files import legible

NAMES: Final = ("incidents", "notify")
_LOOK_SECONDS: Final = 0.05


@contextmanager
def companions(config: Config, options: RunOptions, names: Sequence[str], signals: StopSignals) -> Iterator[None]:
    """Beside what runs within, the daemons of these names; they read what it publishes, and end with it.

    With an end that is known they come after it, one after the other: each of them has then all to read. Raises
    UserError where they cannot be, and whatever one of them raises.
    """
    if not names:
        yield
        return
    # Here, because a detector alone needs no client of HTTP.
    from detector.service.people import (
        INCIDENTS_STATE,
        Around,
        FollowOptions,
        serve_incidents,
        serve_notify,
        targets_of,
    )

    alerts, state, until_end = _alerts(config, options)
    if "notify" in names:
        targets_of(config)  # before the work of the others is done for nobody
    crew = Crew(lambda: signals.stop, signals.end)
    around = Around(crew.stop, Notifier({}), None)
    incidents = alerts.parent / f"{config.incidents.output}.jsonl"
    if "incidents" in names:
        _refuse_shared(alerts, alerts.parent / INCIDENTS_STATE, config.incidents.input)

    def follow(serve: Callable[..., None], source: Path, output: Path | None, writer: Path) -> Callable[[], None]:
        chosen = FollowOptions(
            str(source), None if output is None else str(output), until_end, options.fresh, may_come=True
        )
        # What is emptied first must not be read before.
        before = _identity(writer)

        def loop() -> None:
            while options.fresh and not until_end and _identity(writer) == before and not crew.stop():
                time.sleep(_LOOK_SECONDS)
            serve(config, chosen, around)

        return loop

    loops = {
        "incidents": follow(serve_incidents, alerts, alerts.parent, state),
        "notify": follow(serve_notify, incidents, None, alerts.parent / INCIDENTS_STATE),
    }
    if until_end:
        yield
        for name in NAMES:
            if name in names:
                loops[name]()
        return
    for name in names:
        crew.start(name, loops[name])
    try:
        yield
    finally:
        crew.dismiss()
        crew.join()


def _refuse_shared(alerts: Path, state: Path, stream: str) -> None:
    """Incidents lie beside the file of the alerts, so a directory has those of one file alone. Raises UserError."""
    other = CheckpointFile(state).places().get(stream)
    if other is not None and other != legible(alerts.name):
        raise UserError(
            f"the incidents in this directory are those of {other}, not of {alerts.name}",
            where=str(alerts.parent),
            todo="Name an output in another directory",
        )


def _identity(state: Path) -> tuple[int, int] | None:
    """What tells a checkpoint from the one before it."""
    try:
        status = (state / "checkpoint").stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _alerts(config: Config, options: RunOptions) -> tuple[Path, Path, bool]:
    """The file of the alerts, the folder of the checkpoint, and whether the detector ends by itself."""
    if config.streams.backend == "kafka" and options.input is None and options.output is None:
        raise UserError(
            "on Kafka each daemon is a process of its own",
            where="--with",
            todo="Start `detector incidents` and `detector notify`",
        )
    streams = make_streams(config, options)
    place = streams.outputs[config.output.alerts]
    if not isinstance(place, Path) or streams.state_dir is None:
        raise UserError(
            "others can follow alerts in a file alone, beside which there is a checkpoint",
            where="--with",
            todo="Name a file or a directory for --input and --output",
        )
    return place, streams.state_dir, streams.until_end
