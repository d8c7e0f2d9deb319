"""Whether the block as published learns the textured cue in a longer training. Seeds that nothing was chosen with."""

import torch

from attnlib import backbones, compare, fit
from attnlib.data.two_cues import two_cues


def arm(steps: int):
    def accuracy(seed: int) -> float:
        torch.manual_seed(seed)
        network = backbones.small(3, 4, widths=(16, 32), attention="avgmax", where="stages.0", reduction=4)
        pictures, unseen = (two_cues(count, "textured", seed=n) for count, n in ((6_400, seed), (2_000, 1_000 + seed)))
        return fit(network, pictures, unseen, steps=steps, batch=48, lr=0.02, every=steps, seed=seed,
                   progress=False).accuracy

    return accuracy


def measure():
    return compare({f"{steps} steps": arm(steps) for steps in (200, 800)}, seeds=range(40, 46), delta=0.03)
