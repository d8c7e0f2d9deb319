"""Open a page of the site as a reader would, and note everything that should not happen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, TimeoutError

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
WIDGETS = 'script[type="application/vnd.jupyter.widget-view+json"]'
# A widget's script element stays where it was; what it draws is put into a new element next to it.
DRAWN = ".widget-subarea > *"

SETTLED = f"""() => {{
    const widgets = document.querySelectorAll('{WIDGETS}').length;
    const drawn = document.querySelectorAll('{DRAWN}').length;
    const maths = !document.querySelector('.math') || document.querySelector('mjx-container');
    return document.readyState === 'complete' && drawn >= widgets && maths;
}}"""


@contextlib.contextmanager
def visit(browser: Browser, address: str, viewport=WIDE, theme="light", seen: set | None = None, motion="reduce"
          ) -> Iterator[tuple[Page, list[str]]]:
    """The page once everything on it is drawn, and a list that collects faults for as long as it is open.

    `seen` collects the addresses of everything it loads; `motion` is what the reader asked for.
    """
    context = browser.new_context(viewport=viewport, color_scheme=theme, reduced_motion=motion)
    page = context.new_page()
    faults: list[str] = []
    home = urlsplit(address).netloc

    def requested(request) -> None:
        parts = urlsplit(request.url)
        if seen is not None:
            seen.add(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != home:
            faults.append(f"asks for {request.url}, outside the site")

    page.on("request", requested)
    page.on("response", lambda r: faults.append(f"{r.status} for {r.url}") if r.status >= 400 else None)
    page.on("requestfailed", lambda r: faults.append(f"could not load {r.url}"))
    page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    try:
        page.goto(address, wait_until="load")
        try:
            page.wait_for_function(SETTLED, timeout=20_000)
        except TimeoutError as error:
            raise AssertionError(f"{address} did not finish: {faults or 'nothing failed, nothing came'}") from error
        yield page, faults
    finally:
        context.close()


def switch_theme(page: Page, theme: str) -> None:
    """As a reader's device does in the evening."""
    page.emulate_media(color_scheme=theme)
    page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)
    page.wait_for_timeout(50)


def too_wide(page: Page) -> list[str]:
    """What makes the page scroll sideways: the innermost elements that stick out, or nothing."""
    return page.evaluate("""() => {
        const width = document.documentElement.clientWidth;
        if (document.documentElement.scrollWidth <= width) return [];
        const scrolls = e => e && (getComputedStyle(e).overflowX !== 'visible' || scrolls(e.parentElement));
        const out = [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > width + 1);
        const free = out.filter(e => !scrolls(e.parentElement) && !out.some(o => o !== e && e.contains(o)));
        return [`the page is ${document.documentElement.scrollWidth} px wide`, ...free.map(e => e.outerHTML.slice(0, 200))];
    }""")
