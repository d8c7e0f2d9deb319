"""Average, maximum, and both, on a sparse cue, on a textured one, and where either may come.

As published, and with descriptors standardised over the batch, which is not in the paper. The steps, the learning rate
and delta were chosen with other seeds than these.
"""

import torch

from attnlib import backbones, compare, fit
from attnlib.channel.avgmax import AvgMax
from attnlib.channel.se import bottleneck
from attnlib.data.two_cues import KINDS, two_cues


class TwoPerceptrons(AvgMax):
    """A perceptron for the average and another one for the maximum, instead of one for both."""

    def __init__(self, channels: int, **options) -> None:
        super().__init__(channels, **options)
        self.reduce_max, self.expand_max = bottleneck("AvgMax", channels, self.reduction)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        z = self.squeezed(x)
        return (self.perceptron(z["average"]) + self.expand_max(self.reduce_max(z["max"]).relu())).sigmoid()


PUBLISHED = dict(attention="avgmax", where="stages.0", reduction=4)
STANDARD = PUBLISHED | {"normalize": True}
ARMS = {
    "both": STANDARD,
    "average": STANDARD | {"pool": "average"},
    "max": STANDARD | {"pool": "max"},
    "both, two perceptrons": STANDARD | {"attention": TwoPerceptrons},
    "both, as published": PUBLISHED,
    "average, as published": PUBLISHED | {"pool": "average"},
    "max, as published": PUBLISHED | {"pool": "max"},
}


def arm(options):
    def accuracies(seed: int) -> dict[str, float]:
        """One network for each kind of cue."""
        found = {}
        for kind in KINDS:
            torch.manual_seed(seed)
            network = backbones.small(3, 4, widths=(16, 32), **options)
            pictures, unseen = two_cues(6_400, kind, seed=seed), two_cues(2_000, kind, seed=1_000 + seed)
            run = fit(network, pictures, unseen, steps=200, batch=48, lr=0.02, every=200, seed=seed, progress=False)
            found[f"accuracy, {kind} cue"] = run.accuracy
        return found

    return accuracies


def measure():
    arms = {name: arm(options) for name, options in ARMS.items()}
    return compare(arms, seeds=range(40, 48), baseline="both", metric="accuracy, either cue", delta=0.03)
