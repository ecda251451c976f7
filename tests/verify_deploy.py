"""What lies in `deploy/`: each kind judged by its own tools, by `python -m tests.verify_deploy` and as part of
`python -m tests.verify_service`.

Installations, images and compose, Kubernetes, Helm, the documentation's site, Prometheus and Alertmanager, dashboards;
and a real Prometheus that scrapes a real daemon on a real broker, with what every panel of the dashboards shows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

from tests import verify_image
from tests.verify_core import Checks

STEPS: Final = {
    "images and compose: hadolint, compose's schema, paths, keys": "tests/deploy/test_docker.py",
    "Kubernetes: kustomize, strict schemas, agreement with the code": "tests/deploy/test_kubernetes.py",
    "Helm: lint, the objects of the overlays, values that cannot be": "tests/deploy/test_helm.py",
    "systemd: units, exposure": "tests/deploy/test_systemd_units.py",
    "make install on machines that are not ready": "tests/deploy/test_venv.py",
    "the documentation's site: strict, links, nothing from elsewhere": "tests/deploy/test_site.py",
    "the blocks of README and the first pages in empty directories": "tests/test_readme.py",
    "the how-to pages": "tests/test_howto.py",
    "the examples of the contributing guide": "tests/test_contributing.py",
    "the tutorial": "tests/test_tutorial.py",
    "the Python API and its page": "tests/test_api.py",
    "Prometheus and Alertmanager: promtool, rule tests, amtool, anchors": "tests/deploy/test_prometheus.py",
    "dashboards: up to date, known metrics, layout": "tests/deploy/test_grafana.py",
    "make install-serve: under 300 MB, runs, as anybody, read-only": "tests/deploy/test_serving.py",
    "the commands of compose on a broker": "tests/kafka/test_compose.py",
    "the subscriber of the documentation": "tests/kafka/test_subscriber.py",
    "every panel has data from a scraped daemon": "tests/kafka/test_dashboards.py",
}


def verify_deploy(checks: Checks) -> None:
    """Run the tests of each part; with CI set, a tool that is missing is a failure."""
    print("deployment", flush=True)
    for what, path in STEPS.items():
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, env=os.environ | {"CI": "true"}, check=False,
        )  # fmt: skip
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        for line in lines:
            if line.startswith(("  operations ", "  detection ")):
                print(f"      {line.rstrip('.').rstrip()}")
        checks.that(what, done.returncode == 0, lines[-1] if lines else "nothing was printed")
    reason = verify_image.not_run()
    if reason is not None:
        print(f"  ----  the serving image, step by step: not run, {reason}", flush=True)
        return
    done = subprocess.run([sys.executable, "-m", "tests.verify_image"], stdout=subprocess.PIPE, text=True, check=False)
    sized = [line.strip() for line in done.stdout.splitlines() if "MB" in line]
    checks.that(
        "the serving image, step by step in a root of debootstrap",
        done.returncode == 0,
        " ".join(sized[-1:]) if done.returncode == 0 else done.stdout[-1000:],
    )


def main() -> int:
    """Run all of it; 0 if it holds."""
    checks = Checks()
    verify_deploy(checks)
    print("PASS" if checks.passed else "FAIL")
    return 0 if checks.passed else 1


if __name__ == "__main__":
    sys.exit(main())
