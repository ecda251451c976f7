"""The broker of the tests in this directory: started once a run, and only if a test asks for it."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka.errors import KafkaError

from tests.kafka.broker import Broker, Cluster, UnavailableError

ADDRESS = "DETECTOR_TEST_KAFKA"
_reason = pytest.StashKey[str]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"kafka", "broker"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("kafka")
            # kafka-python leaves a socket behind that was still connecting when its client gave up.
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"))


def pytest_collection_finish(session: pytest.Session) -> None:
    if any(item.get_closest_marker("kafka") for item in session.items):
        # After each test on Kafka all is looked through for its sockets: not what there was before the first one, too.
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _no_sockets_for_later_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("kafka"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Cluster:
    """A broker to talk to: the one $DETECTOR_TEST_KAFKA names, else our own."""
    address = os.environ.get(ADDRESS)
    if address is None:
        own: Broker = request.getfixturevalue("broker")
        return own
    cluster = Cluster(address)
    try:
        with cluster.admin():
            return cluster
    except KafkaError as error:
        raise _no_broker(request.config, f"{ADDRESS}={address} does not answer ({error})") from error


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of our own, with its TLS and SASL listeners; it may be killed and has to be started again."""
    if os.environ.get(ADDRESS) is not None:
        raise _untested(f"this needs a broker of its own, and {ADDRESS} names another")
    directory: Path = tmp_path_factory.mktemp("kafka")
    broker = Broker(directory / "broker", secure=True)
    try:
        broker.start()
    except UnavailableError as error:
        raise _no_broker(request.config, str(error)) from error
    yield broker
    broker.kill()


def _no_broker(config: pytest.Config, reason: str) -> BaseException:
    config.stash[_reason] = reason
    return _untested(f"no Kafka broker: {reason}")


def _untested(reason: str) -> BaseException:
    """Skipped on a machine without a broker, failed where that would leave Kafka untested without anyone noticing."""
    if os.environ.get("CI") == "true":
        return pytest.fail.Exception(reason, pytrace=False)
    return pytest.skip.Exception(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reason = config.stash.get(_reason, None)
    if reason is not None:
        terminalreporter.write_line(
            f"Nothing was tested on Kafka: {reason}. {ADDRESS} can name a broker that runs already.", yellow=True
        )
