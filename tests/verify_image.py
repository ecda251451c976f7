"""The serving image without a container engine: `python -m tests.verify_image`, and a step of `make verify-deploy`.

Every step of the target `serve` of deploy/docker/Dockerfile is run in a root that debootstrap makes: Debian's own
Python in place of the image that the file begins with. Then the daemon is started there, as its user, where nothing can
be written but /tmp: it has to find the fault of a small plant, and its health check has to say that it is well. Prints
each step and the size, and ends with a line PASS or FAIL and exit status 0 or 1; where debootstrap, root or mounts are
not to be had, it says `not run` and why, with exit status 0.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.tiny import json_lines, tiny_bundle
from tests.verify_core import Checks

PROJECT: Final = Path(__file__).parents[1]
DOCKERFILE: Final = PROJECT / "deploy" / "docker" / "Dockerfile"
SUITE: Final = "bookworm"
CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
MOST_MEGABYTES: Final = 300
"""What the daemon and its libraries may take."""
WELL_SECONDS: Final = 60.0
LO_UP: Final = "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 65))"
"""The loopback interface of a new network, which the daemon then has for itself."""


@dataclass(slots=True)
class Image:
    """A root, and what the Dockerfile says of a container of it."""

    root: Path
    workdir: str = "/"
    user: str = "0:0"
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def stages(text: str) -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage of a Dockerfile, by its name.

    >>> stages("FROM python AS one\\nRUN a \\\\\\n  b\\n# no\\nFROM one AS two\\nUSER 0")
    {'one': [('FROM', 'python AS one'), ('RUN', 'a   b')], 'two': [('FROM', 'one AS two'), ('USER', '0')]}
    """
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            name = rest.rpartition(" AS ")[2]
        if word and name:
            found.setdefault(name, []).append((word, rest))
    return found


def not_run() -> str | None:
    """Why it cannot be done here; None where it can."""
    if os.getuid() != 0:
        return "it takes root"
    for program in ("debootstrap", "unshare", "chroot"):
        if shutil.which(program) is None:
            return f"{program} is missing (.ci/tools)"
    if subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False).returncode != 0:
        return "nothing can be mounted here"
    return None


def base(root: Path) -> None:
    """A Debian with Python, where the Dockerfile's image would have it."""
    packages = "python3,python3-pip,ca-certificates"
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", SUITE, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"not run: debootstrap could not make a root: {done.stdout.strip().splitlines()[-1:]}")
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
    packages_of = root / "usr/local/lib/python3.11"
    (packages_of / "dist-packages").mkdir(parents=True, exist_ok=True)
    (packages_of / "site-packages").symlink_to("dist-packages")
    (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink(missing_ok=True)
    for path in (Path("/etc/resolv.conf"), CERTIFICATES):
        if path.is_file():
            shutil.copyfile(path, root / path.relative_to("/"))


def inside(
    image: Image, command: Sequence[str], binds: Mapping[str, Path], *, read_only: bool = False, alone: bool = False
) -> list[str]:
    """A command line that runs a command in a root, as its user; the process that it starts becomes that command.

    `binds`: what is seen where, read-only. `read_only`: the root, too, but for an empty /tmp. `alone`: in a network of
    its own.
    """
    root = shlex.quote(str(image.root))
    steps = ["mount --make-rprivate /", f"mount --bind {root} {root}"]
    steps += [f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
    if read_only:
        steps.append(f"mount -t tmpfs tmpfs {root}/tmp")  # noqa: S108 (in the root)
    for target, source in binds.items():
        place = f"{root}{target}"
        steps += [f"mount --bind {shlex.quote(str(source))} {place}", f"mount -o remount,bind,ro {place}"]
    if read_only:
        steps.append(f"mount -o remount,bind,ro {root}")
    if alone:
        steps.append(f"{shlex.quote(sys.executable)} -c {shlex.quote(LO_UP)}")
    settings = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", **image.environment}  # noqa: S108 (in the root)
    words = ["env", "-i", *(f"{name}={value}" for name, value in settings.items())]
    words += ["sh", "-c", f'cd {image.workdir} && exec "$0" "$@"', *command]
    steps.append(f"exec chroot --userspec={image.user} {root} {shlex.join(words)}")
    return ["unshare", "--mount", *(["--net"] if alone else []), "sh", "-ec", "\n".join(steps)]


def build(image: Image, instructions: Sequence[tuple[str, str]], others: Mapping[str, Image]) -> Iterator[str]:
    """Run the instructions of a stage; yields each as it is done."""
    fetching = {"PIP_CERT": str(CERTIFICATES), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    for word, rest in instructions:
        if word == "RUN":
            binds = {}
            while found := re.match(r"--mount=type=bind,(?:from=(\w+),)?source=([^,]+),target=(\S+)\s+", rest):
                place = PROJECT / found[2] if found[1] is None else others[found[1]].root / found[2].lstrip("/")
                binds[found[3]] = place
                rest = rest[found.end() :]
                target = image.root / found[3].lstrip("/")
                if place.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.touch()
            environment = image.environment
            image.environment = environment | fetching
            words = inside(image, ["sh", "-c", rest], binds)
            image.environment = environment
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise AssertionError(f"RUN {rest}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            for path in binds:
                target = image.root / path.lstrip("/")
                if target.is_dir():
                    target.rmdir()
                else:
                    target.unlink()
        elif word == "COPY":
            *sources, into = rest.split()
            goal = image.root / image.workdir.lstrip("/") / into
            for source in sources:
                place = PROJECT / source
                if place.is_dir():
                    shutil.copytree(place, goal, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
                else:
                    shutil.copy(place, goal)
        elif word == "WORKDIR":
            image.workdir = rest
            (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            image.user = rest
        elif word == "ENV":
            image.environment |= dict(part.split("=", 1) for part in rest.split())
        elif word in {"ENTRYPOINT", "CMD"}:
            setattr(image, "entrypoint" if word == "ENTRYPOINT" else "command", json.loads(rest))
        elif word == "HEALTHCHECK":
            image.health = json.loads(rest[rest.index("[") :])
        yield f"{word} {' '.join(rest.split())}"


def megabytes(root: Path) -> int:
    """What lies in a root."""
    said = subprocess.run(["du", "-smx", str(root)], capture_output=True, text=True, check=True).stdout
    return int(said.split()[0])


def verify(checks: Checks, directory: Path, kept: Path | None) -> None:
    """Build and start it, on the base that is kept if there is one. What fails is a check that does not hold."""
    plain = kept or directory / "base"
    if not plain.is_dir():
        base(plain)
    instructions = stages(DOCKERFILE.read_text(encoding="utf-8"))
    made: dict[str, Image] = {}
    before = megabytes(plain)
    for name in ("wheel", "serve"):
        root = directory / name
        subprocess.run(["cp", "-a", str(plain), str(root)], check=True)
        made[name] = Image(root)
        try:
            for step in build(made[name], instructions[name], made):
                checks.that(f"{name}: {step if len(step) < 60 else step[:57] + '...'}", True, "done")
        except AssertionError as error:
            checks.that(f"{name}: every step", False, str(error))
            return
    serve = made["serve"]
    size = megabytes(serve.root)
    more = f"{size} MB, {size - before} of them beyond Debian and Python"
    checks.that("the image is small", size - before < MOST_MEGABYTES, more)
    _find_a_fault(checks, serve, directory)
    _stay_well(checks, serve, directory)


def _find_a_fault(checks: Checks, image: Image, directory: Path) -> None:
    models = directory / "models"
    tiny_bundle(models)
    _open_to_all(models)
    words = ["run", "--input", "-", "--output", "-", "--set", "readings.model=/models"]
    command = inside(image, [*image.entrypoint, *words], {"/models": models}, read_only=True, alone=True)
    done = subprocess.run(command, input=json_lines(), capture_output=True, check=False)
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    found = done.returncode == 0 and events[:1] == ["opened"] and events[-1:] == ["closed"]
    said = " ".join(events) if found else done.stderr.decode()[-300:]
    checks.that(f"user {image.user}, read-only: the fault of a plant", found, said)


def _stay_well(checks: Checks, image: Image, directory: Path) -> None:
    """As its entry point and command start it, with a broker that is not there: live, and not ready."""
    config = directory / "config"
    config.mkdir()
    (config / "config.yaml").write_text(
        'streams: {backend: kafka, kafka: {bootstrap_servers: ["127.0.0.1:1"]}}\n'
        'readings: {model: /models}\nhttp: {listen: "0.0.0.0:9108"}\n'
    )
    _open_to_all(config)
    binds = {"/models": directory / "models", "/etc/detector": config}
    command = inside(image, [*image.entrypoint, *image.command], binds, read_only=True, alone=True)
    with (directory / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stderr=log)
    asking = ["nsenter", f"--net=/proc/{daemon.pid}/ns/net", *inside(image, image.health, {})]
    well = False
    until = time.monotonic() + WELL_SECONDS
    while not well and time.monotonic() < until and daemon.poll() is None:
        time.sleep(0.5)
        well = subprocess.run(asking, capture_output=True, check=False).returncode == 0
    daemon.send_signal(signal.SIGTERM)
    status = daemon.wait(60)
    said = (directory / "log").read_text()[-300:]
    checks.that("its health check says that it is well", well, said if not well else "healthy")
    checks.that("it stops when it is told to", status == 0, f"exit {status}")


def _open_to_all(place: Path) -> None:
    for path in (place, *place.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def main() -> int:
    """Do it, where it can be done."""
    parser = argparse.ArgumentParser(prog="python -m tests.verify_image", description=__doc__)
    parser.add_argument("--base", type=Path, metavar="DIR", help="where the root of debootstrap is, or is to be kept")
    args = parser.parse_args()
    reason = not_run()
    if reason is not None:
        print(f"not run: {reason}")
        return 0
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="detector-image-") as directory:
        Path(directory).chmod(0o755)
        verify(checks, Path(directory), args.base)
    print("PASS" if checks.passed else "FAIL")
    return 0 if checks.passed else 1


if __name__ == "__main__":
    sys.exit(main())
