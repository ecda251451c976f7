"""The Kafka backend on a real broker: `python -m tests.verify_kafka`.

Runs the tests on the broker (the contract of all backends, faults, restores, security), the short form of the chaos
proof, and the speed gates. Prints every check with what was measured, and ends with a line PASS or FAIL and exit status
0 or 1. Speed gates are ratios from one run; one that is missed while others took more than a tenth of the processors is
not judged. `--without-speed` leaves them out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.verify_core import Checks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all checks; 0 if they hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.verify_kafka", description=__doc__)
    parser.add_argument("--without-speed", action="store_true", help="only what does not depend on the machine")
    parser.add_argument("--logs", type=Path, default=Path("var/verify-kafka"), metavar="DIR", help="full outputs")
    args = parser.parse_args(arguments)
    args.logs.mkdir(parents=True, exist_ok=True)
    checks = Checks()
    began = time.monotonic()
    # With CI set, tests that find no broker fail instead of being skipped.
    step(checks, args.logs, "tests on a broker", ["pytest", "-q", "-p", "no:cacheprovider", "tests/kafka"], CI="true")
    step(checks, args.logs, "chaos, short: alerts as without faults", ["tests.chaos", "--short"])
    if not args.without_speed:
        step(checks, args.logs, "speed gates", ["benchmarks.speed.kafka", "--quick"])
        step(checks, args.logs, "100 000 sensors restored", ["benchmarks.speed.restore", "--rounds", "1"])
    print(f"{time.monotonic() - began:.0f} s; the full outputs are in {args.logs}")
    print("PASS" if checks.passed else "FAIL")
    return 0 if checks.passed else 1


def step(checks: Checks, logs: Path, what: str, module: Sequence[str], **environment: str) -> None:
    """Run a module of Python; its exit status is the check, its last line what was measured."""
    log = logs / f"{module[0]}.log"
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            [sys.executable, "-m", *module], stdout=output, stderr=subprocess.STDOUT, env=os.environ | environment
        )
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    # Tables of gates are shown: what was measured is of interest where it is enough, too.
    for line in lines:
        if line.endswith(("ok │", "MISSED │", "not judged │")):
            print(f"        {line}")
    checks.that(what, done.returncode == 0, next((line for line in reversed(lines) if line), "nothing was printed"))


if __name__ == "__main__":
    sys.exit(main())
