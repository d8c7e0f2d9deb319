"""Build the site from the committed, executed notebooks, with every warning an error: `make html`.

The same as `jupyter-book build . -W --keep-going -n`, with the site's third-party scripts fetched first and nothing
printed but what is wrong.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema would load it for some seconds, to check URLs nobody has

import third_party  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
STAMP = ".built-without-warnings"
INPUTS = ("_config.yml", "_toc.yml", "attnlib", "book", "results", "site_static", "site_vendor", "tools")


def is_current(source: Path, html: Path) -> bool:
    """Whether nothing the site is made from changed since it was last built without a warning."""
    if not (html / STAMP).exists():
        return False
    paths = [path for name in INPUTS for path in ((source / name), *(source / name).rglob("*"))]
    # Folders count too: their time tells of files that are gone.
    changed = max(path.stat().st_mtime for path in paths if path.exists() and "__pycache__" not in path.parts)
    return changed < (html / STAMP).stat().st_mtime


def build(source: Path = ROOT, output: Path = ROOT) -> Path:
    """Build the book in `source` into ``output/_build/html``, and return that folder.

    Raises:
        SystemExit: the build had warnings or errors; they have been printed.
    """
    html = output / "_build" / "html"
    if is_current(source, html):
        return html
    # Sphinx warns of a page only when it reads it, so after a build with warnings it has to read all of them again.
    again = not (html / STAMP).exists()
    (html / STAMP).unlink(missing_ok=True)
    from jupyter_book.sphinx import build_sphinx  # takes seconds

    toc = {"external_toc_path": (source / "_toc.yml").as_posix(), "latex_individualpages": False}
    outcome = build_sphinx(
        source, html, path_config=source / "_config.yml", noconfig=True, confoverrides={"nitpicky": True, **toc},
        warningiserror=True, keep_going=True, quiet=True, freshenv=again,
    )
    if outcome != 0:
        sys.exit("The site was not built without warnings; the lines above say what to mend.")
    (html / STAMP).touch()
    return html


def main() -> Path:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--source", type=Path, default=ROOT, help="folder of _config.yml and _toc.yml")
    arguments.add_argument("--output", type=Path, default=ROOT, help="folder to put _build into")
    options = arguments.parse_args()
    third_party.bring()
    return build(options.source.resolve(), options.output.resolve())


if __name__ == "__main__":
    print(f"The site is in {main()}")
