"""The picture under a moving gaze: what the browser composes is what `foveate` computes."""

import io

import numpy as np
import pytest
import torch
from alone import alone, says
from PIL import Image
from visit import NARROW

from attnlib.data.photos import photographs
from attnlib.saliency.fovea import foveate
from attnlib.saliency.fovea_viewer import fovea_viewer

SIZE = 192
@pytest.fixture(scope="module")
def pictures():
    return photographs("coffee", "cat", size=SIZE)


@pytest.fixture(scope="module")
def address(pictures, tmp_path_factory):
    viewer = fovea_viewer(pictures, caption="It follows the pointer.")
    return alone(viewer, tmp_path_factory.mktemp("fovea") / "page.html")


def seen(page) -> torch.Tensor:
    """The picture as it is on the screen, (3, SIZE, SIZE), without the mark of the gaze."""
    page.locator(".attn-gaze > .attn-cell").evaluate("mark => { mark.style.visibility = 'hidden'; }")
    shot = Image.open(io.BytesIO(page.locator(".attn-gaze").screenshot())).convert("RGB")
    return torch.from_numpy(np.array(shot.resize((SIZE, SIZE), Image.Resampling.BOX))).permute(2, 0, 1) / 255


def point(page, x: float, y: float) -> None:
    box = page.locator(".attn-gaze").bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])


@pytest.mark.parametrize("at, degrees", [((0.5, 0.5), 60), ((0.2, 0.7), 30), ((0.75, 0.25), 60)])
def test_what_is_seen_is_what_is_computed(page, pictures, at, degrees):
    point(page, *at)
    page.get_by_label("spans").select_option(f"{degrees}°")
    computed = foveate(pictures.images[:1], [share * SIZE for share in at], degrees / SIZE)[0]
    shown = seen(page)
    off = (shown - computed).abs().mean()
    # The same with the gaze elsewhere, at another distance, or with no blur, is clearly farther from it.
    corner, farther = ([1, 1], degrees), ([share * SIZE for share in at], 3 * degrees)
    wrong = [foveate(pictures.images[:1], where, span / SIZE)[0] for where, span in (corner, farther)]
    least = min((shown - other).abs().mean() for other in (*wrong, pictures.images[0]))
    assert off < 0.012 and least > 1.5 * off, f"{off:.4f}, {least:.4f}"


def test_eye_can_be_switched_off(page, pictures):
    page.get_by_label("spans").select_option("60°")
    page.get_by_role("button", name="the same everywhere").click()
    assert page.evaluate("model.get('state')") == 0
    even = (seen(page) - pictures.images[0]).abs().mean()
    assert even < 0.018
    assert says(page) == "sharp everywhere"
    point(page, 0.2, 0.7)
    assert says(page) == "sharp everywhere"
    page.get_by_role("button", name="as the eye's").click()
    assert says(page).startswith("gaze 20 % from the left, 70 %")
    assert (seen(page) - pictures.images[0]).abs().mean() > 1.5 * even


def test_another_picture_is_chosen(page, pictures):
    page.locator("select").first.select_option("cat")
    page.get_by_role("button", name="the same everywhere").click()
    assert (seen(page) - pictures.images[1]).abs().mean() < 0.018


def test_keys_move_the_gaze(page):
    stage = page.locator(".attn-gaze")
    stage.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    assert says(page).startswith("gaze 58 % from the left, 46 % from the top")
    assert stage.get_attribute("aria-valuetext") == "58 % from the left, 46 % from the top"
    for _ in range(40):
        page.keyboard.press("ArrowLeft")
    assert says(page).startswith("gaze 0 % from the left")


def test_words_say_how_coarse_it_is_far_away(page):
    # From the middle of a square that spans 30°, a corner is 15·√2 ≈ 21° away, and 1 + 21.2 / 2.3 ≈ 10.2.
    assert says(page).endswith("farthest corner 21° away: details 10.2 times as coarse")


@pytest.mark.parametrize("page", [NARROW], indirect=True)
def test_finger_moves_the_gaze_and_nothing_sticks_out(page):
    box = page.locator(".attn-gaze").bounding_box()
    page.touchscreen.tap(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    assert says(page).startswith("gaze 25 % from the left, 50 %")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
