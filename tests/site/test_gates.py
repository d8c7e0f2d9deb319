"""The switch and the gate viewer of the front page, in a browser with no kernel."""

import re

import pytest
from visit import NARROW, visit


@pytest.fixture(scope="module")
def address(site, serve) -> str:
    return serve(site.parent) + "/html/book/intro.html"


@pytest.fixture
def page(browser, address):
    with visit(browser, address) as (page, faults):
        page.set_default_timeout(5_000)
        yield page
        assert not faults


def viewer(page):
    return page.get_by_role("figure", name=re.compile("^Gates"))


def settled(page, what, before) -> str:
    """The text of `what` once it is another than `before`."""
    for _ in range(100):
        if (now := what.text_content()) != before:
            return now
        page.wait_for_timeout(20)
    raise AssertionError(f"it still says {before!r}")


def answer(page) -> str:
    return viewer(page).locator(".attn-best > span").first.text_content()


def widths(page) -> list[str]:
    """How long the bars of the answer are drawn."""
    return viewer(page).locator(".attn-share > span").evaluate_all("bars => bars.map(bar => bar.style.width)")


def choose(page, state) -> None:
    viewer(page).get_by_role("button", name=state, exact=True).click()


def test_one_switch_for_the_page(page):
    switch = page.get_by_role("group", name="attention").first
    figure = page.locator("figure.attn-figure", has_text="answered correctly")
    on = figure.text_content()
    switch.get_by_role("button", name="off").click()
    off = settled(page, figure, on)
    assert viewer(page).get_by_role("button", name="off").get_attribute("aria-pressed") == "true", "the viewer follows"
    heights = viewer(page).locator(".attn-gates rect").evaluate_all("bars => bars.map(bar => +bar.getAttribute('height'))")
    assert len(set(heights)) == 1, "all gates are one"
    switch.get_by_role("button", name="on").click()
    assert viewer(page).get_by_role("button", name="learned").get_attribute("aria-pressed") == "true"
    assert settled(page, figure, off) == on
    choose(page, "off")
    assert settled(page, figure, on) == off, "the viewer's own button is the same control"
    choose(page, "shuffled")
    assert settled(page, figure, off) == on, "exchanged gates are gates that are on"


def test_a_copy_floats_where_something_follows_the_switch_and_it_is_out_of_sight(page):
    floating = page.locator(".attn-floating")
    assert floating.is_hidden()
    last = viewer(page).get_by_text("Bars: one gate").first
    last.evaluate("text => scrollTo(0, scrollY + text.getBoundingClientRect().top - 80)")
    floating.wait_for(state="visible", timeout=5_000)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    floating.wait_for(state="hidden", timeout=5_000)  # nothing follows it there
    last.evaluate("text => scrollTo(0, scrollY + text.getBoundingClientRect().top - 80)")
    floating.wait_for(state="visible", timeout=5_000)
    floating.get_by_role("button", name="off").click()
    pressed = page.get_by_role("group", name="attention").first.get_by_role("button", name="off")
    assert pressed.get_attribute("aria-pressed") == "true"
    page.evaluate("scrollTo(0, 0)")
    floating.wait_for(state="hidden", timeout=5_000)


def test_states_change_the_answer(page):
    readout, seen = viewer(page).locator("output"), set()
    for state in ("off", "shuffled", "learned"):
        before = readout.text_content()
        choose(page, state)
        seen.add(settled(page, readout, before))
    assert len(seen) == 3
    choices = viewer(page).get_by_label("picture").locator("option").count()
    learned = []
    for picture in range(choices):
        viewer(page).get_by_label("picture").select_option(index=picture)
        learned.append(answer(page))
    assert len(set(learned)) > 1


def test_keys_walk_through_the_channels_and_move_a_gate(page):
    chart, readout = viewer(page).get_by_role("slider", name="Channel"), viewer(page).locator("output")
    chart.focus()
    first = readout.text_content()
    page.keyboard.press("ArrowRight")
    second = settled(page, readout, first)
    assert re.match(r"channel \d+, gate", second) and chart.get_attribute("aria-valuenow") == "2"
    page.keyboard.press("ArrowDown")
    assert settled(page, readout, second).startswith("moved by hand · channel")
    assert viewer(page).get_by_role("button", name="learned").get_attribute("aria-pressed") == "false"


def test_moving_every_gate_changes_the_answer_here(page):
    """All gates set to one, bar by bar, give the answer of the precomputed state "off"."""
    choose(page, "off")
    page.wait_for_timeout(50)
    off = viewer(page).locator(".attn-said").text_content()
    choose(page, "learned")
    chart = viewer(page).get_by_role("slider", name="Channel")
    gate = viewer(page).get_by_role("slider", name="gate", exact=True)
    count = int(chart.get_attribute("aria-valuemax"))
    chart.focus()
    page.keyboard.press("Home")
    for _ in range(count):
        gate.evaluate("input => { input.value = 1; input.dispatchEvent(new Event('input', {bubbles: true})); }")
        chart.focus()
        page.keyboard.press("ArrowRight")

    def shares(text):
        return [int(number) for number in re.findall(r"(\d+) %", text)]

    own = viewer(page).locator(".attn-said").text_content()
    assert all(abs(a - b) <= 1 for a, b in zip(shares(own), shares(off), strict=True))


def test_a_bar_is_dragged(page):
    bars, readout = viewer(page).locator(".attn-gates rect"), viewer(page).locator("output")
    bars.first.scroll_into_view_if_needed()
    box = bars.first.bounding_box()
    before = widths(page)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 1, steps=3)
    page.mouse.up()
    page.wait_for_timeout(50)
    assert re.search(r"gate 0\.0\d", readout.text_content())
    assert widths(page) != before, "the answer moves, if only a little"


def test_another_picture_s_gates_stand_beside(page):
    assert viewer(page).locator(".attn-gates g > line").count() == 3, "the lines of the scale"
    viewer(page).get_by_label("compare with").select_option(index=2)
    assert viewer(page).locator(".attn-gates g > line").count() == 3 + 32
    viewer(page).get_by_label("order").select_option("by difference")
    assert re.search(r"\(mark: 2: \w+, [\d.]+\)", viewer(page).locator("output").text_content())


@pytest.mark.parametrize("name", ["intro", "channel/se"])
def test_a_finger_scrolls_and_finds_every_control(browser, address, name):
    with visit(browser, address.replace("intro", name), NARROW) as (page, faults):
        for chart in viewer(page).locator(".attn-gates").all():
            assert chart.evaluate("chart => getComputedStyle(chart).touchAction") == "pan-y"
        small = page.locator(".attn-viewer :is(button, select, input)").evaluate_all(
            "all => all.filter(e => e.offsetParent && e.getBoundingClientRect().height < 44).map(e => e.outerHTML)")
        assert not small
    assert not faults


def test_works_from_a_file(browser, site):
    with visit(browser, (site / "book" / "intro.html").as_uri()) as (page, faults):
        before = viewer(page).locator("output").text_content()
        choose(page, "shuffled")
        settled(page, viewer(page).locator("output"), before)
    assert not faults
