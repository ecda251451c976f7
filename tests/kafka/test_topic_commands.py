"""The commands that read or fill a topic without being a daemon."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaProducer, TopicPartition

from detector.cli.main import main
from detector.config.load import load_config
from detector.config.streams import KafkaConfig
from detector.errors import OperationError, UserError
from detector.incidents.history import History
from detector.models.bundle.bundles import load_bundle
from detector.service.past import recall
from detector.simulation import plant as simulation
from detector.streams.base import Batch, Partition
from detector.streams.kafka_reader import TopicReader
from detector.streams.kafka_writer import ensure_topic, fill_topic
from detector.wire.alerts import Alert, decode_alert
from tests.kafka.broker import USERS, Broker, Cluster

SECOND = 1_000_000_000
T0 = 1_790_000_000_000
"""Broker time of the first record, ms."""


def config_for(kafka: Cluster, **more: object) -> KafkaConfig:
    return KafkaConfig.model_validate({"bootstrap_servers": (kafka.address,), **more})


def write(kafka: Cluster, topic: str, records: Iterable[tuple[int, int, bytes]], *, commit: bool | None = None) -> None:
    """Append (partition, broker time in ms, value) records; in a transaction unless `commit` is None."""
    transaction = {} if commit is None else {"transactional_id": Cluster.unique("writer")}
    producer = KafkaProducer(bootstrap_servers=kafka.address, **transaction)
    try:
        if commit is not None:
            producer.init_transactions()
            producer.begin_transaction()
        sent = [producer.send(topic, value, partition=number, timestamp_ms=ms) for number, ms, value in records]
        producer.flush(30)
        for future in sent:
            future.get(30)
        if commit is not None:
            producer.commit_transaction() if commit else producer.abort_transaction()
    finally:
        producer.close(10)


def values_of(batches: Iterable[Batch]) -> list[tuple[int, bytes]]:
    return [(batch.partition.number, record.value or b"") for batch in batches for record in batch.records]


@pytest.fixture
def topic(kafka: Cluster) -> str:
    return kafka.create_topic(kafka.unique("readings"), 3)


# -- reading a topic -----------------------------------------------------------------------------------------------


def test_all_partitions_in_order(kafka: Cluster, topic: str) -> None:
    write(kafka, topic, [(number, T0 + i, b"%d" % i) for i in range(30) for number in (2, 0)])
    with TopicReader(config_for(kafka), topic) as reader:
        assert reader.partitions == [Partition(topic, number) for number in range(3)]
        batches = list(reader.read())
        again = list(reader.read())
    assert values_of(batches) == [(number, b"%d" % i) for number in (0, 2) for i in range(30)]
    assert values_of(again) == values_of(batches)
    assert batches[-1].next_offset == 30
    assert batches[0].records[0].timestamp == T0


def test_what_comes_later_is_not_read(kafka: Cluster, topic: str) -> None:
    write(kafka, topic, [(0, T0, b"before")])
    with TopicReader(config_for(kafka), topic) as reader:
        write(kafka, topic, [(0, T0, b"after"), (1, T0, b"after")])
        assert values_of(reader.read()) == [(0, b"before")]


def test_only_what_was_committed(kafka: Cluster, topic: str) -> None:
    write(kafka, topic, [(0, T0, b"aborted")], commit=False)
    write(kafka, topic, [(0, T0, b"committed")], commit=True)
    write(kafka, topic, [(0, T0, b"aborted too")], commit=False)
    with TopicReader(config_for(kafka), topic) as reader:
        batches = list(reader.read())
    assert values_of(batches) == [(0, b"committed")]


def test_what_was_deleted_is_no_error(kafka: Cluster, topic: str) -> None:
    write(kafka, topic, [(0, T0, b"%d" % i) for i in range(10)])
    with kafka.admin() as admin:
        admin.delete_records({TopicPartition(topic, 0): 7})
    with TopicReader(config_for(kafka), topic) as reader:
        (batch,) = reader.read()
    assert [record.offset for record in batch.records] == [7, 8, 9]


def test_an_empty_topic_has_no_batches(kafka: Cluster, topic: str) -> None:
    with TopicReader(config_for(kafka), topic) as reader:
        assert list(reader.read()) == []
        assert reader.start_of(SECOND, None, 0, newest_second) == (None, None)


def test_reading_from_a_time_on(kafka: Cluster, topic: str) -> None:
    write(kafka, topic, [(number, T0 + 1000 * i, b"%d" % i) for i in range(10) for number in (0, 1)])
    write(kafka, topic, [(2, T0, b"old")])
    with TopicReader(config_for(kafka), topic) as reader:
        assert values_of(reader.read((T0 + 8000) * 1_000_000)) == [(0, b"8"), (0, b"9"), (1, b"8"), (1, b"9")]


def newest_second(batches: Iterable[Batch]) -> int | None:
    """Values are seconds after T0."""
    seconds = [int(value) for _, value in values_of(batches)]
    return T0 * 1_000_000 + max(seconds) * SECOND if seconds else None


@pytest.mark.parametrize(
    ("events", "first"),
    [
        (range(100), 99 - 20),  # as they happen
        ([i - 1_000_000 for i in range(100)], 99 - 20 - 1_000_000),  # an import of old data
        ([*range(50), *[i - 1_000_000 for i in range(50)]], 49 - 20),  # an import behind live data
    ],
)
def test_where_the_last_seconds_begin(events: Sequence[int], first: int, kafka: Cluster, topic: str) -> None:
    write(kafka, topic, [(i % 3, T0 + 1000 * i, b"%d" % second) for i, second in enumerate(events)])
    with TopicReader(config_for(kafka), topic) as reader:
        start, after = reader.start_of(20 * SECOND, None, 5 * SECOND, newest_second)
        assert start == T0 * 1_000_000 + first * SECOND
        wanted = sorted(second for second in events if second >= first)
        read = [int(value) for _, value in values_of(reader.read(after))]
    assert sorted(second for second in read if second >= first) == wanted


def test_a_recent_topic_is_not_read_from_its_beginning(kafka: Cluster, topic: str) -> None:
    write(kafka, topic, [(0, T0 + 1000 * i, b"%d" % i) for i in range(1000)])
    with TopicReader(config_for(kafka), topic) as reader:
        _, after = reader.start_of(20 * SECOND, None, 5 * SECOND, newest_second)
        assert len(values_of(reader.read(after))) == 20 + 5 + 1


def test_a_missing_topic_is_named(kafka: Cluster) -> None:
    with pytest.raises(UserError, match=f"no topic nowhere \\({kafka.address}\\)"):
        TopicReader(config_for(kafka), "nowhere").open()
    with TopicReader(config_for(kafka), "nowhere", may_lack=True) as reader:
        assert list(reader.read(0)) == []


def test_where_nothing_was_published_there_is_nothing_to_look_back_at(
    kafka: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"incidents.{key}={kafka.unique('nowhere')}" for key in ("input", "output")]
    config = load_config(None, [f"streams.kafka.bootstrap_servers=['{kafka.address}']", *names])
    history = History()
    recall(config, None, history, lambda: None)
    assert not history.incidents()
    assert "history_not_read" not in caplog.text


def guest_of(broker: Broker, password: Path) -> KafkaConfig:
    """Who comes as a user without rights, with the password in a file."""
    return KafkaConfig.model_validate(
        {
            "bootstrap_servers": (broker.sasl_address,),
            "security_protocol": "SASL_SSL",
            "ssl_ca_file": broker.certificates.authority,
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": "guest",
            "sasl_password_file": password,
        }
    )


def test_missing_rights_are_named(broker: Broker, topic: str, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(USERS["guest"])
    guest = guest_of(broker, secret)
    with pytest.raises(UserError, match=f"no rights to topic {topic}"):
        TopicReader(guest, topic).open()
    with pytest.raises(UserError, match=f"no rights to topic {topic}"):
        fill_topic(guest, topic, [(b"key", b"value")], live=False)


def test_a_broker_that_does_not_answer_is_named(kafka: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    config = config_for(kafka, bootstrap_servers=("127.0.0.1:1",))
    expected = r"no Kafka broker answers: KafkaConnectionError: 127\.0\.0\.1:1: Connection refused \(127\.0\.0\.1:1\)"
    with pytest.raises(OperationError, match=expected):
        TopicReader(config, "any").open()
    with pytest.raises(OperationError, match=expected):
        ensure_topic(config, "any")
    assert caplog.records == [], "one line says it"


def test_credentials_that_are_refused_are_named(broker: Broker, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("a-wrong-one")
    stranger = guest_of(broker, secret)
    with pytest.raises(UserError, match="the broker refuses the credentials of guest") as caught:
        TopicReader(stranger, "any").open()
    assert "a-wrong-one" not in str(caught.value)


# -- filling one ---------------------------------------------------------------------------------------------------


def test_a_topic_is_created_only_where_that_is_allowed(kafka: Cluster) -> None:
    topic = kafka.unique("new")
    with pytest.raises(UserError, match=f"no topic {topic}"):
        ensure_topic(config_for(kafka), topic)
    ensure_topic(config_for(kafka, create_topics=True), topic)
    ensure_topic(config_for(kafka), topic)
    with TopicReader(config_for(kafka), topic) as reader:
        assert reader.partitions


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def options(kafka: Cluster, topic: str) -> list[str]:
    settings = {
        "streams.kafka.bootstrap_servers": f"[{json.dumps(kafka.address)}]",
        "readings.input": topic,
        "readings.warmup": 200,
        # A plant of years ago and a plant of next year are both welcome.
        "readings.window.max_future": "1000d",
    }
    return [item for key, value in settings.items() for item in ("--set", f"{key}={value}")]


@pytest.mark.usefixtures("_elsewhere")
def test_simulate_fills_the_topic_keyed_by_sensor(
    kafka: Cluster, topic: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["simulate", "--out", "kafka", "--sensors", "6", "--rows", "100", *options(kafka, topic)]
    assert main(arguments) == 0
    assert f"topic {topic}: 600 readings of 6 sensors" in capsys.readouterr().out
    assert Path("var/data/labels.json").is_file()
    with TopicReader(config_for(kafka), topic) as reader:
        batches = list(reader.read())
    plant = simulation.simulate(sensors=6, rows=100, seed=0)
    assert sorted(value + b"\n" for _, value in values_of(batches)) == sorted(simulation.lines(plant))
    found = {
        (json.loads(record.value or b"")["sensor_id"].encode(), record.key, batch.partition)
        for batch in batches
        for record in batch.records
    }
    assert len(found) == 6  # one key and one partition for each sensor
    assert all(sensor == key for sensor, key, _ in found)


@pytest.mark.usefixtures("_elsewhere")
def test_labels_of_another_plant_are_kept(kafka: Cluster, topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("var/data").mkdir(parents=True)
    Path("var/data/labels.json").write_text("[]")
    assert main(["simulate", "--out", "kafka", "--sensors", "5", "--rows", "1000", *options(kafka, topic)]) == 2
    assert "labels of another plant (var/data/labels.json)" in capsys.readouterr().err
    with TopicReader(config_for(kafka), topic) as reader:
        assert list(reader.read()) == []


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.slow
def test_train_and_backtest_read_the_topic_as_they_read_a_file(
    kafka: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = kafka.create_topic(kafka.unique("one"), 1)
    common = options(kafka, topic)
    plant = ["--sensors", "4", "--rows", "1500", "--seed", "3", *common]
    assert main(["simulate", "--out", "kafka", *plant]) == 0
    assert main(["simulate", "--out", "plant", *plant]) == 0
    for data, models in (("kafka", "from-topic"), ("plant", "from-file")):
        command = ["train", "--data", data, "--out", models, "--epochs", "1", "--rows", "600", *common]
        assert main(command) == 0
    from_topic, from_file = (load_bundle(Path(name)) for name in ("from-topic", "from-file"))
    assert from_topic.manifest.training["from"] == from_file.manifest.training["from"]
    assert from_topic.profiles().keys() == from_file.profiles().keys()

    alerts: dict[tuple[str, str], list[Alert]] = {}
    for data in ("kafka", "plant"):
        for since in ("1000d", "20m"):
            out = f"{data}-{since}"
            command = ["backtest", "--data", data, "--out", out, "--set", "readings.model=from-file", "--since", since]
            assert main([*command, *common]) == 0
            alerts[data, since] = [decode_alert(line) for line in Path(out, "alerts.jsonl").read_bytes().splitlines()]
    assert alerts["plant", "1000d"]
    for since in ("1000d", "20m"):
        assert without_offsets(alerts["kafka", since]) == without_offsets(alerts["plant", since])


def without_offsets(alerts: Sequence[Alert]) -> list[Alert]:
    """Offsets are bytes in a file and records in a topic."""
    source = {"stream": "", "partition": 0, "opened_offset": 0, "last_offset": 0}
    return [msgspec.structs.replace(alert, source=msgspec.convert(source, type(alert.source))) for alert in alerts]


@pytest.mark.usefixtures("_elsewhere")
def test_training_names_the_missing_topic(kafka: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    missing = kafka.unique("missing")
    assert main(["train", "--data", "kafka", *options(kafka, missing)]) == 2
    assert f"there is no topic {missing}" in capsys.readouterr().err
