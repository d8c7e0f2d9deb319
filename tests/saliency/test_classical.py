"""What the three classical models have in common."""

import pytest
import torch

from attnlib.saliency.graph_based import graph_based
from attnlib.saliency.itti_koch import itti_koch
from attnlib.saliency.spectral_residual import spectral_residual

MODELS = {"spectral_residual": spectral_residual, "itti_koch": itti_koch, "graph_based": graph_based}
PICTURES = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))


def odd_one_out(background, spot, size=(96, 128), at=(60, 84), side=10):
    """Patches of one kind on a regular grid, one of which is of another kind."""
    picture = torch.tensor(background)[None, :, None, None].repeat(1, 1, *size)
    top, left = at
    picture[..., top : top + side, left : left + side] = torch.tensor(spot)[:, None, None]
    return picture


def peak(found, at=(60, 84), side=10, margin=8):
    """Whether the maximum of the map lies on the patch, or next to it."""
    row, column = divmod(int(found[0].argmax()), found.shape[2])
    return all(start - margin <= place < start + side + margin for place, start in zip((row, column), at))


@pytest.mark.parametrize("name", MODELS)
def test_shape_range_and_dtype(name):
    for pictures in (PICTURES, PICTURES.double(), PICTURES[:, :1]):
        found = MODELS[name](pictures)
        assert found.shape == (2, 40, 56) and found.dtype == pictures.dtype
        assert (found.amin((1, 2)) == 0).all() and (found.amax((1, 2)) == 1).all()


@pytest.mark.parametrize("name", MODELS)
def test_pictures_do_not_influence_each_other(name):
    together = MODELS[name](PICTURES.double())
    for n in range(2):
        torch.testing.assert_close(MODELS[name](PICTURES[n : n + 1].double())[0], together[n], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_a_bright_spot_stands_out(name):
    assert peak(MODELS[name](odd_one_out((0.2, 0.2, 0.2), (0.9, 0.9, 0.9))))


@pytest.mark.parametrize("name", ["itti_koch", "graph_based"])
def test_a_colour_of_the_same_brightness_stands_out(name):
    picture = odd_one_out((0.0, 0.6, 0.0), (0.6, 0.0, 0.0))
    assert peak(MODELS[name](picture))
    assert (MODELS[name](picture.mean(1, keepdim=True)) == 0).all()  # nothing is left without the colour


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 1, 1, 7), (1, 3, 5, 2), (1, 1, 33, 47)])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_picture_has_nothing_salient(name, shape, value):
    for dtype in (torch.float32, torch.float64):
        found = MODELS[name](torch.full(shape, value, dtype=dtype))
        assert torch.equal(found, torch.zeros(shape[0], *shape[2:], dtype=dtype))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(1, 2), (1, 9), (3, 3), (17, 5), (64, 65)])
def test_small_and_odd_sizes(name, size):
    found = MODELS[name](torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)))
    assert found.shape == (1, *size) and found.isfinite().all() and 0 <= found.min() and found.max() <= 1


@pytest.mark.parametrize("name", MODELS)
def test_what_is_no_picture_is_refused(name):
    with pytest.raises(ValueError, match="4 channels"):
        MODELS[name](torch.rand(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        MODELS[name](torch.rand(3, 8, 8))
    with pytest.raises(TypeError, match="floating-point"):
        MODELS[name](torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("name", MODELS)
def test_pictures_are_left_as_they_are(name):
    before = PICTURES.clone()
    MODELS[name](PICTURES)
    assert torch.equal(PICTURES, before)
