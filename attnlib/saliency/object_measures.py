"""How well a map of probabilities finds the salient object: the measures of salient object detection.

Predictions are (N, H, W) in 0–1 and are used as they are: published evaluation code stretches every prediction to 0–1
first, by which a network that is unsure everywhere looks sure. Masks are (N, H, W), boolean, or numbers that are 0 or
1. Every function gives one number, or one curve, for each picture, in float64. For a data set, mean absolute error and
S-measure are averaged; the maximal F- and E-measure are, by custom, the maximum of the *averaged curve*:
``f_curve(predictions, masks).nanmean(0).max()``.
"""

from __future__ import annotations

import torch
from torch import Tensor

THRESHOLDS = 256
# Precision weighs more than recall (Achanta, Hemami, Estrada, Süsstrunk, CVPR 2009).
BETA2 = 0.3


def mae(predictions: Tensor, masks: Tensor) -> Tensor:
    """Mean absolute error: (N,), 0 is best. Defined for every mask.

    Raises:
        ValueError: shapes that differ, predictions outside 0–1 or not finite, masks with other values than 0 and 1.
    """
    predictions, masks = _checked(predictions, masks)
    return (predictions - masks.double()).abs().mean((1, 2))


def f_curve(predictions: Tensor, masks: Tensor, *, beta2: float = BETA2) -> Tensor:
    """F-measure at each of 256 thresholds: (1 + β²) · precision · recall / (β² · precision + recall).

    Achanta, Hemami, Estrada, Süsstrunk, "Frequency-tuned salient region detection", CVPR 2009. A pixel belongs to the
    object at threshold t = 0, …, 255 where ⌊255 · prediction⌋ ≥ t, as for a map that is stored in bytes.

    Returns:
        (N, 256): 0 where nothing is found; NaN for an empty mask, in which there is nothing to find (published code
        gives 0).

    Raises: as for `mae`.
    """
    predictions, masks = _checked(predictions, masks)
    right, wrong = _found_at_thresholds(predictions, masks)
    size = masks.sum((1, 2))[:, None].double()
    return _f(right, wrong, size, beta2)


def max_f(predictions: Tensor, masks: Tensor, *, beta2: float = BETA2) -> Tensor:
    """The greatest F-measure over the thresholds, for each picture: (N,). As `f_curve`."""
    return f_curve(predictions, masks, beta2=beta2).amax(1)


def adaptive_f(predictions: Tensor, masks: Tensor, *, beta2: float = BETA2) -> Tensor:
    """F-measure at twice the mean of the prediction, at most 1: (N,). As `f_curve`, without its rounding to bytes."""
    predictions, masks = _checked(predictions, masks)
    found = predictions >= (2 * predictions.mean((1, 2), keepdim=True)).clamp(max=1)
    right, wrong = ((found & part).sum((1, 2)).double() for part in (masks, ~masks))
    return _f(right, wrong, masks.sum((1, 2)).double(), beta2)


def e_curve(predictions: Tensor, masks: Tensor) -> Tensor:
    """Enhanced-alignment measure at each of 256 thresholds, as in `f_curve`.

    Fan, Gong, Cao, Ren, Cheng, Borji, "Enhanced-alignment measure for binary foreground map evaluation", IJCAI 2018.
    Both binary maps are shifted to a mean of 0 (a and b); the score is the mean over the pixels of
    (1 + 2ab / (a² + b²))² / 4. The authors' code divides the sum by H·W − 1, so that a perfect map scores above 1; here
    it is H·W, as in the paper.

    Returns:
        (N, 256). For an empty mask the share of pixels that are not found, for a full one of those that are: the
        authors' rule.

    Raises: as for `mae`.
    """
    predictions, masks = _checked(predictions, masks)
    pixels, size = masks[0].numel(), masks.sum((1, 2))[:, None].double()
    right, wrong = _found_at_thresholds(predictions, masks)
    found = (right + wrong) / pixels
    score = torch.zeros_like(right)
    # Only four pairs of values occur: found or not, in the mask or not.
    for is_found, in_mask, count in ((1, 1, right), (1, 0, wrong), (0, 1, size - right),
                                     (0, 0, pixels - size - wrong)):
        a, b = is_found - found, in_mask - size / pixels
        align = 2 * a * b / (a * a + b * b).clamp(min=torch.finfo(a.dtype).tiny)
        score += count * (1 + align) ** 2 / 4
    score = score / pixels
    return torch.where(size == 0, 1 - found, torch.where(size == pixels, found, score))


def max_e(predictions: Tensor, masks: Tensor) -> Tensor:
    """The greatest E-measure over the thresholds, for each picture: (N,). As `e_curve`."""
    return e_curve(predictions, masks).amax(1)


def s_measure(predictions: Tensor, masks: Tensor, *, alpha: float = 0.5) -> Tensor:
    """Structure measure: α times the likeness of the objects, and 1 − α times that of four regions; at least 0.

    Fan, Cheng, Liu, Li, Borji, "Structure-measure: A new way to evaluate foreground maps", ICCV 2017. The prediction is
    not made binary. The regions meet at the centroid of the mask, which is rounded to a pixel, halves upwards, and
    belongs to the upper left one, as in the authors' code. Deviations have n − 1 below the line; one pixel has none.

    Returns:
        (N,): 1 is best. For an empty mask 1 minus the mean prediction, for a full one the mean: the authors' rule.

    Raises: as for `mae`; or an alpha outside 0–1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha shares between objects and regions, from 0 to 1, not {alpha}")
    predictions, masks = _checked(predictions, masks)
    mean, share = predictions.mean((1, 2)), masks.double().mean((1, 2))
    score = alpha * _objects(predictions, masks, share) + (1 - alpha) * _regions(predictions, masks)
    return torch.where(share == 0, 1 - mean, torch.where(share == 1, mean, score.clamp(min=0)))


def _objects(predictions: Tensor, masks: Tensor, share: Tensor) -> Tensor:
    """2m / (m² + 1 + s) with mean m and deviation s, of the prediction within the object, and reversed outside it."""
    scores = []
    for part, values in ((masks, predictions), (~masks, 1 - predictions)):
        part = part.double()
        mean = _mean(values, part)
        deviation = _spread(values, values, part).sqrt()
        scores.append(2 * mean / (mean**2 + 1 + deviation))
    return share * scores[0] + (1 - share) * scores[1]


def _regions(predictions: Tensor, masks: Tensor) -> Tensor:
    """Structural similarity in four regions, weighted by their areas: (N,)."""
    rows, columns = (torch.arange(n, device=masks.device, dtype=torch.float64) for n in masks.shape[1:])
    truth = masks.double()
    below = rows[:, None] > _centroid(truth, rows[:, None])
    right = columns > _centroid(truth, columns)
    score = torch.zeros(len(masks), dtype=torch.float64, device=masks.device)
    for region in (~below & ~right, ~below & right, below & ~right, below & right):
        region = region.double()
        score += region.mean((1, 2)) * _likeness(predictions, truth, region)
    return score


def _centroid(truth: Tensor, places: Tensor) -> Tensor:
    mean = (truth * places).sum((1, 2)) / truth.sum((1, 2)).clamp(min=1)
    return (mean + 0.5).floor()[:, None, None]


def _likeness(x: Tensor, y: Tensor, part: Tensor) -> Tensor:
    """4 x̄ ȳ cov(x, y) / ((x̄² + ȳ²)(var x + var y)) within `part`; 1 where both are constant."""
    mean_x, mean_y = _mean(x, part), _mean(y, part)
    above = 4 * mean_x * mean_y * _spread(x, y, part)
    under = (mean_x**2 + mean_y**2) * (_spread(x, x, part) + _spread(y, y, part))
    return torch.where(under > 0, above / torch.where(under > 0, under, 1), 1)


def _mean(values: Tensor, part: Tensor) -> Tensor:
    return (values * part).sum((1, 2)) / part.sum((1, 2)).clamp(min=1)


def _spread(x: Tensor, y: Tensor, part: Tensor) -> Tensor:
    """The covariance within `part`, with n − 1 below the line; 0 for one pixel."""
    together = (_centred(x, part) * _centred(y, part)).sum((1, 2))
    return together / (part.sum((1, 2)) - 1).clamp(min=1)


def _centred(values: Tensor, part: Tensor) -> Tensor:
    """The differences to the mean within `part`, 0 outside it."""
    # From the least value on: then those of a constant are exactly 0, which `_likeness` relies on.
    least = torch.where(part > 0, values, torch.inf).amin((1, 2), keepdim=True)
    above = torch.where(part > 0, values - least, 0)
    return (above - _mean(above, part)[:, None, None]) * part


def _f(right: Tensor, wrong: Tensor, size: Tensor, beta2: float) -> Tensor:
    # The same as with precision and recall, and without 0/0 where nothing is found.
    score = (1 + beta2) * right / (beta2 * size + right + wrong)
    return torch.where(size > 0, score, torch.nan)


def _found_at_thresholds(predictions: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """How many pixels of the object, and how many others, are found at each threshold: (N, 256) each."""
    level = (predictions * (THRESHOLDS - 1)).floor().long().flatten(1)
    counts = []
    for part in (masks, ~masks):
        histogram = predictions.new_zeros(len(masks), THRESHOLDS)
        histogram.scatter_add_(1, level, part.flatten(1).double())
        counts.append(histogram.flip(1).cumsum(1).flip(1))
    return counts[0], counts[1]


def _checked(predictions: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    if predictions.dim() != 3 or predictions.shape != masks.shape:
        raise ValueError("predictions and masks are both (N, H, W), not "
                         f"{tuple(predictions.shape)} and {tuple(masks.shape)}")
    if not ((predictions >= 0) & (predictions <= 1)).all():
        raise ValueError("predictions are probabilities from 0 to 1; these hold others, or NaN")
    if masks.dtype != torch.bool:
        if not ((masks == 0) | (masks == 1)).all():
            raise ValueError("masks are boolean, or 0 and 1; choose a threshold for these first")
        masks = masks == 1
    return predictions.double(), masks
