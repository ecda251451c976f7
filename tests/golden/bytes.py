"""Writes all that the golden cases publish, to compare it byte for byte before and after a change on one machine:

    python -m tests.golden.bytes BEFORE
    python -m tests.golden.bytes AFTER --against BEFORE

Scores are among it. With `--against` the exit status is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from tests.golden.cases import ALERTS, CASES, LETTERS, SCORES, run, settings


def main() -> int:
    """Write, and compare if asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.golden.bytes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="is made, or replaced in what it has of this kind")
    parser.add_argument("--against", type=Path, metavar="DIR", help="what was written before")
    args = parser.parse_args()
    names = write(args.directory)
    for name in names:
        digest = hashlib.sha256((args.directory / name).read_bytes()).hexdigest()
        sys.stdout.write(f"{digest}  {name}\n")
    if args.against is None:
        return 0
    different = [name for name in names if not _same(args.directory / name, args.against / name)]
    for name in different:
        sys.stdout.write(f"{name} differs from that in {args.against}\n")
    return 1 if different else 0


def write(directory: Path) -> list[str]:
    """Run every case and keep what it published; returns the names of the files in `directory`."""
    names = []
    with tempfile.TemporaryDirectory(prefix="golden-") as temporary:
        for case in CASES:
            place = case.lay(Path(temporary) / case.name)
            run(place, "run", "--until-end", *settings({"output.scores": SCORES.removesuffix(".jsonl")}))
            (directory / case.name).mkdir(parents=True, exist_ok=True)
            for name in (ALERTS, LETTERS, SCORES):
                if (place / name).exists():  # cameras have no scores
                    shutil.copyfile(place / name, directory / case.name / name)
                    names.append(f"{case.name}/{name}")
    return names


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


if __name__ == "__main__":
    sys.exit(main())
