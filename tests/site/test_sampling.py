"""The viewer of a spatial transformer: what the page reads off a picture is what the transformer does."""

import re

import pytest
import torch
from alone import alone, opened, says
from visit import NARROW

from attnlib import create
from attnlib.spatial.sampling_viewer import sampling_viewer
from attnlib.train.run import Run

SIX = torch.tensor([[0.7, -0.3, 0.2, 0.25, 0.8, -0.1], [1.2, 0.0, 0.3, 0.0, 1.2, 0.0]])


@pytest.fixture(scope="module")
def module():
    return create("stn", 1, size=(9, 13), fill=0.4)


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(2, 1, 10, 14, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def address(module, pictures, tmp_path_factory):
    identity = torch.tensor([[1.0, 0, 0, 0, 1, 0]] * 2)
    half = (identity + SIX) / 2
    run = Run(history=None, snapshots=[(step, {"": six}) for step, six in ((0, identity), (10, half), (20, SIX))],
              notes=[], interrupted=False, settings={}, state={})
    viewer = sampling_viewer(module, pictures, run, truth=SIX, caption="It samples.")
    return alone(viewer, tmp_path_factory.mktemp("sampling") / "page.html")


def read(page) -> torch.Tensor:
    """What the page drew: (3, 9, 13)."""
    numbers = page.locator("canvas").evaluate(
        "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    return torch.tensor(numbers).view(9, 13, 4)[..., :3].permute(2, 0, 1) / 255


def agrees(page, module, picture, six) -> bool:
    return bool((read(page) - module.use(picture[None], six[None])[0]).abs().max() < 0.008)


def test_it_ends_where_the_training_ended(page, module, pictures):
    assert agrees(page, module, pictures[0], SIX[0])
    assert says(page) == "step 20: x′ = 0.70 x − 0.30 y + 0.20, y′ = 0.25 x + 0.80 y − 0.10"


def test_steps_and_pictures_are_chosen(page, module, pictures):
    page.get_by_label("step").fill("0")
    assert agrees(page, module, pictures[0], torch.tensor([1.0, 0, 0, 0, 1, 0]))
    page.get_by_label("step").fill("2")
    page.locator("select").select_option("picture 2")
    assert agrees(page, module, pictures[1], SIX[1])


def test_a_map_of_ones_own(page, module, pictures):
    page.get_by_label("c", exact=True).fill("-0.5")
    own = SIX[0].clone()
    own[2] = -0.5
    assert agrees(page, module, pictures[0], own) and says(page).startswith("your own map: x′ = 0.70 x − 0.30 y − 0.50")
    page.get_by_role("button", name="identity").click()
    assert agrees(page, module, pictures[0], torch.tensor([1.0, 0, 0, 0, 1, 0]))
    page.get_by_role("button", name="the network's").click()
    assert agrees(page, module, pictures[0], SIX[0])


def test_it_can_be_switched_off(page, module, pictures):
    page.get_by_label("c", exact=True).fill("-0.5")  # a map of one's own gives way
    page.evaluate("model.set('state', 0)")
    assert agrees(page, module, pictures[0], torch.tensor([1.0, 0, 0, 0, 1, 0])) and says(page).startswith("switched off")


def test_it_may_begin_with_the_identity(browser, module, pictures, tmp_path):
    begun = alone(sampling_viewer(module, pictures, start="identity"), tmp_path / "page.html")
    with opened(browser, begun) as page:
        assert agrees(page, module, pictures[0], torch.tensor([1.0, 0, 0, 0, 1, 0]))
        assert says(page).startswith("your own map: x′ = 1.00 x + 0.00 y")


def test_true_map_is_the_dashed_frame(page):
    there, edge = (page.locator(name).get_attribute("d") for name in (".attn-true", ".attn-edge"))
    assert there == edge  # the training ended at the truth
    page.get_by_label("step").fill("1")
    assert page.locator(".attn-edge").get_attribute("d") != there


def test_it_plays(browser, address):
    with opened(browser, address) as page:
        page.get_by_role("button", name="Play").click()
        page.wait_for_function("document.querySelector('.attn-play').textContent === 'Play'")
        assert re.match("step 20", says(page))


@pytest.mark.parametrize("page", [NARROW], indirect=True)
def test_nothing_sticks_out(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
