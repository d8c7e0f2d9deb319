"""Dynamic capacity networks on large, mostly empty pictures: digits of 20×20 pixels anywhere on 80×80, 8 fragments.

The networks are those of dcn.py, which are the same at any size: here there are 20×20 places, and the patches of eight of
them hold 18 % of the picture's pixels. *All fine* is trained as a convolution over the whole picture, so that neighbours
share work. *Plain* is as wide as the arithmetic of k=8 allows at this size.

Pictures, steps and rate are the same for all. Size, fragments and steps were set in pilots with seed 900; no pilot used
the seeds measured here. Of interest is a difference of 0.02.
"""

import runpy
from pathlib import Path

import torch
from torch import nn

from attnlib import compare, fit
from attnlib.data.warped import warped_digits
from attnlib.spatial.dcn import accuracy, hinted

small = runpy.run_path(str(Path(__file__).with_name("dcn.py")))
dcn, plain = small["dcn"], small["plain"]

TASK = dict(warp="clutter", size=80, digit=20, clutter=8)
BUDGET = dict(steps=700, batch=32, lr=0.01, loss=hinted(0.0), accuracy=accuracy)


def sliding(fine: nn.Sequential) -> nn.Sequential:
    """The fine network at all places at once, as a convolution: (B, 1, H, W) → (B, 24, H/4, W/4). It becomes part of
    what is returned, and its last convolution moves on by 4 from then on."""
    fine[-3].stride = (4, 4)
    return nn.Sequential(nn.ZeroPad2d(4), fine)


def all_fine() -> nn.Sequential:
    answer = small["top"]()  # first, as in all arms
    return nn.Sequential(sliding(small["fine"]()), answer)


ARMS = {
    "coarse": lambda: dcn(0),
    "k=4": lambda: dcn(4),
    "k=8": lambda: dcn(8),
    "k=8, random": lambda: dcn(8, "random"),
    "all fine, shared": all_fine,
    "plain, as many FLOPs": lambda: plain(18),
}


def pictures(seed: int):
    """4,000 to learn from, and 2,000 of other writers."""
    return (warped_digits(4_000, part="train", seed=seed, **TASK),
            warped_digits(2_000, part="test", seed=1_000 + seed, **TASK))


def arm(name: str):
    def measured(seed: int) -> float:
        train, test = pictures(seed)
        torch.manual_seed(seed)
        return fit(ARMS[name](), train, test, seed=seed, every=BUDGET["steps"], progress=False, **BUDGET).accuracy

    return measured


def measure():
    return compare({name: arm(name) for name in ARMS}, seeds=6, baseline="coarse", delta=0.02)
