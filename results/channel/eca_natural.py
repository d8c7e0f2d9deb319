"""Efficient channel attention on handwritten digits, against squeeze-and-excitation and none."""

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
        return fit(network, *digits(seed=seed), epochs=4, batch=64, lr=0.01, every=84, seed=seed, progress=False).accuracy

    return accuracy


def measure():
    return compare({name: arm(options) for name, options in ARMS.items()}, seeds=6, baseline="none", delta=0.005)
