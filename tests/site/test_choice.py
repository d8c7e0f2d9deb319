"""The figure to choose from in a browser, on a page without any script: by pointer, by keyboard, by touch."""

from pathlib import Path

import pytest
from test_pages import violated
from visit import NARROW, WIDE, too_wide, visit

from attnlib import plot
from attnlib.plot.choice import HIGH, Choice
from attnlib.plot.choice import WIDE as ACROSS

PAGE = """<!doctype html>
<html lang="en" data-jp-theme-light="{light}">
<head><meta charset="utf-8"><title>A choice</title><meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<style>body {{ background: {ground}; margin: 8px }} main {{ margin: auto; max-width: 760px }}</style>
</head><body><main><h1 style="color: {ink}">A choice</h1>{figures}</main></body></html>
"""
NAMES = ["none", "wider, plain", "SE", "SK", "ECA", "GE θ⁻, global", "GE θ⁻, extent 4", "GE θ⁺, global",
         "average and max"]
TASKS = ["one cue", "a cue per region", "two kinds of cue", "sizes", "digits"]


def figure(chosen: str) -> Choice:
    scores = {task: {name: (mean := 0.55 + 0.05 * ((3 * n + t) % 9), mean - 0.03, mean + 0.03)
                     for n, name in enumerate(NAMES)} for t, task in enumerate(TASKS)}
    costs = {"parameters added": {name: 9 * n**3 for n, name in enumerate(NAMES)},
             "pictures per second": {name: 9_000 - 500 * n for n, name in enumerate(NAMES)}}
    verdicts = {against: {task: {name: "+0.010: cannot be told at this size" for name in NAMES} for task in TASKS}
                for against in NAMES[:2]}
    return plot.choice(scores, costs, alt="Accuracy against cost, to choose from.", chosen=chosen, baseline="none",
                       verdicts=verdicts, caption=f"At first: {chosen}.")


@pytest.fixture(scope="session")
def address(tmp_path_factory, serve) -> str:
    """A page in light and one in dark, with two figures each."""
    folder: Path = tmp_path_factory.mktemp("choice")
    figures = figure("SE")._repr_html_() + figure("none")._repr_html_()
    for theme, ground, ink in (("light", "#FFFFFF", "#1D2129"), ("dark", "#121212", "#E6E4DF")):
        html = PAGE.format(light=str(theme == "light").lower(), ground=ground, ink=ink, figures=figures)
        (folder / f"{theme}.html").write_text(html)
    return serve(folder)


def told(page, which=0) -> list[str]:
    """The mechanisms whose values can be read in one of the two figures."""
    shown = page.locator("figure").nth(which).locator(".attn-choice-w p").filter(visible=True).all_inner_texts()
    return [text.partition(":")[0] for text in shown]


def outstanding(page) -> list[int]:
    """Per panel of the first figure, the number of the one dot that is larger than the others."""
    return page.locator("figure").first.locator(".attn-choice-panel").evaluate_all("""panels => panels.map(panel => {
        const marks = [...panel.querySelectorAll('[class^="attn-choice-m"]')].filter(
            m => getComputedStyle(m.parentElement).display !== 'none');
        const size = m => parseFloat(getComputedStyle(m.querySelector('circle')).r);
        const large = marks.filter(m => size(m) > 4);
        return large.length === 1 && marks.length === 9 ? marks.indexOf(large[0]) : -1;
    })""")


def point_at(page, name, panel=4, cost=0, click=False):
    plotted = page.locator("figure").first.locator(".attn-choice-plot").nth(panel)
    plotted.scroll_into_view_if_needed()
    circle = plotted.locator(f"g.attn-choice-c{cost} .attn-choice-m{NAMES.index(name)} circle")
    x, y = (float(circle.get_attribute(which)) for which in ("cx", "cy"))
    box = plotted.bounding_box()
    at = box["x"] + x / ACROSS * box["width"], box["y"] + y / HIGH * box["height"]
    (page.mouse.click if click else page.mouse.move)(*at)


def test_is_pointed_at_and_walked_through_by_keyboard(browser, address):
    with visit(browser, f"{address}/light.html", WIDE) as (page, faults):
        assert told(page) == ["SE"] and told(page, 1) == ["none"] and outstanding(page) == [2] * 5
        for name in NAMES:
            point_at(page, name)
            assert told(page) == [name] and outstanding(page) == [NAMES.index(name)] * 5
        page.mouse.move(1, 1)
        assert told(page) == ["SE"], "pointing chooses nothing"
        point_at(page, "ECA", click=True)
        page.mouse.move(1, 1)
        assert told(page) == ["ECA"] and told(page, 1) == ["none"]

        radio = page.get_by_role("radio", name="ECA", exact=True).first
        assert radio.evaluate("e => e === document.activeElement")
        page.keyboard.press("ArrowRight")
        assert told(page) == ["GE θ⁻, global"] and outstanding(page) == [5] * 5
        page.keyboard.press("ArrowUp")
        assert told(page) == ["ECA"] and told(page, 1) == ["none"]

        first = page.locator("figure").first
        assert first.get_by_text("pictures per second", exact=True).filter(visible=True).count() == 1
        first.get_by_role("radio", name="pictures per second").check()
        assert first.get_by_text("pictures per second", exact=True).filter(visible=True).count() == 1 + len(TASKS)
        assert first.get_by_text("parameters added", exact=True).filter(visible=True).count() == 1
        point_at(page, "wider, plain", panel=1, cost=1)
        assert told(page) == ["wider, plain"]
        assert not too_wide(page) and not violated(page)
    assert not faults


def test_fits_a_phone_in_the_dark_and_does_not_jump(browser, address):
    with visit(browser, f"{address}/dark.html", NARROW | {"height": 500}, "dark") as (page, faults):
        assert not too_wide(page) and not violated(page)
        for label in page.locator("fieldset label").all():
            box = label.bounding_box()
            assert box["height"] >= 44 and box["width"] >= 44
        lefts = {round(box.bounding_box()["x"]) for box in page.locator(".attn-choice-panel").all()}
        assert len(lefts) == 2, "two panels stand side by side"
        point_at(page, "SK")
        before = page.evaluate("scrollY")
        point_at(page, "SK", click=True)
        assert told(page) == ["SK"] and before == page.evaluate("scrollY") > 300
    assert not faults
