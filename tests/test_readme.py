"""What README.md and the pages in docs tell people to type exists, and README's own examples do what they say."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.cli.main import _parse
from detector.wire.alerts import decode_alert
from tests.tutorial import blocks, follow

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
COMMAND = re.compile(r"(?:^|[\s|/])detector\s+\S")
EASY_FRAMES = "{epochs: 5, batch_size: 32}"
"""How a model of frames is trained: in some hundred small steps, after which it tells a fault anybody would see."""


def lines_of_code(page: Path) -> Iterator[str]:
    """The lines of a page's blocks, fenced or indented, with continued ones in one."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()


def commands_of(page: Path, program: str) -> list[list[str]]:
    """The words after the name of a program, of every call of it in the page's blocks and within its sentences."""
    inline = re.findall(rf"`({program} [^`]*)`", page.read_text(encoding="utf-8").replace("\n", " "))
    found: list[list[str]] = []
    for line in [*lines_of_code(page), *inline]:
        for part in re.split(r"\s[|>]\s?|\s&&\s", line.partition(" #")[0]):
            try:
                words = shlex.split(part)
            except ValueError:
                continue  # a line of JSON or of another language
            if words and words[0].rpartition("/")[2] == program and len(words) > 1:
                found.extend(list(one) for one in itertools.product(*(word.split("|") for word in words[1:])))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_are_understood(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands_of(page, "detector"):
        # What stands for a value is none itself.
        words = ["readings:0:7" if word == "TOPIC:PARTITION:OFFSET" else word for word in words]
        with contextlib.suppress(SystemExit):
            _parse(words)
        said = capsys.readouterr().err
        # Within a sentence a command may stand without what it must have.
        assert not said or "the following arguments are required" in said, f"{words}: {said}"


def test_commands_are_found_at_all() -> None:
    found = [words[0] for page in PAGES for words in commands_of(page, "detector")]
    assert {"train", "run", "backtest", "tune", "check", "simulate", "inspect", "models", "schema"} <= set(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_modules_and_pages_that_are_named_are_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in commands_of(page, "make"):
        assert words[0] in targets, words
    for words in commands_of(page, "python"):
        if words[0] == "-m":
            assert importlib.util.find_spec(words[1]) is not None, words
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"[\w./-]+\.(?:md|yaml|yml|service)\b", text))
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
    for path in named:
        if path.startswith(("docs/", "deploy/")):
            assert (ROOT / path).exists(), path
    for path in re.findall(r"`(tests/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_first_page_is_two_screens_and_shows_one_picture() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 90
    assert all(len(line) <= 100 for line in lines if not line.startswith(("|", "    ", "![")))
    assert sum(line.startswith("![") for line in lines) == 1
    assert (ROOT / "docs" / "report.svg").stat().st_size < 100_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_it_shows_works(tmp_path: Path) -> None:
    """Every block of the first pages, in directories that hold what they speak of: a sensor with a fault, or images."""
    random = np.random.default_rng(0)
    # What is shown here does not take models as good as can be.
    quick = {"readings": "{epochs: 3, min_steps: 300}", "images": EASY_FRAMES, "cameras": EASY_FRAMES}
    for name, training in quick.items():
        (tmp_path / name).mkdir()
        # The default port may be another's.
        settings = f'http: {{listen: "127.0.0.1:0"}}\ntraining: {training}\n'
        (tmp_path / name / "config.yaml").write_text(settings)
    csv, pictures, cameras = (tmp_path / name for name in ("readings", "images", "cameras"))
    values = np.sin(np.arange(5000) / 7) + random.normal(0, 0.1, 5000)
    values[4000:4100] += 4
    rows = (f"{1_790_000_000 + 600 * i},{value:.3f}\n" for i, value in enumerate(values))
    (csv / "pump.csv").write_text("timestamp,value\n" + "".join(rows))
    times = np.array([1_790_000_000 + 600 * 4000, 1_790_000_000 + 600 * 4100], dtype="datetime64[s]")
    start, end = (f"{time}Z" for time in times.astype(str))
    label = {"sensor_id": "pump", "start": start, "end": end, "kind": "leak"}
    (csv / "labels.json").write_text(json.dumps([label]))
    frames = (100 + 40 * np.sin(np.arange(28) / 4) + random.normal(0, 5, (600, 28, 28))).astype(np.uint8)
    (pictures / "images").mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(pictures / "images" / f"{i:04}.png")
    header = b"\x00\x00\x08\x03" + b"".join(size.to_bytes(4, "big") for size in frames.shape)
    (pictures / "images.idx3").write_bytes(header + frames.tobytes())

    (first,), of_readings = blocks("sh", README), blocks("sh", ROOT / "docs" / "using.md")
    of_images, of_cameras = blocks("sh", ROOT / "docs" / "cameras.md")
    said = [follow(block, csv) for block in (first, *of_readings)]
    assert "leak" in said[2]
    assert "Written: readings.alerts.false_alarms: " in said[3]
    assert (csv / "report" / "report.html").is_file()
    alerts = (csv / "alerts.jsonl").read_bytes()
    assert [decode_alert(line).event for line in alerts.splitlines()][:1] == ["opened"]
    # What the filter says is of the sensor that was trained, and all that a file leads to.
    assert (csv / "alerts-of-pump.jsonl").read_bytes() == alerts
    assert follow(of_images, pictures).count("frames of (28, 28)") == 2
    follow(of_cameras, cameras)
    seen = [decode_alert(line) for line in (cameras / "seen" / "anomaly-alerts.jsonl").read_bytes().splitlines()]
    (camera, *_) = [alert for alert in seen if alert.kind == "frames" and alert.event == "opened"]
    follow(
        f"detector inspect seen/anomaly-alerts.jsonl --alert {camera.alert_id} -o door.png --data plant",
        cameras,
    )
    assert (cameras / "door.png").read_bytes().startswith(b"\x89PNG")
