"""The documentation's site: every page is there, every link leads somewhere, nothing is loaded from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from deploy.site.__main__ import write
from deploy.site.picture import picture
from detector.cli.main import COMMANDS
from tests.deploy.tools import DEPLOY, PROJECT


def links(page: Path) -> list[tuple[str, str]]:
    """File and anchor of each link of a page that leads to another page or within this one."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [(file or page.name, anchor) for file, anchor in re.findall(r"\]\((?!http)([^)#\s]*)#?([^)\s]*)\)", text)]


def anchors(page: Path) -> set[str]:
    """Those of a page's headings, as the site makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_pages_lead_to_pages(tmp_path: Path) -> None:
    write(tmp_path / "pages")
    pages = sorted((tmp_path / "pages").glob("*.md"))
    assert len(pages) > 15
    for page in pages:
        for file, anchor in links(page):
            target = tmp_path / "pages" / file
            assert target.is_file(), f"{page.name}: {file}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {file}#{anchor}"


def test_what_the_program_says_is_there(tmp_path: Path) -> None:
    write(tmp_path / "pages")
    commands = (tmp_path / "pages" / "commands.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"usage: detector {name}" in commands
    assert '"alert_id"' in (tmp_path / "pages" / "schemas.md").read_text(encoding="utf-8")


def test_a_picture_of_a_report_has_the_colours_of_its_page_for_light_and_dark() -> None:
    dark = "@media (prefers-color-scheme: dark) {\n  :root {\n --value: #fff;\n }\n}"
    page = (
        f'<style>\n:root {{ --value: #00f; }}\n{dark}</style><svg width="7pt"><path d="M 1.2345 2"/></svg><svg></svg>'
    )
    made = picture(page)
    assert made.startswith('<svg width="7pt"><style>:root { --value: #00f; } @media (prefers-color-scheme: dark)')
    assert made.endswith('<path d="M 1.2 2"/></svg>')
    with pytest.raises(ValueError, match="no report"):
        picture("<p>nothing</p>")


def test_the_picture_of_the_first_page_loads_nothing_and_runs_nothing() -> None:
    text = (PROJECT / "docs" / "report.svg").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"<script|<image|href=\"https?:|url\(https?:", text)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_site_is_made_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    pip = [str(tmp_path / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "-r", str(DEPLOY / "site/requirements.txt")], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 and os.environ.get("CI") != "true" and "connection" in done.stderr.lower():
        pytest.skip("there is no package index to be reached")
    assert done.returncode == 0, done.stderr
    subprocess.run([sys.executable, "-m", "deploy.site"], cwd=PROJECT, check=True)
    words = [str(tmp_path / "venv/bin/mkdocs"), "build", "--strict", "--config-file", str(DEPLOY / "site/mkdocs.yml")]
    made = subprocess.run([*words, "--site-dir", str(tmp_path / "site")], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    for page in (tmp_path / "site").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?https?://", text), page.name
