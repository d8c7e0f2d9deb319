import math

import pytest
import torch

from attnlib.saliency.features import ANGLES, checked, intensity, opponents, orientations, pyramid, visible


def colour(*rgb, size=(4, 6)):
    return torch.tensor(rgb, dtype=torch.float64)[None, :, None, None].expand(1, 3, *size)


@pytest.mark.parametrize("rgb, red_green, blue_yellow", [
    ((1, 0, 0), 3, 0), ((0, 1, 0), -3, 0), ((0, 0, 1), 0, 3), ((1, 1, 0), 0, -1.5), ((0.7, 0.7, 0.7), 0, 0),
    ((0.5, 0, 0), 3, 0),  # colour does not depend on brightness
])
def test_opponent_colours_by_hand(rgb, red_green, blue_yellow):
    found = opponents(colour(*rgb))[0, :, 0, 0]
    assert found.tolist() == pytest.approx([red_green, blue_yellow], abs=1e-12)


def test_nobody_sees_the_colour_of_what_is_almost_black():
    picture = colour(1, 1, 1).clone()
    picture[..., 0, 0] = torch.tensor([0.29, 0, 0])  # a third of that is less than a tenth of 1
    picture[..., 0, 1] = torch.tensor([0.31, 0, 0])
    found = opponents(picture)[0, 0, 0]
    assert found[0] == 0 and float(found[1]) == pytest.approx(3)
    assert (opponents(torch.zeros(1, 3, 2, 2)) == 0).all()


def test_the_pyramid_by_the_naive_sum():
    maps = torch.rand(2, 3, 7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    levels = pyramid(maps, 6)
    assert [tuple(level.shape[2:]) for level in levels] == [(7, 10), (4, 5), (2, 3), (1, 2), (1, 1), (1, 1)]
    weights = [1, 3, 3, 1]
    for i in range(4):
        for j in range(5):
            inside = [(weights[a] * weights[b], maps[1, 2, 2 * i + a - 1, 2 * j + b - 1]) for a in range(4)
                      for b in range(4) if 0 <= 2 * i + a - 1 < 7 and 0 <= 2 * j + b - 1 < 10]
            expected = sum(weight * value for weight, value in inside) / sum(weight for weight, _ in inside)
            assert float(levels[1][1, 2, i, j]) == pytest.approx(float(expected), rel=1e-12)


def test_levels_do_not_shift_against_each_other():
    symmetric = torch.rand(1, 1, 32, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    symmetric = symmetric + symmetric.flip(3)
    for level in pyramid(symmetric, 6):
        torch.testing.assert_close(level, level.flip(3), rtol=1e-12, atol=0)


def test_a_constant_stays_constant_at_every_level():
    for level in pyramid(torch.full((1, 2, 9, 14), 0.3, dtype=torch.float64), 7):
        torch.testing.assert_close(level, torch.full_like(level, 0.3), rtol=1e-12, atol=0)


@pytest.mark.parametrize("angle", ANGLES)
def test_stripes_answer_to_their_own_direction(angle):
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    # Counter-clockwise, where rows are counted downwards.
    across = math.cos(math.radians(angle)) * rows + math.sin(math.radians(angle)) * columns
    picture = (0.5 + 0.5 * torch.sin(2 * math.pi * across / 7))[None, None]
    inside = orientations(picture)[0, :, 8:-8, 8:-8].mean((1, 2))
    assert inside.argmax() == ANGLES.index(angle) and inside.max() > 2 * inside.topk(2).values[1]


def test_an_even_picture_has_no_direction():
    assert orientations(torch.full((1, 1, 12, 9), 0.7, dtype=torch.float64)).max() < 1e-12


def test_what_cannot_be_seen_is_nothing():
    maps = torch.zeros(1, 3, 2, 2)
    maps[0, 0, 0, 0], maps[0, 1, 0, 0], maps[0, 2] = 1e-5, 1e-3, 0.5
    assert [float(one.abs().max()) for one in visible(maps)[0]] == pytest.approx([0, 1e-3, 0])


def test_grey_pictures_have_three_equal_channels():
    grey = torch.rand(2, 1, 3, 4)
    assert torch.equal(checked(grey), grey.repeat(1, 3, 1, 1)) and torch.equal(intensity(grey), grey)
    assert (opponents(checked(grey)) == 0).all()


@pytest.mark.parametrize("shape, says", [
    ((1, 4, 5, 6), "4 channels; lay the transparent ones on white first"), ((1, 2, 5, 6), "in grey, not"),
    ((3, 5, 6), "in grey, not"), ((1, 3, 0, 6), "in grey, not"), ((0, 3, 5, 6), "in grey, not"),
])
def test_what_is_no_picture_is_refused(shape, says):
    with pytest.raises(ValueError, match=says):
        checked(torch.zeros(shape))


def test_other_numbers_are_refused():
    for wrong in (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), [[0.0]]):
        with pytest.raises(TypeError, match="floating-point tensor"):
            checked(wrong)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="NaN or infinite"):
            checked(torch.full((1, 3, 4, 4), value))


def test_the_way_out_that_the_error_names_works():
    images = torch.rand(1, 4, 5, 6)
    on_white = images[:, :3] * images[:, 3:] + 1 - images[:, 3:]
    assert checked(on_white).shape == (1, 3, 5, 6)
