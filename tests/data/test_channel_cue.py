import pytest
import torch

from attnlib.data.channel_cue import channel_cue_task
from attnlib.data.cue import ADDITIVE, BLIND, _stroke_kernels


def test_shapes_types_and_ceilings():
    task = channel_cue_task(50, 2, channels=9, size=11)
    assert task.images.shape == (50, 9, 11, 11) and task.images.dtype == torch.float32
    assert task.labels.dtype == torch.int64 and set(task.labels.tolist()) <= set(range(4))
    assert list(task.ceilings.values()) == [BLIND, ADDITIVE] == [5 / 8, 13 / 16]


@pytest.mark.parametrize("distance", [1, 4, 7])
def test_the_cue_is_that_far_away_and_all_other_channels_are_empty(distance):
    task = channel_cue_task(20, distance, channels=16)
    filled = task.images.flatten(2).abs().sum((0, 2)).nonzero().flatten().tolist()
    assert filled == [8 - distance, 8, 8 + distance] == task.truth["where"][0].tolist()


def test_the_label_is_the_stroke_that_the_cue_chooses():
    task = channel_cue_task(400, noise=0.0)
    kernels = _stroke_kernels()
    for n in range(400):
        bright = task.images[n, 8, 0, 0] > 0
        assert bright == task.truth["cue"][n]
        stroke = task.images[n, 7 if bright else 9]
        rows, columns = stroke.nonzero().T
        assert rows.min() >= 6  # far from the cue's three rows, below what a 3×3 window spans
        patch = kernels[task.labels[n]]
        assert any(torch.equal(stroke[i:i + 3, j:j + 3], patch) for i in (6, 7) for j in range(8))
        assert stroke.sum() == 3
    assert 0.4 < task.truth["cue"].float().mean() < 0.6


def test_the_cue_stands_in_its_first_rows_alone():
    cue = channel_cue_task(10, level=2.0).images[:, 8]
    assert (cue[:, :3].abs() == 2).all() and (cue[:, 3:] == 0).all()


def test_the_distance_changes_the_order_of_channels_and_nothing_else():
    near, far = channel_cue_task(30, 1, seed=5), channel_cue_task(30, 6, seed=5)
    assert torch.equal(near.images[:, [7, 8, 9]], far.images[:, [2, 8, 14]])
    assert torch.equal(near.labels, far.labels)


def test_the_seed_decides_and_random_numbers_are_left_alone():
    state = torch.get_rng_state()
    first, again, other = (channel_cue_task(30, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, other.images)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_blind_answer_is_right_as_often_as_stated():
    task = channel_cue_task(40_000, noise=0.0)
    assert (task.truth["lower"] == task.labels).float().mean() == pytest.approx(BLIND, abs=0.01)


@pytest.mark.parametrize("options, says", [
    ({"count": 0}, "at least one picture"), ({"size": 9}, "at least 10 pixels"),
    ({"distance": 8}, "from 1 to 7, not 8"), ({"distance": 0}, "from 1 to 7"), ({"channels": 2}, "room for a distance"),
])
def test_bad_arguments_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        channel_cue_task(**{"count": 5} | options)
