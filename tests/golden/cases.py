"""The golden cases: what is committed of each, and how it is laid out and run in a directory.

A case is a configuration, an input, a trained model, and what an uninterrupted run publishes.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DATA: Final = Path(__file__).parent / "data"
ROOT: Final = Path(__file__).parents[2]
ALERTS: Final = "anomaly-alerts.jsonl"
LETTERS: Final = "detector-dead-letters.jsonl"
SCORES: Final = "anomaly-scores.jsonl"
MODELS: Final = "models.tar.gz"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """`path`: the section of the configuration. `stream`: the name of its input, `ending`: that of the input's file.

    `partitions`: of the input's topic.
    """

    name: str
    path: str
    stream: str
    ending: str = ".jsonl"
    partitions: int = 1

    @property
    def data(self) -> Path:
        """Where it is committed."""
        return DATA / self.name

    @property
    def input(self) -> str:
        """The input's file in a directory of streams."""
        return f"{self.stream}{self.ending}"

    def recorded(self, name: str) -> list[Json]:
        """The alerts or dead letters, by the name of their file, of an uninterrupted run."""
        return parsed(unpacked(self.data / f"{name}.gz"))

    def lay(self, directory: Path) -> Path:
        """Put configuration, model and input into a directory, which is made."""
        self.lay_without_input(directory)
        (directory / self.input).write_bytes(unpacked(self.data / f"{self.input}.gz"))
        return directory

    def lay_without_input(self, directory: Path) -> Path:
        """The same without the input."""
        directory.mkdir(parents=True)
        (directory / "config.yaml").write_bytes((self.data / "config.yaml").read_bytes())
        untar(self.data / MODELS, directory)
        return directory


PLANT: Final = Case("plant", "readings", "sensor-readings", partitions=2)
MACHINES: Final = Case("channels", "readings", "sensor-readings", ".csv")
CAMERAS: Final = Case("cameras", "frames", "image-frames")
CASES: Final = (PLANT, MACHINES, CAMERAS)


def command(*words: object) -> list[str]:
    """A command line of the detector, for a directory with a `config.yaml`."""
    return [sys.executable, "-m", "detector", *map(str, words)]


def environment() -> dict[str, str]:
    """Of a process that runs elsewhere: the detector is the one beside these tests."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(":")}


def run(directory: Path, *words: object) -> str:
    """Let a command run in a directory, and return its log. Raises RuntimeError with the end of it where it fails."""
    done = subprocess.run(command(*words), cwd=directory, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"`detector {' '.join(map(str, words))}`: exit {done.returncode}\n{done.stderr[-3000:]}")
    return done.stderr


def settings(values: Mapping[str, object]) -> list[str]:
    """Options that set values of the configuration."""
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def parsed(text: bytes) -> list[Json]:
    """JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


# -- packing: the same content gives the same bytes --------------------------------------------------------------------


def unpacked(path: Path) -> bytes:
    """What a gzip file holds."""
    return gzip.decompress(path.read_bytes())


def pack(path: Path, content: bytes) -> None:
    """Write a gzip file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0))


def untar(path: Path, directory: Path) -> None:
    """Unpack a tree into a directory."""
    with tarfile.open(fileobj=io.BytesIO(unpacked(path))) as archive:
        archive.extractall(directory, filter="data")


def tar(path: Path, directory: Path, names: Iterable[str]) -> None:
    """Pack files and directories of a directory, without owners and times."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in names:
            archive.add(directory / name, name, filter=plain)
    pack(path, out.getvalue())
