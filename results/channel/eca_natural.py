"""Efficient channel attention on handwritten digits, against squeeze-and-excitation and none; seeds used nowhere else."""

import torch

from attnlib import backbones, compare, fit
from attnlib.data import digits

ARMS = {
    "none": {},
    "SE, r = 4": {"attention": "se", "reduction": 4},
    "ECA, the rule": {"attention": "eca"},
}


def arm(options):
    def accuracy(seed: int) -> float:
        torch.manual_seed(seed)
        network = backbones.small_resnet(1, 10, **{"widths": (16, 32, 64)} | options)
        budget = dict(epochs=4, batch=64, lr=0.01, every=84)
        return fit(network, *digits(seed=seed), **budget, seed=seed, progress=False).accuracy

    return accuracy


def measure():
    arms = {name: arm(options) for name, options in ARMS.items()}
    return compare(arms, seeds=range(40, 48), baseline="none", delta=0.005)
