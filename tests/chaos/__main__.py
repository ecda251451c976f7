"""Three daemons in a group, faults, and a comparison with a run without any: `python -m tests.chaos`."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from kafka import TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError
from kafka.protocol.consumer.offsets import IsolationLevel
from rich.console import Console
from rich.table import Table

from detector.config.load import Config, load_config
from detector.incidents.groups import Groups
from detector.service.people import incidents_group
from detector.service.rekeying import rekey_group
from detector.times import rfc3339
from detector.wire.verdicts import WORDS
from tests.chaos.cameras import CAMERA_PARTITIONS, camera_items, camera_name
from tests.chaos.compare import compare_alerts, compare_counts
from tests.chaos.daemon import PROTECTIONS
from tests.chaos.faults import FAULTS, MEMBERS, SESSION_SECONDS, Field, dice, hogs, schedule
from tests.chaos.load import PARTITIONS, SENSORS, Load, items, values_without_faults
from tests.chaos.machines import (
    KEY,
    MACHINES,
    TAG_PARTITIONS,
    TAGS,
    Copies,
    copies,
    healthy_rows,
    settings,
    tag_items,
)
from tests.chaos.members import Member
from tests.chaos.model import ROWS, make_bundle
from tests.chaos.people import People
from tests.chaos.reference import Result, ends_of, published, told_of, uninterrupted
from tests.chaos.told import wrong_incidents
from tests.kafka.broker import Broker, UnavailableError
from tests.tinycam import tiny_frame_bundle

SHORT_SECONDS = 75.0
"""Time for faults in the short form; start, end and comparison come on top."""
CATCH_UP_SECONDS = 600.0
_INPUT, _FRAMES, _ALERTS, _DEAD = "sensor-readings", "image-frames", "anomaly-alerts", "detector-dead-letters"
_VERDICTS = "anomaly-verdicts"
_INCIDENTS = "anomaly-incidents"
_LINES = ["unit-{line}?"]
"""What makes a group of sensors for incidents: ten that stand side by side."""
_INPUTS = {_INPUT: PARTITIONS, _FRAMES: CAMERA_PARTITIONS}
_GROUP = "chaos"
_OPEN_AFTER = (5, 5)
_SECOND = 10**9
_EVENTS = {
    "restores": "restored",
    "restores with former settings": "replaying_with_former_settings",
    "reloads that took effect": "reloaded",
    "offsets the state knew": "offset_forgotten",
}
"""What the logs say was done, by the name of the event: a fault that has no effect proves nothing."""
_BROKER_SAYS = {
    "transactions whose marks the broker left out": "these partitions are likely deleted already",
    "loads of offsets the broker mixed up": "Ignored load completion from __consumer_offsets",
}
"""What its log says where it does not keep what it promises (docs/operations.md, Releases of the broker)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and return the exit status: 0 PASS, 1 FAIL."""
    args = _parser().parse_args(arguments)
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
    count = int(os.environ.get("CHAOS_FAULTS", "200"))
    console = Console(soft_wrap=True, highlight=False)
    directory = Path(tempfile.mkdtemp(prefix="detector-chaos-"))
    began = time.monotonic()
    try:
        outcome = _run(args, directory, seed, count, console)
    except UnavailableError as error:
        console.print(f"No Kafka broker: {error}.\nFAIL")
        return 1
    else:
        outcome["seconds"] = round(time.monotonic() - began)
        console.print(_table(outcome))
        for ended in outcome["unexpected exits"]:
            console.print(f"{ended['name']} ended with {ended['status']}: {ended['last_line'][:300]}", markup=False)
        passed = not outcome["problems"]
        if not passed:
            kept = _keep(args.out, directory, outcome)
            console.print(f"What explains it is in {kept} (CHAOS_SEED={seed})")
        console.print("PASS" if passed else "FAIL")
        return 0 if passed else 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Kills daemons and broker at random and compares the alerts with those of a run without faults. "
        "CHAOS_FAULTS: how many faults (200); CHAOS_SEED: another order of them.",
    )
    parser.add_argument("--short", action="store_true", help="as many faults as fit into three minutes in all")
    parser.add_argument("--rate", type=float, default=2500.0, metavar="N", help="readings a second (2500)")
    parser.add_argument(
        "--machines", action="store_true", help="tags of machines, which `rekey` copies, in place of sensors"
    )
    parser.add_argument("--frames", type=float, default=40.0, metavar="N", help="frames a second (40)")
    parser.add_argument(
        "--pause", type=float, default=2.0, metavar="S", help="the longest pause after a fault, in seconds (2)"
    )
    parser.add_argument("--only", metavar="LIST", help=f"kinds of fault, separated by commas: {', '.join(FAULTS)}")
    parser.add_argument("--without", choices=PROTECTIONS, help="take a protection away: the proof has to fail")
    parser.add_argument("--out", type=Path, default=Path("var/chaos"), metavar="DIR", help="for counterexamples")
    return parser


def _run(args: argparse.Namespace, directory: Path, seed: int, count: int, console: Console) -> dict[str, Any]:
    with Broker(directory / "broker") as broker:
        topics = _INPUTS | {_ALERTS: 3, _DEAD: 1, _VERDICTS: 2, _INCIDENTS: 1, TAGS: TAG_PARTITIONS}
        for topic, partitions in topics.items():
            broker.create_topic(topic, partitions)
        started = int(time.time()) - 30 * 86400
        readings = settings() if args.machines else {}
        path = _write_config(directory, broker, started, readings)
        config = load_config(path)
        # Half of the sensors start with a profile, the others have to make theirs under fire.
        healthy, sensors = (healthy_rows, MACHINES) if args.machines else (values_without_faults, SENSORS)
        series = (healthy(number, ROWS, seed) for number in range(0, sensors, 2))
        make_bundle(directory / "models", series, _OPEN_AFTER, seed, config.readings.channels)
        tiny_frame_bundle(directory / "cameras", cameras=[camera_name(0), camera_name(1)])
        options = ["--without", args.without] if args.without else []

        def member(name: str) -> Member:
            return Member(name, path, directory, options)

        def change_settings(number: int) -> None:
            override = {"match": f"nobody-{number}", "alerts": {"close_after": 50}}
            _write_config(directory, broker, started, readings, override)

        members = [member(f"member-{i + 1}") for i in range(MEMBERS)]
        followers = [Member(f"incidents-{i + 1}", path, directory, command=["incidents"]) for i in range(2)]
        rekey = ["rekey", "--key", KEY, "--from", TAGS, "--to", _INPUT]
        copiers = [Member(f"rekey-{i + 1}", path, directory, command=rekey) for i in range(2 * args.machines)]
        place = Field(
            broker,
            members,
            member,
            dice(seed),
            change_settings,
            lambda: _forget(broker, config),
            hogs,
            followers + copiers,
        )
        topic, sent = (TAGS, tag_items) if args.machines else (_INPUT, items)
        load = Load(broker.address, topic, args.rate, sent(seed, started))
        cameras = Load(broker.address, _FRAMES, args.frames, camera_items(seed, started))
        people = People(broker.address, _ALERTS, seed)
        problems: list[str] = []
        try:
            for one in (*place.members, *place.followers):
                place.start(one)
            load.start()
            cameras.start()
            people.start()
            done = _faults(place, args, count, console)
            cameras.stop()
            load.stop()
            people.stop()
            if copiers:
                console.print("copying ...")
                problems += _copied(place, copiers, config)
            problems += _finish(place, config, console)
        finally:
            for one in (*place.members, *place.followers):
                one.kill()
        console.print("comparing with a run without faults ...")
        return _judge(config, problems, directory) | {
            **{what: broker.log.read_text(errors="replace").count(line) for what, line in _BROKER_SAYS.items()},
            **{what: _logged(directory, name) for what, name in _EVENTS.items()},
            "seed": seed,
            "faults": dict(done),
            "readings sent": load.readings,
            "frames sent": cameras.readings,
            "verdicts sent": people.said,
            "unexpected exits": [ended._asdict() for ended in place.unexpected],
        }


def _logged(directory: Path, event: str) -> int:
    """How often the members of the group told of an event."""
    logs = (path.read_text(errors="replace") for path in directory.glob("*.log"))
    return sum(text.count(f'"event":"{event}"') for text in logs)


def _write_config(
    directory: Path, broker: Broker, started: int, readings: Mapping[str, Any], *overrides: dict[str, Any]
) -> Path:
    def window(match: str, begin: int, end: int) -> dict[str, str]:
        """Seconds after the beginning of the load."""
        return {"match": match, "from": rfc3339((started + begin) * _SECOND), "to": rfc3339((started + end) * _SECOND)}

    settings = {
        "streams": {
            "backend": "kafka",
            "kafka": {
                "bootstrap_servers": [broker.address],
                "group_id": _GROUP,
                "session_timeout": f"{SESSION_SECONDS:g}s",
                "transaction_timeout": "5s",
                "create_topics": True,
            },
        },
        "readings": {
            "input": _INPUT,
            "model": str(directory / "models"),
            "warmup": 300,
            "idle_eviction": "20m",
            "silence_after": "15s",
            "alerts": {
                "false_alarms": {"per_sensor": 1, "per": "300 readings"},
                "open_after": {"n": _OPEN_AFTER[0], "of": _OPEN_AFTER[1]},
                "close_after": 20,
                "update_every": "30s",
                "max_duration": "10m",
            },
            "overrides": [*overrides, {"match": "unit-??[37]", "silence_after": "40s"}],
            **readings,
        },
        "frames": {
            "enabled": True,
            "input": _FRAMES,
            "model": str(directory / "cameras"),
            "warmup": 150,
            "alerts": {
                "false_alarms": {"per_sensor": 1, "per": "300 readings"},
                "close_after": 5,
                "update_every": "20s",
                "max_duration": "10m",
            },
        },
        "maintenance": [
            window("unit-0[0-4]?", 420, 600),
            window("unit-0[3-6]?", 650, 750),
            window("unit-*", 1400, 1500),
            window("camera-0[0-2]", 310, 400),
            window("camera-*", 900, 1000),
        ],
        "output": {"alerts": _ALERTS, "dead_letters": _DEAD},
        "incidents": {"group_by": _LINES, "within": "1m", "update_every": "30s", "http": "127.0.0.1:0"},
        # A state that cannot be restored may not be passed over, and slices are written all the time.
        "state": {"snapshot_interval": "2s", "on_missing_state": "fail"},
        "http": {"listen": "127.0.0.1:0"},
        "shutdown_timeout": "60s",  # on a busy machine
    }
    path, partial = directory / "config.yaml", directory / "config.yaml.partial"
    partial.write_text(yaml.safe_dump(settings))
    partial.rename(path)  # a process that starts at this moment reads the one or the other
    return path


def _faults(place: Field, args: argparse.Namespace, count: int, console: Console) -> Counter[str]:
    """Faults until there were enough, or the time is over."""
    deadline = time.monotonic() + SHORT_SECONDS
    allowed = set(FAULTS if args.only is None else (name.strip() for name in args.only.split(",")))
    if unknown := allowed - set(FAULTS):
        raise SystemExit(f"there is no fault {min(unknown)!r}")
    place.pause(6, 8)  # a state to lose
    done: Counter[str] = Counter()
    for name in schedule(place.rng):
        if done.total() >= count or (args.short and time.monotonic() > deadline):
            break
        if name not in allowed:
            continue
        console.print(f"{done.total() + 1:4d}  {name}")
        FAULTS[name](place)
        done[name] += 1
        place.pause(0.2, args.pause)
        place.revive()
    return done


def _finish(place: Field, config: Config, console: Console) -> list[str]:
    """Let the group catch up and stop; returns what went wrong."""
    console.print("catching up ...")
    problems = []
    deadline = time.monotonic() + CATCH_UP_SECONDS
    ends = ends_of(config, _INPUT) | ends_of(config, _FRAMES)
    while (left := _lag(place.broker, config.streams.kafka.group_id, ends)) != 0:
        if time.monotonic() > deadline:
            problems.append(f"the group did not catch up: {left} records left after {CATCH_UP_SECONDS:g} s")
            break
        place.pause(0.5, 0.5)
        place.revive()
    # Where the broker was away, the last commit may have failed; now it is there.
    hurried = [one for one in place.failed_stops if one.status == 1]
    for member in place.members:
        place.stop(member)
    problems += _until_told(place, config, deadline)
    for member in place.followers:
        place.stop(member)
    problems += [
        f"{one.name} stopped with {one.status}: {one.last_line}" for one in place.failed_stops if one not in hurried
    ]
    problems += [
        f"{one.name} gave up with {one.status}: {one.last_line}"
        for one in place.unexpected
        if one.status not in (0, 1, -9)
    ]
    # The transaction of a member that was killed last hides what comes after it until it times out.
    outputs = _ALERTS, _DEAD, _VERDICTS, _INCIDENTS
    while time.monotonic() < deadline and not all(_closed(place.broker, one) for one in outputs):
        place.pause(0.5, 0.5)
    return problems


def _until_told(place: Field, config: Config, deadline: float) -> list[str]:
    """Let `detector incidents` catch up with the alerts."""
    # The transaction of a member that was killed last hides what comes after it until it times out.
    while not _closed(place.broker, _ALERTS):
        if time.monotonic() > deadline:
            return ["a transaction of the alerts stays open"]
        place.pause(0.5, 0.5)
    ends = ends_of(config, _ALERTS)

    def behind() -> bool:
        committed = _committed(place.broker, incidents_group(config), list(ends))
        return any(committed[tp] < end for tp, end in ends.items())

    while behind():
        if time.monotonic() > deadline:
            return ["`detector incidents` did not catch up with the alerts"]
        place.pause(0.5, 0.5)
        place.revive_some(place.followers)
    return []


def _copied(place: Field, copiers: Sequence[Member], config: Config) -> list[str]:
    """Let `detector rekey` copy what is left, and stop it."""
    deadline = time.monotonic() + CATCH_UP_SECONDS
    ends = ends_of(config, TAGS)
    while _lag(place.broker, rekey_group(config, TAGS, _INPUT), ends) != 0:
        if time.monotonic() > deadline:
            return ["`detector rekey` did not copy everything"]
        place.pause(0.5, 0.5)
        place.revive()
    for member in copiers:
        place.stop(member)
        place.followers.remove(member)
    while not _closed(place.broker, _INPUT):
        if time.monotonic() > deadline:
            return ["a transaction of `detector rekey` stays open"]
        place.pause(0.5, 0.5)
    return []


def _lag(broker: Broker, group: str, ends: Mapping[TopicPartition, int]) -> int | None:
    """Records before these offsets that the group has not committed; None if the broker does not say."""
    try:
        committed = _committed(broker, group, list(ends))
    except KafkaError:
        return None
    return sum(max(0, end - committed[tp]) for tp, end in ends.items())


def _committed(broker: Broker, group: str, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    """How far the group is; 0 where it has committed nothing."""
    with broker.admin() as admin:
        committed = admin.list_group_offsets({group: partitions})[group]
    return {tp: max(0, int(committed[tp].offset)) if tp in committed else 0 for tp in partitions}


def _forget(broker: Broker, config: Config) -> bool:
    """Delete what the group has committed; False while the broker does not, because it has members or is away."""
    group = config.streams.kafka.group_id
    partitions = [TopicPartition(topic, number) for topic, count in _INPUTS.items() for number in range(count)]
    try:
        with broker.admin() as admin:
            admin.delete_group_offsets(group, partitions)
            return not any(one.offset >= 0 for one in admin.list_group_offsets({group: partitions})[group].values())
    except KafkaError:
        return False


def _closed(broker: Broker, topic: str) -> bool:
    with broker.admin() as admin:
        (described,) = admin.describe_topics([topic])
        partitions = [TopicPartition(topic, one["partition_index"]) for one in described["partitions"]]
        wanted = dict.fromkeys(partitions, OffsetSpec.LATEST)
        committed = admin.list_partition_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED)
        return bool(committed == admin.list_partition_offsets(wanted))


def _judge(config: Config, problems: list[str], directory: Path) -> dict[str, Any]:
    expected, actual = uninterrupted(config), published(config)
    copied = copies(config) if config.readings.machines else Copies()
    problems = [*problems, *(f"copies {what}: {count}" for what, count in copied.wrong.items() if count)]
    alerts = compare_alerts(expected.alerts, actual.alerts)
    dead = compare_counts([*expected.dead, *copied.dead], actual.dead)
    verdicts = compare_counts(expected.verdicts, actual.verdicts)
    problems = [*problems, *(f"alerts {what}: {count}" for what, count in alerts.counts().items() if count)]
    problems += [f"dead letters {what}: {count}" for what, count in dead.items() if count]
    problems += [f"verdicts {what}: {count}" for what, count in verdicts.items() if count]
    if not all(any(f'"is":"{word}"'.encode() in one for one in expected.verdicts) for word in WORDS):
        problems.append("the run without faults lacks verdicts of some sort: too little was compared")
    incidents = told_of(config)
    wrong = wrong_incidents(actual.alerts, incidents, Groups(config.incidents.group_by).of)
    problems += [f"incidents {what}: {count}" for what, count in wrong.items() if count]
    if not incidents:
        problems.append("there are no incidents: nothing was looked at")
    of_frames = sum(b'"kind":"frames"' in alert for alert in expected.alerts)
    if not 0 < of_frames < len(expected.alerts):
        problems.append("the run without faults lacks alerts of readings or of frames: nothing was compared")
    silent = sum(b'"reason":"silent"' in alert for alert in expected.alerts)
    muted = sum(b'"muted":true' in alert for alert in expected.alerts)
    if not (0 < silent < len(expected.alerts) and 0 < muted < len(expected.alerts)):
        problems.append(f"{silent} alerts are about silence and {muted} are muted: too little was compared")
    if not expected.relearnt:
        problems.append("no sensor has learnt its interval again")
    if problems:
        _write(directory, "expected", expected)
        _write(directory, "actual", actual)
        (directory / "differences.json").write_text(json.dumps({"alerts": alerts.as_json(), "dead letters": dead}))
    return {
        "alerts compared": len(expected.alerts),
        "of frames": of_frames,
        "about silence": silent,
        "muted": muted,
        "sensors that relearnt": len(expected.relearnt),
        "records copied": copied.records,
        "dead letters compared": len(expected.dead) + len(copied.dead),
        "verdicts compared": len(expected.verdicts),
        "messages about incidents": len(incidents),
        "problems": problems,
    }


def _write(directory: Path, name: str, result: Result) -> None:
    (directory / f"{name}.jsonl").write_bytes(b"".join(alert + b"\n" for alert in result.alerts))


def _keep(out: Path, directory: Path, outcome: dict[str, Any]) -> Path:
    """Move what explains a failure: alerts of both runs, differences, logs, configuration, the broker's data."""
    kept = out / time.strftime("%Y%m%dT%H%M%S")
    kept.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        shutil.move(path, kept)
    (kept / "outcome.json").write_text(json.dumps(outcome, indent=1))
    return kept


def _table(outcome: dict[str, Any]) -> Table:
    table = Table(title="Chaos", title_justify="left", title_style="bold", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, count in outcome["faults"].items():
        table.add_row(name, str(count))
    table.add_section()
    table.add_row("faults", str(sum(outcome["faults"].values())))
    sent = "readings sent", "frames sent", "verdicts sent"
    compared = (
        "alerts compared",
        "of frames",
        "about silence",
        "muted",
        "sensors that relearnt",
        "records copied",
        "dead letters compared",
        "verdicts compared",
        "messages about incidents",
    )
    for name in ("seconds", *sent, *compared, *_EVENTS, "seed"):
        table.add_row(name, str(outcome[name]))
    for name in _BROKER_SAYS:
        table.add_row(name, str(outcome[name]))
    table.add_row("processes that ended by themselves", str(len(outcome["unexpected exits"])))
    for problem in outcome["problems"]:
        table.add_row("problem", problem)
    return table


if __name__ == "__main__":
    sys.exit(main())
