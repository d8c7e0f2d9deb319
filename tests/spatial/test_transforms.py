import math

import pytest
import torch
import torch.nn.functional as F

from attnlib.spatial.transforms import (
    TRANSFORMS, Affine, Crop, Projective, Rotation, ThinPlate, Translation, Window, left_over, places, pose, transform,
)

FLOAT = dict(dtype=torch.float64)
AT = 2 * torch.rand(11, 2, generator=torch.Generator().manual_seed(0), **FLOAT) - 1


@pytest.mark.parametrize("size, align_corners", [((3, 5), True), ((3, 5), False), ((1, 4), False), ((1, 1), False)])
def test_places_are_those_of_torch(size, align_corners):
    identity = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]], **FLOAT)
    expected = F.affine_grid(identity, (1, 1, *size), align_corners=align_corners).view(-1, 2)
    torch.testing.assert_close(places(*size, identity, align_corners=align_corners), expected)


def test_a_line_of_one_pixel_has_it_in_the_middle():
    assert places(1, 3, AT, align_corners=True).tolist() == [[-1, 0], [0, 0], [1, 0]]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_identity_leaves_every_place(name):
    family = transform(name).double()
    coefficients = torch.tensor([family.identity] * 2, **FLOAT)
    assert len(family.names) == family.count == coefficients.shape[1]
    torch.testing.assert_close(family(coefficients, AT), AT.expand(2, -1, -1), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name, count", [
    ("affine", 6), ("crop", 3), ("translation", 2), ("rotation", 1), ("projective", 8), ("thin_plate", 32),
])
def test_counts_are_the_papers(name, count):
    assert transform(name).count == count


@pytest.mark.parametrize("family, coefficients, six", [
    (Crop(), [0.5, 0.2, -0.3], [0.5, 0, 0.2, 0, 0.5, -0.3]),
    (Translation(), [0.2, -0.3], [1, 0, 0.2, 0, 1, -0.3]),
    (Window(0.5), [0.2, -0.3], [0.5, 0, 0.2, 0, 0.5, -0.3]),
    (Rotation(), [math.pi / 6], [math.sqrt(3) / 2, -0.5, 0, 0.5, math.sqrt(3) / 2, 0]),
    (Projective(), [1.1, 0.2, 0.3, -0.1, 0.9, 0.4, 0, 0], [1.1, 0.2, 0.3, -0.1, 0.9, 0.4]),
])
def test_narrower_families_are_affine_maps(family, coefficients, six):
    mapped = family(torch.tensor([coefficients], **FLOAT), AT)
    torch.testing.assert_close(mapped, Affine()(torch.tensor([six], **FLOAT), AT))


def test_a_window_starts_in_the_middle_and_has_a_size():
    window = Window(0.25)
    at_first = window(torch.tensor([window.identity], **FLOAT), AT)
    torch.testing.assert_close(at_first, 0.25 * AT[None])
    for scale in (0, -1, float("inf"), "half"):
        with pytest.raises(ValueError, match="a window's scale is above 0"):
            Window(scale)


def test_projective_map_by_hand():
    """The corners of a square as a door that opens: its right edge farther away, so shorter."""
    coefficients = torch.tensor([[1.0, 0, 0, 0, 1, 0, 0.5, 0]], **FLOAT)
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1]], **FLOAT)
    expected = torch.tensor([[[-2.0, -2], [2 / 3, -2 / 3], [2 / 3, 2 / 3]]], **FLOAT)
    torch.testing.assert_close(Projective()(coefficients, corners), expected)


def test_projective_map_stops_short_of_the_horizon():
    coefficients = torch.tensor([[1.0, 0, 0, 0, 1, 0, -1, 0]], **FLOAT)  # 0 at x = 1, and below beyond
    mapped = Projective()(coefficients, torch.tensor([[1.0, 0.5], [2, 0.5]], **FLOAT))
    assert bool(mapped.isfinite().all()) and float(mapped.max()) <= 2 / Projective.nearest


@pytest.mark.parametrize("side", [2, 4])
def test_thin_plate_goes_through_its_points(side):
    family = ThinPlate(side).double()
    move = 0.2 * torch.randn(side * side, 2, generator=torch.Generator().manual_seed(1), **FLOAT)
    mapped = family(move.flatten()[None], family.points)
    torch.testing.assert_close(mapped[0], family.points + move, rtol=0, atol=1e-12)


def test_thin_plate_contains_the_affine_maps():
    """Its bending costs nothing where the points move by an affine map, so it moves everything by that."""
    family = ThinPlate().double()
    six = torch.tensor([[0.9, 0.2, 0.1, -0.3, 1.1, -0.2]], **FLOAT)
    move = Affine()(six, family.points) - family.points
    torch.testing.assert_close(family(move.flatten(1), AT), Affine()(six, AT))


def test_thin_plate_is_the_naive_sum():
    family = ThinPlate(3).double()
    goal = family.points + 0.1 * torch.randn(9, 2, generator=torch.Generator().manual_seed(2), **FLOAT)
    # Solve the textbook system point by point.
    points = family.points.tolist()
    bend = lambda r2: r2 * math.log(r2) if r2 > 0 else 0.0  # noqa: E731
    rows = [[bend((p[0] - q[0])**2 + (p[1] - q[1])**2) for q in points] + [1, *p] for p in points]
    rows += [[1.0] * 9 + [0] * 3, [p[0] for p in points] + [0] * 3, [p[1] for p in points] + [0] * 3]
    solved = torch.linalg.solve(torch.tensor(rows, **FLOAT), torch.cat([goal, torch.zeros(3, 2, **FLOAT)]))
    for place, mapped in zip(AT.tolist(), family((goal - family.points).flatten()[None], AT)[0]):
        terms = [bend((place[0] - q[0])**2 + (place[1] - q[1])**2) for q in points] + [1, *place]
        torch.testing.assert_close(torch.tensor(terms, **FLOAT) @ solved, mapped)


def test_thin_plate_is_exact_in_the_type_it_is_moved_to():
    family = ThinPlate().float().double()
    move = Affine()(torch.tensor([[0.9, 0.2, 0.1, -0.3, 1.1, -0.2]], **FLOAT), family.points) - family.points
    moved = family(move.flatten(1), family.points) - family.points
    torch.testing.assert_close(moved, move, rtol=0, atol=1e-12)
    assert "solved" not in family.state_dict()


def test_wrong_names_are_told():
    with pytest.raises(ValueError, match="affine, crop, translation"):
        transform("shear")
    with pytest.raises(ValueError, match="2 or more points"):
        ThinPlate(1)
    assert transform(family := Crop()) is family


def turned(angle, scale, x, y):
    """A rotation and a scale about the middle, which then goes to x, y: (1, 6)."""
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return torch.tensor([[cos, -sin, x, sin, cos, y]], **FLOAT)


@pytest.mark.parametrize("angle, scale, x, y", [(0.7, 0.5, 0.2, -0.4), (-2.5, 1.3, 0.0, 0.1), (0.0, 1.0, 0.0, 0.0)])
def test_pose_tells_what_a_map_was_made_of(angle, scale, x, y):
    told = {name: float(value) for name, value in pose(turned(angle, scale, x, y)).items()}
    assert told == pytest.approx({"angle": angle, "scale": scale, "x": x, "y": y})


def test_pose_of_a_sheared_map():
    """Areas grow by |ae − bd|, mirrored or not, and a shear by itself turns by half its angle or so."""
    told = pose(torch.tensor([[2.0, 0, 0, 0, -0.5, 0], [1.0, 0.2, 0, 0, 1, 0]], **FLOAT))
    assert told["scale"].tolist() == [1.0, 1.0]
    assert float(told["angle"][1]) == pytest.approx(math.atan2(-0.2, 2))


def test_what_is_left_over_is_composed_place_by_place():
    """The output's places, moved by what was predicted, are the upright picture's, moved by the truth."""
    rng = torch.Generator().manual_seed(3)
    predicted, truth = (torch.eye(2, 3, **FLOAT).flatten() + 0.3 * torch.randn(4, 6, generator=rng, **FLOAT)
                        for _ in range(2))
    left = left_over(predicted, truth)
    affine = Affine()
    for picture in range(4):
        upright = affine(left[picture, None], AT)[0]
        torch.testing.assert_close(affine(truth[picture, None], upright)[0], affine(predicted[picture, None], AT)[0])


def test_nothing_varies_in_what_is_left_over_where_all_is_undone():
    truth = torch.cat([turned(0.1 * n, 0.8 + 0.1 * n, 0.1 * n, -0.2 * n) for n in range(4)])
    upright = torch.tensor([1.0, 0, 0, 0, 1, 0], **FLOAT)
    torch.testing.assert_close(left_over(truth, truth), upright.expand(4, 6))
    # The same pose of one's own for all: all turned by another half turn, and enlarged.
    own = turned(math.pi, 0.5, 0.2, 0.3)
    chosen = torch.cat([truth[:, [0, 1]] @ own[0].view(2, 3)[:, [0]], truth[:, [0, 1]] @ own[0].view(2, 3)[:, [1]],
                        truth[:, [0, 1]] @ own[0].view(2, 3)[:, [2]] + truth[:, [2]],
                        truth[:, [3, 4]] @ own[0].view(2, 3)[:, [0]], truth[:, [3, 4]] @ own[0].view(2, 3)[:, [1]],
                        truth[:, [3, 4]] @ own[0].view(2, 3)[:, [2]] + truth[:, [5]]], 1)
    torch.testing.assert_close(left_over(chosen, truth), own.expand(4, 6))


def test_left_over_keeps_the_type_and_tells_other_shapes():
    identity = torch.tensor([[1.0, 0, 0, 0, 1, 0]])
    assert left_over(identity, identity).dtype == torch.float32
    with pytest.raises(ValueError, match="affine maps"):
        left_over(identity, identity[:, :3])
