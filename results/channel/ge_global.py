"""Gather-excite by four extents, with the same parameters, where one cue decides for the whole picture."""

import torch

from attnlib import backbones, compare, fit
from attnlib.data import cue_task

SIZE = 24  # so that no window of extent 8 reaches from the strokes to the cue
BLOCK = {"attention": "ge", "where": "last", "excite": "subnetwork", "reduction": 4, "normalize": True}
ARMS = {"none": {}} | {f"extent {e}": BLOCK | {"extent": e} for e in (2, 4, 8)} | {"global": BLOCK}


def arm(attention: dict):
    def accuracy(seed: int) -> float:
        torch.manual_seed(seed)
        network = backbones.small(3, 4, widths=(32,), **attention)
        pictures, unseen = cue_task(9_600, SIZE, seed=seed), cue_task(2_000, SIZE, seed=1_000 + seed)
        budget = dict(steps=150, batch=64, lr=0.03, every=150)
        return fit(network, pictures, unseen, **budget, seed=seed, progress=False).accuracy

    return accuracy


def measure():
    return compare({name: arm(attention) for name, attention in ARMS.items()}, seeds=6, baseline="none", delta=0.05)
