"""A transformer before the convolutional network, and one that samples the feature maps of its first stage.

The second has as many features to look at as the first stage gives, and so a few more parameters. Pictures, network,
steps and rate are those of stn.py. Of interest is a difference of 0.02.
"""

import runpy
from pathlib import Path

import torch
from torch import nn

from attnlib import compare, create, fit

shared = runpy.run_path(str(Path(__file__).with_name("stn.py")))
convolutional, digits, SIZES = (shared[name] for name in ("convolutional", "digits", "SIZES"))
BUDGET = shared["BUDGET"] | dict(steps=300, every=300)


def arm(where: str):
    def measured(seed: int) -> dict[str, float]:
        scores = {}
        for warp in ("rotation", "rts"):
            torch.manual_seed(seed)
            layers = list(convolutional())
            if where == "picture":
                layers.insert(0, create("stn", 1))
            if where == "features":
                layers.insert(2, create("stn", 16))  # behind the first convolution and its ReLU
            scores[warp] = fit(nn.Sequential(*layers), *digits(warp, seed), seed=seed, **BUDGET).accuracy
        return scores

    return measured


def measure():
    arms = {where: arm(where) for where in ("none", "picture", "features")}
    return compare(arms, seeds=6, baseline="picture", metric="rotation", delta=0.02)
