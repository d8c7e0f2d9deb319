"""The training viewer in a browser, with the site's own scripts and no kernel: by keyboard, by pointer, by itself."""

import shutil
from pathlib import Path

import ipywidgets as ipw
import numpy as np
import pandas
import pytest
import torch
from ipywidgets.embed import embed_snippet
from test_pages import violated
from visit import NARROW, WIDE, too_wide, visit

from attnlib.train import Run
from attnlib.widgets.training import training

ROOT = Path(__file__).resolve().parents[2]
STEPS = np.arange(10, 101, 10)
PAGE = """<!doctype html>
<html lang="en" data-jp-theme-light="{light}">
<head><meta charset="utf-8"><title>Training</title><meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<style>body {{ background: {ground}; margin: 8px }} main {{ margin: auto; max-width: 760px }}</style>
</head><body><main><h1 style="color: {ink}">A training</h1>
<script src="_static/third_party/widgets/require.js"></script><script src="_static/widgets.js"></script>
{snippet}</main></body></html>
"""


def run(end, snapshots=()):
    losses, accuracies = np.linspace(2, 2 - 2 * end, 10), np.linspace(0.1, end, 10)
    rows = {"step": STEPS, "test_loss": losses, "loss": 0.0, "test_accuracy": accuracies}
    return Run(pandas.DataFrame(rows), list(snapshots), [], False, {"device": "cpu"}, {"step": 100, "seconds": 1.0})


def formed(*shape):
    """Weights that are alike at first and end between 0 and 1, and others that never change."""
    end = torch.linspace(0, 1, int(np.prod(shape))).reshape(shape)
    return [(int(step), {"first": 0.5 + (end - 0.5) * step / 100, "last": end}) for step in (0, *STEPS)]


@pytest.fixture(scope="session")
def folder(shared, tmp_path_factory) -> Path:
    """A page in light and one in dark: two runs with gates under a switch, and one run with maps."""
    import third_party

    third_party.bring()
    folder = tmp_path_factory.mktemp("training")
    for source in (ROOT / "site_static", ROOT / "site_vendor" / "site"):
        shutil.copytree(source, folder / "_static", dirs_exist_ok=True)
    runs = {"without": run(0.55), "with SE": run(0.95, formed(3, 16, 1, 1))}
    both = training(runs, labels=["cat", "dog", "cow"], name="Two runs", caption="Loss and accuracy, unseen pictures.")
    switch = ipw.ToggleButtons(options=["off", "on"], index=1)
    ipw.jslink((switch, "index"), (both, "state"))
    maps = training(run(0.8, formed(1, 2, 6, 9)), only="first", start=50, name="Maps")
    manager = "_static/third_party/widgets/embed-amd.js"
    snippet = embed_snippet([switch, both, maps], drop_defaults=False, embed_url=manager, requirejs=False, cors=False)
    for theme, ground, ink in (("light", "#FFFFFF", "#1D2129"), ("dark", "#121212", "#E6E4DF")):
        html = PAGE.format(light=str(theme == "light").lower(), ground=ground, ink=ink, snippet=snippet)
        (folder / f"{theme}.html").write_text(html)
    return folder


@pytest.fixture(scope="session")
def address(folder, serve) -> str:
    return serve(folder)


@pytest.fixture
def page(browser, address):
    with visit(browser, f"{address}/light.html") as (page, faults):
        page.set_default_timeout(5_000)
        page.get_by_role("slider").first.wait_for()
        yield page
        assert not faults


@pytest.fixture
def moving(browser, address):
    """The page for a reader who does not mind motion."""
    with visit(browser, f"{address}/light.html", motion="no-preference") as (page, faults):
        page.set_default_timeout(5_000)
        page.get_by_role("slider").first.wait_for()
        yield page
        assert not faults


def viewer(page, name="Two runs"):
    return page.locator(f"figure[aria-label='{name}']")


def says(page, words, name="Two runs", timeout=2_000):
    viewer(page, name).locator("output").get_by_text(words).wait_for(timeout=timeout)


def widths(page):
    """How thick the curves of the two runs are on the first chart."""
    curves = viewer(page).locator(".attn-charts > div").first.locator("path")
    return [float(curves.nth(run).get_attribute("stroke-width")) for run in (0, 1)]


def bars(page):
    return viewer(page).locator("svg").last.locator("path").first.get_attribute("d")


def test_starts_with_the_whole_result(page):
    says(page, "step 100: with SE loss 0.10, accuracy 0.95 · without loss 0.90, accuracy 0.55")
    assert viewer(page).locator("circle").count() == 4 and viewer(page).locator(".attn-now").count() == 2
    assert viewer(page).get_by_role("slider", name="step").get_attribute("aria-valuetext") == "step 100"


def test_slider_walks_by_keyboard(page):
    viewer(page).get_by_role("slider", name="step").focus()
    before = bars(page)
    page.keyboard.press("ArrowLeft")
    says(page, "step 90: with SE loss 0.31")
    assert bars(page) != before
    page.keyboard.press("Home")
    says(page, "step 0: with SE not measured yet · without not measured yet")
    assert viewer(page).locator("circle").count() == 0
    page.keyboard.press("ArrowRight")
    says(page, "step 10: with SE loss 2.00, accuracy 0.10")


@pytest.mark.parametrize("chart", [0, 1])
def test_pointer_moves_to_the_nearest_step(page, chart):
    plot = viewer(page).locator(".attn-charts > div").nth(chart)
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    left, wide = box["x"] + 36, box["width"] - 48
    for share, step in ((0.52, 50), (0.28, 30), (0.0, 0), (1.0, 100)):
        page.mouse.move(left + share * wide, box["y"] + 80)
        says(page, f"step {step}:")


def test_state_emphasises_the_run_without_or_with(page):
    assert widths(page)[1] > 2 * widths(page)[0]
    page.get_by_role("button", name="off").click()
    says(page, "step 100: without loss 0.90, accuracy 0.55 · with SE loss 0.10")
    assert widths(page)[0] > 2 * widths(page)[1]
    page.get_by_role("button", name="on", exact=True).click()
    says(page, "step 100: with SE")


def test_menus_choose_layer_and_picture(page):
    before = bars(page)
    viewer(page).get_by_role("combobox", name="picture").select_option("cow")
    assert bars(page) != before
    viewer(page).get_by_role("combobox", name="layer").select_option("last")
    viewer(page).get_by_role("slider", name="step").focus()
    chosen = bars(page)
    page.keyboard.press("Home")
    says(page, "step 0")
    assert bars(page) == chosen, "these weights never change"


def test_bars_are_as_tall_as_the_weights(page):
    """In the middle of the training the weights of the first picture lie between 0.25 and 0.41 (by hand)."""
    viewer(page).get_by_role("slider", name="step").focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    says(page, "step 50:")
    heights = [float(part.split("V")[1].split("h")[0]) for part in bars(page).split("M")[1:]]
    rules = viewer(page).locator("svg").last.locator(".attn-rule")
    zero, one = (float(rules.nth(at).get_attribute("y1")) for at in (0, 2))
    expected = 0.5 + (torch.linspace(0, 1, 48)[:16] - 0.5) / 2
    assert [(zero - height) / (zero - one) for height in heights] == pytest.approx(expected.tolist(), abs=0.004)


def test_maps_are_painted_in_their_shape(page):
    says(page, "step 50:", "Maps")
    canvas = viewer(page, "Maps").locator("canvas").first
    assert canvas.evaluate("c => [c.width, c.height]") == [9, 6]
    pixels = "c => [...c.getContext('2d').getImageData(0, 0, 9, 6).data]"
    first = canvas.evaluate(pixels)
    slider = viewer(page, "Maps").get_by_role("slider", name="channel")
    slider.focus()
    page.keyboard.press("ArrowRight")
    viewer(page, "Maps").get_by_text("step 50, channel 2").wait_for()
    second = viewer(page, "Maps").locator("canvas").first.evaluate(pixels)
    assert sum(second) > sum(first), "the weights of the second channel are larger, and drawn brighter"
    assert slider.evaluate("input => input === document.activeElement")


def test_play_advances_pauses_and_stops_at_the_end(moving):
    play = viewer(moving).get_by_role("button", name="Play")
    play.click()
    says(moving, "step 20:", timeout=3_000)
    pause = viewer(moving).get_by_role("button", name="Pause")
    assert viewer(moving).locator("output").get_attribute("aria-live") == "off"
    pause.click()
    moving.wait_for_timeout(50)
    halted = viewer(moving).locator("output").inner_text()
    moving.wait_for_timeout(900)
    assert viewer(moving).locator("output").inner_text() == halted
    play.click()
    says(moving, "step 100:", timeout=8_000)
    play.wait_for(timeout=1_000)
    assert viewer(moving).locator("output").get_attribute("aria-live") == "polite"


def test_nothing_plays_where_motion_is_unwanted(page):
    assert page.get_by_role("button", name="Play").count() == 0
    assert viewer(page).get_by_role("slider", name="step").is_visible()


def test_nothing_moves_by_itself(moving):
    says(moving, "step 100:")
    before = viewer(moving).inner_html()
    moving.wait_for_timeout(800)
    assert viewer(moving).inner_html() == before


def test_tap_chooses_a_step(browser, address):
    with visit(browser, f"{address}/light.html", NARROW) as (page, faults):
        plot = viewer(page).locator(".attn-charts > div").first
        box = plot.bounding_box()
        place = box["x"] + 36 + 0.4 * (box["width"] - 48)
        plot.dispatch_event("pointerdown", {"pointerType": "touch", "clientX": place})
        says(page, "step 40:")
        second = viewer(page).locator(".attn-charts > div").nth(1).bounding_box()
        assert second["y"] >= box["y"] + box["height"], "on a telephone one chart stands below the other"
    assert not faults


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_viewer_is_accessible_and_fits(browser, address, viewport, theme):
    with visit(browser, f"{address}/{theme}.html", viewport, theme, motion="no-preference") as (page, faults):
        page.get_by_role("slider").first.wait_for()
        assert not too_wide(page)
        assert not violated(page)
        for control in viewer(page).locator("button, select, input").all():
            box = control.bounding_box()
            assert box["height"] >= 44 and box["width"] >= 44
    assert not faults


def test_works_from_a_file(browser, folder):
    with visit(browser, (folder / "light.html").as_uri()) as (page, faults):
        viewer(page).get_by_role("slider", name="step").focus()
        page.keyboard.press("ArrowLeft")
        says(page, "step 90:")
    assert not faults
