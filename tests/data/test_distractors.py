import pytest
import torch

from attnlib.data.cue import STROKES, _stroke_kernels
from attnlib.data.distractors import ceilings, distractor_task

RING = [(row, column) for row in range(5) for column in range(5) if {row, column} & {0, 4}]
CORNERS = [(0, 0), (0, 4), (4, 0), (4, 4)]


def exact(count: int, distractors: int = 3, task: str = "colour", **options):
    """Without what is random in every pixel, so that what was painted can be read off."""
    return distractor_task(count, distractors, task, noise=0.0, **options)


def patches(data):
    """Each picture's patches, cut out along their boxes: (N, K, channels, 5, 5)."""
    return torch.stack([
        torch.stack([image[:, top:bottom, left:right] for left, top, right, bottom in boxes])
        for image, boxes in zip(data.images, data.truth["boxes"].long().tolist())
    ])


@pytest.mark.parametrize("task, channels", [("colour", 3), ("shape", 3), ("either", 4)])
def test_shapes_and_classes(task, channels):
    data = distractor_task(20, 5, task, 34)
    assert data.images.shape == (20, channels, 34, 34) and data.images.dtype == torch.float32
    assert data.labels.dtype == torch.int64 and data.classes == STROKES
    shapes = {what: tuple(tensor.shape[1:]) for what, tensor in data.truth.items()}
    assert shapes == {"task": (), "directions": (6,), "boxes": (6, 4), "counts": (), "box": (4,), "mask": (34, 34)}


def test_patches_hold_what_is_said_of_them_and_nothing_stands_elsewhere():
    data = exact(100, 7)
    cut = patches(data)
    kernels = _stroke_kernels()[data.truth["directions"]]
    assert torch.equal(cut[:, :, 2, 1:4, 1:4], kernels)
    ring = [cut[..., row, column] for row, column in RING]
    frames = torch.stack(ring, -1)  # (N, K, 3, 16)
    is_corner = torch.tensor([place in CORNERS for place in RING])
    assert (frames[:, 0, 0] == 1).all() and (frames[:, 0, 1] == 0).all()
    assert (frames[:, 1, 1][:, ~is_corner] == 1).all() and (frames[:, 1, :][..., is_corner] == 0).all()
    assert (frames[:, 2:, 1] == 1).all() and (frames[:, 1:, 0] == 0).all() and (frames[:, :, 2] == 0).all()
    assert torch.equal(data.images.sum((1, 2, 3)), torch.full((100,), 8 * (16.0 + 3) - 4))


def test_alone_the_one_patch_is_red_and_round():
    for task in ("colour", "shape"):
        data = exact(50, 0, task)
        assert torch.equal(data.images[:, 0].sum((1, 2)), torch.full((50,), 12.0)) and (data.images[:, 1] == 0).all()
        assert torch.equal(data.labels, data.truth["directions"][:, 0])


@pytest.mark.parametrize("size, room", [(11, 1), (32, 16), (33, 16), (40, 25)])
def test_patches_never_touch_each_other_or_the_edge(size, room):
    boxes = exact(200, room - 1, size=size).truth["boxes"]
    assert boxes[..., :2].min() >= 2 and boxes[..., 2:].max() <= size - 2
    grown = boxes + torch.tensor([0, 0, 1, 1])
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(grown[:, :, None, 2:], grown[:, None, :, 2:])
    both = (high > low).all(-1)
    assert torch.equal(both, torch.eye(room, dtype=torch.bool).expand_as(both))


@pytest.mark.parametrize("task, number", [("colour", 0), ("shape", 1)])
def test_the_task_says_which_patch_counts(task, number):
    data = distractor_task(500, 4, task)
    assert (data.truth["task"] == number).all() and (data.truth["counts"] == number).all()
    assert torch.equal(data.labels, data.truth["directions"][:, number])
    assert torch.equal(data.truth["box"], data.truth["boxes"][:, number])


def test_the_mask_is_the_box():
    data = exact(50, 3, "shape")
    for mask, (left, top, right, bottom) in zip(data.truth["mask"], data.truth["box"].long().tolist()):
        assert mask.sum() == 25 and mask[top:bottom, left:right].all()


def test_the_same_scenes_under_every_task():
    colour, shape, either = (distractor_task(300, 4, task, seed=2) for task in ("colour", "shape", "either"))
    assert torch.equal(colour.images, shape.images) and torch.equal(colour.images, either.images[:, :3])
    assert torch.equal(either.labels, torch.where(either.truth["task"] == 1, shape.labels, colour.labels))
    assert not torch.equal(colour.labels, shape.labels)


def test_either_tells_the_task_in_the_fourth_channel():
    data = distractor_task(2_000, 4, "either")
    assert (data.images[:, 3] == data.truth["task"][:, None, None]).all()
    assert data.truth["task"].float().mean() == pytest.approx(0.5, abs=0.05)


def test_directions_are_equally_frequent_and_drawn_for_each_patch_by_itself():
    directions = distractor_task(20_000, 2).truth["directions"]
    joint = (directions[:, 0] * 4 + directions[:, 1]).bincount(minlength=16) / 20_000
    assert ((joint - 1 / 16).abs() < 0.01).all()


def test_a_weaker_cue_marks_less_and_none_marks_nothing():
    half, none = patches(exact(20, cue=0.5)), patches(exact(20, cue=0.0))
    assert (half[:, 0, :2, 0, 1] == 0.5).all() and (half[:, 1, 1, 0, 0] == 0.5).all()
    assert torch.equal(none[:, :, :2], none[:, 2:3, :2].expand(-1, 4, -1, -1, -1))


# -- ceilings ---------------------------------------------------------------------------------------------------------

FREQUENT, ONE_OF = ceilings(1)


def test_ceilings_by_hand():
    assert list(ceilings(1).values()) == [1, 1]
    # Two strokes agree in a quarter of the pictures; otherwise one of the two is a coin toss.
    assert list(ceilings(2).values()) == [5 / 8, 5 / 8]
    # Three: all equal 1/16, two equal 9/16, all different 6/16.
    assert ceilings(3)[FREQUENT] == pytest.approx(1 / 16 + 9 / 16 * 2 / 3 + 6 / 16 * 1 / 3, abs=1e-15)
    assert ceilings(3)[ONE_OF] == pytest.approx(1 / 16 + 9 / 16 * 1 / 2 + 6 / 16 * 1 / 3, abs=1e-15)


def test_ceilings_fall_towards_chance_with_the_distractors():
    for kind in (FREQUENT, ONE_OF):
        values = [ceilings(patches)[kind] for patches in range(1, 26)]
        assert all(later <= before + 1e-15 for before, later in zip(values, values[1:])) and values[-1] > 0.25


@pytest.mark.parametrize("distractors", [1, 3, 8])
def test_ceilings_are_what_the_best_of_those_models_reach(distractors):
    data = distractor_task(20_000, distractors, "shape", size=25)
    there = torch.nn.functional.one_hot(data.truth["directions"], 4).sum(1)
    # Ties are broken at random.
    frequent = (there + 0.5 * torch.rand(there.shape, generator=torch.Generator().manual_seed(0))).argmax(1)
    one_of = ((there > 0) * torch.rand(there.shape, generator=torch.Generator().manual_seed(1))).argmax(1)
    for kind, answers in ((FREQUENT, frequent), (ONE_OF, one_of)):
        assert data.ceilings[kind] == pytest.approx(float((answers == data.labels).float().mean()), abs=0.015)


def test_a_sum_over_each_colour_alone_cannot_tell_more():
    """Every sum of what 3×3 units find in one colour is the same when another stroke is the marked one."""
    data = exact(400, 3)
    swapped = data.images.clone()
    for picture, (one, other) in zip(swapped, data.truth["boxes"][:, :2].long().tolist()):
        blue = picture[2].clone()
        for (left, top, *_), (from_left, from_top, *_) in ((one, other), (other, one)):
            picture[2, top : top + 5, left : left + 5] = blue[from_top : from_top + 5, from_left : from_left + 5]
    torch.manual_seed(0)
    units = torch.nn.Conv2d(3, 24, 3, groups=3, bias=False).double()
    sums = [units(images.double()).relu().sum((2, 3)) for images in (data.images, swapped)]
    torch.testing.assert_close(*sums)


def test_who_does_not_know_the_task_is_right_in_five_of_eight():
    data = distractor_task(20_000, 4, "either")
    always_colour = (data.truth["directions"][:, 0] == data.labels).float().mean()
    assert data.ceilings["does not know the task"] == 5 / 8 == pytest.approx(float(always_colour), abs=0.01)
    assert "does not know the task" not in (distractor_task(1, 0, "either").ceilings | distractor_task(1).ceilings)


def test_the_same_seed_gives_the_same_pictures():
    assert torch.equal(distractor_task(20, seed=3).images, distractor_task(20, seed=3).images)
    assert not torch.equal(distractor_task(20, seed=3).images, distractor_task(20, seed=4).images)


@pytest.mark.parametrize("arguments, options, says", [
    ((0,), {}, "at least one picture"), ((5, 16), {}, "room for 0 to 15 distractors"),
    ((5, -1), {}, "room for 0 to 15"), ((5, 0, "size"), {}, "one of colour, shape, either"),
    ((5, 0, "colour", 10), {}, "11 pixels"), ((5,), {"cue": 1.5}, "between 0 and 1"),
])
def test_bad_arguments_are_refused(arguments, options, says):
    with pytest.raises(ValueError, match=says):
        distractor_task(*arguments, **options)
