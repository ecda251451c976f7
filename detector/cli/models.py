"""`detector models`: which versions of the model there are, and which one is active."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from detector.errors import UserError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "models",
        help="list, activate and roll back the bundles on disk",
        description="The versions of the model on disk, the active one marked. `activate` makes another one active, "
        "`rollback` the one that was active before.",
    )
    parser.add_argument("action", choices=("list", "activate", "rollback"), help="what to do")
    parser.add_argument(
        "version",
        metavar="VERSION",
        nargs="?",
        help="for activate: the version, its beginning, its --name, or `newest`",
    )
    parser.add_argument("--dir", metavar="DIR", help="directory of versions (default: readings.model)")


def run(args: argparse.Namespace) -> int:
    """Do what was asked; print the versions, or the one that is active now."""
    # Here, because `detector models --help` needs none of it.
    from detector.models.bundle import versions
    from detector.models.bundle.bundles import load_bundle
    from detector.models.bundle.spec import KINDS

    directory = Path(args.dir) if args.dir else args.config.readings.model
    if (args.action == "activate") != (args.version is not None):
        what = "needs a VERSION" if args.version is None else f"takes no VERSION, not `{args.version}`"
        raise UserError(f"`{args.action}` {what}", todo="`detector models list` shows the versions")
    if args.action == "list":
        sys.stdout.write(_table(directory))
        return 0
    if args.action == "activate":
        version = versions.resolve(directory, args.version)
        load_bundle(directory, version, kinds=KINDS)  # what is broken never becomes active
        versions.activate(directory, version)
    else:
        version = versions.rollback(directory)
    sys.stdout.write(f"{directory / version}\n")
    return 0


def _table(directory: Path) -> str:
    from detector.models.bundle import versions
    from detector.models.bundle.bundles import load_bundle
    from detector.models.bundle.spec import KINDS

    found = versions.list_versions(directory)
    active = versions.active_version(directory)
    if not found:
        raise UserError(
            "there is no trained model",
            where=str(directory),
            todo=f"Run `detector train --data FILE --out {directory}`, or name another directory with --dir",
        )
    rows = [("", "VERSION", "KIND", "CREATED", "SENSORS", "CHANNELS")]
    for version in found:
        mark = "*" if version == active else ""
        try:
            manifest = load_bundle(directory, version, kinds=KINDS).manifest
        except UserError as error:
            rows.append((mark, version, "broken", error.what, "", ""))
            continue
        taken = ",".join(manifest.channels) if manifest.image is None else "frames {} x {}".format(*manifest.image)
        sensors = str(manifest.training.get("sensors", ""))
        rows.append((mark, version, manifest.kind, manifest.created, sensors, taken))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"
