"""What width, bottleneck and sharing are worth to a channel gate on the planted cue task, where channels are learned.

The training is twice as long as that on the page of squeeze-and-excitation, which is too short for most of these gates.
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


SE, ECA = {"attention": "se", "normalize": True}, {"attention": "eca", "normalize": True}
ARMS = {
    "SE, r = 4": SE | {"reduction": 4},
    "SE, no bottleneck": SE | {"reduction": 1},
    # A function, because a class is inserted under its registered name, which here is that of ECA.
    "every pair its own weight": {"attention": lambda channels: EveryPair(channels)},
    "ECA, the rule (k = 3)": ECA,
    "ECA, k = 1": ECA | {"kernel_size": 1},
    "ECA, k = 9": ECA | {"kernel_size": 9},
}


def arm(options):
    def accuracy(seed: int) -> float:
        torch.manual_seed(seed)
        network = backbones.small(3, 4, widths=(16, 32), where="last", **options)
        pictures, unseen = cue_task(6_400, seed=seed), cue_task(2_000, seed=1_000 + seed)
        run = fit(network, pictures, unseen, steps=240, batch=48, lr=0.03, every=240, seed=seed, progress=False)
        return run.accuracy

    return accuracy


def measure():
    return compare({name: arm(options) for name, options in ARMS.items()}, seeds=6, baseline="SE, r = 4", delta=0.05)
