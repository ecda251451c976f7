"""`detector incidents` and `detector notify`, put together from the configuration and what stands around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from detector.config.load import Config, HttpConfig, StateConfig, TargetConfig
from detector.errors import UserError
from detector.incidents.history import History
from detector.service.crew import Crew
from detector.service.deadline import ShutdownDeadline
from detector.service.follower import Follower
from detector.service.health import WAITING, Health, Together
from detector.service.incidents import IncidentWork
from detector.service.past import published_on_kafka, recall
from detector.service.peoplemetrics import FollowerMetrics, IncidentMetrics, NotifyMetrics
from detector.service.systemd import Notifier, Pulse
from detector.service.telling import NotifyWork, form_of, sender_of, undelivered_line
from detector.service.verdictnews import verdicts_heard
from detector.service.web.answers import Route
from detector.service.web.past import past_routes
from detector.service.web.server import HttpServer, standard_routes
from detector.streams.base import Streams
from detector.streams.directory import DirectoryStreams
from detector.streams.places import STATE, directory_streams_for, finals_of, input_file
from detector.wire.alerts import dead_letter_line

if TYPE_CHECKING:
    from detector.streams.kafka.streams import KafkaStreams

INCIDENTS_STATE: Final = ".detector-incidents"
NOTIFY_STATE: Final = ".detector-notify"
_NANOSECONDS: Final = 1e9


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """What the command line says: places of files to use instead of configured streams, and when to end.

    With `may_come` the input need not be there yet.
    """

    input: str | None = None
    output: str | None = None
    until_end: bool = False
    fresh: bool = False
    may_come: bool = False


@dataclass(frozen=True, slots=True)
class Around:
    """What a small daemon shares with whoever supervises it."""

    stop: Callable[[], bool]
    notifier: Notifier
    deadline: float | None
    """Seconds within which it has to stop; None: another sees to that."""


def alone(stop: Callable[[], bool], config: Config) -> Around:
    """Of a process of its own."""
    return Around(stop, Notifier(), config.shutdown_timeout / _NANOSECONDS)


def serve_incidents(config: Config, options: FollowOptions, around: Around) -> None:
    """Run until told to stop, or to the end if that is asked for. Raises DetectorError."""
    metrics = IncidentMetrics(CollectorRegistry())
    health = Health()
    pulse = Pulse(health, around.notifier)
    history = History()
    with served(metrics, health, config.incidents.http, around, past_routes(history, health)):
        on_files = config.streams.backend == "directory" or options.input is not None or options.output is not None
        files: DirectoryStreams | None = None
        streams: Streams
        if on_files:
            streams = files = incident_files(config, options)
            until_end = files.until_end
        else:
            outputs = [config.incidents.output, config.output.dead_letters]
            streams = topics_of(
                config, incidents_group(config), config.incidents.input, outputs,
                options=options, health=health, pulse=pulse,
            )  # fmt: skip
            until_end = options.until_end
        work = IncidentWork(
            config.incidents,
            dead_letters=incident_dead_letters(config) if on_files else config.output.dead_letters,
            metrics=metrics,
            # Of files the state and the output are one: what is lost of them is refused.
            published=(lambda: iter(())) if on_files else (lambda: published_on_kafka(config)),
            history=history,
        )
        if not until_end:
            recall(config, files, history, pulse)
        with nullcontext() if until_end else verdicts_heard(config, files, history):
            Follower(
                streams, work, name="incidents", health=health, stop=around.stop, until_end=until_end,
                notifier=around.notifier, pulse=pulse, turned=partial(metrics.turned, health),
            ).run()  # fmt: skip


def targets_of(config: Config) -> Sequence[TargetConfig]:
    """Whom `notify` tells. Raises UserError where that is nobody."""
    if not config.notify.targets:
        raise UserError("there is nobody to tell", where="notify.targets", todo="Name a target (docs/told.md)")
    return config.notify.targets


def serve_notify(config: Config, options: FollowOptions, around: Around) -> None:
    """Tell every target, each on a thread of its own, until told to stop. Raises DetectorError."""
    targets = targets_of(config)
    metrics = NotifyMetrics(CollectorRegistry(), [target.name for target in targets])
    healths = {target.name: Health() for target in targets}
    together = Together(healths)
    crew = Crew(around.stop)
    with ExitStack() as stack:
        followers = []
        for number, target in enumerate(targets):
            # One of them speaks for the process: its watchdog is that of all, as a loop that hangs shows in /healthz.
            notifier = around.notifier if not number else Notifier({})
            health = healths[target.name]
            pulse = Pulse(health, notifier)
            streams, until_end = _target_streams(config, target, options, health, pulse)
            work = NotifyWork(
                target,
                settle=(config.notify.settle or 0) / _NANOSECONDS,
                form=form_of(target),
                sender=stack.enter_context(sender_of(target)),
                dead_letters=config.output.dead_letters,
                metrics=metrics,
            )
            followers.append(
                Follower(
                    streams, work, name=f"notify {target.name}", health=health, stop=crew.stop, until_end=until_end,
                    notifier=notifier, pulse=pulse, turned=lambda _: metrics.turned(together, {}),
                )
            )  # fmt: skip
        stack.enter_context(served(metrics, together, config.notify.http, around))
        for target, follower in zip(targets, followers, strict=True):
            crew.start(f"notify-{target.name}", follower.run)
        crew.join()


def _target_streams(
    config: Config, target: TargetConfig, options: FollowOptions, health: Health, pulse: Callable[[], None]
) -> tuple[Streams, bool]:
    """The streams of one target, and whether they end. Opens nothing. Raises UserError."""
    if config.streams.backend == "directory" or options.input is not None:
        files = target_files(config, target.name, options)
        return files, files.until_end
    topics = topics_of(
        config, notify_group(config, target), config.notify.input, [config.output.dead_letters],
        options=options, health=health, pulse=pulse,
    )  # fmt: skip
    return topics, options.until_end


@contextmanager
def served(
    metrics: FollowerMetrics, health: Health, listen: str, around: Around, pages: Mapping[str, Route] | None = None
) -> Iterator[None]:
    """The metrics, the health and the pages over HTTP, and a limit for the time that stopping takes."""
    place = HttpConfig(listen=listen)
    with ExitStack() as stack:
        routes = standard_routes(metrics.registry, health) | dict(pages or {})
        server = HttpServer(place.host, place.port, routes)
        stack.callback(server.stop)
        if around.deadline is not None:
            deadline = ShutdownDeadline(around.stop, around.deadline)
            stack.callback(deadline.cancel)
            deadline.start()
        server.start()
        yield


def incident_files(config: Config, options: FollowOptions) -> DirectoryStreams:
    """The streams of `incidents` on files. Opens nothing. Raises UserError for places that cannot be."""
    directory = config.streams.directory
    dead_letters = incident_dead_letters(config)
    return directory_streams_for(
        Path(directory.path),
        inputs=[config.incidents.input],
        alerts=config.incidents.output,
        dead_letters=dead_letters,
        input_option=options.input,
        output_option=options.output,
        checkpoint_interval=directory.checkpoint_interval / _NANOSECONDS,
        until_end=options.until_end,
        fresh=options.fresh,
        encoders={dead_letters: dead_letter_line},
        state=INCIDENTS_STATE,
        writer=STATE,
        may_come=options.may_come,
    )


def target_files(config: Config, target: str | None, options: FollowOptions) -> DirectoryStreams:
    """The streams of a target on files; None: those of nobody, for a look at them, without a state.

    Opens nothing. Raises UserError for places that cannot be.
    """
    stream, directory = config.notify.input, config.streams.directory
    until_end = options.until_end or options.input == "-"
    place = input_file(Path(directory.path), stream, options.input, until_end=until_end, may_come=options.may_come)
    base = place.parent if isinstance(place, Path) else None
    state_dir = None if base is None or target is None else base / NOTIFY_STATE / target
    dead_letters = config.output.dead_letters
    return DirectoryStreams(
        {stream: place},
        {dead_letters: "log" if state_dir is None else state_dir / f"{dead_letters}.jsonl"},
        state_dir,
        directory.checkpoint_interval / _NANOSECONDS,
        until_end=until_end,
        fresh=options.fresh,
        encoders={dead_letters: undelivered_line},
        finals=finals_of({stream: place}, INCIDENTS_STATE),
    )


def incident_dead_letters(config: Config) -> str:
    """On files the dead letters are a stream of their own: a file has one writer."""
    return f"{config.output.dead_letters}-incidents"


def incidents_group(config: Config) -> str:
    """The consumer group of `incidents`."""
    return config.incidents.group_id or f"{config.streams.kafka.group_id}-incidents"


def notify_group(config: Config, target: TargetConfig) -> str:
    """The consumer group of one target."""
    return f"{config.streams.kafka.group_id}-notify-{target.name}"


def state_topic(group: str) -> str:
    """The topic in which a group of a small daemon keeps its state."""
    return f"{group}-state"


def topics_of_companions(config: Config, companions: Sequence[str]) -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """Of each group of these daemons: its name, its input with the topic of its state, the topics it writes to."""
    dead_letters = config.output.dead_letters
    if "incidents" in companions:
        group = incidents_group(config)
        yield group, {config.incidents.input: state_topic(group)}, [config.incidents.output, dead_letters]
    if "notify" in companions:
        for target in config.notify.targets:
            group = notify_group(config, target)
            yield group, {config.notify.input: state_topic(group)}, [dead_letters]


def topics_of(
    config: Config,
    group: str,
    stream: str,
    outputs: Sequence[str],
    *,
    options: FollowOptions,
    health: Health,
    pulse: Callable[[], None],
    sole: bool = True,
) -> KafkaStreams:
    """The streams of a small daemon on Kafka. Opens nothing. Raises UserError.

    `sole`: one process has all partitions.
    """
    # Here, because a daemon that runs on files needs no Kafka client.
    from detector.streams.kafka.streams import KafkaStreams

    if options.fresh:
        raise UserError("on Kafka there is no checkpoint to forget", where="--fresh", todo="Use another group_id")

    def waiting(why: str | None) -> None:
        if why is None:
            health.clear_reason(WAITING)
        else:
            health.set_reason(WAITING, why)

    return KafkaStreams(
        config.streams.kafka.model_copy(update={"group_id": group}),
        # Nothing is run again: what was published is looked at instead.
        StateConfig(on_missing_state="cold"),
        state_topics={stream: state_topic(group)},
        outputs=outputs,
        until_end=options.until_end,
        sole=sole,
        on_waiting=waiting,
        tick=pulse,
    )
