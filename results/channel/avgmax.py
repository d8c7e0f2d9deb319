"""Average, maximum, and both, on a sparse cue, on a textured one, and where either may come."""

import torch

from attnlib import backbones, compare, fit
from attnlib.data.two_cues import KINDS, two_cues

STANDARD = dict(attention="avgmax", where="stages.0", reduction=4, normalize=True)
ARMS = {
    "both": STANDARD,
    "average": STANDARD | {"pool": "average"},
    "max": STANDARD | {"pool": "max"},
    "both, as published": STANDARD | {"normalize": False},
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
    return compare(arms, seeds=8, baseline="both", metric="accuracy, either cue", delta=0.03)
