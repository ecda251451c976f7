"""What every test may rely on: no configuration of the machine's, and a log as it was before."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

import detector  # noqa: F401  (first of all: it sets the limits of BLAS before anything imports numpy)

# How long an example takes depends on the machine; only what it does is tested.
settings.register_profile("detector", deadline=None)
settings.load_profile("detector")


@pytest.fixture(autouse=True)
def _no_configuration_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DETECTOR_CONFIG", raising=False)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    levels = _levels()
    yield
    # pytest's own handlers of the moment stay: only what the test added goes.
    root.handlers = [handler for handler in root.handlers if handler in handlers or _is_pytests(handler)]
    root.setLevel(level)
    # A command that a test calls quietens the loggers of libraries; the next test may wait for one of their lines.
    for name in _levels():
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
    logging.raiseExceptions = raising


def _levels() -> dict[str, int]:
    loggers = logging.root.manager.loggerDict
    return {name: each.level for name, each in list(loggers.items()) if isinstance(each, logging.Logger)}


def _is_pytests(handler: logging.Handler) -> bool:
    return type(handler).__module__.startswith("_pytest")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on a broker come last, in whatever order: the client's threads outlive a test and log into the next."""
    items.sort(key=lambda item: "kafka" in item.path.parts)
