import pytest
import torch

from attnlib.saliency.itti_koch import conspicuities, itti_koch, peaked


def with_peaks(*peaks):
    maps = torch.zeros(1, 1, 9, 13, dtype=torch.float64)
    for row, column, height in peaks:
        maps[0, 0, row, column] = height
    return maps


def test_one_peak_stays_and_many_vanish():
    alone = with_peaks((2, 3, 5.0))
    assert torch.equal(peaked(alone), alone / 5)
    assert torch.equal(peaked(with_peaks((2, 3, 5.0), (6, 9, 5.0))), torch.zeros_like(alone))


def test_peaks_by_hand():
    # The other maxima are 1/2 and 1/4 of the highest: (1 − 3/8)².
    found = peaked(with_peaks((1, 1, 8.0), (4, 6, 4.0), (7, 11, 2.0)))
    assert [float(found[0, 0, r, c]) for r, c in ((1, 1), (4, 6), (7, 11))] == [25 / 64, 25 / 128, 25 / 256]
    # Beside a higher one it is no maximum.
    beside = peaked(with_peaks((1, 1, 8.0), (1, 2, 4.0)))
    assert beside[0, 0, 1, 1] == 1 and beside[0, 0, 1, 2] == 0.5


def test_every_map_is_judged_alone():
    both = torch.cat([with_peaks((2, 3, 5.0)), with_peaks((2, 3, 5.0), (6, 9, 5.0))], 1)
    assert peaked(both)[0].amax((1, 2)).tolist() == [1, 0]
    assert torch.equal(peaked(torch.full((1, 1, 4, 4), 3.0)), torch.zeros(1, 1, 4, 4))


def bars(seed, at=(200, 440)):
    """Scattered horizontal bars in a picture as large as the paper's; the one around `at` is vertical."""
    rng = torch.Generator().manual_seed(seed)
    picture = 0.2 + 0.05 * torch.rand(1, 1, 480, 640, generator=rng)
    for row in range(40, 480, 80):
        for column in range(40, 640, 80):
            high, wide = (28, 8) if (row, column) == at else (8, 28)
            r, c = (place + int(torch.randint(-12, 13, (1,), generator=rng)) for place in (row, column))
            picture[..., r - high : r + high, c - wide : c + wide] = 0.9
    return picture


@pytest.mark.parametrize("seed", range(3))
def test_the_bar_in_another_direction_stands_out(seed):
    # All bars are equally bright and large; only directions tell this one apart.
    row, column = divmod(int(itti_koch(bars(seed)).argmax()), 640)
    assert abs(row - 200) <= 40 and abs(column - 440) <= 40
    direction = conspicuities(bars(seed).expand(-1, 3, -1, -1))[2][0, 0]
    assert direction.shape == (30, 40)
    row, column = divmod(int(direction.argmax()), 40)
    assert abs(16 * row + 8 - 200) <= 40 and abs(16 * column + 8 - 440) <= 40


def test_grey_pictures_have_no_colour_contrast():
    picture = torch.rand(1, 1, 64, 80, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    bright, colour, direction = conspicuities(picture)
    assert (colour == 0).all() and bright.max() > 0 and direction.max() > 0
