"""Makes the golden data again: `python -m tests.golden.make WHAT`.

`inputs` makes inputs and models, after which all others have to follow. `alerts` records what the detector beside these
tests publishes, `kafka-alerts` what it publishes on a broker, which is started. `states` and `kafka-states` freeze what
it leaves behind in the middle; they are of use only in a checkout of the release whose states are to be taken up.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.golden import inputs
from tests.golden.cases import ALERTS, CAMERAS, CASES, LETTERS, MACHINES, MODELS, PLANT, Case, pack, run, settings, tar
from tests.golden.states import PLACES, make_kafka_states, make_states
from tests.golden.topics import WHOLE_ALERTS, WHOLE_LETTERS, Feed, GoldenTopics, create_input, json_lines
from tests.kafka.broker import Broker

TRAINED: Final = {PLANT: 2400, MACHINES: 1800, CAMERAS: 400}
"""Rows of each sensor or camera."""


def main() -> None:
    """Make what the command line asks for."""
    makers: dict[str, Callable[[Path], None]] = {
        "inputs": make_inputs,
        "alerts": make_alerts,
        "states": make_states,
        "kafka-alerts": make_kafka_alerts,
        "kafka-states": make_kafka_states,
    }
    parser = argparse.ArgumentParser(prog="python -m tests.golden.make", description=__doc__)
    parser.add_argument("what", choices=makers)
    with tempfile.TemporaryDirectory(prefix="golden-") as name:
        makers[parser.parse_args().what](Path(name))


def make_inputs(directory: Path) -> None:
    """Simulate, spoil and train."""
    run(directory, "simulate", "--out", "plant", "--sensors", 12, "--rows", inputs.PLANT_ROWS, "--seed", 11)
    run(directory, "simulate", "--out", "cameras", "--sensors", 1, "--rows", 100, "--cameras", 3, "--frames", 850,
        "--seed", 12)  # fmt: skip
    for case, lines in (
        (PLANT, inputs.plant((directory / "plant" / PLANT.input).read_bytes())),
        (CAMERAS, inputs.cameras((directory / "cameras" / CAMERAS.input).read_bytes())),
    ):
        pack(case.data / f"{case.input}.gz", "".join(f"{line.text}\n" for line in lines).encode())
        places = json.dumps([[line.time, line.partition, line.key] for line in lines], separators=(",", ":"))
        pack(case.data / "records.json.gz", places.encode())
    pack(MACHINES.data / f"{MACHINES.input}.gz", inputs.channels().encode())
    train(PLANT, directory / "train-plant", {"readings.sensors.exclude": json.dumps(["tag-*", *inputs.UNKNOWN])})
    train(MACHINES, directory / "train-channels", {"readings.sensors.exclude": '["m-3"]'})
    train(CAMERAS, directory / "train-cameras", {})


def train(case: Case, directory: Path, values: dict[str, object]) -> None:
    """Train the model of a case on the begin of its input."""
    directory.mkdir()
    shutil.copyfile(case.data / "config.yaml", directory / "config.yaml")
    shutil.copyfile(case.data / f"{case.input}.gz", directory / f"{case.input}.gz")
    kind = ("--model", "conv") if case is CAMERAS else ()
    run(directory, "train", "--data", f"{case.input}.gz", "--rows", TRAINED[case], *kind, *settings(values))
    tar(case.data / MODELS, directory, ["models"])


def make_alerts(directory: Path) -> None:
    """Record what uninterrupted runs publish."""
    for case in CASES:
        place = case.lay(directory / case.name)
        run(place, "run", "--until-end")
        for name in (ALERTS, LETTERS):
            pack(case.data / f"{name}.gz", (place / name).read_bytes())


def make_kafka_alerts(directory: Path) -> None:
    """Record what uninterrupted runs publish on Kafka."""
    with Broker(directory / "broker") as broker:
        for case in PLACES:
            create_input(broker, case)
            feed = Feed(broker, case)
            feed.until(float("inf"))
            feed.close()
            with GoldenTopics(broker, case, "whole").made() as topics:
                run(case.lay_without_input(directory / case.name), "run", *topics.options, "--until-end")
                alerts, letters = topics.published()
            pack(case.data / f"{WHOLE_ALERTS}.gz", json_lines(alerts))
            pack(case.data / f"{WHOLE_LETTERS}.gz", json_lines(letters))


if __name__ == "__main__":
    main()
