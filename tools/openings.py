"""Draw the pictures at the openings of chapters: `python tools/openings.py`, or `python tools/openings.py spatial`.

An opening is a page without code. Where it has a picture, book/CHAPTER/opening.py has a function `draw()`, which
returns an `attnlib.plot.Figure`, and this writes it to opening.html beside it. The chapter's index.md shows it, in the
page's own colours, light or dark, and as it is meant for a page or a phone, by ::

    ```{raw} html
    :file: opening.html
    ```
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
MOST_BYTES = 60_000


def scripts(chapters: list[str], book: Path = BOOK) -> list[Path]:
    """The scripts of the chapters named, or of all that have one.

    Raises:
        SystemExit: a chapter that has none.
    """
    found = [book / chapter / "opening.py" for chapter in chapters] or sorted(book.glob("*/opening.py"))
    for script in found:
        if not script.is_file():
            sys.exit(f"{script} does not exist.")
    return found


def drawn(script: Path) -> str:
    """The HTML of what a script draws.

    Raises:
        SystemExit: it has no `draw`, or what it draws is too heavy for a page that is read first.
    """
    names = runpy.run_path(str(script))
    if "draw" not in names:
        sys.exit(f"{os.path.relpath(script)} has no function `draw()`, which should return a figure.")
    html = names["draw"]()._repr_html_() + "\n"
    if len(html.encode()) > MOST_BYTES:
        sys.exit(f"{os.path.relpath(script)} draws {len(html.encode()):,} bytes; {MOST_BYTES:,} are the most.")
    return html


def main() -> None:
    for script in scripts(sys.argv[1:]):
        script.with_suffix(".html").write_text(drawn(script), encoding="utf-8")
        print(os.path.relpath(script.with_suffix(".html")))


if __name__ == "__main__":
    main()
