"""Builds each library beside its source: `python -m detector.detection.kernel.build`.

Needs the standard library alone, because it also runs where the package itself is being built.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).with_name("recurrences.c")
LIBRARY = SOURCE.with_suffix(".so")
LSTM_SOURCE = Path(__file__).parents[2] / "models" / "runtime" / "lstm.c"
SOURCES = (SOURCE, LSTM_SOURCE)
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-shared", "-Wall", "-Wextra")
"""No fast-math and no contraction, nothing of the machine that builds: the same bits on every processor. That nobody
reads `errno` after a root changes none of them."""


class BuildError(Exception):
    """There is no compiler, or none could build the library."""


def digest(source: Path = SOURCE) -> str:
    """What a library says of itself that was built from this source, and the headers beside it, in this way."""
    parts = [source, *sorted(source.parent.glob("*.h"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in parts) + " ".join(FLAGS).encode()).hexdigest()


def compilers() -> Iterator[list[str]]:
    """The commands of C compilers, best first: `$CC`, cc, gcc, clang, and that of the wheel `ziglang`."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (path := shutil.which(name)):
            yield [path]
    if importlib.util.find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", "cc"]


def build(target: Path = LIBRARY, source: Path = SOURCE) -> Path:
    """Build a source's library, in place of one that may be there. Raises BuildError."""
    target.unlink(missing_ok=True)
    said = "there is no C compiler: neither cc, gcc nor clang, nor the wheel `ziglang`"
    made = target.with_suffix(f".{os.getpid()}")
    arguments = [*FLAGS, f'-DKERNEL_DIGEST="{digest(source)}"', "-o", str(made), str(source), "-lm"]
    try:
        for command in compilers():
            done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
            if not done.returncode:
                made.replace(target)
                return target
            said = f"{' '.join(command)} failed: {done.stderr.strip()}"
    finally:
        made.unlink(missing_ok=True)
    raise BuildError(said)


def main() -> int:
    """Build all, and say what came of it."""
    try:
        for source in SOURCES:
            sys.stdout.write(f"{build(source.with_suffix('.so'), source)}\n")
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
