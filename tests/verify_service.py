"""The daemon as a service, on the real program: `python -m tests.verify_service`.

Looks at its metrics with promtool and lets a real Prometheus scrape it, at its units with systemd-analyze, and at its
page with a browser; measures start, memory and the cost of metrics; holds its throughput against a run that a thousand
scrapes at once disturb; switches models while readings come in; and checks what lies in `deploy/`. Prints every check
with what was measured, and ends with a line PASS or FAIL and exit status 0 or 1. A tool that is missing is a failure:
`.ci/tools` gets them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.speed.machine import Machine
from benchmarks.speed.models import DEVIATION, MEAN, bundle_for, ensure_models
from detector.config.load import load_config
from detector.models.bundle.versions import activate
from detector.service.pipelines import make_engine
from detector.streams.base import Batch, Partition, Record
from tests.deploy.test_systemd_units import EXPOSURE, UNITS, installed
from tests.plant import healthy
from tests.tiny import START, tiny_bundle
from tests.verify_core import Checks, detector
from tests.verify_deploy import verify_deploy
from tests.waiting import wait_until

STREAM: Final = "sensor-readings"
SENSORS: Final = 200
ROWS: Final = 15_000
A_MESSAGE: Final = 100
"""Readings in a message of the load."""
SCRAPES: Final = 1000
ROUNDS: Final = 5
"""Runs of each sort, in turns; the middle one of the ratios counts."""
THROUGHPUT_AT_LEAST: Final = 0.9
METRICS_AT_MOST: Final = 0.02
AT_RATE: Final = 50_000
START_SECONDS: Final = 2.0
IDLE_MEGABYTES: Final = 150
SWITCHES: Final = 6


def main() -> int:
    """Run all checks; 0 if they hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.verify_service", description=__doc__)
    parser.add_argument("--screenshot", type=Path, default=Path("var/page.png"), metavar="FILE", help="(var/page.png)")
    args = parser.parse_args()
    checks = Checks()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="verify-service-") as name:
        directory = Path(name)
        verify_units(checks, directory)
        verify_running(checks, directory / "running", args.screenshot)
        verify_load(checks, directory / "load")
        verify_reloads(checks, directory / "reloads")
    verify_deploy(checks)
    print(f"\n{time.monotonic() - began:.0f} s")
    print("PASS" if checks.passed else "FAIL")
    return 0 if checks.passed else 1


def program(name: str) -> str:
    """A program on the path or unpacked by `.ci/tools`; its bare name where it is missing, which then fails."""
    unpacked = Path(sys.prefix) / "tools" / "usr" / "bin" / name
    return str(unpacked) if unpacked.is_file() else name


def said(command: Sequence[str | Path], stdin: bytes | None = None) -> tuple[int, str]:
    """Exit status and everything a program prints."""
    try:
        done = subprocess.run([str(word) for word in command], input=stdin, capture_output=True, check=False)
    except FileNotFoundError:
        return 127, f"{command[0]} is not there"
    return done.returncode, (done.stdout + done.stderr).decode()


# -- systemd -------------------------------------------------------------------------------------------------------


def verify_units(checks: Checks, directory: Path) -> None:
    """systemd takes the units, and they can do little to their host."""
    print("the units", flush=True)
    for name in sorted(path.name for path in UNITS.glob("*.service")):
        unit = installed(name, directory)
        status, text = said(["systemd-analyze", "verify", "--man=no", unit])
        complaints = [line for line in text.splitlines() if "detector" in line]
        checks.that(f"systemd-analyze verify {name}", status == 0 and not complaints, f"{len(complaints)} complaints")
        _, text = said(["systemd-analyze", "security", "--no-pager", "--offline=true", unit])
        level = re.search(r"Overall exposure level for \S+: ([\d.]+)", text)
        checks.that(f"exposure below {EXPOSURE:g} of 10", level is not None and float(level[1]) < EXPOSURE,
                    level[1] if level else text[-100:])  # fmt: skip


# -- one that runs -------------------------------------------------------------------------------------------------


class Running:
    """A daemon that follows `in.jsonl` of a directory, and its log."""

    def __init__(self, directory: Path, *settings: str, until_end: bool = False) -> None:
        self.began = time.monotonic()
        words = detector(
            "run", "--input", "in.jsonl", "--output", "out.jsonl", "--log-format", "json",
            "--set", "readings.model=models", "--set", "http.listen=127.0.0.1:0", *["--until-end"] * until_end,
        )  # fmt: skip
        self.process = subprocess.Popen(
            [*words, *(word for setting in settings for word in ("--set", setting))],
            cwd=directory, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.port = int(self.wait_for("http_listening")["address"].rpartition(":")[2])

    def wait_for(self, *names: str) -> dict[str, Any]:
        """The fields of the next event of these names, with its name."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            entry: dict[str, Any] = json.loads(line) if line.startswith("{") else {"event": ""}
            if entry["event"] in names:
                fields: dict[str, Any] = entry["fields"]
                fields["event"] = entry["event"]
                return fields
        raise RuntimeError(f"the daemon ended without {names}")

    @property
    def ready(self) -> bool:
        """What `/readyz` says; status 503 until it is."""
        try:
            self.get("/readyz")
        except urllib.error.HTTPError as error:
            with error:
                return False
        return True

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
            body: bytes = answer.read()
        return body


@contextmanager
def running(directory: Path, *settings: str, until_end: bool = False) -> Iterator[Running]:
    one = Running(directory, *settings, until_end=until_end)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.communicate()


def readings(names: Sequence[str], rows: int, faults: dict[str, tuple[int, float]]) -> list[list[float]]:
    """Values of each sensor; `faults`: from which row on by how much too high."""
    columns = []
    for seed, name in enumerate(names):
        values = healthy(np.random.default_rng(seed), rows, begin=300)[:, 0].round(4)
        row, size = faults.get(name, (rows, 0.0))
        values[row:] += size
        columns.append(values.tolist())
    return columns


def verify_running(checks: Checks, directory: Path, screenshot: Path) -> None:
    """Start, memory, metrics, Prometheus, page."""
    print("\none that runs", flush=True)
    directory.mkdir()
    names = [f"pump-{i}" for i in range(7)] + ['<b>"boiler"</b> & Söhne']
    columns = readings(names, 800, {"pump-1": (740, 12.0), "pump-4": (760, -9.0), names[-1]: (770, 15.0)})
    tiny_bundle(directory / "models", sensors=names)
    lines = [
        json.dumps({"sensor_id": name, "timestamp": START + row, "value": columns[i][row]})
        for row in range(800)
        for i, name in enumerate(names)
    ]
    (directory / "in.jsonl").write_text("")
    starts, machine = [], Machine()
    for _ in range(3):
        with running(directory) as one:
            one.wait_for("partition_assigned")
            starts.append(time.monotonic() - one.began)
            while not one.ready:
                time.sleep(0.1)
            time.sleep(1.5)
            memory = resident(one.process.pid)
    checks.that(f"ready within {START_SECONDS:g} s", statistics.median(starts) < START_SECONDS,
                " ".join(f"{seconds:.2f} s" for seconds in starts), machine)  # fmt: skip
    checks.that(f"idle below {IDLE_MEGABYTES} MB", memory < IDLE_MEGABYTES, f"{memory:.0f} MB resident")
    with running(directory, "metrics.sensors=[pump-1]") as one:
        with (directory / "in.jsonl").open("a") as file:
            file.write("\n".join(lines) + "\n")
        wait_until(lambda: json.loads(one.get("/status.json")).get("inputs", {}).get("readings") == len(lines))
        time.sleep(1.5)  # until the next status
        status, text = said([program("promtool"), "check", "metrics"], one.get("/metrics"))
        checks.that("promtool check metrics", status == 0 and not text, text.strip()[:100] or "no complaints")
        verify_prometheus(checks, directory, one.port, len(lines))
        verify_page(checks, directory, one, names[-1], screenshot)


def resident(pid: int) -> float:
    """Resident memory of a process, MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def verify_prometheus(checks: Checks, directory: Path, port: int, expected: int) -> None:
    """A real one scrapes it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
    config = directory / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: detector, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
    )
    words = [
        program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{own}", "--log.level=error",
    ]  # fmt: skip
    try:
        server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        checks.that("Prometheus scrapes it", False, "prometheus is not there")
        return

    def ask(expression: str) -> list[Any]:
        url = f"http://127.0.0.1:{own}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found: list[Any] = json.load(answer)["data"]["result"]
        except OSError:
            return []
        return [float(one["value"][1]) for one in found]

    try:
        wait_until(lambda: ask("up") == [1.0])
        seen = ask('sum(detector_readings_total{outcome="accepted"})')
        series = ask('count({job="detector"})')
        checks.that("Prometheus scrapes it", seen == [float(expected)],
                    f"{seen} readings accepted of {expected}, {series} series")  # fmt: skip
        named = ask('detector_sensor_score{sensor_id="pump-1"} / detector_sensor_threshold')
        checks.that("it has the sensor named in metrics.sensors", len(named) == 1 and named[0] > 1, f"{named}")
    finally:
        server.terminate()
        server.wait()


def verify_page(checks: Checks, directory: Path, one: Running, odd: str, screenshot: Path) -> None:
    """A browser shows it, and runs nothing of it."""
    screenshot.parent.mkdir(parents=True, exist_ok=True)
    words = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        f"--user-data-dir={directory / 'profile'}", "--window-size=1200,1700",
    ]  # fmt: skip
    address = f"http://127.0.0.1:{one.port}/"
    _, dom = said([*words, "--dump-dom", address])
    html = one.get("/").decode()
    shown = dom.count("<polyline")
    escaped = odd not in html and html.count("&lt;b&gt;") > 0 and odd.split('"')[1] in dom
    checks.that("the page has the open episodes, an odd name escaped", shown >= 6 and escaped, f"{shown} lines drawn")
    screenshot.unlink(missing_ok=True)
    said([*words, f"--screenshot={screenshot.resolve()}", address])
    size = screenshot.stat().st_size if screenshot.exists() else 0
    checks.that("a picture of it", size > 20_000, f"{screenshot}, {size} bytes")


# -- under load ----------------------------------------------------------------------------------------------------


def verify_load(checks: Checks, directory: Path) -> None:
    """What metrics cost, and what a thousand scrapes do to the throughput."""
    print("\nunder load", flush=True)
    directory.mkdir()
    names = [f"s-{i}" for i in range(SENSORS)]
    # The dense model as it is trained by default, and healthy readings for it: what is measured is how it is used.
    ensure_models(directory / "trained", ["dense"])
    bundle_for(directory / "trained" / "dense", directory / "models", names)
    columns = np.random.default_rng(0).normal(MEAN, DEVIATION, (SENSORS, ROWS)).round(3).tolist()
    with (directory / "in.jsonl").open("w") as file:
        for begin in range(0, ROWS, A_MESSAGE):
            times = [START + row for row in range(begin, begin + A_MESSAGE)]
            for name, column in zip(names, columns, strict=True):
                values = column[begin : begin + A_MESSAGE]
                file.write(json.dumps({"sensor_id": name, "timestamps": times, "values": values}) + "\n")
    verify_cost(checks, directory)
    to_the_end(directory, "nobody")  # so that the first one that counts finds the input in memory, too
    ratios, alone, scraped, machine = [], [], [], Machine()
    for _ in range(ROUNDS):
        quiet, _ = to_the_end(directory, "nobody")
        elsewhere, _ = to_the_end(directory, "another")
        busy, answers = to_the_end(directory, "the daemon")
        ratios.append(busy / elsewhere)
        alone.append(busy / quiet)
        scraped.append(answers)
    told = (
        f"{statistics.median(ratios):.2f} (of {' '.join(f'{one:.2f}' for one in sorted(ratios))}) of that with these "
    )
    told += f"clients at another port, {statistics.median(alone):.2f} of that without clients on this machine"
    checks.that(
        f"{SCRAPES} scrapes at once, one that stalls: throughput at least {THROUGHPUT_AT_LEAST:g}",
        statistics.median(ratios) >= THROUGHPUT_AT_LEAST, told, machine,
    )  # fmt: skip
    checks.that(
        "scrapes are answered meanwhile", min(scraped) > 0, f"{scraped} of {SCRAPES} within a run of some seconds"
    )


def to_the_end(directory: Path, asked: str) -> tuple[float, int]:
    """Readings a second of one run, and how many scrapes were answered by `asked`.

    `another` is a port that takes connections and never answers: the clients cost the machine the same.
    """
    for path in directory.glob("out.jsonl*"):
        said(["rm", "-r", str(path)])
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as silent,
        running(directory, until_end=True) as one,
        ThreadPoolExecutor(1) as beside,
    ):
        one.wait_for("partition_assigned")
        port = one.port if asked == "the daemon" else silent.getsockname()[1]
        asking = None if asked == "nobody" else beside.submit(lambda: asyncio.run(scrape(port)))
        stopped = one.wait_for("stopped")
        assert stopped["readings"] == SENSORS * ROWS
        silent.close()  # whoever still waits there is told
        answered = asking.result() if asking is not None else 0
    return stopped["readings"] / stopped["seconds"], answered


async def scrape(port: int) -> int:
    """So many scrapes at the same time, beside a client that asks for nothing; how many were answered in full."""
    _, stalled = await asyncio.open_connection("127.0.0.1", port)

    async def ask() -> bool:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 10)
            writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
            body = await asyncio.wait_for(reader.read(), 10)
            writer.close()
        except (OSError, TimeoutError):
            return False
        return b"detector_ready 1.0" in body

    answered = await asyncio.gather(*(ask() for _ in range(SCRAPES)))
    stalled.close()
    return sum(answered)


_COST: Final = """
import sys, time
from detector.service.observer import Observer
spent = dict.fromkeys(("processed", "committed", "turned", "_look"), 0.0)
def timed(name):
    inner = getattr(Observer, name)
    def outer(self, *args):
        began = time.perf_counter()
        try:
            return inner(self, *args)
        finally:
            spent[name] += time.perf_counter() - began
    setattr(Observer, name, outer)
for name in spent:
    timed(name)
from detector.cli.main import main
from detector.service.daemon import Daemon
turns = [0.0]
run = Daemon.run
def whole(self):
    began = time.perf_counter()
    run(self)
    turns[0] = time.perf_counter() - began
Daemon.run = whole
status = main(sys.argv[1:])
page = spent.pop("_look")  # within a turn
print(sum(spent.values()) - page, page, turns[0])
sys.exit(status)
"""


def verify_cost(checks: Checks, directory: Path) -> None:
    """The time that the loop spends on metrics, a reading; beside it what the page costs."""
    words = detector(
        "run", "--input", "in.jsonl", "--output", "cost.jsonl", "--fresh", "--until-end",
        "--set", "readings.model=models", "--set", "http.listen=127.0.0.1:0", "--log-level", "error",
    )[3:]  # fmt: skip
    machine = Machine()
    done = subprocess.run(
        [sys.executable, "-c", _COST, *words], cwd=directory, capture_output=True, text=True, check=False
    )
    if done.returncode:
        checks.that("the cost of metrics", False, done.stderr[-200:])
        return
    spent, page, whole = map(float, done.stdout.split())
    total = SENSORS * ROWS
    at_rate = spent / total * AT_RATE
    told = f"{at_rate:.2%} of a core; at full speed, {total / whole:.0f} readings/s in messages of {A_MESSAGE}, "
    told += f"{spent / whole:.2%} of the time, the page's status another {page / whole:.2%}"
    checks.that(
        f"metrics take less than {METRICS_AT_MOST:.0%} at {AT_RATE} readings/s",
        at_rate < METRICS_AT_MOST,
        told,
        machine,
    )


# -- reloads -------------------------------------------------------------------------------------------------------


def verify_reloads(checks: Checks, directory: Path) -> None:
    """Models are switched while readings come in: what is published is what the models say, each for its readings."""
    print("\nreloads under load", flush=True)
    directory.mkdir()
    names = [f"pump-{i}" for i in range(20)]
    models = directory / "models"
    versions = [tiny_bundle(models, sensors=names, day=22).version, tiny_bundle(models, sensors=names, day=23).version]
    activate(models, versions[0])
    rows = 3000
    columns = readings(names, rows, {name: (200 + 130 * i, 12.0) for i, name in enumerate(names)})
    lines = [
        json.dumps({"sensor_id": name, "timestamp": START + row, "value": columns[i][row]}).encode() + b"\n"
        for row in range(rows)
        for i, name in enumerate(names)
    ]
    (directory / "in.jsonl").write_bytes(b"")
    switches: list[tuple[int, str]] = []
    failures = 0
    piece = len(lines) // (SWITCHES + 1) + 1
    with running(directory, "streams.directory.checkpoint_interval=50ms") as one:
        for at in range(SWITCHES + 1):
            with (directory / "in.jsonl").open("ab") as file:
                file.writelines(lines[at * piece : (at + 1) * piece])
            if at == SWITCHES:
                break
            wanted = versions[(at + 1) % 2]
            activate(models, wanted)
            for _ in range(5):
                one.process.send_signal(signal.SIGHUP)
            while True:
                event = one.wait_for("reloaded", "reload_failed")
                failures += event["event"] == "reload_failed"
                active = event.get("models", {}).get("readings")
                if event["event"] == "reloaded":
                    switches.append((event["positions"][f"{STREAM}:0"], active))
                if active == wanted:
                    break
        one.process.terminate()
        _, log = one.process.communicate(timeout=60)
        for line in log.splitlines():
            entry = json.loads(line)
            if entry["event"] == "reloaded":
                switches.append((entry["fields"]["positions"][f"{STREAM}:0"], entry["fields"]["models"]["readings"]))
        status = one.process.returncode
    done, text = said(
        detector("run", "--input", directory / "in.jsonl", "--output", directory / "out.jsonl", "--until-end", "--set",
                 f"readings.model={models}", "--set", "http.listen=127.0.0.1:0")
    )  # fmt: skip
    checks.that(
        "it ends well, and goes on to the end", (status, done) == (0, 0), f"{status}, {done} {text[-100:] * bool(done)}"
    )
    checks.that(f"{SWITCHES} switches of the model, with signals in between", failures == 0,
                f"{len(switches)} reloads taken, {failures} failed")  # fmt: skip
    expected = switched(models, versions[0], lines, switches)
    got = (directory / "out.jsonl").read_bytes()
    checks.that("every alert is there once, as the model of its reading has it, byte for byte", got == expected,
                f"{len(got)} bytes of {len(expected)}, {got.count(bytes([10]))} alerts")  # fmt: skip


def switched(models: Path, first: str, lines: Sequence[bytes], switches: Sequence[tuple[int, str]]) -> bytes:
    """The alerts of pipelines that follow one another at these positions."""
    config = load_config(None, [f"readings.model={models}"])
    partition = Partition(STREAM, 0)
    made = {}
    for version in {first, *(version for _, version in switches)}:
        activate(models, version)
        made[version] = make_engine(config).make_pipeline
    offsets = np.cumsum([0, *map(len, lines)]).tolist()
    records = [Record(offset, None, line.rstrip()) for offset, line in zip(offsets, lines, strict=False)]
    pipeline = made[first](partition)
    messages = []
    begin = 0
    for position, version in [*switches, (offsets[-1], "")]:
        end = offsets.index(position)
        if end > begin:
            messages += pipeline.process(Batch(partition, records[begin:end], position)).alerts
        if version:
            successor = made[version](partition)
            if pipeline.clock is None:
                successor.begin(position)
            else:
                successor.restore(pipeline.snapshot())
            pipeline = successor
        begin = end
    return b"".join(message.value + b"\n" for message in messages)


if __name__ == "__main__":
    sys.exit(main())
