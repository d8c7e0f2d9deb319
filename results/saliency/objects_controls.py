"""What squeeze-and-excitation owes to its view of the whole picture, on the odd one out.

The controls: gates computed at every position by itself, from as many parameters; gates that are learned, but the same
for every picture; the block as published, whose means are not standardised; and what the two maps of the means give,
added to every position of its channel rather than multiplied with it, which is a view of the whole picture without
gates. Budget, pictures and delta are those of objects.py.
"""

import torch
import torch.nn.functional as F

from attnlib import backbones, compare, fit
from attnlib.channel.se import SE
from attnlib.data.odd_one_out import odd_one_out
from attnlib.saliency.objects import object_maps, object_scores, pixel_loss


class Added(SE):
    """SE's means and its two linear maps, with as many parameters; their output is a bias for each channel, no gate."""

    def attend(self, x):
        return self.expand(F.relu(self.reduce(self.squeezed(x))))  # (B, C, 1, 1)

    def use(self, x, weights):
        return x + weights


ARMS = {
    "SE": {"normalize": True},
    "as published": {},
    "no global view": {"squeeze": "none", "normalize": True},
    "same for all": {"squeeze": "constant"},
    "added": {"attention": Added, "normalize": True},
}


def arm(options):
    def max_f(seed: int) -> float:
        pictures, unseen = odd_one_out(4_000, seed=seed), odd_one_out(400, seed=1_000 + seed)
        torch.manual_seed(seed)
        network = backbones.small_unet(3, widths=(8, 16), **{"attention": "se", "reduction": 4} | options)
        fit(network, (pictures.images, pictures.truth["mask"]), steps=250, batch=16, lr=0.04, loss=pixel_loss,
            seed=seed, progress=False)
        return object_scores(object_maps(network, unseen.images), unseen.truth["mask"])["max F"]

    return max_f


def measure():
    arms = {name: arm(options) for name, options in ARMS.items()}
    return compare(arms, seeds=range(8), baseline="SE", metric="max F", delta=0.02)
