"""Puts the pages of the site together: `python -m deploy.site`; `make docs` makes the site of them.

README becomes the first page. What the program says itself is asked of it: the help of each command, the schemas, every
key of the configuration.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Final

from detector.cli.main import COMMANDS, main

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = ROOT / "var" / "docs" / "pages"
SCHEMAS: Final = ("reading", "frame", "alert", "score", "dead-letter")


def write(directory: Path) -> None:
    """Write every page of the site into an empty directory."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(ROOT / "docs", directory)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    made = {
        "index.md": _within_docs(readme),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "commands.md": "# Commands\n" + "".join(f"\n## {name}\n\n{_block(_said(name, '--help'))}" for name in COMMANDS),
        "keys.md": "# Every key\n\nWith its default, as in `config.yaml`.\n\n"
        + _block((ROOT / "config.yaml").read_text(encoding="utf-8"), "yaml"),
        "schemas.md": "# Schemas\n"
        + "".join(f"\n## {name}\n\n{_block(_said('schema', name), 'json')}" for name in SCHEMAS),
    }
    for name, text in made.items():
        (directory / name).write_text(text, encoding="utf-8")


def _within_docs(page: str) -> str:
    """A page of the root with its links as from within docs."""
    return re.sub(r"\]\((?:docs/)?([\w.-]+\.\w+)", lambda link: f"]({link[1].replace('CHANGELOG', 'changelog')}", page)


def _said(*words: str) -> str:
    os.environ["COLUMNS"] = "100"  # what argparse wraps at
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(words)
    return out.getvalue()


def _block(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.rstrip()}\n```\n"


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGES)
