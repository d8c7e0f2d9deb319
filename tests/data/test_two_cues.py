import pytest
import torch

from attnlib.data.cue import STROKES, _stroke_kernels
from attnlib.data.two_cues import KINDS, two_cues


def exact(count: int, kind: str, **options):
    """Without what is random in every pixel, so that what was painted can be read off."""
    return two_cues(count, kind, noise=0.0, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_classes(kind):
    data = two_cues(50, kind, 16)
    assert data.images.shape == (50, 3, 16, 16) and data.images.dtype == torch.float32
    assert data.labels.dtype == torch.int64 and data.classes == STROKES
    assert data.truth["boxes"].shape == (50, 2, 4) and data.truth["box"].shape == (50, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cue_decides_which_stroke_is_the_label_and_the_box(kind):
    data = two_cues(2_000, kind)
    counts = data.truth["cue"] > 0
    assert torch.equal(data.labels, torch.where(counts, data.truth["red"], data.truth["green"]))
    assert torch.equal(data.truth["box"], data.truth["boxes"][torch.arange(2_000), (~counts).long()])
    assert counts.float().mean() == pytest.approx(0.5, abs=0.05)


def test_the_boxes_hold_the_strokes_and_nothing_else_does():
    data = exact(200, "textured")
    for image, boxes, *directions in zip(
        data.images, data.truth["boxes"].long().tolist(), data.truth["red"].tolist(), data.truth["green"].tolist()
    ):
        for channel, (left, top, right, bottom) in enumerate(boxes):
            assert (right - left, bottom - top) == (3, 3) and top >= 12
            assert torch.equal(image[channel, top:bottom, left:right], _stroke_kernels()[directions[channel]])
            assert image[channel].sum() == 3
    lefts = data.truth["boxes"][..., 0]
    assert ((lefts < 8).sum(1) == 1).all() and (lefts[:, 0] < 8).float().mean() == pytest.approx(0.5, abs=0.15)


def blocks_of(band: torch.Tensor) -> tuple[int, int]:
    """How many pixels of a band are exactly 1, and how many exactly 0."""
    return int((band == 1).sum()), int((band == 0).sum())


def test_every_band_has_a_bright_and_a_dark_block_and_below_it_is_no_blue():
    data = exact(300, "textured")
    assert {blocks_of(band) for band in data.images[:, 2, :4]} == {(9, 9)}
    assert (data.images[:, 2, 4:] == 0).all()
    bright = (data.images[:, 2, :4] == 1).any(1)
    assert (bright[:, :8].any(1) != bright[:, 8:].any(1)).all()


def test_a_sparse_cue_is_one_brighter_pixel():
    data = exact(500, "sparse", bright=1.5)
    band = data.images[:, 2, :4]
    assert torch.equal((band == 2).sum((1, 2)), (data.truth["cue"] == 1).long())
    assert torch.equal(band.unique(), torch.tensor([0, 0.5, 1, 2]))


def test_a_textured_cue_makes_the_band_a_little_brighter_and_leaves_the_blocks():
    data = exact(500, "textured", weak=0.25)
    band, there = data.images[:, 2, :4], data.truth["cue"] == 2
    assert torch.equal(band[there].unique(), torch.tensor([0, 0.75, 1]))
    assert torch.equal(band[~there].unique(), torch.tensor([0, 0.5, 1]))


def separation(values: torch.Tensor, there: torch.Tensor) -> float:
    """The probability that a picture with the cue has the larger value: 1/2 where the value knows nothing."""
    with_cue, without = values[there], values[~there]
    return float((with_cue[:, None] > without).float().mean())


def test_the_maximum_tells_a_sparse_cue_better_than_the_mean_and_the_mean_alone_a_textured_one():
    told = {}
    for kind in ("sparse", "textured"):
        data = two_cues(2_000, kind)
        blue, there = data.images[:, 2], data.truth["cue"] > 0
        told[kind] = separation(blue.amax((1, 2)), there), separation(blue.mean((1, 2)), there)
    (sparse_max, sparse_mean), (textured_max, textured_mean) = told["sparse"], told["textured"]
    assert sparse_max > 0.99 > 0.95 > sparse_mean and textured_mean > 0.99 > 0.6 > textured_max


def test_either_has_both_kinds_equally_often():
    kinds = two_cues(4_000, "either").truth["cue"].bincount() / 4_000
    assert ((kinds - torch.tensor([1 / 2, 1 / 4, 1 / 4])).abs() < 0.03).all()


def test_ceilings():
    """The stated ceilings, against what the best of those networks would do in these pictures."""
    data = two_cues(40_000, "either")
    red, green, cue = (data.truth[what] for what in ("red", "green", "cue"))
    always_green = (green == data.labels).float().mean()
    sparse_only = (torch.where(cue == 1, red, green) == data.labels).float().mean()
    assert data.ceilings["blind to the cue"] == 5 / 8 == pytest.approx(float(always_green), abs=0.01)
    assert data.ceilings["sees one of the two kinds"] == 13 / 16 == pytest.approx(float(sparse_only), abs=0.01)
    assert "sees one of the two kinds" not in two_cues(1, "sparse").ceilings


def test_the_same_seed_gives_the_same_pictures():
    assert torch.equal(two_cues(20, seed=3).images, two_cues(20, seed=3).images)
    assert not torch.equal(two_cues(20, seed=3).images, two_cues(20, seed=4).images)


@pytest.mark.parametrize("arguments, says", [
    ((0,), "at least one picture"), ((5, "dense"), "one of sparse, textured, either"), ((5, "either", 13), "14 pixels"),
])
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        two_cues(*arguments)
