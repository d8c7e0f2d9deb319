"""Gather-excite by four extents, where each region carries its own cue, at three distances from what it decides about.

The blocks gather means and mix channels in the subnetwork, a pair that the paper has for no extent but the global one.
Length and rate of the training were set in pilots with seeds below 10 and from 900 on; these seeds are others.
"""

from dataclasses import replace

import torch

from attnlib import backbones, compare, fit
from attnlib.data import Pictures
from attnlib.data.region_cue import REGION, region_cue_task

BLOCK = {"attention": "ge", "where": "last", "excite": "subnetwork", "reduction": 4, "normalize": True}
BETWEEN = (5, 3, 2)  # columns between a region's bar and its strokes, which stay where they are


def nearer(pictures: Pictures, between: int) -> Pictures:
    """The same pictures with all bars moved towards the strokes of their own region."""
    images = pictures.images.clone()
    images[:, 2] = images[:, 2].unflatten(2, (2, REGION)).roll(BETWEEN[0] - between, 3).flatten(2)
    return replace(pictures, images=images)


def arm(between: int, longer: int = 1, **attention):
    def accuracy(seed: int) -> float:
        torch.manual_seed(seed)
        network = backbones.small(3, 4, widths=(32,), **attention)
        pictures, unseen = (nearer(region_cue_task(count, seed=first + seed), between)
                            for count, first in ((4_800 * longer, 0), (2_000, 1_000)))
        budget = dict(steps=100 * longer, batch=48, lr=0.05, every=100 * longer)
        return fit(network, pictures, unseen, **budget, seed=seed, progress=False).accuracy

    return accuracy


def measure():
    arms = {"none": arm(5), "none, 4 × as long": arm(5, longer=4), "global": arm(5, **BLOCK)}
    arms |= {f"extent {e}, {far} between": arm(far, extent=e, **BLOCK) for far in BETWEEN for e in (2, 4, 8)}
    return compare(arms, seeds=range(40, 48), baseline="none", delta=0.05)
