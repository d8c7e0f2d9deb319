"""Squeeze-and-excitation on handwritten digits, with and without, against a plain network of more parameters."""

import torch

from attnlib import backbones, compare, fit
from attnlib.data import digits

ARMS = {"none": {}, "wider": {"widths": (16, 33, 65)}, "SE": {"attention": "se", "reduction": 4}}


def arm(options):
    def accuracy(seed: int) -> float:
        torch.manual_seed(seed)
        network = backbones.small_resnet(1, 10, **{"widths": (16, 32, 64)} | options)
        return fit(network, *digits(seed=seed), epochs=10, batch=64, lr=0.01, seed=seed, progress=False).accuracy

    return accuracy


def measure():
    return compare({name: arm(options) for name, options in ARMS.items()}, seeds=20, baseline="none", delta=0.005)
