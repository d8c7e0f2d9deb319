"""What width, bottleneck, sharing and patience are worth to a channel gate on the planted cue task, channels learned.

The training is twice as long as that on the page of squeeze-and-excitation, which is too short for most of these gates;
three arms train three times as long again, and SE and ECA also at a third and at three times the learning rate. Length
and rate were set in pilots with seeds below 10; these seeds are others.
"""

import torch
from torch import nn

from attnlib import backbones, compare, fit
from attnlib.channel.eca import ECA as Block
from attnlib.data import cue_task


class EveryPair(Block):
    """A weight of its own for every pair of channels, C²: no bottleneck, full reach, nothing shared."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, normalize=True)
        self.conv = nn.Linear(channels, channels, bias=False)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.conv(self.squeezed(x)))[..., None, None]


SE = {"attention": "se", "normalize": True, "reduction": 4}
ECA = {"attention": "eca", "normalize": True}
# A function, because a class is inserted under its registered name, which here is that of ECA.
PAIRS = {"attention": lambda channels: EveryPair(channels)}
STEPS, RATE = 240, 0.03
ARMS = {  # a mechanism, and what differs in its training
    "SE, r = 4": (SE, {}),
    "SE, no bottleneck": (SE | {"reduction": 1}, {}),
    "every pair its own weight": (PAIRS, {}),
    "ECA, k = 3": (ECA, {}),
    "ECA, k = 1": (ECA | {"kernel_size": 1}, {}),
    "ECA, k = 9": (ECA | {"kernel_size": 9}, {}),
    "ECA, k = 3, longer": (ECA, {"steps": 3 * STEPS}),
    "ECA, k = 1, longer": (ECA | {"kernel_size": 1}, {"steps": 3 * STEPS}),
    "every pair, longer": (PAIRS, {"steps": 3 * STEPS}),
    "SE, r = 4, lr / 3": (SE, {"lr": RATE / 3}),
    "SE, r = 4, lr × 3": (SE, {"lr": RATE * 3}),
    "ECA, k = 3, lr / 3": (ECA, {"lr": RATE / 3}),
    "ECA, k = 3, lr × 3": (ECA, {"lr": RATE * 3}),
}


def arm(mechanism, training):
    budget = {"steps": STEPS, "batch": 48, "lr": RATE, "every": 3 * STEPS, "progress": False} | training

    def accuracy(seed: int) -> float:
        torch.manual_seed(seed)
        network = backbones.small(3, 4, widths=(16, 32), where="last", **mechanism)
        pictures, unseen = cue_task(6_400, seed=seed), cue_task(2_000, seed=1_000 + seed)
        return fit(network, pictures, unseen, **budget, seed=seed).accuracy

    return accuracy


def measure():
    arms = {name: arm(*options) for name, options in ARMS.items()}
    return compare(arms, seeds=range(40, 48), baseline="SE, r = 4", delta=0.05)
