import pytest
import torch

from attnlib.data.sizes import size_task


def test_the_same_seed_gives_the_same_pictures():
    one, other = size_task(20, seed=3), size_task(20, seed=3)
    assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
    assert not torch.equal(one.images, size_task(20, seed=4).images)


def test_only_the_size_differs_between_lengths():
    small, large = (size_task(20, lengths=(length,), seed=1) for length in (3, 11))
    assert torch.equal(small.labels, large.labels)
    assert (small.truth["mask"] <= large.truth["mask"]).all()
    outside = ~large.truth["mask"]
    outside &= size_task(20, lengths=(12,), noise=0, seed=1).images[:, 0] == 0
    assert torch.equal(small.images[:, 0][outside], large.images[:, 0][outside])


@pytest.mark.parametrize("label, change", [(0, (0, 1)), (1, (1, 0)), (2, (1, 1)), (3, (1, -1))])
def test_bars_lie_in_the_direction_of_their_name(label, change):
    data = size_task(60, lengths=(11,), noise=0)
    rows, columns = data.truth["mask"][(data.labels == label).nonzero()[0, 0]].nonzero().double().T
    spread = torch.linalg.eigh(torch.cov(torch.stack([rows, columns])))
    direction = spread.eigenvectors[:, 1]
    wanted = torch.tensor(change, dtype=torch.float64) / torch.tensor(change, dtype=torch.float64).norm()
    assert abs(direction @ wanted) > 0.99 and spread.eigenvalues[1] > 4 * spread.eigenvalues[0]


def test_the_area_grows_with_the_square_of_the_length():
    area = {length: size_task(200, lengths=(length,), noise=0).images.sum((1, 2, 3)).mean() for length in (5, 10)}
    assert area[10] / area[5] == pytest.approx(4, rel=0.15)


def test_four_copies_have_the_area_of_one_of_twice_the_length():
    four = size_task(200, lengths=(5,), copies=4, noise=0).images.sum((1, 2, 3))
    one = size_task(200, lengths=(10,), noise=0).images.sum((1, 2, 3))
    assert four.mean() / one.mean() == pytest.approx(1, rel=0.15)


def test_bars_stay_inside():
    one, four = size_task(500, lengths=(12,)), size_task(500, lengths=(6,), copies=4)
    masks = torch.cat([one.truth["mask"], four.truth["mask"]])
    assert not masks[:, [0, -1]].any() and not masks[:, :, [0, -1]].any()


def test_the_ceiling_falls_with_noise_and_rises_with_size():
    def ceiling(**options):
        (share,) = size_task(1_000, **options).ceilings.values()
        return share

    assert ceiling(noise=0) == 1
    assert ceiling(lengths=(3,)) < ceiling(lengths=(5,)) <= ceiling(lengths=(11,)) == 1
    assert ceiling(lengths=(3,), noise=20) == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("options, says", [
    ({"count": 0}, "at least one picture"), ({"lengths": ()}, "3 pixels or more"),
    ({"lengths": (2, 5)}, "3 pixels or more"),
    ({"size": 20}, "need pictures of 22 or more"), ({"copies": 2}, "1 bar or 4"),
])
def test_bad_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        size_task(**{"count": 2} | options)
