"""Salient object detection: what training a network for it and marking it need, beside the network.

A network takes pictures and gives one score for every pixel; the sigmoid of the score is the probability that the pixel
belongs to the salient object. `attnlib.backbones.small_unet` builds one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.saliency.object_measures import e_curve, f_curve, mae, s_measure
from attnlib.train.session import evaluation


def pixel_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy, averaged over all pixels: what `fit` takes as its loss.

    Args:
        scores: (N, 1, H, W), before the sigmoid.
        masks: (N, H, W), boolean, or 0 and 1.

    Raises:
        ValueError: scores of another shape.
    """
    return F.binary_cross_entropy_with_logits(_one_for_each_pixel(scores, masks), masks.to(scores))


def pixel_f(scores: Tensor, masks: Tensor) -> Tensor:
    """The maximal F-measure of a batch, 0–1: what `fit` takes as its accuracy. Args and errors as for `pixel_loss`.

    It is taken at one threshold for all pictures of the batch; of pictures with an empty mask there is none.
    """
    maps = _one_for_each_pixel(scores, masks).detach().float().sigmoid()
    return f_curve(maps, masks.bool()).nanmean(0).amax()


def object_maps(network: nn.Module, images: Tensor, batch: int = 200) -> Tensor:
    """The network's probabilities for each pixel, (N, H, W) on the network's device, in evaluation mode.

    Args:
        network: takes (N, C, H, W) and gives (N, 1, H, W).
        images: (N, C, H, W).
        batch: pictures at a time.
    """
    parameter = next(network.parameters(), images)
    with evaluation(network), torch.no_grad():
        scores = torch.cat([network(some.to(parameter)) for some in images.split(batch)])
    return _one_for_each_pixel(scores, images[:, 0]).sigmoid()


def object_scores(maps: Tensor, masks: Tensor) -> dict[str, float]:
    """The four measures of a set of pictures, by name: max F, S, max E, MAE. See `attnlib.saliency.object_measures`.

    MAE and S are means over the pictures. F and E are those at the threshold that is best on average.

    Args:
        maps: (N, H, W) in 0–1.
        masks: (N, H, W), boolean, or 0 and 1.
    """
    return {
        "max F": float(f_curve(maps, masks).nanmean(0).amax()),
        "S": float(s_measure(maps, masks).mean()),
        "max E": float(e_curve(maps, masks).mean(0).amax()),
        "MAE": float(mae(maps, masks).mean()),
    }


def _one_for_each_pixel(scores: Tensor, like: Tensor) -> Tensor:
    """(N, 1, H, W) as (N, H, W)."""
    if scores.dim() != 4 or scores.shape[1] != 1 or scores[:, 0].shape != like.shape:
        raise ValueError("a network for salient objects gives one score for each pixel, (N, 1, H, W); for "
                         f"{tuple(like.shape)} pixels there are {tuple(scores.shape)} scores")
    return scores[:, 0]
