import pytest
import torch

from attnlib.data.fixations import Fixations
from attnlib.saliency.fixations import blur, density
from attnlib.saliency.metrics import auc_judd, information_gain, nss
from attnlib.saliency.observers import one_against_the_others, simulated_observers, some_against_the_rest


def spots(count=3, size=(20, 30)):
    """One bright spot on each map, at different places."""
    maps = torch.zeros(count, *size, dtype=torch.float64)
    for n in range(count):
        maps[n, 4 + 5 * n, 6 + 9 * n] = 1
    return blur(maps, 1.5)


def test_the_same_seed_gives_the_same_fixations():
    one, other = (simulated_observers(spots(), seed=3)[0] for _ in range(2))
    assert torch.equal(one.x, other.x) and torch.equal(one.y, other.y)
    assert not torch.equal(one.x, simulated_observers(spots(), seed=4)[0].x)


def test_everybody_makes_as_many_fixations_as_asked_for():
    seen, truth = simulated_observers(spots(), observers=4, fixations=5)
    assert (seen.pictures, seen.observers, len(seen)) == (3, 4, 60) and truth.shape == (3, 20, 30)
    for n in range(3):
        for k in range(4):
            assert ((seen.picture == n) & (seen.observer == k)).sum() == 5
    nobody, _ = simulated_observers(spots(), fixations=0)
    assert len(nobody) == 0 and nobody.observers == 15


def test_fixations_follow_the_probability_they_are_drawn_from():
    maps = torch.tensor([[[0.0, 1.0, 3.0], [0.0, 0.0, 4.0]]])
    seen, truth = simulated_observers(maps, observers=100, fixations=400, centre=0, lapse=0.2)
    assert torch.allclose(truth.flatten(), torch.tensor([0, 0.1, 0.3, 0, 0, 0.4]).double() + 0.2 / 6)
    share = seen.counts() / len(seen)
    assert (share - truth).abs().max() < 5 * (0.25 / len(seen)) ** 0.5
    # Within a pixel, anywhere.
    assert abs(float((seen.x % 1).mean()) - 0.5) < 0.01 and abs(float((seen.y % 1).mean()) - 0.5) < 0.01


def test_without_lapses_nobody_looks_where_the_map_is_zero():
    maps = torch.zeros(1, 6, 8)
    maps[0, 0, 0] = maps[0, 5, 7] = 1
    seen, _ = simulated_observers(maps, observers=50, fixations=20, centre=0, lapse=0)
    assert ((seen.counts() > 0) == (maps > 0)).all()


def test_a_map_of_zeros_and_one_pixel_are_possible():
    _, truth = simulated_observers(torch.zeros(1, 4, 5), centre=0)
    assert torch.allclose(truth, torch.full((1, 4, 5), 1 / 20, dtype=torch.float64))
    seen, truth = simulated_observers(torch.zeros(2, 1, 1), observers=2, fixations=3)
    assert seen.counts().flatten().tolist() == [6, 6] and truth.flatten().tolist() == pytest.approx([1, 1])


def test_nothing_predicts_them_better_than_the_truth():
    maps = spots()
    seen, truth = simulated_observers(maps, observers=60, fixations=20)
    uniform = torch.ones(20, 30)
    best = information_gain(truth, seen, uniform)
    for other in (maps + 1e-3, truth**2, truth**0.5, blur(truth, 1.0)):
        assert (information_gain(other, seen, uniform) < best).all()


@pytest.mark.parametrize("options", [{"observers": 0}, {"fixations": -1}, {"centre": -0.1},
                                     {"centre": 0.6, "lapse": 0.5}])
def test_impossible_observers_are_refused(options):
    with pytest.raises(ValueError, match="simulated observers are one or more"):
        simulated_observers(spots(), **options)
    with pytest.raises(ValueError, match=r"maps are \(N, H, W\)"):
        simulated_observers(spots()[0])
    with pytest.raises(ValueError, match="no negative"):
        simulated_observers(-spots())


def test_one_against_the_others_by_hand():
    # Three observers on one picture of 1×4 pixels, without blur.
    seen = Fixations.of([[[(0, 0)], [(0, 0), (1, 0)], [(3, 0)]]], (1, 4))
    others = [torch.tensor([[[1.0, 1, 0, 1]]]), torch.tensor([[[1.0, 0, 0, 1]]]), torch.tensor([[[2.0, 1, 0, 0]]])]
    expected = torch.stack([nss(others[k], seen.by(k)) for k in range(3)], 1)
    assert torch.equal(one_against_the_others(seen, 0, nss), expected)
    alone = [torch.tensor([[[1.0, 0, 0, 0]]]), torch.tensor([[[1.0, 1, 0, 0]]]), torch.tensor([[[0.0, 0, 0, 1]]])]
    rest = [seen.by(1, 2), seen.by(0, 2), seen.by(0, 1)]
    expected = torch.stack([nss(alone[k], rest[k]) for k in range(3)], 1)
    assert torch.equal(one_against_the_others(seen, 0, nss, predict="others"), expected)


def test_who_saw_nothing_neither_predicts_nor_is_predicted():
    seen = Fixations.of([[[(1, 1)], []], [[(1, 1)], [(2, 2)]]], (5, 6))
    for predict in ("one", "others"):
        found = one_against_the_others(seen, 1.0, auc_judd, predict=predict)
        assert found[0].isnan().all() and found[1].isfinite().all()


def test_observers_of_the_same_things_predict_each_other():
    same, _ = simulated_observers(spots(), observers=8, fixations=9)
    strangers, _ = simulated_observers(torch.zeros(3, 20, 30), observers=8, fixations=9, centre=0)
    high, low = (one_against_the_others(seen, 1.5, auc_judd).mean() for seen in (same, strangers))
    assert high > 0.8 and abs(low - 0.5) < 0.1
    assert high > one_against_the_others(same, 1.5, auc_judd, predict="others").mean()


def test_more_observers_predict_better():
    seen, truth = simulated_observers(spots(), observers=31, fixations=9)
    scores = [float(some_against_the_rest(seen, count, 1.5, nss, rest=15).mean()) for count in (1, 4, 16)]
    assert scores == sorted(scores)
    # The map of a set that contains the same observers has their fixations, too.
    one = some_against_the_rest(seen, 1, 0, lambda maps, target: maps.sum((1, 2)))
    two = some_against_the_rest(seen, 2, 0, lambda maps, target: maps.sum((1, 2)))
    assert one.tolist() == [9] * 3 and two.tolist() == [18] * 3
    used = []

    def spy(maps, target):
        used.append((maps, target.counts()))
        return maps.sum((1, 2))

    for count in (1, 2):
        some_against_the_rest(seen, count, 0, spy)
    assert (used[0][0] <= used[1][0]).all() and torch.equal(used[0][1], used[1][1])


def test_too_few_observers_are_refused():
    seen, _ = simulated_observers(spots(), observers=3)
    with pytest.raises(ValueError, match="at least two"):
        one_against_the_others(simulated_observers(spots(), observers=1)[0], 1.0, nss)
    with pytest.raises(ValueError, match="'one' or 'others', not 'all'"):
        one_against_the_others(seen, 1.0, nss, predict="all")
    for count, rest in ((3, 1), (0, 1), (1, 0), (1, 3)):
        with pytest.raises(ValueError, match="there are 3 in all"):
            some_against_the_rest(seen, count, 1.0, nss, rest=rest)


def test_float32_maps_are_drawn_from_in_float64():
    seen, truth = simulated_observers(spots().float())
    assert truth.dtype == seen.x.dtype == torch.float64 and torch.allclose(truth.sum((1, 2)), torch.ones(3).double())
    assert torch.allclose(density(truth), truth)
