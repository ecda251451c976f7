"""The streams of a daemon, made from the configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detector.config.load import Config
from detector.engine.scorestream import ScoreStream
from detector.errors import UserError
from detector.service.web.server import WAITING, Health
from detector.streams.base import Partition
from detector.streams.directory import DirectoryStreams
from detector.streams.places import directory_streams_for
from detector.wire.alerts import dead_letter_line

if TYPE_CHECKING:
    from detector.streams.kafka.streams import KafkaStreams

NANOSECONDS = 1e9


def input_streams(config: Config) -> list[str]:
    """The streams that are read: of what is enabled, readings first."""
    return [path.input for path in (config.readings, config.frames) if path.enabled]


def make_streams(
    config: Config, *, input_option: str | None, output_option: str | None, until_end: bool, fresh: bool
) -> DirectoryStreams:
    """The streams of a daemon that runs on files. Opens nothing. Raises UserError for places that cannot be."""
    directory = config.streams.directory
    return directory_streams_for(
        Path(directory.path),
        inputs=input_streams(config),
        alerts=config.output.alerts,
        dead_letters=config.output.dead_letters,
        scores=config.output.scores,
        input_option=input_option,
        output_option=output_option,
        checkpoint_interval=directory.checkpoint_interval / NANOSECONDS,
        until_end=until_end,
        fresh=fresh,
        encoders={config.output.dead_letters: dead_letter_line},
    )


def make_kafka_streams(
    config: Config, *, until_end: bool, skip_to: Sequence[str], health: Health, pulse: Callable[[], None]
) -> KafkaStreams:
    """The streams of a daemon that runs on Kafka. `skip_to`: TOPIC:PARTITION:OFFSET. Opens nothing.

    `health` is told while the broker is waited for; `pulse` is called while something takes long. Raises UserError.
    """
    # Here, because a daemon that runs on files needs no Kafka client.
    from detector.streams.kafka.streams import KafkaStreams

    def waiting(why: str | None) -> None:
        if why is None:
            health.clear_reason(WAITING)
        else:
            health.set_reason(WAITING, why)

    state_topics, outputs = kafka_topics(config)
    return KafkaStreams(
        config.streams.kafka,
        config.state,
        state_topics=state_topics,
        outputs=outputs,
        skip_to=dict(parse_skip(text, list(state_topics)) for text in skip_to),
        until_end=until_end,
        on_waiting=waiting,
        tick=pulse,
    )


def kafka_topics(config: Config) -> tuple[dict[str, str], list[str]]:
    """The topic of its state for each input, and the topics that are written to."""
    group = config.streams.kafka.group_id
    state = {config.readings.input: f"{group}-readings-state", config.frames.input: f"{group}-frames-state"}
    state_topics = {stream: state[stream] for stream in input_streams(config)}
    outputs = (config.output.alerts, config.output.dead_letters, config.output.scores)
    return state_topics, [stream for stream in outputs if stream is not None]


def make_score_stream(config: Config) -> ScoreStream | None:
    """What the scores of the readings go through, if they are asked for."""
    return None if config.output.scores is None else ScoreStream(config.output.scores, config.readings.channels)


def parse_skip(text: str, streams: Sequence[str]) -> tuple[Partition, int]:
    """TOPIC:PARTITION:OFFSET of one of the input streams. Raises UserError."""
    stream, _, rest = text.partition(":")
    number, _, offset = rest.partition(":")
    if not (number.isascii() and number.isdigit() and offset.isascii() and offset.isdigit()):
        raise UserError(f"{text} is no place to go on", where="--skip-to", todo="Write TOPIC:PARTITION:OFFSET")
    if stream not in streams:
        raise UserError(
            f"{stream} is no input, which are {', '.join(streams)}", where="--skip-to", todo="Name one of them"
        )
    return Partition(stream, int(number)), int(offset)
