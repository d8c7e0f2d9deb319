"""What a page weighs, and how soon it shows its first figure. The numbers are left in _build/weights.json."""

import functools
import gzip
import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from test_pages import contents
from visit import WIDGETS, visit

ROOT = Path(__file__).resolve().parents[2]
TEXT = {".html", ".css", ".js", ".json", ".svg"}  # what every host sends compressed
MOST_BYTES = {"without widgets": 1_200_000, "with widgets": 2_000_000}
SOON = 1.5  # seconds

FIRST_FIGURE = """
const look = () => {
    // The first output that is or will be a figure, and not any that comes later on the page.
    const output = document.querySelector('.cell_output:is(:has(svg, img, canvas), :has(script[type*="widget-view"]))');
    const figures = [...output?.querySelectorAll('svg, img, canvas') ?? []];
    const seen = figures.some(f => f.checkVisibility() && f.getBoundingClientRect().width > 40 && f.complete !== false);
    // What is found now is painted before the next frame.
    requestAnimationFrame(seen ? () => { window.firstFigure = performance.now() / 1000; } : look);
};
requestAnimationFrame(look);
"""


@pytest.fixture(scope="module")
def address(site, serve) -> str:
    return serve(site)


@functools.cache
def weight(path: Path) -> int:
    """Bytes on the wire."""
    body = path.read_bytes()
    return len(gzip.compress(body, 6)) if path.suffix in TEXT else len(body)


def note(kind: str, numbers: dict) -> None:
    """Keep what was measured, so that it can be quoted."""
    path = ROOT / "_build" / "weights.json"
    path.parent.mkdir(exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | {kind: numbers}, indent=1) + "\n")
    print(json.dumps(numbers, indent=1))


def test_no_page_is_heavy(browser, address, site):
    weights = {}
    for name in contents():
        loaded = set()
        with visit(browser, f"{address}/{name}.html", seen=loaded) as (page, _):
            kind = "with widgets" if page.locator(WIDGETS).count() else "without widgets"
        files = {site / unquote(urlsplit(url).path).lstrip("/") for url in loaded if url.startswith("http")}
        assert len(files) > 10, "a page loads at least its styles and scripts"
        weights[name] = {"bytes": sum(map(weight, files)), "kind": kind}
    note("pages", weights)
    heavy = {name: w for name, w in weights.items() if w["bytes"] > MOST_BYTES[w["kind"]]}
    assert not heavy
    assert {w["kind"] for w in weights.values()} == set(MOST_BYTES)


@pytest.mark.parametrize("name", ["book/intro", "book/channel/se"])
def test_first_figure_comes_soon(browser, address, name):
    seconds = []
    # The best of three; of more where the other tests that run meanwhile leave too little of the machine.
    while len(seconds) < 3 or (min(seconds) >= SOON and len(seconds) < 10):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.add_init_script(FIRST_FIGURE)
        page.goto(f"{address}/{name}.html")
        seconds.append(page.wait_for_function("window.firstFigure").json_value())
        context.close()
    note(f"first figure of {name}", {"seconds": round(min(seconds), 2), "of": len(seconds)})
    assert min(seconds) < SOON
