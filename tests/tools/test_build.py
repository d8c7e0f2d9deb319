"""Building the site: warnings are errors, also the second time, and what did not change is not built again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def book(tmp_path) -> Path:
    """A book of one page, with the configuration of the real one."""
    (tmp_path / "book").mkdir()
    for name in ("_config.yml", "tools", "site_static", "site_vendor", "book/references.bib"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/page\n")
    return tmp_path


def build(book: Path, text: str | None = None) -> subprocess.CompletedProcess:
    if text is not None:
        (book / "book" / "page.md").write_text(text)
    command = [sys.executable, "tools/build.py", "--source", book, "--output", book]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_builds_until_all_is_mended_and_then_no_more(book):
    broken = "# A page\n\nSee {doc}`nowhere`, and {term}`nothing`.\n"
    for done in (build(book, broken), build(book)):
        assert done.returncode == 1
        assert "unknown document: 'nowhere'" in done.stderr and "term not in glossary: 'nothing'" in done.stderr
        assert done.stderr.endswith("The site was not built without warnings; the lines above say what to mend.\n")

    assert build(book, "# Another page\n").returncode == 0
    page = book / "_build" / "html" / "book" / "page.html"
    assert "Another page" in page.read_text()

    os.utime(page, (1, 1))
    assert build(book).returncode == 0
    assert page.stat().st_mtime == 1, "nothing changed, and the page was written again"
