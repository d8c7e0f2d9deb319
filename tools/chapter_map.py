"""The map of the book: six chapters, and in each its mechanisms as what `attend` and `use` do.

It is drawn from the registry when the site is built, so a new mechanism is on it by itself. The directive
``{chapter-map}`` draws all of it, ``{chapter-map} channel`` one chapter; pages in a chapter's folder get a strip that says where they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from html import escape

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

CHAPTER_TITLES = {
    "saliency": "Saliency", "spatial": "Spatial attention", "channel": "Channel attention", "mixed": "Mixed attention",
    "self_attention": "Self-attention", "applications": "Applications",
}
QUESTIONS = {
    "saliency": "What does it mean to attend, and how do people do it?",
    "spatial": "Where should a network look?",
    "channel": "What should it listen to?",
    "mixed": "What and where?",
    "self_attention": "What has everything to do with everything?",
    "applications": "What is it good for?",
}

Link = Callable[[str], str]  # from a page's name to its address, seen from the page that is written


@dataclasses.dataclass(frozen=True)
class Entry:
    """A mechanism on the map; `page` is None where it has none yet."""

    title: str
    looks: str
    acts: str
    page: str | None


@dataclasses.dataclass(frozen=True)
class Chapter:
    number: int
    folder: str
    entries: tuple[Entry, ...]

    @property
    def title(self) -> str:
        return CHAPTER_TITLES[self.folder]


def chapters(pages: Collection[str], order: Collection[str] = ()) -> list[Chapter]:
    """Every chapter, with its mechanisms in the order of the book; those without a page come last.

    Args:
        pages: names of the pages that exist, such as ``"book/channel/se"``.
        order: names of pages as the table of contents has them.
    """
    from attnlib import registry

    places = {page: place for place, page in enumerate(order)}
    entries: dict[str, list[Entry]] = {chapter: [] for chapter in registry.CHAPTERS}
    for name in registry.available():
        cls = registry.mechanism(name)
        _, chapter, *_, module = cls.__module__.split(".")
        page = f"book/{chapter}/{module}"
        entry = Entry(cls.about.title, cls.about.looks, cls.about.acts, page if page in pages else None)
        entries[chapter].append(entry)
    return [
        Chapter(number, folder, tuple(sorted(found, key=lambda entry: places.get(entry.page, len(places)))))
        for number, (folder, found) in enumerate(entries.items(), start=1)
    ]


def chapter_of(page: str) -> str | None:
    """The chapter in whose folder a page lies."""
    top, _, rest = page.partition("/")
    folder = rest.partition("/")[0]
    return folder if top == "book" and "/" in rest and folder in CHAPTER_TITLES else None


# -- As HTML ----------------------------------------------------------------------------------------------------------


def draw_map(book: list[Chapter], link: Link) -> str:
    """All of it."""
    parts = "".join(_chapter(chapter, link) for chapter in book)
    return (
        '<nav class="book-map" aria-label="Map of the book">'
        '<p class="map-key" aria-hidden="true"><span>attend</span><span>use</span></p>'
        f'<ol class="map-chapters" role="list">{parts}</ol></nav>'
    )


def _chapter(chapter: Chapter, link: Link) -> str:
    quiet = "" if chapter.entries else " map-quiet"
    entries = "".join(_entry(entry, link) for entry in chapter.entries)
    if entries:
        entries = f'<ul role="list" aria-label="Mechanisms of the chapter {chapter.title}">{entries}</ul>'
    return (
        f'<li class="map-chapter{quiet}" id="map-{chapter.folder}">'
        f'<p class="map-title"><span class="map-number">{chapter.number}</span> <strong>{chapter.title}</strong> '
        f'<span class="map-question">{QUESTIONS[chapter.folder]}</span></p>{entries}</li>'
    )


def _entry(entry: Entry, link: Link) -> str:
    return (
        f'<li class="map-mechanism">{_title(entry, link)}<dl class="map-steps">'
        f'<div class="map-attend"><dt>attend</dt><dd>{escape(entry.looks)}</dd></div>'
        f'<div class="map-use"><dt>use</dt><dd>{escape(entry.acts)}</dd></div></dl></li>'
    )


def _title(entry: Entry, link: Link, look: str = "map-name", here: bool = False) -> str:
    title = escape(entry.title)
    if entry.page is None:
        return f'<span class="{look}">{title}</span>'
    current = ' aria-current="page"' if here else ""
    return f'<a class="{look}" href="{escape(link(entry.page))}"{current}>{title}</a>'


def draw_strip(book: list[Chapter], page: str, link: Link, first: str) -> str:
    """Where `page` is: the chapters in a row, each linked to the map on the `first` page, and this one's mechanisms."""
    here = chapter_of(page)
    marks, below = [], ""
    for chapter in book:
        words = f'<span class="where-number">{chapter.number}</span><span class="where-name"> {chapter.title}</span>'
        current = ' aria-current="true"' if chapter.folder == here else ""
        marks.append(f'<li><a href="{escape(link(first))}#map-{chapter.folder}"{current}>{words}</a></li>')
        if chapter.folder == here and chapter.entries:
            titles = [_title(entry, link, "where-mechanism", entry.page == page) for entry in chapter.entries]
            entries = "".join(f"<li>{title}</li>" for title in titles)
            label = f"Mechanisms of the chapter {chapter.title}"
            below = f'<ul class="where-mechanisms" role="list" aria-label="{label}">{entries}</ul>'
    return (
        '<nav class="where" aria-label="Where you are in the book">'
        f'<ol class="where-chapters" role="list">{"".join(marks)}</ol>{below}</nav>\n'
    )


# -- In Sphinx --------------------------------------------------------------------------------------------------------


class Place(nodes.General, nodes.Element):
    """Where the map goes: it is drawn when all pages have been read, and it is known which exist."""


class ChapterMap(SphinxDirective):
    """``{chapter-map}``: the whole map; or with the folder of a chapter as its argument, that chapter."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.metadata[self.env.docname]["chapter-map"] = True
        chosen = self.arguments[0] if self.arguments else None
        if chosen not in (None, *CHAPTER_TITLES):
            raise self.error(f"there is no chapter {chosen!r}; there are: {', '.join(CHAPTER_TITLES)}")
        return [Place(chapter=chosen)]


def _order(env) -> list[str]:
    return list(getattr(env, "external_site_map", ()))


def _link(app: Sphinx, page: str) -> Link:
    return lambda other: app.builder.get_relative_uri(page, other) or "#"


def _shows_map(env, page: str) -> bool:
    return "chapter-map" in env.metadata.get(page, {})


def fill_places(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Draw the map where a page asks for it."""
    for place in list(doctree.findall(Place)):
        book = chapters(app.env.found_docs, _order(app.env))
        book = [chapter for chapter in book if place["chapter"] in (None, chapter.folder)]
        drawn = draw_map(book, _link(app, page))
        place.replace_self(nodes.raw("", drawn, format="html"))


def say_where(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    """Put the strip below the title of a page in a chapter's folder.

    Into the HTML and not into the document: the names of all neighbours would be found by every search.
    """
    if doctree is None or chapter_of(page) is None:
        return
    book = chapters(app.env.found_docs, _order(app.env))
    strip = draw_strip(book, page, _link(app, page), app.config.master_doc)
    title, end, rest = context["body"].partition("</h1>\n")
    context["body"] = title + end + strip + rest


def reread_when_map_changed(app: Sphinx, env, added, changed, removed) -> list[str]:
    """Pages that show the map or a part of it, where it is not the one they were written with."""
    pages = [page for page in env.found_docs if chapter_of(page) or _shows_map(env, page)]
    if not pages:
        return []
    book = chapters(env.found_docs, _order(env))
    before, env.chapter_map = getattr(env, "chapter_map", None), book
    return pages if book != before else []


def setup(app: Sphinx) -> None:
    app.add_node(Place)
    app.add_directive("chapter-map", ChapterMap)
    app.connect("doctree-resolved", fill_places)
    app.connect("html-page-context", say_where)
    app.connect("env-get-outdated", reread_when_map_changed)
