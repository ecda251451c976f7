"""What people said of alerts, joined to them: for lists and pages, and as labels for a backtest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final

import msgspec

from detector.reports.episodelist import ListedAlert
from detector.reports.scoreboard import Label
from detector.wire.documents import decoder_of
from detector.wire.verdicts import Acknowledgement


def said_of(acknowledgements: Iterable[Acknowledgement]) -> dict[str, Acknowledgement]:
    """The last verdict on each alert, from the acknowledgements in their order."""
    return {said.alert_id: said for said in acknowledgements}


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
    partition: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class NamedAlert(msgspec.Struct):
    """The part of an alert message that a verdict needs; what other versions add to one is ignored."""

    alert_id: str
    kind: str
    sensor_id: str
    source: NamedSource


_decode: Final = decoder_of(NamedAlert)


def named_alert(message: bytes) -> NamedAlert:
    """Read a message of a stream of alerts. Raises ValueError where it is none."""
    return _decode(message)


def alerts_named(alerts: Iterable[NamedAlert], wanted: str, shortest: int) -> dict[str, NamedAlert]:
    """The alerts whose id is `wanted`, or begins with it where that has at least `shortest` characters."""
    found: dict[str, NamedAlert] = {}
    for alert in alerts:
        if alert.alert_id == wanted or (len(wanted) >= shortest and alert.alert_id.startswith(wanted)):
            found[alert.alert_id] = alert
    return {wanted: found[wanted]} if wanted in found else found
