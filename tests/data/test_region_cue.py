import pytest
import torch

from attnlib.data.region_cue import BAR, REGION, STROKE, region_cue_task


@pytest.fixture(scope="module")
def clean():
    return region_cue_task(4_000, noise=0, seed=3)


def test_shapes_and_the_same_seed_gives_the_same_pictures():
    first, again, other = region_cue_task(5, seed=1), region_cue_task(5, seed=1), region_cue_task(5, seed=2)
    assert first.images.shape == (5, 3, 8, 32) and first.truth["counts"].shape == (5, 8, 32)
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, other.images)


def test_the_label_is_the_direction_of_what_counts_in_each_region(clean):
    truth, here = clean.truth, torch.arange(len(clean))
    assert torch.equal(truth["red"][here, truth["cue"]], clean.labels)
    assert torch.equal(truth["green"][here, 1 - truth["cue"]], clean.labels)
    assert torch.equal(truth["green"][here, truth["cue"]], truth["other"])
    assert torch.equal(truth["red"][here, 1 - truth["cue"]], truth["other"])


def test_the_bar_stands_where_truth_says(clean):
    blue = clean.images[:, 2].unflatten(2, (2, REGION)).sum((1, 3))
    assert torch.equal(blue.argmax(1), clean.truth["cue"]) and (blue.sum(1) == 8 * len(BAR)).all()


def test_what_counts_is_red_in_the_region_with_the_bar_and_green_in_the_other(clean):
    red, green = clean.truth["strokes"].unflatten(3, (2, REGION)).unbind(1)
    counts = clean.truth["counts"].unflatten(2, (2, REGION))
    for region in range(2):
        bar = (clean.truth["cue"] == region)[:, None, None]
        assert torch.equal(counts[:, :, region], torch.where(bar, red[:, :, region], green[:, :, region]))


def test_five_columns_lie_between_bar_and_strokes_also_of_the_other_region(clean):
    assert STROKE - max(BAR) - 1 == 5 and REGION + min(BAR) - (STROKE + 2) - 1 >= 5
    assert clean.images[:, :, :, 4:9].abs().sum() == clean.images[:, :, :, 12:18].abs().sum() == 0


def test_moving_the_bar_changes_the_answer_and_no_sum_over_what_small_units_find(clean):
    """The twin with the bar in the other region is as likely, has the other label, and the same sums."""
    twin = clean.images.clone()
    twin[:, 2] = twin[:, 2].roll(REGION, 2)
    units = torch.nn.Conv2d(3, 16, 3, padding=1)
    sums = [units(images).relu().sum((2, 3)) for images in (clean.images, twin)]
    torch.testing.assert_close(*sums, rtol=1e-4, atol=1e-3)
    for colour in ("red", "green"):
        both = clean.truth[colour].sort(dim=1).values
        assert torch.equal(both, torch.stack([clean.labels, clean.truth["other"]], 1).sort(dim=1).values)


def test_the_ceiling_is_what_a_coin_toss_between_the_two_directions_gets(clean):
    toss = torch.rand(len(clean), generator=torch.Generator().manual_seed(0)) < 0.5
    named = torch.where(toss, clean.labels, clean.truth["other"])
    (ceiling,) = clean.ceilings.values()
    assert ceiling == 5 / 8 and (named == clean.labels).float().mean() == pytest.approx(ceiling, abs=0.03)


def test_without_the_cue_there_is_no_bar():
    assert region_cue_task(4, noise=0, cue=0).images[:, 2].abs().sum() == 0


@pytest.mark.parametrize("count", [0, "many", 2.5])
def test_no_number_of_pictures_is_refused(count):
    with pytest.raises(ValueError, match=f"at least one picture, not {count!r}"):
        region_cue_task(count)
