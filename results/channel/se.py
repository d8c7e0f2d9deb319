"""The paper's ablations of squeeze-and-excitation, on the planted cue task: width, gate, squeeze and place."""

import torch

from attnlib import backbones, compare, fit
from attnlib.data import cue_task

STANDARD = dict(attention="se", reduction=4, normalize=True, where="last")
ARMS = {
    "r = 4": STANDARD,
    "r = 2": STANDARD | {"reduction": 2},
    "r = 8": STANDARD | {"reduction": 8},
    "r = 16": STANDARD | {"reduction": 16},
    "r = 32": STANDARD | {"reduction": 32},
    "tanh gate": STANDARD | {"gate": "tanh"},
    "ReLU gate": STANDARD | {"gate": "relu"},
    "max, as published": STANDARD | {"squeeze": "max", "normalize": False},
    "mean, as published": STANDARD | {"normalize": False},
    "first stage": STANDARD | {"where": "stages.0"},
    "both stages": STANDARD | {"where": "stage"},
}


def arm(options):
    def accuracy(seed: int) -> float:
        torch.manual_seed(seed)
        network = backbones.small(3, 4, widths=(16, 32), **options)
        pictures, unseen = cue_task(12_800, seed=seed), cue_task(10_000, seed=1_000 + seed)
        return fit(network, pictures, unseen, steps=200, batch=64, lr=0.02, seed=seed, progress=False).accuracy

    return accuracy


def measure():
    return compare({name: arm(options) for name, options in ARMS.items()}, seeds=8, baseline="r = 4", delta=0.02)
