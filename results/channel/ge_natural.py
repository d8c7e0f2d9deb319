"""Gather-excite without parameters on handwritten digits, by a small and the global extent; seeds used nowhere else."""

import torch

from attnlib import backbones, compare, fit
from attnlib.data import digits

ARMS = {"none": {}, "θ⁻, extent 2": {"attention": "ge", "extent": 2}, "θ⁻, global": {"attention": "ge"}}


def arm(options):
    def accuracy(seed: int) -> float:
        torch.manual_seed(seed)
        network = backbones.small_resnet(1, 10, widths=(16, 32, 64), **options)
        return fit(network, *digits(seed=seed), epochs=10, batch=64, lr=0.01, seed=seed, progress=False).accuracy

    return accuracy


def measure():
    arms = {name: arm(options) for name, options in ARMS.items()}
    return compare(arms, seeds=range(40, 48), baseline="none", delta=0.005)
