import os
from pathlib import Path

import pytest
import torch

import attnlib.data
from attnlib.data import Pictures, digits, warped_digits
from attnlib.data._warps import _field, _unfolded
from attnlib.data.warped import WARPS
from attnlib.spatial.stn import sample
from attnlib.spatial.transforms import places, transform

FAMILIES = {6: "affine", 8: "projective", 32: "thin_plate"}
ROUND = dict(rotation=0.0, scale=(1.0, 1.0), shift=0.0, projective=0.0, elastic=0.0, clutter=0)


def mapped(coefficients, at):
    """Where the places `at` (P, 2) of the upright picture lie, by the chapter's own maps: (N, P, 2)."""
    return transform(FAMILIES[coefficients.shape[1]])(coefficients, at)


def spot(side=9, row=4, column=4):
    """A source with one bright pixel."""
    images = torch.zeros(1, 1, side, side)
    images[0, 0, row, column] = 1
    return Pictures(images, torch.tensor([3]), tuple("0123456789"))


@pytest.mark.parametrize("warp, size, count", [
    ("none", 28, 6), ("rotation", 28, 6), ("rts", 42, 6), ("projective", 28, 8), ("elastic", 28, 32),
    ("translation", 60, 6), ("clutter", 60, 6),
])
def test_shapes_and_types(warp, size, count):
    data = warped_digits(20, warp)
    assert data.images.shape == (20, 1, size, size) and data.images.dtype == torch.float32
    assert data.images.min() == 0 and data.images.max() <= 1
    assert data.labels.shape == (20,) and data.labels.dtype == torch.int64 and data.classes == tuple("0123456789")
    shapes = {what: tuple(tensor.shape[1:]) for what, tensor in data.truth.items()}
    assert shapes == {"map": (count,), "angle": (), "scale": (), "centre": (2,), "mask": (size, size), "box": (4,),
                      "source": ()}
    assert attnlib.data.WARPS is WARPS and data.name == f"digits, {warp}" and "Alpaydin" in data.source


# -- the truth --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warp", [warp for warp in WARPS if warp != "none"])
def test_the_true_map_gives_the_upright_digit_back(warp):
    """Sampled where the map says, each picture is the unwarped one, but for what interpolation costs."""
    upright = warped_digits(100, "none", 56, digit=32, seed=3).images
    data = warped_digits(100, warp, 56, digit=32, seed=3, clutter=0)
    theta = data.truth["map"]
    back = sample(data.images, mapped(theta, places(56, 56, theta)).unflatten(1, (56, 56)))
    before, after = ((images - upright).abs().mean((1, 2, 3)) for images in (data.images, back))
    assert after.mean() < 0.008 < 0.03 < before.mean() and after.max() < 0.03


@pytest.mark.parametrize("warp", [warp for warp in WARPS if warp != "none"])
def test_the_map_is_exact(warp):
    """A spot off the middle is found where the map says, to a fraction of a pixel."""
    size, digit = 80, 72
    data = warped_digits(50, warp, size, digit=digit, source=spot(9, 2, 5), clutter=0, seed=1)
    # Pixel 5 of 9 across and 2 of 9 down, in a square that is 72/80 of the picture.
    at = torch.tensor([[(2 * 5 + 1) / 9 - 1, (2 * 2 + 1) / 9 - 1]]) * digit / size
    expected = (mapped(data.truth["map"], at)[:, 0] + 1) * size / 2 - 0.5
    weights = data.images[:, 0].double() ** 4  # the brightest part of the spot, which is many pixels wide
    line = torch.arange(size, dtype=torch.float64)
    total = weights.sum((1, 2))
    found = torch.stack([(weights.sum(axis) * line).sum(1) / total for axis in (1, 2)], 1)
    inside = ((expected > 8) & (expected < size - 9)).all(1)
    assert inside.sum() > 20
    assert (found - expected)[inside].norm(dim=1).max() < 1.0 and (found - expected)[inside].norm(dim=1).mean() < 0.3


def test_rotation_turns_clockwise_by_the_angle():
    data = warped_digits(200, "rotation", 41, digit=41, source=spot(9, 4, 7), seed=2)
    angle = data.truth["angle"]
    assert angle.abs().max() < torch.pi / 2 and angle.min() < -1.4 and angle.max() > 1.4
    row, column = (data.images[:, 0].amax(axis).argmax(1) - 20 for axis in (2, 1))
    seen = torch.atan2(row.float(), column.float())  # rows count downwards, so this is clockwise
    assert (seen - angle).abs().max() < 0.12


def test_rts_keeps_within_its_ranges_and_its_map_is_made_of_them():
    truth = warped_digits(500, "rts").truth
    assert truth["angle"].abs().max() <= torch.pi / 4 and 0.7 <= truth["scale"].min() and truth["scale"].max() <= 1.2
    cos, sin = truth["angle"].cos() * truth["scale"], truth["angle"].sin() * truth["scale"]
    x, y = truth["centre"].unbind(1)
    torch.testing.assert_close(truth["map"], torch.stack([cos, -sin, x, sin, cos, y], 1))


@pytest.mark.parametrize("rotation", [0.0, 60.0])
def test_full_shift_reaches_the_edges_and_stays_inside(rotation):
    full = Pictures(torch.ones(1, 1, 20, 20), torch.zeros(1).long())
    data = warped_digits(1_000, "translation", 30, rotation=rotation, source=full)
    box = data.truth["box"]
    assert box.min() == 0 and box.max() == 30
    area = data.images.sum((1, 2, 3))  # nothing is lost outside
    torch.testing.assert_close(area, torch.full_like(area, 400.0), rtol=0.02, atol=0)


def test_more_shift_leaves_the_canvas_and_an_empty_picture_has_an_empty_box():
    data = warped_digits(300, "translation", 30, shift=8.0)
    gone = ~data.truth["mask"].flatten(1).any(1)
    assert 0 < gone.sum() < 300 and (data.truth["box"][gone] == 0).all() and (data.images[gone] < 0.3).all()


@pytest.mark.parametrize("warp", WARPS)
def test_mask_and_box_are_those_of_the_digit_alone(warp):
    data, clean = (warped_digits(50, warp, 44, clutter=clutter) for clutter in (12, 0))
    assert torch.equal(data.truth["mask"], clean.images[:, 0] > 0.3)
    assert torch.equal(data.truth["mask"], clean.truth["mask"])
    for mask, box in zip(data.truth["mask"], data.truth["box"].long().tolist()):
        rows, columns = mask.nonzero(as_tuple=True)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


# -- what is shared, and what is kept apart ---------------------------------------------------------------------------


def test_training_and_test_pictures_share_no_source():
    train, test = digits()
    for part, sources in (("train", train), ("test", test)):
        data = warped_digits(2_000, "none", 8, digit=8, part=part, seed=5)
        # At their own size and upright the digits are the sources, with more contrast.
        assert torch.equal(data.labels, sources.labels[data.truth["source"]])
        difference = (data.images - sources.images[data.truth["source"]]).abs().mean((1, 2, 3))
        assert difference.max() < 0.2
        assert len(data.truth["source"].unique()) > 0.7 * min(2_000, len(sources))


def test_fragments_come_from_the_same_part_and_never_from_the_digit_itself():
    two = Pictures(torch.zeros(2, 1, 16, 16), torch.arange(2))
    two.images[1] = 1.0
    data = warped_digits(60, "clutter", 40, digit=16, source=two)
    # The fragments of the dark source's pictures are bright, and those of the bright one's dark.
    dark = data.labels == 0
    assert (data.images[dark].sum((1, 2, 3)) > 36).all() and (data.images[~dark].sum((1, 2, 3)) < 257).all()


def test_fragments_are_pieces_of_digits_and_brightness_ends_at_one():
    plain, full = (warped_digits(30, "translation", 40, clutter=clutter, fragment=7) for clutter in (0, 1))
    added = (full.images - plain.images)[:, 0]
    assert (added >= 0).all() and full.images.max() <= 1
    rows, columns = ((added > 0).any(axis) for axis in (2, 1))
    for there in (rows, columns):
        spans = [at.nonzero().flatten() for at in there]
        assert max(int(span.max() - span.min()) + 1 for span in spans if len(span)) <= 7


def test_the_same_seed_gives_the_same_pictures_and_another_one_others():
    first, again, other = (warped_digits(50, "clutter", noise=0.1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images) and torch.equal(first.truth["map"], again.truth["map"])
    assert not torch.equal(first.truth["map"], other.truth["map"])
    test = warped_digits(50, "clutter", noise=0.1, seed=1, part="test")
    assert not torch.equal(first.truth["map"], test.truth["map"])


def test_the_same_digits_angles_and_places_under_every_warp():
    upright = warped_digits(60, "none", 40)
    for warp in WARPS:
        data = warped_digits(60, warp, 40)
        assert torch.equal(data.truth["source"], upright.truth["source"])
    wide, narrow = (warped_digits(60, "rotation", rotation=angle).truth["angle"] for angle in (80.0, 20.0))
    torch.testing.assert_close(wide / 4, narrow)


def test_the_global_random_numbers_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    warped_digits(5, "clutter", noise=0.1)
    assert torch.equal(torch.rand(3), expected)


def test_labels_and_angles_are_evenly_spread():
    data = warped_digits(10_000, "rotation", 8, digit=8)
    assert (data.labels.bincount() / 10_000 - 0.1).abs().max() < 0.015
    assert data.truth["angle"].mean().abs() < 0.03
    assert data.truth["angle"].std().item() == pytest.approx(torch.pi / 2 / 3**0.5, rel=0.03)


# -- knobs ------------------------------------------------------------------------------------------------------------


def test_knobs_at_rest_are_no_warp():
    upright = warped_digits(20, "none", 33)
    for warp in WARPS:
        torch.testing.assert_close(warped_digits(20, warp, 33, **ROUND).images, upright.images)
    identity = torch.tensor([1.0, 0, 0, 0, 1, 0]).expand(20, 6)
    assert torch.equal(upright.truth["map"], identity)


def test_noise_is_added_at_last():
    plain, noisy = (warped_digits(50, "clutter", noise=noise) for noise in (0.0, 0.2))
    grain = noisy.images - plain.images
    assert grain.std().item() == pytest.approx(0.2, rel=0.01) and grain.mean().abs() < 0.002


def test_a_digit_keeps_its_size_on_any_canvas():
    for size in (28, 41, 60):
        small, large = (warped_digits(300, "none", size, digit=digit).truth["box"] for digit in (14, 28))
        height = [float((box[:, 3] - box[:, 1]).mean()) for box in (small, large)]
        assert 13 < height[0] <= 15 and 27 < height[1] <= 29


def test_projective_corners_stay_in_front_and_convex():
    coefficients = warped_digits(2_000, "projective", projective=1.0).truth["map"]
    corners = torch.tensor([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
    depth = 1 + coefficients[:, 6:] @ corners.T
    assert depth.min() > 0.05
    at = mapped(coefficients, corners)
    sides = at.roll(-1, 1) - at
    turns = sides[..., 0] * sides.roll(-1, 1)[..., 1] - sides[..., 1] * sides.roll(-1, 1)[..., 0]
    assert turns.min() > 0


@pytest.mark.parametrize("strength", [0.02, 0.1, 1.0])
def test_a_thin_plate_never_folds(strength):
    moved = _unfolded(2 * strength * torch.randn(200, 16, 2, dtype=torch.float64,
                                                 generator=torch.Generator().manual_seed(0)))
    field = _field(moved, 65)
    across, down = field.diff(dim=3)[:, :, :-1] * 32, field.diff(dim=2)[:, :, :, :-1] * 32
    derivative = torch.stack([across, down], 2).permute(0, 3, 4, 1, 2)
    assert torch.linalg.matrix_norm(derivative, 2).max() < 1
    assert torch.linalg.det(derivative + torch.eye(2, dtype=torch.float64)).min() > 0


def test_the_plate_is_that_of_the_chapter():
    moved = 0.1 * torch.randn(3, 16, 2, generator=torch.Generator().manual_seed(1))
    line = torch.linspace(-1, 1, 9)
    at = torch.cartesian_prod(line, line).flip(1)
    expected = (mapped(moved.flatten(1), at) - at).mT.unflatten(2, (9, 9))
    torch.testing.assert_close(_field(moved, 9), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("wrong, message", [
    (dict(count=0), "at least one picture"), (dict(warp="shear"), "one of none, rotation"),
    (dict(part="both"), "'train' or 'test'"), (dict(source="letters"), "one of digits, mnist"),
    (dict(scale=(1.0, 0.5)), "smallest and the largest"), (dict(scale=(0.0, 1.0)), "above 0"),
    (dict(rotation=-1.0), "rotation is 0 or more"), (dict(noise=float("nan")), "noise is 0 or more"),
    (dict(projective=0.1, elastic=0.1), "not by both"), (dict(size=16), "20 pixels does not fit a canvas of 16"),
    (dict(size=3), "size is a whole number from 4"), (dict(digit=9.5), "digit is a whole number"),
    (dict(clutter=-1), "clutter is a whole number from 0"), (dict(clutter=1, fragment=21), "cannot be cut"),
    (dict(fragment=0), "fragment is a whole number from 1"),
    (dict(source=Pictures(torch.zeros(2, 3, 8, 8), torch.zeros(2))), r"\(N, 1, h, h\)"),
    (dict(source=Pictures(torch.zeros(2, 1, 8, 9), torch.zeros(2))), r"\(N, 1, h, h\)"),
])
def test_wrong_arguments_are_told(wrong, message):
    with pytest.raises(ValueError, match=message) as refused:
        warped_digits(**({"count": 5} | wrong))
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(not (Path(os.environ.get("ATTNLIB_DATA", "/absent")) / "MNIST/raw").is_dir(),
                    reason="MNIST is not in ATTNLIB_DATA")
def test_mnist_at_its_own_size():
    from attnlib.data import mnist

    data = warped_digits(50, "none", source="mnist", part="test")
    torch.testing.assert_close(data.images, mnist()[1].images[data.truth["source"]], rtol=0, atol=1e-5)
