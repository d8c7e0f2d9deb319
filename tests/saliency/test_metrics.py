import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch

from attnlib.data.fixations import Fixations
from attnlib.saliency import metrics
from attnlib.saliency.fixations import blur, centre_bias, elsewhere, saliency_map
from attnlib.saliency.metrics import auc_judd, auc_shuffled, cc, information_gain, kl, nss, similarity

SIZE, N = (10, 14), 5


def example(seed=0, ties=False):
    """Maps and fixations on five pictures; the last one was not looked at, and some pixels were hit twice."""
    rng = torch.Generator().manual_seed(seed)
    maps = torch.rand(N, *SIZE, dtype=torch.float64, generator=rng)
    paths = [[(torch.rand(6 + n, 2, generator=rng).double() * torch.tensor([14.0, 10.0])).repeat(1 + n % 2, 1)]
             for n in range(N - 1)]
    return (maps * 4).round() if ties else maps, Fixations.of([*paths, [[]]], SIZE)


MAPS, SEEN = example()
TRUTH = saliency_map(SEEN, 1.5)
SCORES = {
    "auc_judd": lambda maps: auc_judd(maps, SEEN), "fixated": lambda maps: auc_judd(maps, SEEN, thresholds="fixated"),
    "auc_shuffled": lambda maps: auc_shuffled(maps, SEEN, elsewhere(SEEN)), "nss": lambda maps: nss(maps, SEEN),
    "cc": lambda maps: cc(maps, TRUTH), "similarity": lambda maps: similarity(maps, TRUTH),
    "kl": lambda maps: kl(maps, TRUTH),
    "information_gain": lambda maps: information_gain(maps, SEEN, centre_bias(SIZE)),
}
CHANCE = {"auc_judd": 0.5, "fixated": 0.5, "auc_shuffled": 0.5, "nss": 0, "cc": 0}


def close(ours, theirs, tolerance=1e-12):
    theirs = torch.as_tensor(theirs, dtype=torch.float64)
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)


# --- by hand ---------------------------------------------------------------------------------------------------------

ROW = torch.tensor([[[4.0, 3.0, 2.0, 1.0]]], dtype=torch.float64)
AT_1 = Fixations.of([[[(1.5, 0.5)]]], (1, 4))
AT_0_AND_2 = Fixations.of([[[(0.5, 0.5), (2.5, 0.5)]]], (1, 4))


def test_auc_by_hand():
    # Value 3 is above two of the three other pixels.
    close(auc_judd(ROW, AT_1), [2 / 3])
    # 4 is above both others, 2 above one of them: three of four pairs.
    close(auc_judd(ROW, AT_0_AND_2), [3 / 4])
    # Among all four pixels each fixation also ties with itself: (2.5/4) and (3.5 + 1.5)/8.
    close(auc_judd(ROW, AT_1, negatives="all"), [5 / 8])
    close(auc_judd(ROW, AT_0_AND_2, negatives="all"), [5 / 8])


def test_auc_at_the_fixated_thresholds_by_hand():
    # Points (0, 0), (1/3, 1), (1, 1): a triangle of 1/6 and a rectangle of 2/3.
    close(auc_judd(ROW, AT_1, thresholds="fixated"), [5 / 6])
    # (0, 0), (0, 1/2), (1/2, 1), (1, 1): 3/8 and 1/2.
    close(auc_judd(ROW, AT_0_AND_2, thresholds="fixated"), [7 / 8])


def test_ties_count_one_half():
    tied = torch.tensor([[[3.0, 3.0, 3.0, 1.0]]])
    close(auc_judd(tied, AT_1), [(1 / 2 + 1 / 2 + 1) / 3])
    close(auc_judd(tied, AT_1, thresholds="fixated"), [2 / 3])  # (0, 0), (2/3, 1), (1, 1)


def test_shuffled_auc_by_hand():
    others = torch.tensor([[[2.0, 1.0, 0.0, 3.0]]])
    # 3 against 4 twice, against 3 once, against 1 three times.
    close(auc_shuffled(ROW, AT_1, others), [(0 * 2 + 1 / 2 + 3) / 6])
    close(auc_shuffled(ROW, AT_1, others[0]), [3.5 / 6])
    close(auc_shuffled(ROW, AT_1, torch.zeros(1, 1, 4)), [math.nan])


def test_nss_by_hand():
    # Mean 2.5, variance 5/4.
    close(nss(ROW, AT_1), [0.5 / math.sqrt(1.25)])
    close(nss(ROW, AT_0_AND_2), [0.5 / math.sqrt(1.25)])


def test_comparisons_of_maps_by_hand():
    p, q = torch.tensor([[[1.0, 2.0, 3.0, 2.0]]]), torch.tensor([[[4.0, 4.0, 0.0, 0.0]]])
    close(similarity(p, q), [1 / 8 + 2 / 8])
    close(kl(p, q, eps=0), [0.5 * math.log(4) + 0.5 * math.log(2)])
    close(cc(p, q), [-1 / math.sqrt(2)])
    close(kl(q, p, eps=0), [math.inf])
    # 5/8 of the probability lies where the map has none: ln of that share over epsilon.
    eps = metrics.EPS
    close(kl(q, p), [1 / 8 * math.log(1 / 4) + 2 / 8 * math.log(1 / 2)
                     + 3 / 8 * math.log(3 / 8 / eps) + 2 / 8 * math.log(2 / 8 / eps)])


def test_information_gain_by_hand():
    flat = torch.ones(1, 4)
    # 3/10 and 4/10, 2/10 against 1/4.
    close(information_gain(ROW, AT_1, flat), [math.log2(0.3 / 0.25)])
    close(information_gain(ROW, AT_0_AND_2, flat), [(math.log2(0.4 / 0.25) + math.log2(0.2 / 0.25)) / 2])
    close(information_gain(ROW, AT_1, ROW), [0.0])


def test_every_fixation_counts():
    twice = Fixations.of([[[(0.5, 0.5), (0.6, 0.5), (2.5, 0.5)]]], (1, 4))
    close(auc_judd(ROW, twice), [(2 + 2 + 1) / 6])
    close(nss(ROW, twice), [(1.5 + 1.5 - 0.5) / 3 / math.sqrt(1.25)])


# --- against others --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
def test_auc_equals_scikit_learns(ties):
    maps, seen = example(1, ties)
    counts, others = seen.counts(), elsewhere(seen)

    def theirs(n, negative):
        truth = np.r_[np.ones(140), np.zeros(140)]
        weights = np.r_[counts[n].flatten(), negative.flatten()]
        values = np.tile(maps[n].flatten(), 2)
        return sklearn.metrics.roc_auc_score(truth, values, sample_weight=weights)

    def all_of_them(negatives):
        return [theirs(n, negatives[n]) for n in range(N - 1)] + [math.nan]

    close(auc_judd(maps, seen), all_of_them((counts == 0).double()))
    close(auc_judd(maps, seen, negatives="all"), all_of_them(torch.ones_like(counts)))
    close(auc_shuffled(maps, seen, others), all_of_them(others))


def test_auc_at_fixated_thresholds_equals_the_trapezoids():
    maps, seen = example(2)
    for n in range(N - 1):
        rows, columns = (one[seen.picture == n] for one in seen.pixels)
        values, rest = maps[n][rows, columns], maps[n][seen.counts()[n] == 0]
        curve = [(0.0, 0.0)]
        for threshold in sorted(set(values.tolist()), reverse=True):
            curve.append((float((rest >= threshold).double().mean()), float((values >= threshold).double().mean())))
        curve.append((1.0, 1.0))
        area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in zip(curve, curve[1:]))
        assert float(auc_judd(maps, seen, thresholds="fixated")[n]) == pytest.approx(area, rel=1e-12)


def test_fixated_thresholds_flatter_by_at_most_half_a_fixation():
    exact, published = auc_judd(MAPS, SEEN)[:-1], auc_judd(MAPS, SEEN, thresholds="fixated")[:-1]
    n = SEEN.picture.unique_consecutive(return_counts=True)[1]
    most = SEEN.counts()[:-1].amax((1, 2)) / 2 / n
    assert (published > exact).all() and (published - exact <= most + 1e-12).all()


def test_correlation_equals_scipys():
    theirs = [scipy.stats.pearsonr(MAPS[n].flatten(), TRUTH[n].flatten()).statistic for n in range(N - 1)]
    close(cc(MAPS, TRUTH), [*theirs, math.nan])


def test_divergence_equals_scipys():
    maps = MAPS + 0.1
    theirs = [scipy.stats.entropy(TRUTH[n].flatten(), maps[n].flatten()) for n in range(N - 1)]
    close(kl(maps, TRUTH, eps=0), [*theirs, math.nan])
    close(kl(maps, TRUTH), [*theirs, math.nan], 1e-11)


@pytest.fixture
def pysaliency(monkeypatch):
    """pysaliency's measures. It uses a function that NumPy has renamed."""
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    reason = "pysaliency is not installed, or not with setuptools below 81, which it needs"
    found = pytest.importorskip("pysaliency.metrics", reason=reason, exc_type=ImportError)
    found.general_roc = pytest.importorskip("pysaliency.roc", reason=reason, exc_type=ImportError).general_roc
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ties", [False, True])
def test_equals_pysaliency(pysaliency, ties):
    maps, seen = example(3, ties)
    truth, others = saliency_map(seen, 1.5), elsewhere(seen)
    ours = {"auc": auc_judd(maps, seen, negatives="all"), "shuffled": auc_shuffled(maps, seen, others),
            "nss": nss(maps, seen), "cc": cc(maps, truth), "sim": similarity(maps, truth),
            "kl": kl(maps, truth, eps=2.2204e-16)}  # theirs is rounded
    for n in range(N - 1):
        here, there = maps[n].numpy(), truth[n].numpy()
        rows, columns = (one[seen.picture == n].numpy() for one in seen.pixels)
        negatives = np.repeat(here.flatten(), others[n].flatten().long().numpy())
        theirs = {
            "auc": pysaliency.general_roc(here[rows, columns], here.flatten())[0],
            "shuffled": pysaliency.general_roc(here[rows, columns], negatives)[0],
            "nss": pysaliency.NSS(here, columns, rows).mean(), "cc": pysaliency.CC(here, there),
            "sim": pysaliency.SIM(here, there), "kl": pysaliency.MIT_KLDiv(here, there),
        }
        for name in theirs:
            assert float(ours[name][n]) == pytest.approx(theirs[name], rel=1e-10, abs=1e-12), name


# --- properties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCORES)
def test_every_picture_is_scored_by_itself(name):
    maps = MAPS.clone()
    before = SCORES[name](maps)
    maps[1] = maps[1] ** 3
    changed = SCORES[name](maps) != before
    # A power changes no order, and nobody looked at the last one: NaN differs from NaN.
    assert changed.tolist() == [False, name not in ("auc_judd", "fixated", "auc_shuffled"), False, False, True]
    assert before.dtype == torch.float64 and before[-1].isnan()


@pytest.mark.parametrize("name", SCORES)
def test_float32_is_as_good(name):
    torch.testing.assert_close(SCORES[name](MAPS.float()), SCORES[name](MAPS), rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", CHANCE)
@pytest.mark.parametrize("value", [0.0, 0.1, 7.0, 1e30])
def test_a_constant_map_scores_like_chance(name, value):
    found = SCORES[name](torch.full_like(MAPS, value))
    assert found[:-1].tolist() == [CHANCE[name]] * (N - 1) and found[-1].isnan()


def test_a_constant_map_is_the_uniform_probability():
    for name in ("similarity", "kl", "information_gain"):
        zeros, threes = (SCORES[name](torch.full_like(MAPS, value)) for value in (0.0, 3.0))
        torch.testing.assert_close(zeros, threes, rtol=1e-12, atol=0, equal_nan=True)
    flat = torch.ones_like(MAPS)
    close(information_gain(flat, SEEN, torch.zeros(SIZE)), [0.0] * (N - 1) + [math.nan])


def test_what_each_measure_ignores():
    for name in ("auc_judd", "fixated", "auc_shuffled"):
        close(SCORES[name](MAPS.exp()), SCORES[name](MAPS))
    for name in ("nss", "cc"):
        close(SCORES[name](5 * MAPS - 3), SCORES[name](MAPS), 1e-10)
    for name in ("similarity", "kl", "information_gain"):
        close(SCORES[name](5 * MAPS), SCORES[name](MAPS), 1e-10)


def test_the_best_scores():
    seen = SEEN.on([0, 1])
    exact, truth = seen.counts(), saliency_map(seen, 1.5)
    close(auc_judd(exact, seen), [1.0, 1.0])
    close(auc_judd(-exact, seen), [0.0, 0.0])
    close(cc(truth, truth), [1.0, 1.0])
    close(cc(-truth, truth), [-1.0, -1.0])
    close(similarity(truth, truth), [1.0, 1.0])
    assert (kl(truth, truth).abs() < 1e-12).all()


def test_a_centre_bias_helps_except_in_the_shuffled_auc():
    rng = torch.Generator().manual_seed(0)
    count = 200
    places = torch.randn(count, 12, 2, dtype=torch.float64, generator=rng) * torch.tensor([4.0, 3.0])
    seen = Fixations.of([[place] for place in places + torch.tensor([15.0, 10.0])], (20, 30), outside="drop")
    bias = blur(elsewhere(seen), 1.0)
    assert auc_judd(bias, seen).mean() > 0.8 and nss(bias, seen).mean() > 1
    assert abs(float(auc_shuffled(bias, seen, elsewhere(seen)).mean()) - 0.5) < 0.02


def test_one_pixel():
    seen, ones = Fixations.of([[[(0.5, 0.5)]]], (1, 1)), torch.ones(1, 1, 1)
    assert auc_judd(ones, seen).isnan()  # there is no other pixel
    close(auc_judd(ones, seen, negatives="all"), [0.5])
    close(nss(ones, seen), [0.0])
    close(similarity(ones, ones), [1.0])
    close(kl(ones, ones), [0.0])
    close(information_gain(ones, seen, ones[0]), [0.0])
    assert cc(ones, ones).isnan()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", SCORES)
def test_maps_with_missing_values_are_refused(name, value):
    maps = MAPS.clone()
    maps[2, 3, 4] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        SCORES[name](maps)


@pytest.mark.parametrize("name", SCORES)
def test_maps_of_another_shape_are_refused(name):
    for wrong in (MAPS[:4], MAPS[:, :5], MAPS[0], MAPS[:, None]):
        with pytest.raises(ValueError, match=r"same shape|maps are \(N, H, W\)|maps have"):
            SCORES[name](wrong)


@pytest.mark.parametrize("name", ["similarity", "kl", "information_gain"])
def test_a_probability_is_not_negative(name):
    with pytest.raises(ValueError, match="no negative"):
        SCORES[name](MAPS - 0.5)


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="thresholds are at 'all'"):
        auc_judd(MAPS, SEEN, thresholds="fixed")
    with pytest.raises(ValueError, match="'unfixated' or 'all', not 'random'"):
        auc_judd(MAPS, SEEN, negatives="random")
    with pytest.raises(ValueError, match="0 or more"):
        auc_shuffled(MAPS, SEEN, -torch.ones(SIZE))
    with pytest.raises(ValueError, match="Fixations.resized"):
        nss(MAPS, SEEN.resized((5, 7)))
