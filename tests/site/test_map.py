"""The map of the book and the strip that says where a page is: every mechanism is on them by itself."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import chapter_map
import pytest
from test_pages import violated
from visit import NARROW, WIDE, too_wide, visit

from attnlib import registry
from attnlib.attention import Attention, Description

ROOT = Path(__file__).resolve().parents[2]
LONG = "sixty characters, which is as long as a phrase can be: " + 5 * "x"

# Builds the book of this folder with nine mechanisms more in the chapter on channels, and one in another.
BUILD = f"""
import sys
sys.path[:0] = [{str(ROOT / "tools")!r}, {str(ROOT / "tests" / "site")!r}]
import test_map, build
from pathlib import Path
for n in range(9):
    test_map.known("channel", f"fake{{n}}", f"Fake attention {{n}}")
test_map.known("spatial", "far", "A <far> one")
build.build(Path.cwd(), Path.cwd())
"""


def known(chapter: str, name: str, title: str) -> None:
    """Register a mechanism that would be in ``attnlib/<chapter>/<name>.py``."""
    about = Description(title=title, paper="", cite="", axes=(), shape=(), looks=LONG, acts=LONG)
    registry.register(name)(type(name, (Attention,), {"about": about, "__module__": f"attnlib.{chapter}.{name}"}))


@pytest.fixture
def two(monkeypatch):
    """One mechanism more than there are, known while a test runs."""
    registry.available()
    monkeypatch.setattr(registry, "_mechanisms", dict(registry._mechanisms))
    known("spatial", "fake", "A <fake> one")


@pytest.fixture(scope="module")
def little(tmp_path_factory) -> Path:
    """A little book with the map on its first page and one page on SE."""
    source = tmp_path_factory.mktemp("map")
    (source / "book" / "channel").mkdir(parents=True)
    for name in ("_config.yml", "tools", "site_static", "site_vendor", "book/references.bib"):
        (source / name).symlink_to(ROOT / name)
    contents = "format: jb-book\nroot: book/first\nchapters:\n- file: book/channel/se\n- file: book/x\n"
    (source / "_toc.yml").write_text(contents)
    (source / "book" / "first.md").write_text("# First\n\n```{chapter-map}\n```\n\n## More\n")
    (source / "book" / "channel" / "se.md").write_text("# SE\n\nText.\n")
    (source / "book" / "x.md").write_text("# Elsewhere\n\n```{chapter-map} channel\n```\n")
    run = subprocess.run([sys.executable, "-c", BUILD], cwd=source, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return source / "_build" / "html" / "book"


class Links(HTMLParser):
    """Links inside a <nav> of this name: (address, attributes, words)."""

    def __init__(self, html: str, name: str) -> None:
        super().__init__()
        self.name, self.inside, self.links = name, False, []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "nav":
            self.inside = attributes.get("aria-label") == self.name
        if tag == "a" and self.inside:
            self.links.append([attributes["href"], attributes, ""])

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "nav"

    def handle_data(self, data):
        if self.inside and self.links:
            self.links[-1][2] += data


def strip_of(page: Path) -> list:
    return Links(page.read_text(), "Where you are in the book").links


def test_one_chapter_is_drawn_by_itself(little):
    page = (little / "x.html").read_text()
    assert 'id="map-channel"' in page and 'id="map-spatial"' not in page
    assert any(address.endswith("channel/se.html") for address, *_ in Links(page, "Map of the book").links)


# -- The map ----------------------------------------------------------------------------------------------------------


def test_chapters_have_titles_and_questions():
    assert list(chapter_map.CHAPTER_TITLES) == list(chapter_map.QUESTIONS) == list(registry.CHAPTERS)


def test_another_mechanism_is_on_the_map_by_itself(two):
    book = chapter_map.chapters({"book/channel/se"})
    assert [chapter.number for chapter in book] == [1, 2, 3, 4, 5, 6]
    assert "A <fake> one" in [entry.title for entry in book[1].entries]
    drawn = chapter_map.draw_map(book, lambda page: f"to/{page}.html")
    assert '<span class="map-name">A &lt;fake&gt; one</span>' in drawn and LONG in drawn, "no page, so no link"
    assert '<a class="map-name" href="to/book/channel/se.html">Squeeze-and-Excitation</a>' in drawn
    assert drawn.count("<dt>attend</dt>") == drawn.count("<dt>use</dt>") == len(registry.available())
    assert all(title in drawn for title in chapter_map.CHAPTER_TITLES.values())
    assert all(question in drawn for question in chapter_map.QUESTIONS.values())


def test_mechanisms_stand_in_the_order_of_the_book(two):
    known("spatial", "another", "Another")
    pages = ["book/spatial/fake", "book/spatial/another"]
    for order in (pages, pages[::-1]):
        entries = chapter_map.chapters(pages, order)[1].entries
        assert [entry.page for entry in entries[:2]] == order, "those without a page come last"
        assert not any(entry.page for entry in entries[2:])


@pytest.mark.parametrize("page, chapter", [
    ("book/channel/se", "channel"), ("book/self_attention/index", "self_attention"), ("book/intro", None),
    ("book/api/channel", None), ("channel/se", None),
])
def test_chapter_of_a_page(page, chapter):
    assert chapter_map.chapter_of(page) == chapter


class FakeEnvironment:
    found_docs = {"book/intro", "book/channel/se", "book/glossary"}
    metadata = {"book/intro": {"chapter-map": True}}


def test_pages_are_read_again_when_the_map_changes(two):
    env = FakeEnvironment()
    reread = lambda: sorted(chapter_map.reread_when_map_changed(None, env, (), (), ()))  # noqa: E731
    assert reread() == ["book/channel/se", "book/intro"]
    assert reread() == []
    known("mixed", "newer", "Newer")
    assert reread() == ["book/channel/se", "book/intro"]
    assert reread() == []
    env.found_docs = env.found_docs | {"book/spatial/fake"}
    assert "book/channel/se" in reread(), "a neighbour has a page now"


def test_map_is_on_its_page(little):
    html = (little / "first.html").read_text()
    links = Links(html, "Map of the book").links
    assert [href for href, _, _ in links] == ["channel/se.html"] and links[0][2].startswith("Squeeze-and-Excitation")
    assert html.count('class="map-mechanism"') == len(registry.available()) + 10


# -- The strip --------------------------------------------------------------------------------------------------------


def test_strip_marks_chapter_and_page(little):
    links = strip_of(little / "channel" / "se.html")
    chapters, mechanisms = links[:6], links[6:]
    assert [words.split()[0] for _, _, words in chapters] == list("123456")
    assert [words for _, attributes, words in chapters if "aria-current" in attributes] == ["3 Channel attention"]
    assert [(href, attributes["aria-current"]) for href, attributes, _ in mechanisms] == [("#", "page")]


def test_links_of_the_strip_lead_to_places_on_the_map(little):
    first = (little / "first.html").read_text()
    for href, _, _ in strip_of(little / "channel" / "se.html")[:6]:
        page, _, place = href.partition("#")
        assert page == "../first.html" and f'id="{place}"' in first


def test_pages_outside_the_chapters_have_no_strip(little):
    assert not strip_of(little / "first.html") and not strip_of(little / "x.html")


def test_strip_is_in_the_book(site):
    links = strip_of(site / "book" / "channel" / "se.html")
    (here,) = [words for _, attributes, words in links if attributes.get("aria-current") == "page"]
    assert here == "Squeeze-and-Excitation"
    for href, _, _ in links:
        assert (site / "book" / "channel" / (href.partition("#")[0] or "se.html")).exists()
    index = (site / "searchindex.js").read_text()
    assert not re.search(r"where-mechanism|Where you are", index)


@pytest.mark.parametrize("viewport, theme", [(WIDE, "dark"), (NARROW, "light")], ids=["wide", "narrow"])
def test_map_and_strip_fit_and_are_accessible(browser, serve, little, viewport, theme):
    with visit(browser, f"{serve(little.parent)}/book/first.html", viewport, theme) as (page, faults):
        assert not too_wide(page) and not violated(page)
        page.get_by_role("link", name="Squeeze-and-Excitation").first.click()
        page.wait_for_url("**/se.html")
        assert not too_wide(page) and not violated(page)
        strip = page.get_by_role("navigation", name="Where you are in the book")
        assert strip.bounding_box()["height"] < (80 if viewport == WIDE else 120)
        line = page.locator(".where-mechanisms")
        assert line.evaluate("line => line.scrollWidth > line.clientWidth && line.tabIndex === 0")
        for place, ends in ((0, "after"), (40, "before after"), (9999, "before")):
            line.evaluate("(line, place) => { line.scrollLeft = place; }", place)
            page.wait_for_function("ends => document.querySelector('.where-mechanisms').dataset.more === ends", arg=ends)
        line.evaluate("line => { line.scrollLeft = 0; }")
        page.reload()
        box, here = line.bounding_box(), line.locator("[aria-current]").bounding_box()
        assert box["x"] <= here["x"] + 1 and here["x"] + here["width"] <= box["x"] + box["width"] + 1
    assert not faults
