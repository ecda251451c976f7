"""`detector check --connect`: what a daemon needs of its brokers is asked for, and nothing is changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ResourceType
from kafka.errors import KafkaError

from detector.cli.main import main
from detector.config.streams import NewTopicsConfig
from detector.errors import OperationError, UserError
from detector.streams.base import Batch, Message
from detector.streams.kafka.inspection import inspect
from tests.kafka.broker import Broker, Cluster, free_ports
from tests.kafka.plant import Plant
from tests.kafka.test_faults import until_assigned
from tests.kafka.test_security import RIGHTS, WRONG, bearer, granted, sasl, token_of
from tests.registry import FakeRegistry
from tests.tiny import tiny_bundle


@pytest.fixture
def plant(kafka: Cluster) -> Iterator[Plant]:
    plant = Plant(kafka, 2)
    yield plant
    plant.close()


@pytest.fixture
def secure(broker: Broker) -> Iterator[Plant]:
    plant = Plant(broker, 1)
    yield plant
    plant.close()


def found(plant: Plant, **settings: Any) -> list[tuple[str, str]]:
    """What is right; all there is to look at."""
    return list(inspect(plant.settings(**settings), {plant.input: plant.state}, [plant.alerts, plant.dead_letters]))


def refusal(look: Callable[[], object]) -> str:
    with pytest.raises(UserError) as refused:
        look()
    assert refused.value.exit_code == 2
    return str(refused.value)


def test_everything_is_right(plant: Plant) -> None:
    names, findings = zip(*found(plant), strict=True)
    assert names == ("credentials", "brokers", "topic", "topic", "topic", "topic", "rights", "transactions")
    assert findings[0] == "PLAINTEXT, accepted"
    assert plant.cluster.address in findings[1]
    assert findings[2:6] == (
        f"{plant.input}: 2 partitions", f"{plant.state}: 2 partitions",
        f"{plant.alerts}: 1 partition", f"{plant.dead_letters}: 1 partition",
    )  # fmt: skip
    assert plant.group in findings[6]
    assert f"{plant.group}-one" in findings[6]
    assert findings[7] == "the brokers have them"


def test_a_daemon_that_runs_is_not_disturbed(plant: Plant) -> None:
    """Above all its producer: one that is made under its name would fence it."""
    plant.append(0, [b"{}"])
    with contextlib.closing(plant.streams()) as streams:
        streams.open()
        events = until_assigned(streams)
        assert found(plant)
        while not any(isinstance(event, Batch) for event in events):
            events += streams.poll(1.0)
        assert found(plant)
        (batch,) = [event for event in events if isinstance(event, Batch)]
        streams.write([Message(plant.alerts, b"k", b"{}")])
        assert streams.commit({batch.partition: 1}, lambda _: b"state", final=True)
    assert len(plant.read(plant.alerts)) == 1


@pytest.mark.parametrize("lost", ["input", "state", "alerts", "dead_letters"])
def test_a_topic_that_is_missing(plant: Plant, lost: str) -> None:
    setattr(plant, lost, f"{plant.group}-gone")
    assert f"the broker has no topic {plant.group}-gone" in refusal(lambda: found(plant))


def test_what_would_be_made_is_not_made(plant: Plant) -> None:
    gone = [f"{plant.group}-gone-{name}" for name in ("input", "state", "alerts")]
    plant.input, plant.state, plant.alerts = gone
    topics = [text for name, text in found(plant, create_topics=True) if name == "topic"]
    assert topics == [*(f"{name}: missing, `run` makes it" for name in gone), f"{plant.dead_letters}: 1 partition"]
    with plant.cluster.admin() as admin:
        assert not set(gone) & set(admin.list_topics())
    new = NewTopicsConfig(replication=7)
    said = refusal(lambda: found(plant, create_topics=True, new_topics=new))
    assert "streams.kafka.new_topics" in said


@pytest.mark.parametrize(("which", "wrong"), [("input", "compact"), ("state", "delete")])
def test_a_policy_that_is_wrong(plant: Plant, which: str, wrong: str) -> None:
    topic = plant.cluster.create_topic(plant.cluster.unique("wrong"), plant.partitions, {"cleanup.policy": wrong})
    setattr(plant, which, topic)
    assert f"the topic {topic} has cleanup.policy {wrong} and needs" in refusal(lambda: found(plant))


def test_an_output_that_is_the_topic_of_the_state(plant: Plant) -> None:
    plant.alerts = plant.state
    assert f"the topic {plant.state} is to be written to" in refusal(lambda: found(plant))


@pytest.mark.parametrize(
    ("ours", "seconds", "brokers"),
    [
        ("transaction_timeout", 7200.0, "transaction.max.timeout.ms"),
        ("session_timeout", 0.9, "group.min.session.timeout.ms"),
        ("session_timeout", 7200.0, "group.max.session.timeout.ms"),
    ],
)
def test_a_timeout_that_the_brokers_do_not_allow(plant: Plant, ours: str, seconds: float, brokers: str) -> None:
    said = refusal(lambda: found(plant, **{ours: int(seconds * 1e9)}))
    assert "the broker does not allow" in said
    assert f"streams.kafka.{ours}" in said
    assert f"{brokers} is " in said


def test_a_state_topic_that_has_to_grow(plant: Plant) -> None:
    plant.state = plant.cluster.create_topic(plant.cluster.unique("small"), 1, {"cleanup.policy": "compact"})
    assert "partitions were added" in refusal(lambda: found(plant))
    assert found(plant, create_topics=True)
    with plant.cluster.admin() as admin:
        (topic,) = admin.describe_topics([plant.state])
    assert len(topic["partitions"]) == 1, "only a daemon lets it grow"


def test_the_rights_that_are_needed_are_enough(broker: Broker, secure: Plant, tmp_path: Path) -> None:
    with granted(secure, "guest"):
        assert found(secure, **sasl(broker, tmp_path, user="guest"))
        assert found(secure, **bearer(broker, token_of("guest"), tmp_path))


@pytest.mark.parametrize("missing", RIGHTS, ids=lambda missing: f"{missing[0].name}-{missing[1]}".lower())
def test_a_right_that_is_missing(
    broker: Broker, secure: Plant, tmp_path: Path, missing: tuple[ResourceType, str]
) -> None:
    kind, name = missing
    with granted(secure, "guest", missing):
        said = refusal(lambda: found(secure, **sasl(broker, tmp_path, user="guest")))
    assert "no right to" in said
    assert getattr(secure, name) in said
    assert kind.name.replace("_", "").lower()[:5] in said.replace(" ", "")
    assert "docs/operations.md" in said


def test_credentials_that_are_wrong(broker: Broker, secure: Plant, tmp_path: Path) -> None:
    said = refusal(lambda: found(secure, **sasl(broker, tmp_path, password=WRONG)))
    assert "refuses the credentials of alice" in said
    assert WRONG not in said


def test_no_broker(plant: Plant) -> None:
    (port,) = free_ports(1)
    with pytest.raises(OperationError, match="no broker answers") as away:
        found(plant, bootstrap_servers=(f"127.0.0.1:{port}",))
    assert away.value.exit_code == 1
    assert f"bootstrap_servers: 127.0.0.1:{port}" in str(away.value)
    assert not isinstance(away.value, KafkaError)


def options_for(plant: Plant, models: Path) -> list[str]:
    """The command line of a daemon on the plant's topics."""
    settings = {
        "streams.backend": "kafka",
        "streams.kafka.bootstrap_servers": f"['{plant.cluster.address}']",
        "streams.kafka.group_id": plant.group,
        "readings.input": plant.input,
        "readings.model": str(models),
        "output.alerts": plant.alerts,
        "output.dead_letters": plant.dead_letters,
        "output.verdicts": plant.verdicts,
    }
    return [argument for key, value in settings.items() for argument in ("--set", f"{key}={value}")]


def test_the_brokers_are_asked_before_there_is_a_model(
    plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = options_for(plant, tmp_path / "models")
    assert main(["check", "--connect", *options]) == 2
    captured = capsys.readouterr()
    assert "OK  rights " in captured.out
    (said,) = captured.err.splitlines()
    assert "detector train" in said
    assert main(["check", "--connect", *options, "--set", "output.alerts=no-such-topic"]) == 2
    of_the_broker, of_the_model = capsys.readouterr().err.splitlines()
    assert of_the_broker.startswith("detector: error: the broker has no topic no-such-topic (streams.kafka).")
    assert of_the_model == said


def test_no_model_and_no_broker_are_for_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    options = ["--set", "streams.backend=kafka", "--set", f"streams.kafka.bootstrap_servers=['127.0.0.1:{port}']"]
    assert main(["check", "--connect", *options, "--set", f"readings.model={tmp_path}"]) == 2
    of_the_broker, of_the_model = capsys.readouterr().err.splitlines()
    assert "no broker answers" in of_the_broker
    assert "detector train" in of_the_model


def test_the_command(plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_bundle(tmp_path / "models")
    options = options_for(plant, tmp_path / "models")
    assert main(["check", *options]) == 0
    assert f"OK  brokers        {plant.cluster.address}, not asked; --connect does\n" in capsys.readouterr().out
    assert main(["check", "--connect", *options]) == 0
    out = capsys.readouterr().out
    assert f"OK  topic          {plant.input}: 2 partitions\n" in out
    assert "OK  rights " in out
    scores = plant.cluster.create_topic(plant.cluster.unique("scores"))
    assert main(["check", "--connect", *options, "--set", f"output.scores={scores}"]) == 0
    assert f"OK  topic          {scores}: 1 partition\n" in capsys.readouterr().out
    assert main(["check", "--connect", *options, "--set", "output.verdicts=no-verdicts"]) == 0
    assert "OK  topic          no-verdicts: missing, nothing is written to it\n" in capsys.readouterr().out
    assert main(["check", "--connect", *options, "--set", "output.scores=no-scores"]) == 2
    assert "the broker has no topic no-scores" in capsys.readouterr().err
    assert main(["check", "--connect", *options, "--set", "output.alerts=no-such-topic"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("detector: error: the broker has no topic no-such-topic (streams.kafka).")
    assert "OK  brokers" in captured.out, "what was right before is listed"


def test_the_schema_registry_is_asked(plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_bundle(tmp_path / "models")
    options = options_for(plant, tmp_path / "models")
    with FakeRegistry() as registry:
        options += ["--set", f"streams.kafka.schema_registry={{url: '{registry.url}'}}"]
        assert main(["check", "--connect", *options]) == 0
        assert f"OK  registry       {registry.url} answers\n" in capsys.readouterr().out
        registry.down = True
        assert main(["check", "--connect", *options]) == 1
        assert "does not answer: it answers 503" in capsys.readouterr().err


def test_the_daemons_beside_it(plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_bundle(tmp_path / "models")
    told = plant.cluster.create_topic(plant.cluster.unique("incidents"))
    target = "[{name: ops, kind: webhook, url: 'http://127.0.0.1:9/'}]"
    options = [
        *options_for(plant, tmp_path / "models"),
        *("--set", f"incidents.input={plant.alerts}", "--set", f"incidents.output={told}"),
        *("--set", f"notify.input={told}", "--set", f"notify.targets={target}"),
    ]
    words = ["check", "--connect", "--with", "incidents,notify", *options]
    group = plant.group
    for state in (f"{group}-incidents-state", f"{group}-notify-ops-state"):
        assert main(words) == 2
        captured = capsys.readouterr()
        assert f"the broker has no topic {state}" in captured.err
        plant.cluster.create_topic(state, 1, {"cleanup.policy": "compact"})
    assert f"group {group}-incidents," in captured.out, "what is right of the first daemon"
    assert main(words) == 0
    rights = [line for line in capsys.readouterr().out.splitlines() if line.startswith("OK  rights")]
    assert [
        f"group {name}," in line
        for name, line in zip((group, f"{group}-incidents", f"{group}-notify-ops"), rights, strict=True)
    ] == [True] * 3
    assert main(["check", "--with", "incidents", *options]) == 2
    assert "--connect" in capsys.readouterr().err
