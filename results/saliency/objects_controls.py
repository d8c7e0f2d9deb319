"""What squeeze-and-excitation owes to its view of the whole picture, on the odd one out.

The controls: gates computed at every position by itself, from as many parameters; gates that are learned, but the same
for every picture; and the block as published, whose means are not standardised. Budget, pictures and delta are those
of objects.py.
"""

import torch

from attnlib import backbones, compare, fit
from attnlib.data.odd_one_out import odd_one_out
from attnlib.saliency.objects import object_maps, object_scores, pixel_loss

ARMS = {
    "SE": {"normalize": True},
    "as published": {},
    "no global view": {"squeeze": "none", "normalize": True},
    "same for all": {"squeeze": "constant"},
}


def arm(options):
    def max_f(seed: int) -> float:
        pictures, unseen = odd_one_out(4_000, seed=seed), odd_one_out(400, seed=1_000 + seed)
        torch.manual_seed(seed)
        network = backbones.small_unet(3, widths=(8, 16), attention="se", reduction=4, **options)
        fit(network, (pictures.images, pictures.truth["mask"]), steps=250, batch=16, lr=0.04, loss=pixel_loss,
            seed=seed, progress=False)
        return object_scores(object_maps(network, unseen.images), unseen.truth["mask"])["max F"]

    return max_f


def measure():
    arms = {name: arm(options) for name, options in ARMS.items()}
    return compare(arms, seeds=range(8), baseline="SE", metric="max F", delta=0.02)
