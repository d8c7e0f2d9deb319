"""Dynamic capacity networks on digits among fragments: how right they are with 0, 1, 2, 4, 8, 16 or all of 64 places refined.

All arms but the plain ones have the same three networks, smaller than the paper's. The coarse one blurs: it takes the
mean of every 4×4 pixels, and then sees 3×3 of these means, that is 12×12 pixels, at each of 8×8 places. The fine one
sees the same 12×12 pixels one by one. *Sharp* has the package's coarse network instead, with the paper's kernels, which
sees every pixel as well. *Plain* is an ordinary convolutional network before the same top, once as wide as the
arithmetic of k=8 allows, once as wide as its time did on the machine where this was written (64 pictures at once, one
thread).

Pictures, steps and rate are the same for all. They and the networks were set in pilots with seed 900; no pilot used the
seeds measured here. Of interest is a difference of 0.02.
"""

import torch
from torch import nn

from attnlib import compare, create, fit
from attnlib.data.warped import warped_digits
from attnlib.spatial.dcn import accuracy, hinted
from attnlib.spatial.dcn_networks import Maximum, coarse_network

TASK = dict(warp="clutter", size=32, digit=20, clutter=4)
BUDGET = dict(steps=500, batch=32, lr=0.01, accuracy=accuracy)
GEOMETRY = dict(patch=12, stride=4, padding=4)


def layer(before: int, after: int, kernel: int = 3, **options) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel, bias=False, **options), nn.BatchNorm2d(after), nn.ReLU()]


def coarse() -> nn.Sequential:
    """Sees 12×12 pixels as 3×3 means: (B, 1, H, W) → (B, 24, H/4, W/4)."""
    return nn.Sequential(nn.AvgPool2d(4), *layer(1, 24, padding=1))


def fine() -> nn.Sequential:
    """Sees 12×12 pixels one by one: (n, 1, 12, 12) → (n, 24, 1, 1)."""
    return nn.Sequential(*layer(1, 8), *layer(8, 16), *layer(16, 16), *layer(16, 16), *layer(16, 24, 4))


def top() -> nn.Sequential:
    """From the vectors of all places to the answer: (B, 24, h, w) → (B, 10)."""
    return nn.Sequential(nn.Conv2d(24, 64, 4, stride=2, padding=1), Maximum(), nn.ReLU(), nn.Linear(64, 10))


def dcn(k=8, choose: str = "entropy", sharp: bool = False) -> nn.Module:
    """The top first, then what may differ, so that arms share as many first weights as they can."""
    shared, glance = top(), coarse_network(1) if sharp else coarse()
    return create("dcn", 1, k=k, choose=choose, top=shared, coarse=glance, fine=fine(), **GEOMETRY)


def plain(width: int) -> nn.Sequential:
    """Three convolutions over all pixels, and the same top."""
    answer = top()
    return nn.Sequential(*layer(1, width, stride=2, padding=1), *layer(width, width, padding=1),
                         *layer(width, 24, stride=2, padding=1), answer)


def pictures(seed: int):
    """4,000 to learn from, and 2,000 of other writers."""
    return (warped_digits(4_000, part="train", seed=seed, **TASK),
            warped_digits(2_000, part="test", seed=1_000 + seed, **TASK))


# Name: the network, and the weight of the hint.
ARMS = {
    "coarse": (lambda: dcn(0), 0.0),
    **{f"k={k}": (lambda k=k: dcn(k), 0.0) for k in (1, 2, 4, 8, 16)},
    "all fine": (lambda: dcn("all"), 0.0),
    "k=8, norm": (lambda: dcn(choose="norm"), 0.0),
    "k=8, random": (lambda: dcn(choose="random"), 0.0),
    "k=8, hint": (dcn, 0.01),
    "plain, as many FLOPs": (lambda: plain(29), 0.0),
    "plain, as slow": (lambda: plain(48), 0.0),
    "sharp coarse": (lambda: dcn(0, sharp=True), 0.0),
    "sharp, k=8": (lambda: dcn(sharp=True), 0.0),
}


def arm(name: str):
    def measured(seed: int) -> float:
        build, hint = ARMS[name]
        train, test = pictures(seed)
        torch.manual_seed(seed)
        return fit(build(), train, test, seed=seed, loss=hinted(hint), every=BUDGET["steps"], progress=False,
                   **BUDGET).accuracy

    return measured


def measure():
    return compare({name: arm(name) for name in ARMS}, seeds=6, baseline="coarse", delta=0.02)
