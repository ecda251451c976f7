"""A picture of a backtest's report as a file of its own: `python -m deploy.site.picture REPORT.html > docs/report.svg`.

The report's pictures take their colours from its page. Here they are put beside the picture, for light and dark.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_NUMBER = re.compile(r"(\d+\.\d)\d+")


def picture(report: str) -> str:
    """The first picture of a report. Raises ValueError where there is none.

    >>> picture('<style>:root { --value: #00f; }</style><svg width="7pt"><path style="fill: var(--value)"/></svg>')
    '<svg width="7pt"><style>:root { --value: #00f; }</style><path style="fill: var(--value)"/></svg>'
    """
    found = re.search(r"(<svg[^>]*>)(.*?</svg>)", report, re.DOTALL)
    root = r":root \{.*?\}"
    dark = rf"@media \(prefers-color-scheme: dark\) \{{\s*{root}\s*\}}"
    colours = re.findall(f"{dark}|{root}", report, re.DOTALL)
    if found is None or not colours:
        raise ValueError("this is no report of a backtest")
    style = " ".join(" ".join(colours).split())
    rest = _NUMBER.sub(r"\1", found[2]).replace("\n", " ")
    return f"{found[1]}<style>{style}</style>{re.sub(r' +', ' ', rest)}"


if __name__ == "__main__":
    sys.stdout.write(picture(Path(sys.argv[1]).read_text(encoding="utf-8")) + "\n")
