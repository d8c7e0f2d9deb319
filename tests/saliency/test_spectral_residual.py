import cmath
import math

import pytest
import torch

from attnlib.saliency.spectral_residual import _residual, spectral_residual

GREY = torch.rand(1, 1, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_equals_the_naive_sums():
    height, width = 5, 6
    places = [(i, j) for i in range(height) for j in range(width)]

    def transform(values, sign):
        return {(u, v): sum(value * cmath.exp(sign * 2j * math.pi * (u * i / height + v * j / width))
                            for (i, j), value in values.items()) for u, v in places}

    spectrum = transform({(i, j): float(GREY[0, 0, i, j]) for i, j in places}, -1)
    log = {place: math.log(abs(value)) for place, value in spectrum.items()}
    residual = {
        (u, v): log[u, v] - sum(log[(u + a) % height, (v + b) % width] for a in (-1, 0, 1) for b in (-1, 0, 1)) / 9
        for u, v in places
    }
    changed = {place: cmath.rect(math.exp(residual[place]), cmath.phase(spectrum[place])) for place in places}
    expected = [abs(value / (height * width)) ** 2 for value in transform(changed, 1).values()]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(_residual(GREY).flatten(), expected, rtol=1e-9, atol=1e-15)


def test_does_not_depend_on_brightness():
    torch.testing.assert_close(spectral_residual(GREY * 7), spectral_residual(GREY), rtol=1e-9, atol=1e-9)


def test_moves_with_the_picture():
    found, moved = spectral_residual(GREY, sigma=0), spectral_residual(GREY.roll((2, 3), (2, 3)), sigma=0)
    torch.testing.assert_close(moved, found.roll((2, 3), (1, 2)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_bar_in_another_direction_stands_out(seed):
    rng = torch.Generator().manual_seed(seed)
    picture = 0.2 + 0.05 * torch.rand(1, 1, 48, 64, generator=rng)
    for row in range(4, 48, 8):
        for column in range(4, 64, 8):
            high, wide = (2, 1) if (row, column) == (20, 44) else (1, 2)
            r, c = (place + int(torch.randint(-1, 2, (1,), generator=rng)) for place in (row, column))
            picture[..., r - high : r + high, c - wide : c + wide] = 0.9
    row, column = divmod(int(spectral_residual(picture).argmax()), 64)
    assert abs(row - 20) <= 4 and abs(column - 44) <= 4


def test_the_map_is_made_at_the_width_that_is_asked_for():
    picture = torch.rand(1, 3, 90, 120, generator=torch.Generator().manual_seed(0))
    coarse, fine = (spectral_residual(picture, width=width) for width in (16, 120))
    assert coarse.shape == fine.shape == (1, 90, 120)
    roughness = [float((found[:, 1:] - found[:, :-1]).abs().mean()) for found in (coarse, fine)]
    assert roughness[0] < roughness[1] / 2
    assert torch.equal(spectral_residual(picture, width=120), spectral_residual(picture, width=500))


def test_impossible_widths_are_refused():
    with pytest.raises(ValueError, match="at least 1 pixel wide"):
        spectral_residual(GREY, width=0)
    with pytest.raises(ValueError, match="0 or more pixels"):
        spectral_residual(GREY, sigma=-1)
