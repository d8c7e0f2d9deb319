"""What squeeze-and-excitation owes to its view of the whole picture, on the odd one out.

The controls: gates computed at every position by itself, from as many parameters; gates that are learned, but the same
for every picture; the block as published, whose means are not standardised; and what the two maps of the means give,
added to every position of its channel rather than multiplied with it, which is a view of the whole picture without
gates. Budget, pictures and delta are those of objects.py.
"""

import runpy
from pathlib import Path

import torch.nn.functional as F

from attnlib import compare
from attnlib.channel.se import SE
from attnlib.data.odd_one_out import odd_one_out

trained = runpy.run_path(str(Path(__file__).with_name("objects.py")))["trained"]


class Added(SE):
    """SE's means and its two linear maps, with as many parameters; their output is a bias for each channel, no gate."""

    def attend(self, x):
        return self.expand(F.relu(self.reduce(self.squeezed(x))))  # (B, C, 1, 1)

    def use(self, x, weights):
        return x + weights


ARMS = {
    "SE": {"normalize": True},
    "as published": {},
    "no global view": {"squeeze": "none", "normalize": True},
    "same for all": {"squeeze": "constant"},
    "added": {"attention": Added, "normalize": True},
}


def arm(options):
    return lambda seed: trained({"attention": "se", "reduction": 4} | options, odd_one_out, seed)[1]["max F"]


def measure():
    arms = {name: arm(options) for name, options in ARMS.items()}
    return compare(arms, seeds=range(8), baseline="SE", metric="max F", delta=0.02)
