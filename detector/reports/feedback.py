"""What people said of alerts, joined to them: for lists and pages, and as labels for a backtest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from detector.reports.episodelist import ListedAlert
from detector.reports.scoreboard import Label
from detector.wire.verdicts import Acknowledgement, decode_acknowledgement


def said_of(messages: Iterable[bytes]) -> dict[str, Acknowledgement]:
    """The last verdict on each alert, from the acknowledgements in their order. Raises ValueError for what is none."""
    return {said.alert_id: said for said in map(decode_acknowledgement, messages)}


def with_verdicts(episodes: Sequence[ListedAlert], said: Mapping[str, Acknowledgement]) -> list[ListedAlert]:
    """The episodes with what was said of them after their newest message."""
    return [
        msgspec.structs.replace(one, verdict=said[one.alert_id].word) if one.alert_id in said else one
        for one in episodes
    ]


def labels_of(episodes: Iterable[ListedAlert]) -> list[Label]:
    """The episodes judged `real`, as known faults. One that is open lasts until it was detected, as far as is known."""
    return [
        Label(
            one.sensor_id,
            one.started_at,
            one.ended_at or one.detected_at,
            one.what.kind if one.what else "fault",
            "real",
        )
        for one in episodes
        if one.verdict == "real"
    ]


def labels_json(labels: Sequence[Label]) -> bytes:
    """What `--labels` of other commands reads."""
    return msgspec.json.format(msgspec.json.encode(labels), indent=1) + b"\n"


class NamedSource(msgspec.Struct):
    """Where the readings of an episode are found."""

    stream: str
    partition: int


class NamedAlert(msgspec.Struct):
    """The part of an alert message that a verdict needs; what other versions add to one is ignored."""

    alert_id: str
    kind: str
    sensor_id: str
    source: NamedSource


def alerts_named(messages: Iterable[bytes], wanted: str, shortest: int) -> dict[str, NamedAlert]:
    """The alerts whose id is `wanted`, or begins with it where that has at least `shortest` characters.

    Raises ValueError for what is no alert.
    """
    decode = msgspec.json.Decoder(NamedAlert).decode
    found: dict[str, NamedAlert] = {}
    for message in messages:
        alert = decode(message)
        if alert.alert_id == wanted or (len(wanted) >= shortest and alert.alert_id.startswith(wanted)):
            found[alert.alert_id] = alert
    return {wanted: found[wanted]} if wanted in found else found
