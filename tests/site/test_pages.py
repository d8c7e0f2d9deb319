"""Every page of the site, in a browser: nothing leaves the site, nothing is missing, nothing sticks out."""

from pathlib import Path

import pytest
import yaml
from visit import NARROW, WIDE, WIDGETS, switch_theme, too_wide, visit
from weighing import weigh

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "site_vendor" / "tests" / "axe.min.js"
OF_COLOUR = ["color-contrast", "link-in-text-block"]  # the rules whose outcome another theme can change
ZOOMED = {"width": 640, "height": 450}  # what a window of 1280 by 900 has for a page at 200 %


def contents() -> list[str]:
    """Every page that _toc.yml names."""

    def files(entry: dict) -> list[str]:
        below = [f for key in ("parts", "chapters", "sections") for part in entry.get(key, []) for f in files(part)]
        return [entry[key] for key in ("root", "file") if key in entry] + below

    return files(yaml.safe_load((ROOT / "_toc.yml").read_text()))


PAGES = [*contents(), "index", "search", "genindex"]  # the last three are Sphinx's


@pytest.fixture(scope="module")
def address(site, serve) -> str:
    """The site below a path, as on a host that serves many: what asks for the root of the host is not found."""
    return serve(site.parent) + "/html"


@pytest.mark.parametrize("name", PAGES)
def test_page_works_on_a_wide_screen(browser, address, site, name):
    """From a server, below a path; also at 200 %, and no heavier than it may be."""
    loaded = set()
    with visit(browser, f"{address}/{name}.html", WIDE, seen=loaded) as (page, faults):
        works(page, name, ("light", "dark"))
        page.set_viewport_size(ZOOMED)
        assert not too_wide(page)
        if name != "index":
            weigh(name, loaded, site.parent, bool(page.locator(WIDGETS).count()))
    assert not faults


@pytest.mark.parametrize("name", PAGES)
def test_page_works_on_a_phone(browser, site, name):
    """From a file, as on a stick that is passed round."""
    with visit(browser, (site / f"{name}.html").as_uri(), NARROW, "dark") as (page, faults):
        works(page, name, ("dark", "light"))
    assert not faults


def works(page, name: str, themes: tuple[str, str]) -> None:
    """Nothing sticks out, and nothing keeps anybody out, in both themes; the page comes in the first."""
    assert not too_wide(page)
    if name != "index":  # it has no styles, and leads on at once
        assert not violated(page), themes[0]
        switch_theme(page, themes[1])
        assert not violated(page, OF_COLOUR), themes[1]


def violated(page, rules: list[str] | None = None) -> list[str]:
    """What axe finds against WCAG 2.2 AA and best practice, or against some rules."""
    if not page.evaluate("'axe' in window"):
        page.add_script_tag(path=AXE)
    # Its own second reading of the style sheets is for rules that are not used here, and fails from a file.
    options = {"resultTypes": ["violations"], "preload": False} | ({"runOnly": rules} if rules else {})
    found = page.evaluate("async options => (await axe.run(options)).violations", options)
    return [f"{v['id']}: {v['help']} at {n['target']}" for v in found for n in v["nodes"]]


# -- By keyboard ------------------------------------------------------------------------------------------------------

# Numbers everything in `main` that a reader can use and see, and keeps how it looks without the focus.
NUMBER_STOPS = """() => {
    const looks = e => { const s = getComputedStyle(e); return `${s.outlineStyle} ${s.outlineWidth} ${s.boxShadow}`; };
    const usable = 'a[href], button, input, select, textarea, summary, audio, video, [tabindex]';
    window.stops = [...document.querySelectorAll('main :is(' + usable + ')')].filter(
        e => e.tabIndex >= 0 && !e.disabled && e.type !== 'hidden' && e.checkVisibility({visibilityProperty: true}));
    const before = new Map(stops.map(e => [e, looks(e)]));
    window.stop = () => {
        const e = document.activeElement;
        if (!e || e === document.body) return 'outside';
        const changed = !before.has(e) || looks(e) !== before.get(e);
        return {place: stops.indexOf(e), changed, html: e.outerHTML.slice(0, 120)};
    };
    return stops.map(e => e.outerHTML.slice(0, 120));
}"""


def test_everything_is_reached_by_keyboard_and_shows_it(browser, address):
    with visit(browser, f"{address}/book/channel/se.html") as (page, faults):
        stops = page.evaluate(NUMBER_STOPS)
        assert len(stops) > 30
        reached, unmarked = set(), []
        for _ in range(len(stops) + 200):
            page.keyboard.press("Tab")
            stop = page.evaluate("stop()")
            if stop == "outside" and reached:
                break
            if stop != "outside" and stop["place"] >= 0:
                reached.add(stop["place"])
                unmarked += [] if stop["changed"] else [stop["html"]]
        else:
            pytest.fail(f"the Tab key never leaves the page; at last it was at {stop}")
        assert [stops[place] for place in sorted(set(range(len(stops))) - reached)] == []
        assert unmarked == []
        assert not faults
