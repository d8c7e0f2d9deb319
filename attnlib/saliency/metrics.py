"""How well a saliency map predicts fixations: the measures of the field, for all pictures at once.

Definitions follow Bylinskii, Judd, Oliva, Torralba, Durand, "What do different evaluation metrics tell us about
saliency models?", TPAMI 41(3), 2019, arXiv:1604.03605. Where published codes differ from each other, each function says
what it does. Everything is computed in float64, and three rules hold throughout:

- Every fixation counts, also several in one pixel. (The MIT benchmark's code counts a fixated pixel once.)
- A *constant map* says nothing about the picture and gets the score of chance: AUC 1/2, NSS 0, CC 0. Where maps are
  read as probabilities it is the uniform one. A map of zeros is a constant map.
- A picture *without fixations* has no score: NaN. Average with ``nanmean``.

================== ================ ======== ======== ========================================================
measure            compares with    chance   best     what it forgives
================== ================ ======== ======== ========================================================
`auc_judd`         fixations        1/2      1        any change of the values that keeps their order
`auc_shuffled`     fixations        1/2      1        the same; a centre bias gains nothing
`nss`              fixations        0        no bound another zero and unit; punishes false alarms
`cc`               map of fixations 0        1        another zero and unit; misses and alarms count alike
`similarity`       map of fixations above 0  1        little: a miss costs what was missed
`kl`               map of fixations above 0  0        false alarms that are spread thin; punishes misses most
`information_gain` fixations        below 0  no bound as `kl`; 0 is what the baseline knows
================== ================ ======== ======== ========================================================
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from attnlib.data.fixations import Fixations
from attnlib.saliency.fixations import density

# MATLAB's eps, by which the MIT benchmark keeps logarithms finite.
EPS = 2.0**-52


def auc_judd(
    saliency: Tensor, fixations: Fixations, *, thresholds: Literal["all", "fixated"] = "all",
    negatives: Literal["unfixated", "all"] = "unfixated",
) -> Tensor:
    """Area under the ROC curve of "this pixel was fixated", the other pixels being the negatives.

    Judd, Ehinger, Durand, Torralba, "Learning to predict where humans look", ICCV 2009. The share of fixations on
    pixels at or above a threshold, against the share of negative pixels there.

    With ``thresholds="all"`` the area is exact: the probability that a fixated pixel has a higher value than a negative
    one, ties counting one half. The MIT benchmark's code puts thresholds at the fixated values only and joins the
    points by straight lines; ``thresholds="fixated"`` does that. It exceeds the exact area, by up to 1/2n for n
    fixations: nothing for fifteen observers, much for one. That code also adds noise of at most 1e-7 to break ties;
    here equal values share one threshold. ``negatives="all"`` takes all pixels, as the MIT/Tübingen benchmark does.

    Args:
        saliency: (N, H, W), finite, of the size of the pictures.
        fixations: on N pictures of H×W pixels.

    Returns:
        (N,) float64 in 0–1; NaN for a picture without fixations, or without a pixel that is not fixated.

    Raises:
        ValueError: shapes that do not fit, a value that is not finite, or an unknown word.
    """
    if negatives not in ("unfixated", "all"):
        raise ValueError(f"negatives are 'unfixated' or 'all', not {negatives!r}")
    saliency = _checked(saliency, fixations)
    weights = torch.ones_like(saliency) if negatives == "all" else (fixations.counts() == 0).double()
    return _roc_area(saliency, fixations, weights, thresholds)


def auc_shuffled(
    saliency: Tensor, fixations: Fixations, others: Tensor, *, thresholds: Literal["all", "fixated"] = "all",
) -> Tensor:
    """Area under the ROC curve with the fixations on *other* pictures as negatives: a centre bias gains nothing.

    Zhang, Tong, Marks, Shan, Cottrell, "SUN: A Bayesian framework for saliency using natural statistics", Journal of
    Vision 8(7), 2008. The area is over all of `others`, exactly. The MIT benchmark's code draws as many of them as
    there are fixations, a hundred times, at thresholds 0.1 apart: that has the same mean but for its coarse steps.

    Args:
        saliency: (N, H, W), finite.
        fixations: on N pictures of H×W pixels.
        others: (N, H, W) or (H, W): how many fixations of other pictures hit each pixel, e.g. from
            `attnlib.saliency.fixations.elsewhere`. Pixels that are fixated here, too, stay among them.

    Returns:
        (N,) float64 in 0–1; NaN for a picture without fixations, or without others.

    Raises:
        ValueError: as for `auc_judd`, or `others` that are negative or not finite.
    """
    saliency = _checked(saliency, fixations)
    return _roc_area(saliency, fixations, _weights(others, saliency), thresholds)


def nss(saliency: Tensor, fixations: Fixations) -> Tensor:
    """Normalised scanpath saliency: the mean, over fixations, of the map with mean 0 and standard deviation 1.

    Peters, Iyer, Itti, Koch, "Components of bottom-up gaze allocation in natural images", Vision Research 45(18), 2005.
    The standard deviation is that of the pixels themselves, as in pysaliency; the MIT benchmark's code divides by
    H·W − 1 in it, which makes its scores smaller by a factor of √(1 − 1/HW), and has no value for a constant map.

    Args, Returns, Raises: as for `auc_judd`; the scores have no bounds.
    """
    saliency = _standardised(_checked(saliency, fixations))
    return _mean_at(saliency, fixations)


def cc(saliency: Tensor, truth: Tensor) -> Tensor:
    """Pearson's linear correlation between the map and the map of the fixations.

    Args:
        saliency: (N, H, W), finite.
        truth: the same of the fixations, e.g. from `attnlib.saliency.fixations.saliency_map`.

    Returns:
        (N,) float64 in −1 to 1: 0 where `saliency` is constant; NaN where `truth` is, which nothing can predict.

    Raises:
        ValueError: shapes that differ, or a value that is not finite.
    """
    saliency, truth = _standardised(_finite(saliency)), _standardised(_finite(truth))
    _same(saliency, truth)
    correlation = (saliency * truth).mean((1, 2)).clamp(-1, 1)
    return torch.where((truth != 0).any(2).any(1), correlation, torch.nan)


def similarity(saliency: Tensor, truth: Tensor) -> Tensor:
    """SIM: how much two maps have in common, both with a sum of 1: the sum of the smaller of the two at every pixel.

    The maps are used as they are, as in the definition; the MIT benchmark's code first subtracts each one's minimum, so
    that a map that is positive everywhere scores higher there.

    Args:
        saliency, truth: (N, H, W), not negative.

    Returns:
        (N,) float64 in 0–1; NaN where `truth` is zero everywhere, as nobody fixated anything.

    Raises:
        ValueError: shapes that differ, or a value that is negative or not finite.
    """
    p, q = _densities(saliency, truth)
    return _known(torch.minimum(p, q).sum((1, 2)), truth)


def kl(saliency: Tensor, truth: Tensor, *, eps: float = EPS) -> Tensor:
    """Kullback–Leibler divergence of the map from that of the fixations, in nats: Σ q ln(ε + q / (p + ε)).

    `p` is the saliency map and `q` that of the fixations, both with a sum of 1. Small is good. As in the MIT benchmark,
    ε is 2⁻⁵²; a map that is zero where somebody looked costs up to 36 nats there, and ``eps=0`` makes it infinite.

    Args, Returns, Raises: as for `similarity`, but 0 is best and there is no bound.
    """
    p, q = _densities(saliency, truth)
    ratio = eps + q / (p + eps)
    terms = torch.where(q > 0, q * torch.where(q > 0, ratio, 1).log(), 0)
    return _known(terms.sum((1, 2)), truth)


def information_gain(saliency: Tensor, fixations: Fixations, baseline: Tensor, *, eps: float = EPS) -> Tensor:
    """How many bits per fixation the map knows more than a baseline: the mean of log₂(ε + p) − log₂(ε + b).

    Kümmerer, Wallis, Bethge, "Information-theoretic model comparison unifies saliency metrics", PNAS 112(52), 2015.
    `p` and `b` are the two maps with a sum of 1. They are used as they are; the MIT benchmark's code first subtracts
    each one's minimum, by which the lowest pixel gets the probability 0 and one fixation there costs up to 52 bits.

    Args:
        saliency: (N, H, W), not negative.
        fixations: on N pictures of H×W pixels.
        baseline: (N, H, W) or (H, W), not negative: usually the centre bias.

    Returns:
        (N,) float64, 0 for the baseline itself; NaN for a picture without fixations.

    Raises:
        ValueError: shapes that do not fit, or a value that is negative or not finite.
    """
    p = density(_checked(saliency, fixations))
    b = density(_finite(baseline.expand_as(p) if baseline.shape == p.shape[1:] else baseline))
    _same(p, b)
    return _mean_at((eps + p).log2() - (eps + b).log2(), fixations)


# --- one ROC curve for all -------------------------------------------------------------------------------------------


def _roc_area(saliency: Tensor, fixations: Fixations, negatives: Tensor, thresholds: str) -> Tensor:
    """The area for each picture, where pixels count as negatives as often as `negatives` (N, H, W) says."""
    if thresholds not in ("all", "fixated"):
        raise ValueError(f"thresholds are at 'all' values or at the 'fixated' ones, not {thresholds!r}")
    values, order = saliency.flatten(1).sort(1)
    below = torch.nn.functional.pad(negatives.flatten(1).gather(1, order).cumsum(1), (1, 0))

    def negatives_below(value: Tensor, or_equal: bool) -> Tensor:
        return below.gather(1, torch.searchsorted(values, value, right=or_equal))

    fixated, real = _fixated(saliency, fixations)
    lower = negatives_below(fixated, or_equal=False)
    if thresholds == "all":
        upper = negatives_below(fixated, or_equal=True)
    else:
        # A straight line of the curve ends at the next higher fixated value.
        ladder = torch.where(real, fixated, torch.inf).sort(1).values
        ladder = torch.nn.functional.pad(ladder, (0, 1), value=torch.inf)
        higher = ladder.gather(1, torch.searchsorted(ladder[:, :-1].contiguous(), fixated, right=True))
        upper = negatives_below(higher, or_equal=False)
    won = torch.where(real, (lower + upper) / 2, 0).sum(1)
    return won / (real.sum(1) * below[:, -1])  # 0/0, NaN, where either is missing


def _fixated(saliency: Tensor, fixations: Fixations) -> tuple[Tensor, Tensor]:
    """The values at each picture's fixations side by side, (N, most fixations on a picture), and which are real."""
    order = fixations.picture.argsort(stable=True)
    each = fixations.picture.bincount(minlength=fixations.pictures)
    row = fixations.picture[order]
    column = torch.arange(len(fixations), device=row.device) - (each.cumsum(0) - each)[row]
    found = saliency.new_zeros(fixations.pictures, max(1, int(each.max())))
    i, j = fixations.pixels
    found[row, column] = saliency[fixations.picture, i, j][order]
    return found, torch.arange(found.shape[1], device=row.device) < each[:, None]


def _mean_at(maps: Tensor, fixations: Fixations) -> Tensor:
    """The mean of each map over its picture's fixations; NaN where there are none."""
    found, real = _fixated(maps, fixations)
    return torch.where(real, found, 0).sum(1) / real.sum(1)


# --- maps ------------------------------------------------------------------------------------------------------------


def _finite(maps: Tensor) -> Tensor:
    if maps.dim() != 3:
        raise ValueError(f"maps are (N, H, W), not {tuple(maps.shape)}")
    if not maps.isfinite().all():
        raise ValueError("a map holds NaN or infinite values, so that it cannot be scored")
    return maps.double()


def _checked(saliency: Tensor, fixations: Fixations) -> Tensor:
    expected = (fixations.pictures, *fixations.size)
    if tuple(saliency.shape) != expected:
        raise ValueError(f"the fixations are on pictures {expected}, but the maps have {tuple(saliency.shape)}; "
                         "Fixations.resized moves fixations to another size")
    return _finite(saliency)


def _same(one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape:
        raise ValueError(f"two maps that are compared have the same shape, not {tuple(one.shape)} and "
                         f"{tuple(other.shape)}")


def _weights(others: Tensor, saliency: Tensor) -> Tensor:
    others = _finite(others.expand_as(saliency) if others.shape == saliency.shape[1:] else others)
    _same(saliency, others)
    if (others < 0).any():
        raise ValueError("others says how many fixations hit each pixel, so it is 0 or more")
    return others


def _standardised(maps: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the pixels; 0 everywhere for a constant map."""
    # By the range rather than by the deviation, which rounding keeps from being exactly 0.
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    unit = (maps - low) / torch.where(high > low, high - low, 1)
    deviation, mean = torch.std_mean(unit, (1, 2), correction=0, keepdim=True)
    return torch.where(high > low, (unit - mean) / torch.where(high > low, deviation, 1), 0)


def _densities(saliency: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    saliency, truth = _finite(saliency), _finite(truth)
    _same(saliency, truth)
    return density(saliency), density(truth)


def _known(scores: Tensor, truth: Tensor) -> Tensor:
    return torch.where((truth > 0).any(2).any(1), scores, torch.nan)
