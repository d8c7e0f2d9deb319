"""Which family of maps for which warp: the fully connected network behind each of five families of transformers.

Pictures and networks are those of stn.py; steps are fewer. With seeds from 900 on nothing was chosen but these. Of
interest is a difference of 0.02.
"""

import runpy
from pathlib import Path

import torch
from torch import nn

from attnlib import compare, create, fit

shared = runpy.run_path(str(Path(__file__).with_name("stn.py")))
digits, connected, SIZES = (shared[name] for name in ("digits", "connected", "SIZES"))
BUDGET = shared["BUDGET"] | dict(steps=250, every=250)
WARPS = ("rotation", "rts", "projective", "elastic")
FAMILIES = ("rotation", "crop", "affine", "projective", "thin_plate")


def arm(family: str | None):
    def measured(seed: int) -> dict[str, float]:
        scores = {}
        for warp in WARPS:
            torch.manual_seed(seed)
            plain = connected(SIZES[warp])
            made = nn.Sequential(create("stn", 1, transform=family), plain) if family else plain
            scores[warp] = fit(made, *digits(warp, seed), seed=seed, **BUDGET).accuracy
        return scores

    return measured


def measure():
    arms = {"none": arm(None)} | {family.replace("_", " "): arm(family) for family in FAMILIES}
    return compare(arms, seeds=6, baseline="none", metric="rts", delta=0.02)
