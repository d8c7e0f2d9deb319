"""Widgets work in the page with no kernel, by mouse and by keyboard; checked on a page that has one of every kind."""

import json

import pytest
from playwright.sync_api import expect
from test_pages import works
from visit import DRAWN, NARROW, WIDE, visit


@pytest.fixture(scope="module")
def address(machinery, serve) -> str:
    return serve(machinery.parent) + "/html/book/machinery.html"


@pytest.fixture
def page(browser, address):
    with visit(browser, address) as (page, faults):
        yield page
        assert not faults


def views_in(notebook_path) -> int:
    """How many outputs of the notebook are widgets."""
    cells = json.loads(notebook_path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return sum("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in outputs)


def test_every_widget_is_drawn(page, machinery):
    expected = views_in(machinery.parents[1] / "source" / "book" / "machinery.ipynb")
    drawn = page.locator(DRAWN)
    assert drawn.count() == expected == 4
    for index in range(expected):
        box = drawn.nth(index).bounding_box()
        assert box["width"] > 40 and box["height"] > 20


def test_toggle_switches_by_click(page):
    before, after = page.get_by_label("The picture with attention off"), page.get_by_label("The picture with attention on")
    assert before.is_visible() and not after.is_visible()
    page.get_by_role("button", name="on", exact=True).click()
    expect(after).to_be_visible()
    expect(before).to_be_hidden()


def test_toggle_switches_by_keyboard_and_says_so(page):
    off, on = (page.get_by_role("button", name=name, exact=True) for name in ("off", "on"))
    off.focus()
    page.keyboard.press("Tab")
    assert on.evaluate("button => button === document.activeElement")
    page.keyboard.press("Enter")
    expect(page.get_by_label("The picture with attention on")).to_be_visible()
    expect(off).to_have_attribute("aria-pressed", "false")
    expect(on).to_have_attribute("aria-pressed", "true")


def test_player_plays(page):
    page.get_by_role("button", name="Play").click()
    # The last step, where it stops: it may go through the others too quickly to be seen.
    expect(page.get_by_text("step 3", exact=True)).to_be_visible(timeout=10_000)


def test_slider_moves_by_keyboard(page):
    handle = page.get_by_role("slider", name="Step")
    handle.focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("step 1", exact=True)).to_be_visible()
    expect(page.get_by_text("step 0", exact=True)).to_be_hidden()


def test_menu_chooses(page):
    page.get_by_role("combobox", name="Layer").select_option(index=1)
    expect(page.get_by_text("layer two", exact=True)).to_be_visible()
    expect(page.get_by_text("layer one", exact=True)).to_be_hidden()


def test_tab_opens(page):
    page.get_by_role("tab", name="Right").click()
    expect(page.get_by_text("right", exact=True)).to_be_visible()


def test_own_widget_answers(page):
    button = page.get_by_role("button", name="pressed 0 times")
    button.click()
    expect(page.get_by_role("button", name="pressed 1 times")).to_be_visible()


def test_maths_is_set_also_in_widgets(page):
    assert page.locator("article mjx-container").count() >= 3
    assert page.locator(".widget-toggle-buttons .widget-label mjx-container").count() == 1


@pytest.mark.parametrize("viewport, themes", [(WIDE, ("light", "dark")), (NARROW, ("dark", "light"))])
def test_page_of_widgets_is_accessible_and_fits(browser, address, viewport, themes):
    with visit(browser, address, viewport, themes[0]) as (page, faults):
        works(page, "machinery", themes)
        assert not faults


def test_works_from_a_file(browser, machinery):
    with visit(browser, (machinery / "book" / "machinery.html").as_uri()) as (page, faults):
        page.get_by_role("button", name="on", exact=True).click()
        expect(page.get_by_label("The picture with attention on")).to_be_visible()
        page.get_by_role("button", name="pressed 0 times").click()
    assert not faults
