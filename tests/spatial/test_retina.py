import math

import pytest
import torch

from attnlib.spatial.retina import boxes, corners, covered, retina

ROWS, COLUMNS = 10, 14


def pictures(batch=3, channels=2, rows=ROWS, columns=COLUMNS):
    return torch.rand(batch, channels, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def somewhere(*shape, reach=1.6):
    """Places inside, at the edge and beyond."""
    return (2 * torch.rand(*shape, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) - 1) * reach


def first(place, size, side):
    return math.floor(((place + 1) * size - side) / 2 + 0.5)


def naive(x, locations, patch, scales, fill):
    """Pixel by pixel."""
    batch, channels, rows, columns = x.shape
    seen = torch.zeros(batch, locations.shape[1], scales, channels, patch, patch, dtype=x.dtype)
    for b in range(batch):
        for n, (u, v) in enumerate(locations[b].tolist()):
            for scale in range(scales):
                times = 2**scale
                left, top = first(u, columns, patch * times), first(v, rows, patch * times)
                for i in range(patch * times):
                    for j in range(patch * times):
                        r, c = top + i, left + j
                        inside = 0 <= r < rows and 0 <= c < columns
                        value = x[b, :, r, c] if inside else torch.full((channels,), fill, dtype=x.dtype)
                        seen[b, n, scale, :, i // times, j // times] += value / times**2
    return seen


@pytest.mark.parametrize("patch, scales", [(1, 1), (3, 1), (4, 1), (3, 3), (4, 2), (5, 2), (16, 1)])
@pytest.mark.parametrize("fill", [0.0, -0.4])
def test_it_is_the_naive_one(patch, scales, fill):
    x, locations = pictures(), somewhere(3, 5)
    expected = naive(x, locations, patch, scales, fill)
    torch.testing.assert_close(retina(x, locations, patch, scales, fill), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("patch", [1, 2, 3, 4])
@pytest.mark.parametrize("rows, columns", [(7, 9), (8, 6)])
def test_the_smallest_patch_holds_pixels_of_the_picture_untouched(patch, rows, columns):
    x = pictures(rows=rows, columns=columns).float()
    top, left = 2, 1
    middle = torch.tensor([(2 * left + patch) / columns - 1, (2 * top + patch) / rows - 1]).expand(3, 1, 2)
    expected = x[:, :, top : top + patch, left : left + patch]
    assert torch.equal(retina(x, middle, patch)[:, 0, 0], expected)


def test_one_wide_patch_is_the_picture_reduced():
    x = pictures(rows=8, columns=8)
    middle = torch.zeros(3, 1, 2, dtype=torch.float64)
    expected = torch.nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(retina(x, middle, 4, 2)[:, 0, 1], expected, rtol=0, atol=1e-15)


def test_x_is_columns_and_y_is_rows():
    x = torch.zeros(1, 1, 4, 8)
    x[0, 0, 0, 7] = 1  # the upper right corner
    corner = torch.tensor([[[1 - 1 / 8, -1 + 1 / 4]]])
    assert retina(x, corner, 1).item() == 1


def test_outside_there_is_the_ground_alone():
    x = pictures()
    far = torch.tensor([[[9.0, 0], [0, -9], [-1e30, 1e30], [math.inf, 0], [1.6, 0]]]).expand(3, -1, -1)
    seen = retina(x, far, 4, 2, fill=0.25)
    assert torch.equal(seen[:, :4], torch.full_like(seen[:, :4], 0.25))
    # The wide patch of the last, eight pixels around column 18, begins in the first column outside.
    assert corners(far[0, 4], ROWS, COLUMNS, 8)[0] == COLUMNS and torch.equal(seen[:, 4], seen[:, 0])


def test_in_a_corner_three_quarters_are_outside():
    x = pictures()
    seen = retina(x, torch.full((3, 1, 2), -1.0), 4, fill=-1.0)[:, 0, 0]
    assert torch.equal(seen[:, :, 2:, 2:], x[:, :, :2, :2])
    assert (seen[:, :, :2] == -1).all() and (seen[:, :, :, :2] == -1).all()


def test_places_may_have_any_axes():
    x, locations = pictures(), somewhere(3, 2, 2)
    seen = retina(x, locations, 3, 2)
    assert seen.shape == (3, 2, 2, 2, 2, 3, 3)
    assert torch.equal(seen[:, 1, 0], retina(x, locations[:, 1, 0], 3, 2))
    assert retina(x, locations[:, 0, 0], 3, 2).shape == (3, 2, 2, 3, 3)
    assert retina(x, locations[:, 0, :0], 3, 2).shape == (3, 0, 2, 2, 3, 3)
    assert retina(x[:0], locations[:0], 3, 2).shape == (0, 2, 2, 2, 2, 3, 3)


def test_pictures_of_a_batch_do_not_see_each_other():
    x, locations = pictures(), somewhere(3, 4)
    assert torch.equal(retina(x, locations, 3, 2)[1:2], retina(x[1:2], locations[1:2], 3, 2))


def test_gradient_reaches_the_pixels_and_not_the_place():
    x, locations = pictures(batch=2).requires_grad_(), somewhere(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: retina(x, locations.detach(), 3, 2), (x,))
    assert torch.autograd.grad(retina(x, locations, 3, 2).sum(), locations, allow_unused=True) == (None,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_type_and_layout_of_the_picture_are_kept(dtype):
    x, locations = pictures().to(dtype), somewhere(3, 4).float()
    seen = retina(x, locations, 3, 1)
    assert seen.dtype == dtype
    assert torch.equal(seen, retina(x.contiguous(memory_format=torch.channels_last), locations, 3))
    torch.testing.assert_close(seen.double(), retina(pictures(), locations, 3, 1), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("side", [1, 3, 4, 8])
def test_covered_pixels_are_those_in_a_box(side):
    locations = somewhere(3, 4)
    expected = torch.zeros(3, ROWS, COLUMNS, dtype=torch.bool)
    for b, row in enumerate(boxes(locations, ROWS, COLUMNS, side).tolist()):
        for left, top, right, bottom in row:
            expected[b, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    assert torch.equal(covered(locations, ROWS, COLUMNS, side), expected)


def test_covered_pixels_are_counted_once():
    twice = torch.zeros(1, 2, 2)
    assert covered(twice, ROWS, COLUMNS, 4).sum() == 16
    assert not covered(twice[:, :0], ROWS, COLUMNS, 4).any()


def test_boxes_by_hand():
    places = torch.tensor([[0.0, 0.0], [-1, -1], [1, 0]])
    assert boxes(places, 10, 14, 4).tolist() == [[5, 3, 9, 7], [-2, -2, 2, 2], [12, 3, 16, 7]]
    assert boxes(places[0], 10, 14, 3).tolist() == [6, 4, 9, 7]  # from halfway, right and down


def test_all_picture_is_seen_whatever_the_place_in_half_precision():
    """In bfloat16 a place's own steps are coarse, but the arithmetic adds nothing to that."""
    locations = somewhere(3, 50).to(torch.bfloat16)
    assert torch.equal(boxes(locations, 200, 300, 8), boxes(locations.float(), 200, 300, 8))


@pytest.mark.parametrize("wrong, message", [
    (dict(patch=0), "patch is a whole number"), (dict(scales=0), "scales is a whole number"),
    (dict(patch=2.0), "patch is a whole number"), (dict(locations=torch.zeros(2, 1, 2)), r"places \(B, …, 2\)"),
    (dict(locations=torch.zeros(3, 1, 3)), r"places \(B, …, 2\)"), (dict(locations=torch.zeros(3)), r"places \(B"),
])
def test_wrong_arguments_are_told(wrong, message):
    with pytest.raises(ValueError, match=message):
        retina(pictures(), **dict(locations=torch.zeros(3, 1, 2)) | wrong)
