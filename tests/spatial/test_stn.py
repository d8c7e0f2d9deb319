import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnlib import create, switch_off
from attnlib.spatial.stn import SpatialTransformer, localisation_network, sample
from attnlib.spatial.transforms import TRANSFORMS

ROWS, COLUMNS = 10, 14


def pictures(batch=3, channels=2, rows=ROWS, columns=COLUMNS):
    return torch.rand(batch, channels, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def made(transform="affine", **options):
    torch.manual_seed(0)
    return create("stn", 2, transform=transform, **options).double().eval()




def read(x, grid, align_corners, fill):
    """Bilinear interpolation, pixel by pixel."""
    batch, channels, rows, columns = x.shape
    y = torch.empty(batch, channels, *grid.shape[1:3], dtype=x.dtype)
    for b in range(batch):
        for i in range(grid.shape[1]):
            for j in range(grid.shape[2]):
                u, v = grid[b, i, j].tolist()
                if align_corners:
                    column, row = (u + 1) / 2 * (columns - 1), (v + 1) / 2 * (rows - 1)
                else:
                    column, row = ((u + 1) * columns - 1) / 2, ((v + 1) * rows - 1) / 2
                left, top = math.floor(column), math.floor(row)
                value = torch.zeros(channels, dtype=x.dtype)
                for r, across in ((top, 1 - (row - top)), (top + 1, row - top)):
                    for c, along in ((left, 1 - (column - left)), (left + 1, column - left)):
                        inside = 0 <= r < rows and 0 <= c < columns
                        value += across * along * (x[b, :, r, c] if inside else fill)
                y[b, :, i, j] = value
    return y


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("size", [(10, 14), (1, 1), (1, 7), (9, 9), (28, 28)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_identity_returns_the_picture(transform, size, align_corners):
    module = made(transform, align_corners=align_corners)
    x = pictures(rows=size[0], columns=size[1])
    torch.testing.assert_close(module(x), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_identity_in_float32(transform):
    x = pictures(rows=33, columns=20).float()
    torch.testing.assert_close(made(transform).float()(x), x, rtol=0, atol=2e-5)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_switched_off_is_the_identity(transform):
    module = made(transform)
    nn.init.normal_(module.coefficients.weight, std=0.2)
    x = pictures()
    assert (module(x) - x).abs().max() > 0.01
    with switch_off(module):
        torch.testing.assert_close(module(x), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("fill", [0.0, -0.4])
def test_sampler_is_the_naive_one(align_corners, fill):
    x = pictures(batch=2)
    grid = 2.6 * torch.rand(2, 5, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) - 1.3
    expected = read(x, grid, align_corners, fill)
    torch.testing.assert_close(sample(x, grid, fill=fill, align_corners=align_corners), expected)


@pytest.mark.parametrize("align_corners", [False, True])
def test_affine_is_that_of_torch(align_corners):
    module = made(size=(6, 9), align_corners=align_corners)
    x, theta = pictures(), torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    grid = F.affine_grid(theta.view(3, 2, 3), (3, 2, 6, 9), align_corners=align_corners)
    expected = F.grid_sample(x, grid, align_corners=align_corners)
    torch.testing.assert_close(module.use(x, theta), expected)


def test_window_is_cut_out():
    """A scale of a half around the middle of the right half shows the right half's middle, pixel for pixel."""
    x = pictures(rows=8, columns=8)
    module = made("crop", size=(4, 4))
    window = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).expand(3, -1)
    torch.testing.assert_close(module.use(x, window), x[:, :, 2:6, 4:8])


def test_quarter_turn_is_a_quarter_turn():
    x = pictures(rows=9, columns=9)
    module = made("rotation")
    quarter = torch.full((3, 1), math.pi / 2, dtype=torch.float64)
    # The output's upper left corner shows the input's upper right one.
    torch.testing.assert_close(module.use(x, quarter), x.rot90(1, (2, 3)))


def test_an_object_outside_gives_the_ground_alone():
    module = made("translation", fill=0.25)
    far = torch.tensor([[3.0, 0.0]], dtype=torch.float64).expand(3, -1)
    assert torch.equal(module.use(pictures(), far), torch.full((3, 2, ROWS, COLUMNS), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("padding", ["border", "reflection"])
def test_edges_can_go_on(padding):
    module = made("translation", padding=padding)
    x = pictures()
    aside = torch.tensor([[2 / COLUMNS, 0.0]], dtype=torch.float64).expand(3, -1)  # one pixel
    expected = torch.cat([x[..., 1:], x[..., -1:]], -1)  # the nearest pixel is also its own mirror image
    torch.testing.assert_close(module.use(x, aside), expected)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_gradient_reaches_the_coefficients(transform):
    module = made(transform, size=(3, 4))
    x = pictures(batch=2, rows=6, columns=5).requires_grad_()
    # Away from the identity, where places lie on pixels and interpolation has a kink.
    rng = torch.Generator().manual_seed(4)
    theta = torch.tensor(module.transform.identity, dtype=torch.float64)
    theta = (0.9 * theta + 0.11 * torch.rand(2, len(theta), dtype=torch.float64, generator=rng)).requires_grad_()
    assert torch.autograd.gradcheck(module.use, (x, theta))


def test_it_learns_to_undo_a_shift():
    """From pictures of one spot, off the middle by a known amount, to pictures with it in the middle."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(5)
    line = (torch.arange(16) + 0.5) / 8 - 1
    at = 0.8 * torch.rand(256, 2, generator=rng) - 0.4
    spot = torch.exp(-8 * ((line[None, :, None] - at[:, 1, None, None])**2 + (line - at[:, 0, None, None])**2))[:, None]
    goal = torch.exp(-8 * (line[:, None]**2 + line**2)).expand_as(spot)
    module = create("stn", 1, transform="translation")
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        (module(spot) - goal).square().mean().backward()
        optimizer.step()
    error = (module.attend(spot) - at).abs().mean()
    assert error < 0.05 < 0.15 < at.abs().mean()


def test_parameters_are_those_of_the_parts():
    count = sum(p.numel() for p in SpatialTransformer(3).parameters())
    # Two convolutions with 16 channels, 16·16 means to 32, and 32 to the six.
    assert count == (3 * 9 + 1) * 16 + (16 * 9 + 1) * 16 + (16 * 16 + 1) * 32 + (32 + 1) * 6


def test_own_localisation_network():
    own = nn.Sequential(nn.Flatten(), nn.Linear(2 * ROWS * COLUMNS, 7), nn.Tanh())
    module = create("stn", 2, localisation=own, features=7).double()
    x = pictures()
    torch.testing.assert_close(module(x), x, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"gives \(B, 9\), not \(3, 7\)"):
        create("stn", 2, localisation=own, features=9).double()(x)


def test_output_may_have_another_size():
    module = made(size=5)
    assert module(pictures()).shape == (3, 2, 5, 5) and not module.describe().drop_in
    assert made().describe().drop_in and made("thin_plate").describe().shape == ("B", 32)
    assert localisation_network(2, 8)(pictures(rows=1, columns=1).float()).shape == (3, 8)


@pytest.mark.parametrize("wrong, message", [
    (dict(transform="shear"), "one of affine, crop"), (dict(padding="zeros"), "one of fill, border"),
    (dict(features=1), "a whole number from 2 up"), (dict(fill="grey"), "fill is a finite number, not 'grey'"), (dict(size=(0, 4)), "at least one pixel"), (dict(size=(4,)), "a height and a width"),
])
def test_wrong_arguments_are_told(wrong, message):
    with pytest.raises(ValueError, match=message):
        create("stn", 2, **wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_does_not_move_the_picture(dtype):
    """In bfloat16 the places of 200 pixels would be wrong by up to a third of one."""
    module = made("affine").float()
    nn.init.normal_(module.coefficients.weight, std=0.1)
    x = pictures(rows=40, columns=200).float().to(dtype)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        seen, y = module.attend(x), module(x)
        twin = module.use(x.double(), seen.double())
    assert seen.dtype == torch.float32 and y.dtype == dtype
    rounding = 1e-4 if dtype == torch.float32 else 0.005
    torch.testing.assert_close(y.double(), twin, rtol=0, atol=rounding)
