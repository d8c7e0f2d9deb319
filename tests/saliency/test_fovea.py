import math

import pytest
import torch

from attnlib.saliency import fovea
from attnlib.saliency.fovea import FOVEAL_CUTOFF, HALF_ACUITY, blur_width, blurred, cutoff, eccentricity, foveate

X = torch.rand(2, 3, 21, 34, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
AT = (12.5, 9.5)  # the middle of the pixel in row 9, column 12


# -- the model of acuity ----------------------------------------------------------------------------------------------


def test_the_constants_of_geisler_and_perry():
    # ln 64 = 6 ln 2 = 4.1589, over 0.106.
    assert HALF_ACUITY == 2.3 and FOVEAL_CUTOFF == pytest.approx(39.2346, abs=1e-3)


def test_acuity_is_half_at_2_3_degrees_and_a_quarter_at_three_times_that():
    found = cutoff(torch.tensor([0, 2.3, 6.9], dtype=torch.float64), foveal=40)
    torch.testing.assert_close(found, torch.tensor([40, 20, 10], dtype=torch.float64))


def test_a_grating_at_the_cutoff_has_half_its_contrast_left():
    """Blur and pixel limit together, by the transfer function exp(−2π²σ²f²) of a Gaussian."""
    away, step = torch.linspace(0, 30, 50, dtype=torch.float64), 0.05
    both = blur_width(away, step).square() + 2 * math.log(2) / math.pi**2
    finest = step * cutoff(away, 0.5 / step)  # in cycles per pixel
    left = (-2 * math.pi**2 * both * finest.square()).exp()
    torch.testing.assert_close(left, torch.full_like(left, 0.5))


def test_blur_is_none_where_the_eye_sees_more_than_the_picture_holds():
    # 10 cycles per degree are the finest at 1/20 degree; acuity of 40 falls to that at 3 × 2.3 degrees.
    away = torch.tensor([0, 6.8, 6.9, 7.0, 20.0], dtype=torch.float64)
    found = blur_width(away, 0.05, foveal=40)
    assert (found[:2] == 0).all() and found[2] < 1e-6 and found[4] > found[3] > 0


def test_blur_never_falls_with_eccentricity():
    assert (blur_width(torch.linspace(0, 60, 500), 0.1).diff() > 0).all()


def test_blur_needs_an_angle_above_0():
    with pytest.raises(ValueError, match="degrees_per_pixel is above 0"):
        blur_width(torch.zeros(1), 0)


def test_eccentricity_by_hand():
    found = eccentricity((4, 6), (2.5, 1.5), 0.5)
    assert found.shape == (1, 4, 6) and found[0, 1, 2] == 0
    assert found[0, 1, 5] == 1.5 and found[0, 3, 2] == 1 and found[0, 2, 3] == pytest.approx(0.5 * math.sqrt(2))
    assert torch.equal(eccentricity((4, 6), torch.tensor([[2.5, 1.5], [0, 3]]), 0.5)[0], found[0])


# -- the blurred copies -----------------------------------------------------------------------------------------------


def test_a_blurred_point_has_exactly_the_variance_asked_for():
    point = torch.zeros(1, 1, 81, 61, dtype=torch.float64)
    point[..., 40, 30] = 1
    rows, columns = torch.arange(81.0) - 40, torch.arange(61.0) - 30
    for variance, copy in zip((0.01, 1.7, 9.0), blurred(point, (0.01, 1.7, 9.0))):
        assert copy.sum() == pytest.approx(1, abs=1e-12) and copy.min() > -1e-14
        assert (copy.sum((0, 1, 3)) * rows.square()).sum() == pytest.approx(variance, abs=1e-9)
        assert (copy.sum((0, 1, 2)) * columns.square()).sum() == pytest.approx(variance, abs=1e-9)


def test_a_wide_blur_is_that_of_the_continuous_gaussian():
    scipy = pytest.importorskip("scipy.ndimage", reason="scipy is not installed")
    expected = scipy.gaussian_filter(X.numpy(), (0, 0, 3, 3), mode="reflect", truncate=8)
    # The sampled and the discrete Gaussian differ by a few thousandths at this width.
    torch.testing.assert_close(blurred(X, (9.0,))[0], torch.from_numpy(expected), atol=3e-3, rtol=0)


def test_two_blurs_after_each_other_add_their_variances():
    torch.testing.assert_close(blurred(blurred(X, (2.0,))[0], (3.0,))[0], blurred(X, (5.0,))[0])


def test_a_blur_keeps_mean_and_range_and_ends_in_the_mean():
    some, all_of_it = blurred(X, (4.0, 1e6))
    torch.testing.assert_close(some.mean((2, 3)), X.mean((2, 3)))
    assert some.min() >= X.min() and some.max() <= X.max()
    torch.testing.assert_close(all_of_it, X.mean((2, 3), keepdim=True).expand_as(X))


# -- the foveated picture ---------------------------------------------------------------------------------------------


def test_the_centre_is_unchanged_bit_for_bit_and_nothing_else_is():
    y = foveate(X, AT, 0.1)
    assert torch.equal(y[:, :, 9, 12], X[:, :, 9, 12])
    assert ((y == X).all((0, 1)).sum() == 1) and y.shape == X.shape and y.dtype == X.dtype


def test_all_that_the_eye_sees_sharply_is_unchanged():
    y = foveate(X, AT, 0.05, foveal=12)  # sharp up to 0.2 × 2.3 degrees, 9.2 pixels
    sharp = eccentricity((21, 34), AT, 1.0)[0] < 9.2
    assert torch.equal(y[..., sharp], X[..., sharp]) and not (y == X).all((0, 1))[~sharp].any()
    assert torch.equal(foveate(X, AT, 0.05, foveal=FOVEAL_CUTOFF), X)


def test_each_pixel_is_the_naive_mix_of_two_blurred_copies():
    y, wanted = foveate(X, AT, 1.0), blur_width(eccentricity((21, 34), AT, 1.0)[0], 1.0).square()
    levels = [0.0, 0.25, 1.0, 4.0, 16.0, 64.0]
    assert 4 < wanted.max() < 64
    copies = blurred(X, levels)
    for row in range(21):
        for column in range(34):
            variance = float(wanted[row, column])
            k = max(i for i in range(5) if levels[i] <= variance)
            share = (variance - levels[k]) / (levels[k + 1] - levels[k])
            expected = (1 - share) * copies[k][:, :, row, column] + share * copies[k + 1][:, :, row, column]
            torch.testing.assert_close(y[:, :, row, column], expected, atol=1e-12, rtol=0)


def test_every_pixel_gathers_from_as_far_as_its_blur_says():
    """The weights with which a pixel is made of the others, by its gradient: their variance is that of `blur_width`."""
    x = torch.rand(1, 1, 41, 81, dtype=torch.float64, requires_grad=True)
    for column in (12, 20, 40):
        variance = float(blur_width(torch.tensor(0.1 * (column - 10), dtype=torch.float64), 0.1)) ** 2
        (weights,) = torch.autograd.grad(foveate(x, (10.5, 20.5), 0.1)[0, 0, 20, column], x)
        rows = (torch.arange(41.0) - 20).square()[:, None]
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        assert (weights[0, 0] * rows).sum() == pytest.approx(variance, rel=1e-6)


def test_detail_falls_steadily_with_the_distance():
    grating = torch.tensor([0.0, 1]).double().repeat(60).expand(1, 1, 31, 120)
    y = foveate(grating, (0.5, 15.5), 0.1)[0, 0, 15, 1:100]  # the mirror image begins behind the last pixel
    contrast = (y - 0.5).abs()
    assert (contrast.diff() < 0).all() and contrast[0] > 0.45 and contrast[-1] < 0.01


def test_a_constant_picture_is_unchanged():
    flat = torch.full((1, 3, 17, 23), 0.3, dtype=torch.float64)
    torch.testing.assert_close(foveate(flat, (20, 3), 1.0), flat, atol=1e-14, rtol=0)


def test_values_stay_in_the_range_of_the_picture():
    y = foveate(X.round(), AT, 0.5)
    assert y.min() > -1e-12 and y.max() < 1 + 1e-12


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 3), (15, 16)])
def test_any_size(size):
    x = torch.rand(1, 1, *size, dtype=torch.float64)
    y = foveate(x, (0.5, 0.5), 2.0)
    assert y.shape == x.shape and y[0, 0, 0, 0] == x[0, 0, 0, 0] and y.isfinite().all()
    if size == (1, 1):
        assert torch.equal(y, x)


def test_pictures_of_a_batch_have_their_own_fixation():
    fixations = torch.tensor([[0.0, 0], [33, 20]])
    y = foveate(X, fixations, 0.1)
    for number in range(2):
        alone = foveate(X[number : number + 1], fixations[number], 0.1)
        torch.testing.assert_close(y[number : number + 1], alone, atol=1e-13, rtol=0)
    assert foveate(X[:0], AT, 0.1).shape == (0, 3, 21, 34)


def test_mirroring_picture_and_fixation_mirrors_the_result():
    torch.testing.assert_close(foveate(X.flip(3), (34 - 12.5, 9.5), 0.1), foveate(X, AT, 0.1).flip(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_precisions(dtype):
    x = X.to(dtype)
    y = foveate(x, AT, 0.1)
    assert y.dtype == dtype and torch.equal(y[:, :, 9, 12], x[:, :, 9, 12])
    torch.testing.assert_close(y.double(), foveate(x.double(), AT, 0.1), atol=float(torch.finfo(dtype).eps) * 8, rtol=0)


@pytest.mark.parametrize("at", [(0, 0), (33.999, 20.999), (33.5, 0), (0, 20.5)])
def test_a_fixation_at_the_border_is_inside(at):
    assert foveate(X, at, 0.1).isfinite().all()


@pytest.mark.parametrize("at", [(-0.1, 3), (34, 3), (3, 21), (3, -1), (math.nan, 3), (3, math.inf)])
def test_a_fixation_outside_is_refused(at):
    with pytest.raises(ValueError, match="lies outside the picture, which is 34 pixels wide and 21 high"):
        foveate(X, at, 0.1)


@pytest.mark.parametrize("arguments, options, error, says", [
    (((X * 255).byte(), AT, 0.1), {}, TypeError, "floating-point"),
    ((X[0], AT, 0.1), {}, ValueError, "(B, C, H, W)"), ((X[..., :0], AT, 0.1), {}, ValueError, "at least one pixel"),
    ((X / 0, AT, 0.1), {}, ValueError, "NaN or infinite"), ((X, (1, 2, 3), 0.1), {}, ValueError, "x and y"),
    ((X, torch.zeros(3, 2), 0.1), {}, ValueError, "each of the 2 pictures"),
    ((X, AT, 0), {}, ValueError, "degrees_per_pixel is above 0"),
    ((X, AT, math.nan), {}, ValueError, "degrees_per_pixel is above 0"),
    ((X, AT, 0.1), {"foveal": 0}, ValueError, "foveal is above 0"),
    ((X, AT, 0.1), {"half_acuity": -1}, ValueError, "half_acuity is above 0"),
])
def test_bad_input_is_refused_in_one_sentence(arguments, options, error, says):
    with pytest.raises(error) as refused:
        foveate(*arguments, **options)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_the_module_needs_torch_alone():
    assert "numpy" not in vars(fovea) and "scipy" not in vars(fovea)
