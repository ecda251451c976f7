"""The client of a schema registry, against one on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.config.load import SchemaRegistryConfig
from detector.errors import OperationError, StopAskedError, UserError
from detector.streams.kafka.registry import Registry
from detector.streams.schemas import Schema
from tests.kafka.broker import free_ports
from tests.registry import PASSWORD, READING, USER, FakeRegistry

VARIABLE = "REGISTRY_PASSWORD"


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_schemas_and_what_they_refer_to() -> None:
    with FakeRegistry() as fake:
        fake.add(1, READING)
        fake.add(2, "message R {}", schemaType="PROTOBUF")
        fake.add(3, "{}", references=[{"name": "A", "subject": "a/b", "version": 2}])
        fake.subjects["/subjects/a%2Fb/versions/2"] = {
            "schema": '"A"', "references": [{"name": "B", "subject": "b", "version": 1}],
        }  # fmt: skip
        fake.subjects["/subjects/b/versions/1"] = {"schema": '"B"'}
        registry = Registry(SchemaRegistryConfig(url=fake.url), limit=0)
        assert registry.schema(1) == Schema("AVRO", READING)
        assert registry.schema(2) == Schema("PROTOBUF", "message R {}")
        assert registry.schema(3) == Schema("AVRO", {}, ("B", "A"))
        assert registry.schema(4) is None
        registry.close()


def test_one_that_is_down_is_waited_for_and_that_is_told(tmp_path: Path) -> None:
    clock, told = Clock(), list[str | None]()
    (port,) = free_ports(1)
    registry = Registry(
        SchemaRegistryConfig(url=f"http://127.0.0.1:{port}"), limit=60, on_waiting=told.append,
        tick=lambda: ticks.append(clock.now), clock=clock, sleep=clock.sleep,
    )  # fmt: skip
    ticks: list[float] = []
    with pytest.raises(OperationError, match=r"does not answer.*schema_registry"):
        registry.schema(1)
    assert 60 <= clock.now <= 65
    assert len(ticks) > 100
    with FakeRegistry(port=port) as fake:
        fake.add(1, READING)
        fake.down = True

        def up(seconds: float) -> None:
            clock.sleep(seconds)
            fake.down = clock.now < 70

        told.clear()
        registry = Registry(SchemaRegistryConfig(url=fake.url), limit=60, on_waiting=told.append, clock=clock, sleep=up)
        assert registry.schema(1) is not None
        assert told[0] is not None
        assert "503" in told[0]
        assert told[-1] is None
        registry.close()


def test_who_waits_can_be_stopped() -> None:
    with FakeRegistry() as fake:
        fake.down = True
        clock = Clock()
        registry = Registry(
            SchemaRegistryConfig(url=fake.url), limit=600, stop=lambda: clock.now > 3, clock=clock, sleep=clock.sleep
        )
        with pytest.raises(StopAskedError):
            registry.schema(1)
        registry.close()


def test_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, PASSWORD)
    with FakeRegistry(password=True) as fake:
        fake.add(1, READING)
        registry = Registry(SchemaRegistryConfig(url=fake.url, username=USER, password_env=VARIABLE), limit=0)
        assert registry.schema(1) is not None
        registry.close()
        (tmp_path / "token").write_text("x")
        registry = Registry(SchemaRegistryConfig(url=fake.url, token_file=tmp_path / "token"), limit=60)
        with pytest.raises(UserError, match="answers 401") as refused:
            registry.schema(1)
        assert PASSWORD not in str(refused.value)
        registry.close()


def test_another_server_is_no_registry() -> None:
    with FakeRegistry() as fake:
        fake.unknown = 404
        registry = Registry(SchemaRegistryConfig(url=fake.url), limit=60)
        with pytest.raises(UserError, match="answers 404"):
            registry.schema(1)
        registry.close()
        registry = Registry(SchemaRegistryConfig(url=f"{fake.url}/elsewhere"), limit=0)
        fake.subjects["/elsewhere/schemas/ids/1"] = {"hello": 1}
        with pytest.raises(OperationError, match="its answer has no schema"):
            registry.schema(1)
        registry.close()


@pytest.mark.parametrize("token", ["TOPSECRET\nmore", "TOPSECRÉT"])
def test_a_token_that_cannot_be_sent_is_told_at_once_and_not_shown(tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token, encoding="utf-8")
    with pytest.raises(UserError, match=r"schema_registry\.token_file") as refused:
        Registry(SchemaRegistryConfig(url="http://127.0.0.1:1", token_file=tmp_path / "token"), limit=0)
    assert "TOP" not in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Sign in</html>", b"", b"[]", b"5", b'{"hello": 1}', b"[" * 100_000,
        b'{"schema": "{}", "references": 5}', b'{"schema": "{}", "references": [{"name": "a"}]}', b'\xff\xfe{}',
    ],
)  # fmt: skip
def test_an_answer_that_is_no_schema_is_waited_out_and_told_once(caplog: pytest.LogCaptureFixture, body: bytes) -> None:
    clock, told = Clock(), list[str | None]()
    with FakeRegistry() as fake:
        fake.add(1, READING)
        fake.instead = body

        def later(seconds: float) -> None:
            clock.sleep(seconds)
            if clock.now > 30:
                fake.instead = None

        registry = Registry(
            SchemaRegistryConfig(url=fake.url), limit=60, on_waiting=told.append, clock=clock, sleep=later
        )
        assert registry.schema(1) == Schema("AVRO", READING)
        registry.close()
    assert told.count(None) == 1
    assert told[-1] is None
    assert all("its answer " in why for why in told[:-1] if why is not None)
    assert [record.getMessage()[:20] for record in caplog.records if "registry" in record.name] == [
        "waiting for it: the ",
        "the schema registry ",
    ]


def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="certificates cannot be used"):
        Registry(SchemaRegistryConfig(url="https://localhost", ssl_ca_file=tmp_path / "none"), limit=0)
