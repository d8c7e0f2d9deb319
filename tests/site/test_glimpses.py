"""The viewer of glimpses: what stands on the page is what the network looked at and said."""

import pytest
import torch
from alone import alone, opened, says
from visit import NARROW

from attnlib.data import Pictures
from attnlib.widgets import GlimpsePath, glimpses

STEPS, SIDE = 3, 4


@pytest.fixture(scope="module")
def paths():
    rng = torch.Generator().manual_seed(0)
    scores = torch.zeros(2, STEPS, 3)
    scores[0, :, 1], scores[0, 2, 2], scores[1, :, 0] = 2.0, 5.0, 1.0
    learned = GlimpsePath(torch.tensor([[[-1.0, 0], [0, 0], [0.5, -0.5]]] * 2), torch.rand(2, STEPS, 2, SIDE, SIDE, generator=rng), scores)
    return {"learned": learned, "middle": learned._replace(locations=torch.zeros(2, STEPS, 2))}


@pytest.fixture(scope="module")
def address(paths, tmp_path_factory):
    pictures = Pictures(torch.rand(2, 1, 12, 20), torch.tensor([2, 1]), ("cat", "dog", "owl"))
    return alone(glimpses(paths, pictures, caption="It glimpses."), tmp_path_factory.mktemp("glimpses") / "page.html")


def test_answers_follow_the_steps(page):
    odds = torch.tensor([0.0, 2, 5]).softmax(0)
    assert says(page).startswith("learned, glimpse 1 of 3: dog")
    page.get_by_label("glimpse", exact=True).fill("2")
    assert says(page) == f"learned, glimpse 3 of 3: owl, {round(100 * float(odds[2]))} % sure, which is right"
    assert [text.split(" · ")[0] for text in page.locator(".attn-answers-so-far li").all_text_contents()] == ["dog", "dog", "owl"]
    page.get_by_label("glimpse", exact=True).fill("0")
    assert says(page).endswith("sure; it is owl") and page.locator(".attn-answers-so-far li").count() == 1


def test_path_runs_through_the_places(page):
    page.get_by_label("glimpse", exact=True).fill("2")
    # −1 is the left edge of 20 columns, 0 the middle of 12 rows.
    assert page.locator("path.attn-trail").get_attribute("d") == "M0.00 6.00L10.00 6.00L15.00 3.00"
    wide = [box.get_attribute("width") for box in page.locator("rect").all()]
    left = [float(box.get_attribute("x")) for box in page.locator("rect").all()]
    assert wide == ["4"] * STEPS + ["4", "8"] and left == [-2, 8, 13, 13, 11]  # past ones, then both scales of the last
    assert page.locator("svg text").all_text_contents() == ["1", "2", "3"]
    assert page.locator(".attn-eyes > div").all_text_contents() == ["4 pixels wide", "8 pixels wide"]
    page.locator("select").nth(1).select_option("middle")
    assert page.locator("path.attn-trail").get_attribute("d") == "M10.00 6.00" + "L10.00 6.00" * 2


def test_patches_are_those_that_were_seen(page, paths):
    page.locator("select").first.select_option("picture 2")
    page.get_by_label("glimpse", exact=True).fill("1")
    drawn = page.locator("canvas").nth(1).evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    grey = torch.tensor(drawn).view(SIDE, SIDE, 4)[..., 0] / 255
    assert (grey - paths["learned"].patches[1, 1, 1]).abs().max() < 0.02


def test_places_that_were_chosen_at_once_are_not_joined(browser, paths, tmp_path):
    viewer = glimpses(paths, torch.rand(2, 1, 12, 20), word="place", joined=False)
    with opened(browser, alone(viewer, tmp_path / "page.html")) as page:
        page.get_by_label("place", exact=True).fill("1")
        assert page.locator("path.attn-trail").get_attribute("d") is None
        assert says(page).startswith("learned, place 2 of 3: 1, ") and page.get_by_label("order").count() == 1
        shown = [box.evaluate("b => b.style.display") for box in page.locator("rect").all()]
        assert shown == ["", "", "none", "", ""]


def test_it_plays(browser, address):
    with opened(browser, address) as page:
        page.get_by_role("button", name="Play").click()
        page.wait_for_function("document.querySelector('.attn-play').textContent === 'Play'")
        assert "glimpse 3 of 3" in says(page)


@pytest.mark.parametrize("page", [NARROW], indirect=True)
def test_nothing_sticks_out(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
