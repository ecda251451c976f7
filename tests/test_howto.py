"""The how-to pages: their blocks, one after the other, in a directory with a plant and a model of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.kafka.broker import free_ports
from tests.tutorial import blocks, follow

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {path.stem.removeprefix("howto-"): path for path in DOCS.glob("howto-*.md")}
CONFIG = """\
http: {listen: "127.0.0.1:0"}
incidents: {http: "127.0.0.1:0"}
training: {epochs: 2, min_steps: 300}
"""


def of(page: str) -> list[str]:
    """The blocks of a page; every one of them is run."""
    fences = [line for line in PAGES[page].read_text(encoding="utf-8").splitlines() if line.startswith("```")]
    found = blocks("sh", PAGES[page])
    assert len(found) == len(fences) / 2
    return found


def test_there_is_a_test_of_every_page() -> None:
    assert PAGES.keys() == {"webhook", "sensors", "model", "muted", "restore"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plant of six sensors with faults, and a model."""
    place = tmp_path_factory.mktemp("plant")
    (place / "config.yaml").write_text(CONFIG)
    follow("detector simulate --out plant --sensors 6 --rows 3000\ndetector train --data plant --rows 1500", place)
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A directory of the test's own, as it is before a page begins."""
    return Path(shutil.copytree(trained, tmp_path / "place"))


@pytest.mark.slow
def test_a_webhook_is_told(place: Path) -> None:
    (port,) = free_ports(1)
    target, receiver, trial, rest = (block.replace("8099", str(port)) for block in of("webhook"))
    listening = f"until (echo > /dev/tcp/127.0.0.1/{port}) 2> /dev/null; do sleep 0.1; done"
    follow("\n".join([target, receiver.replace("sleep 1", listening), trial, "kill %1"]), place)
    (line,) = (place / "received.txt").read_text().splitlines()
    assert line.startswith("opened ")
    assert "hook" in follow(rest, place)


@pytest.mark.slow
def test_more_sensors_are_looked_at(place: Path) -> None:
    understood, looked, settings = of("sensors")
    assert "flow-04" in follow(understood, place)
    assert "1 sensor" in follow(looked, place)
    assert "above" in follow(settings, place)


@pytest.mark.slow
def test_another_model_comes_and_goes(place: Path) -> None:
    trained, compared, activated, back = of("model")
    before = (place / "var/models/readings/current").read_text()
    follow(trained, place)
    follow(compared, place)
    assert (place / "now/report.html").is_file()
    assert (place / "then/report.html").is_file()
    assert follow(activated, place).count("-dense-") >= 2
    assert (place / "var/models/readings/current").read_text() != before
    follow(back, place)
    assert (place / "var/models/readings/current").read_text() == before


@pytest.mark.slow
def test_a_line_is_muted(place: Path) -> None:
    muted, counted = of("muted")
    follow(muted, place)
    assert int(follow(counted, place).splitlines()[-1]) > 0


@pytest.mark.slow
def test_a_backup_is_restored(place: Path) -> None:
    *there_and_back, damaged, over = of("restore")
    for block in there_and_back:
        follow(block, place)
    follow(damaged, place)
    follow(over, place)
    published = [(place / where / "anomaly-alerts.jsonl").read_bytes() for where in ("seen", "backup/seen")]
    assert published[0] == published[1]
    assert published[0]
