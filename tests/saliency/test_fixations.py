import math

import pytest
import scipy.ndimage
import torch

from attnlib.data.fixations import Fixations
from attnlib.saliency.fixations import blur, centre_bias, density, elsewhere, rescaled, saliency_map, stretched

MAPS = torch.rand(2, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PATHS = [[[(3.5, 2.5), (3.5, 2.5)], [(10.0, 9.0)]], [[(0.0, 0.0)], []], [[], []]]
SEEN = Fixations.of(PATHS, (10, 14))


def test_blur_equals_scipys():
    for sigma in (0.4, 1.0, 3.7):
        theirs = scipy.ndimage.gaussian_filter(MAPS.numpy(), sigma, mode="constant", truncate=40, axes=(1, 2))
        torch.testing.assert_close(blur(MAPS, sigma), torch.from_numpy(theirs), rtol=1e-12, atol=1e-14)


def test_blur_equals_the_naive_sum():
    wide, high = 1.5, 0.7
    weights = [[math.exp(-((i / sigma) ** 2) / 2) for i in range(-60, 61)] for sigma in (high, wide)]
    rows, columns = ({i - 60: w / sum(line) for i, w in enumerate(line)} for line in weights)
    expected = torch.zeros_like(MAPS[0])
    for i in range(10):
        for j in range(14):
            expected[i, j] = sum(rows[i - p] * columns[j - q] * MAPS[0, p, q] for p in range(10) for q in range(14))
    torch.testing.assert_close(blur(MAPS, (high, wide))[0], expected, rtol=1e-12, atol=1e-14)


def test_a_blurred_fixation_is_a_gaussian_around_its_pixel():
    middle = torch.zeros(1, 41, 61, dtype=torch.float64)
    middle[0, 20, 30] = 1
    found = blur(middle, 2.0)[0]
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert float(found[20, 33] / found[20, 30]) == pytest.approx(math.exp(-9 / 8), rel=1e-12)
    assert float(found[24, 33] / found[20, 30]) == pytest.approx(math.exp(-25 / 8), rel=1e-12)


def test_what_lies_around_the_picture():
    ones = torch.ones(1, 5, 9, dtype=torch.float64)
    torch.testing.assert_close(blur(ones, 2.0, border="inside"), ones, rtol=1e-12, atol=0)
    lost = blur(ones, 2.0)
    assert (lost < 1).all() and lost[0, 0, 0] < lost[0, 2, 4]


def test_no_blur_is_no_blur():
    for border in ("zero", "inside"):
        assert torch.equal(blur(MAPS, 0, border=border), MAPS)
    single = torch.full((1, 1, 1), 3.0)
    torch.testing.assert_close(blur(single, 5.0, border="inside"), single)
    assert blur(MAPS.float(), 1.0).dtype == torch.float32


@pytest.mark.parametrize("sigma", [-1, float("nan"), float("inf"), (1, -1)])
def test_a_blur_without_sense_is_refused(sigma):
    with pytest.raises(ValueError, match="0 or more pixels"):
        blur(MAPS, sigma)
    with pytest.raises(ValueError, match="'zero' or 'inside', not 'wrap'"):
        blur(MAPS, 1, border="wrap")


def test_the_four_steps():
    maps = saliency_map(SEEN, 1.0)
    assert maps.dtype == torch.float64 and maps.shape == (3, 10, 14)
    # Two fixations in one pixel weigh twice as much as one elsewhere, and far away from it.
    assert maps[0, 2, 3] == 1 and float(maps[0, 9, 10]) == pytest.approx(0.5, abs=1e-6)
    assert maps[1].argmax() == 0 and maps[1].max() == 1
    assert torch.equal(maps[2], torch.zeros(10, 14, dtype=torch.float64))  # nobody looked
    assert torch.equal(saliency_map(SEEN, 0)[0], SEEN.counts()[0] / 2)


def test_an_observer_without_fixations_changes_nothing():
    assert torch.equal(saliency_map(SEEN, 2.0)[1], saliency_map(SEEN.by(0), 2.0)[1])
    assert torch.equal(saliency_map(SEEN.by(1), 2.0)[1], torch.zeros(10, 14, dtype=torch.float64))


def test_one_pixel():
    seen = Fixations.of([[[(0.5, 0.5)] * 3]], (1, 1))
    assert saliency_map(seen, 4.0).item() == 1 and density(saliency_map(seen, 4.0)).item() == 1


def test_ranges():
    maps = torch.tensor([[[2.0, 4.0]], [[3.0, 3.0]], [[0.0, 0.0]], [[-1.0, 1.0]]])
    assert rescaled(maps[:3]).flatten(1).tolist() == [[0.5, 1], [1, 1], [0, 0]]
    assert stretched(maps).flatten(1).tolist() == [[0, 1], [0, 0], [0, 0], [0, 1]]


def test_densities_sum_to_one():
    maps = torch.stack([MAPS[0], MAPS[1] * 1e-300, MAPS[0] * 1e300, torch.zeros(10, 14, dtype=torch.float64)])
    found = density(maps)
    torch.testing.assert_close(found.sum((1, 2)), torch.ones(4, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(found[2], MAPS[0] / MAPS[0].sum(), rtol=1e-12, atol=0)
    assert (found[3] == 1 / 140).all()
    assert density(torch.ones(1, 2, 2, dtype=torch.float16)).dtype == torch.float64
    for wrong in (-1e-9, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="holds no negative, infinite or missing value"):
            density(torch.tensor([[[1.0, wrong]]]))


def test_the_centre_bias_is_in_the_centre():
    bias = centre_bias((9, 15), 0.25)
    assert bias[4, 7] == bias.max() == 1
    assert torch.allclose(bias, bias.flip(0)) and torch.allclose(bias, bias.flip(1))
    # One standard deviation to the side: a quarter of the width.
    wide = centre_bias((1, 101), 0.2)[0]
    assert float(wide[50 + 20]) == pytest.approx(math.exp(-((20 / 101 / 0.2) ** 2) / 2), rel=1e-12)
    assert centre_bias((1, 1)).item() == 1
    with pytest.raises(ValueError, match="positive share"):
        centre_bias((4, 4), 0)


def test_elsewhere_is_every_other_picture():
    counts = SEEN.counts()
    found = elsewhere(SEEN)
    for n in range(3):
        assert torch.equal(found[n], sum(counts[m] for m in range(3) if m != n))
    with pytest.raises(ValueError, match="at least two pictures"):
        elsewhere(SEEN.on([0]))
