"""`detector schema NAME`: print the JSON Schema of a message or of the configuration."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Final

from detector.wire.schemas import NAMES, schema

NEEDS_CONFIG: Final = False


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `schema`."""
    parser = subparsers.add_parser("schema", help="print a JSON Schema", description="Print a JSON Schema.")
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))


def run(args: argparse.Namespace) -> int:
    """Print the schema and return 0."""
    sys.stdout.write(json.dumps(schema(args.name), indent=2, ensure_ascii=False) + "\n")
    return 0
