"""`detector incidents`, `detector notify`, and `run --with`: on files, from readings to a receiver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detector.cli.main import main
from tests.incidents.made import encoded
from tests.notify.made import Receiver, receiving, wait_for
from tests.tiny import json_lines, tiny_bundle

HTTP = ("--set", 'incidents.http="127.0.0.1:0"', "--set", 'notify.http="127.0.0.1:0"', "--log-format", "json")
RUN = ("--set", "http.listen=127.0.0.1:0", "--set", "readings.model=models", *HTTP)
ALERTS = [
    encoded("p-1", 0), encoded("p-2", 4), encoded("p-1", 0, "closed", seen=30), encoded("p-2", 4, "closed", seen=35)
]  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def targets(receiver: Receiver) -> tuple[str, str]:
    return "--set", f"notify.targets=[{{name: ops, kind: webhook, url: {json.dumps(receiver.url)}}}]"


def test_alerts_of_a_file_become_incidents_in_another() -> None:
    Path("alerts.jsonl").write_bytes(b"\n".join(ALERTS) + b"\n")
    arguments = ["incidents", "--input", "alerts.jsonl", "--output", "incidents.jsonl", "--until-end", *HTTP]
    assert main(arguments) == 0
    assert [(one["event"], one["size"]) for one in lines("incidents.jsonl")] == [
        ("opened", 1), ("updated", 2), ("closed", 2)
    ]  # fmt: skip
    before = Path("incidents.jsonl").read_bytes()
    assert main(arguments) == 0  # goes on, and there is nothing new
    assert Path("incidents.jsonl").read_bytes() == before
    with Path("alerts.jsonl").open("ab") as file:
        file.write(encoded("p-3", 900) + b"\n")
    assert main(arguments) == 0
    assert [one["event"] for one in lines("incidents.jsonl")][3:] == ["opened"]
    assert main([*arguments, "--fresh"]) == 0
    assert Path("incidents.jsonl").read_bytes().startswith(before)


def test_groups_come_from_the_configuration() -> None:
    Path("alerts.jsonl").write_bytes(encoded("line 2/p-1", 0) + b"\n")
    Path("config.yaml").write_text('incidents: {group_by: "{line}/*"}\n')
    assert main(["incidents", "--input", "alerts.jsonl", "--output", "out.jsonl", "--until-end", *HTTP]) == 0
    assert lines("out.jsonl")[0]["group"] == "line 2"


def test_incidents_reach_a_receiver_once(receiver: Receiver, capfd: pytest.CaptureFixture[str]) -> None:
    Path("anomaly-alerts.jsonl").write_bytes(b"\n".join(ALERTS) + b"\n")
    assert main(["incidents", "--input", ".", "--output", ".", "--until-end", *HTTP]) == 0
    for _ in range(2):
        assert main(["notify", "--input", ".", "--until-end", *HTTP, *targets(receiver)]) == 0
    assert receiver.url not in capfd.readouterr().err  # it may be a secret
    ((path, headers, body),) = receiver.heard
    assert path == "/hook"
    assert json.loads(body) == lines("anomaly-incidents.jsonl")[-1]
    assert headers["Idempotency-Key"].endswith("-2")


def test_a_trial_reaches_its_target_or_says_why_not(receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notify", "--test", "ops", *targets(receiver)]) == 0
    assert capsys.readouterr().out.startswith("ops: delivered, incident ")
    assert "A test of the target ops" in json.loads(receiver.heard[0][2])["title"]
    receiver.behaviour = lambda _: 403
    assert main(["notify", "--test", "ops", *targets(receiver)]) == 1
    assert "the target ops did not take it: HTTP 403: so be i (notify.targets.ops)" in capsys.readouterr().err
    assert main(["notify", "--test", "opps", *targets(receiver)]) == 2
    assert "there is no target opps (notify.targets). There are ops." in capsys.readouterr().err


def test_a_dry_run_sends_nothing_and_keeps_nothing(
    receiver: Receiver, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("anomaly-alerts.jsonl").write_bytes(b"\n".join(ALERTS) + b"\n")
    assert main(["incidents", "--input", ".", "--output", ".", "--until-end", *HTTP]) == 0
    before = sorted(Path().rglob("*"))
    monkeypatch.setenv("TOKEN", "hush")
    monkeypatch.setenv("URL", receiver.url)
    named = "{name: ops, kind: webhook, url_env: URL, bearer_token_env: TOKEN}"
    assert main(["notify", "--input", ".", "--dry-run", "--set", f"notify.targets=[{named}]"]) == 0
    printed = capsys.readouterr().out
    (line,) = printed.splitlines()
    found = json.loads(line)
    assert (found["target"], found["url"]) == ("ops", "(secret)")
    assert json.loads(found["body"])["event"] == "closed"
    assert "hush" not in printed
    assert receiver.url not in printed
    assert receiver.heard == []
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ["notify", *HTTP],
        ["notify", "--input", "seen", "--dry-run"],
        ["run", "--input", "in.jsonl", "--output", "out/", "--until-end", "--with", "incidents,notify", *RUN],
    ],
    ids=["alone", "a trial", "beside the detector"],
)
def test_nobody_to_tell_is_told_before_anything_is_done(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.jsonl").write_bytes(json_lines())
    Path("seen").mkdir()
    Path("seen/anomaly-incidents.jsonl").write_bytes(b"")
    before = sorted(Path().rglob("*"))
    assert main(words) == 2
    assert "there is nobody to tell (notify.targets)" in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


def test_the_three_run_in_one_process_to_the_end(receiver: Receiver) -> None:
    tiny_bundle(Path("models"))
    Path("in.jsonl").write_bytes(json_lines())
    arguments = ["run", "--input", "in.jsonl", "--output", "out/", "--until-end", "--with", "incidents,notify"]
    assert main([*arguments, *RUN, *targets(receiver)]) == 0
    opened = {one["alert_id"] for one in lines("out/anomaly-alerts.jsonl") if one["event"] == "opened"}
    incidents = lines("out/anomaly-incidents.jsonl")
    assert opened == {member["alert_id"] for one in incidents for member in one["members"]}
    assert opened
    told = {json.loads(body)["incident_id"] for _, _, body in receiver.heard}
    assert told == {one["incident_id"] for one in incidents}


def test_where_others_could_not_follow_it_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    tiny_bundle(Path("models"))
    Path("in.jsonl").write_bytes(json_lines())
    assert main(["run", "--input", "in.jsonl", "--output", "-", "--with", "incidents", *RUN]) == 2
    assert "others can follow alerts in a file alone" in capsys.readouterr().err
    assert main(["run", "--with", "incidents", "--set", "streams.backend=kafka", *RUN]) == 2
    assert "on Kafka each daemon is a process of its own" in capsys.readouterr().err
    assert main(["run", "--with", "incident", *RUN]) == 2
    assert "`incident` is none of incidents, notify" in capsys.readouterr().err


@pytest.mark.parametrize("fresh", [(), ("--fresh",)])
def test_two_outputs_in_one_directory_do_not_share_incidents(
    fresh: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_bundle(Path("models"))
    Path("in.jsonl").write_bytes(json_lines())
    arguments = ["run", "--input", "in.jsonl", "--until-end", "--with", "incidents", *RUN, "--output"]
    assert main([*arguments, "a.jsonl"]) == 0
    before = Path("anomaly-incidents.jsonl").read_bytes()
    assert before
    assert main([*arguments, "b.jsonl", *fresh]) == 2
    said = (
        "the incidents in this directory are those of a.jsonl, not of b.jsonl (.). Name an output in another directory."
    )
    assert said in capsys.readouterr().err
    assert not Path("b.jsonl").exists()
    assert Path("anomaly-incidents.jsonl").read_bytes() == before
    assert main([*arguments, "a.jsonl", *fresh]) == 0
    assert Path("anomaly-incidents.jsonl").read_bytes() == before


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "detector", *arguments], stderr=subprocess.PIPE)


def stop(process: subprocess.Popen[bytes]) -> bytes:
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log.decode()
    return log


@pytest.mark.slow
def test_the_three_run_beside_one_another_from_one_configuration(receiver: Receiver) -> None:
    tiny_bundle(Path("models"))
    Path("data").mkdir()
    Path("data/sensor-readings.jsonl").write_bytes(json_lines())
    Path("config.yaml").write_text(
        f"streams: {{directory: {{path: data, checkpoint_interval: 100ms}}}}\n"
        f"readings: {{model: models}}\n"
        f'http: {{listen: "127.0.0.1:0"}}\n'
        f'incidents: {{http: "127.0.0.1:0"}}\n'
        f'notify: {{http: "127.0.0.1:0", settle: null, '
        f'targets: [{{name: ops, kind: webhook, url: "{receiver.url}"}}]}}\n'
    )
    processes = [start("run"), start("incidents"), start("notify")]
    try:
        wait_for(lambda: bool(receiver.heard), 60)
    finally:
        logs = [stop(process) for process in processes]
    assert json.loads(receiver.heard[0][2])["members"]
    assert b"incident_opened" in logs[1]
    assert b"notified" in logs[2]


@pytest.mark.slow
def test_they_run_in_one_process_until_they_are_stopped(receiver: Receiver) -> None:
    tiny_bundle(Path("models"))
    Path("in.jsonl").write_bytes(json_lines())
    process = start(
        "run", "--input", "in.jsonl", "--output", "out/", "--fresh", "--with", "incidents,notify", *RUN,
        "--set", "notify.settle=null", "--set", "streams.directory.checkpoint_interval=100ms", *targets(receiver),
    )  # fmt: skip
    try:
        wait_for(lambda: bool(receiver.heard), 60)
    finally:
        stop(process)
    assert lines("out/anomaly-incidents.jsonl")


@pytest.mark.slow
def test_one_that_fails_ends_them_all(receiver: Receiver) -> None:
    tiny_bundle(Path("models"))
    Path("in.jsonl").write_bytes(json_lines())
    taken = receiver.url.removeprefix("http://").partition("/")[0]
    process = start(
        "run", "--input", "in.jsonl", "--output", "out/", "--with", "notify", *RUN, *targets(receiver),
        "--set", f'notify.http="{taken}"',
    )  # fmt: skip
    _, log = process.communicate(timeout=60)
    assert process.returncode == 1, log
    assert b"Address already in use (http.listen)" in log


@pytest.mark.slow
def test_a_detector_alone_needs_no_client_of_http() -> None:
    tiny_bundle(Path("models"))
    Path("in.jsonl").write_bytes(json_lines())
    code = (
        "import sys; from detector.cli.main import main; status = main(sys.argv[1:]); "
        "sys.exit(status or 'httpx' in sys.modules)"
    )
    arguments = ["run", "--input", "in.jsonl", "--output", "out/", "--until-end", *RUN]
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=os.environ, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_check_looks_at_secrets_and_templates_of_targets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_bundle(Path("models"))
    named = "{name: ops, kind: webhook, url_env: HOOK}"
    arguments = ["check", "--set", "readings.model=models", "--set", f"notify.targets=[{named}]"]
    monkeypatch.delenv("HOOK", raising=False)
    assert main(arguments) == 2
    assert "$HOOK is not set (notify.targets.ops.url_env)" in capsys.readouterr().err
    monkeypatch.setenv("HOOK", "https://example.org/hook")
    assert main(arguments) == 0
    assert "OK  target         ops, webhook\n" in capsys.readouterr().out
