"""The odd one out with four times the training: does a network that sees further find it without attention, then?

Everything else is as in objects.py, but for the pictures: four times as many, so that none is seen twice.
"""

import torch

from attnlib import backbones, compare, fit
from attnlib.data.odd_one_out import odd_one_out
from attnlib.saliency.objects import object_maps, object_scores, pixel_loss

ARMS = {
    "none": {},
    "deeper": {"widths": (8, 16, 32)},
    "SE": {"attention": "se", "reduction": 4, "normalize": True},
}


def arm(options):
    def max_f(seed: int) -> float:
        pictures, unseen = odd_one_out(16_000, seed=seed), odd_one_out(400, seed=1_000 + seed)
        torch.manual_seed(seed)
        network = backbones.small_unet(3, **{"widths": (8, 16)} | options)
        fit(network, (pictures.images, pictures.truth["mask"]), steps=1_000, batch=16, lr=0.04, loss=pixel_loss,
            seed=seed, progress=False)
        return object_scores(object_maps(network, unseen.images), unseen.truth["mask"])["max F"]

    return max_f


def measure():
    arms = {name: arm(options) for name, options in ARMS.items()}
    return compare(arms, seeds=range(8), baseline="none", metric="max F", delta=0.02)
