"""What makes the difference between attention and average pooling, with seven distractors.

*Held equal*: the attention's weights are all equal while it is trained and tested. *Normalised*: attention with the
batch normalisation that the other poolings have. *Mixed*: filters that see all colours at once, and so a frame together
with the stroke in it; then the choice of the place is no longer needed.
"""

import runpy
from pathlib import Path

from attnlib import compare, switch_off
from attnlib.train import evaluate

shared = runpy.run_path(str(Path(__file__).with_name("attention.py")))
Average, Maximum, attention, trained = (shared[name] for name in ("Average", "Maximum", "attention", "trained"))


def arm(*options, **more):
    return lambda seed: trained(seed, 7, *options, **more)[2]


def held_equal(seed: int) -> float:
    """Equal from the first step to the last, by a pool that is switched off for good."""
    def pool():
        made = attention()
        made.weights.edits = (lambda weights, x, module: module.neutral(x, weights),)
        return made

    network, test, accuracy = trained(seed, 7, pool, norm=True)
    with switch_off(network):
        assert evaluate(network, test).accuracy == accuracy
    return accuracy


def measure():
    arms = {
        "average": arm(Average, norm=True),
        "attention held equal": held_equal,
        "attention, normalised": arm(attention, norm=True),
        "mixed: average": arm(Average, groups=1, norm=True),
        "mixed: maximum": arm(Maximum, groups=1, norm=True),
    }
    return compare(arms, seeds=8, baseline="average", metric="accuracy", delta=0.05)
