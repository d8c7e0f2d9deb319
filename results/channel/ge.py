"""Gather-excite as published, gathering by extent 8 and globally, where each region carries its own cue.

Length and rate were set in pilots with seeds below 10; these seeds are others.
"""

import torch

from attnlib import backbones, compare, fit
from attnlib.data.region_cue import region_cue_task

SIZE = (8, 32)  # of the pictures, and of the only map of a network with one stage
FORMS = {
    "θ⁻": {},
    "θ": {"gather": "conv"},
    "θ⁺": {"gather": "conv", "excite": "subnetwork", "reduction": 4},
}


def options(form: dict, extent) -> dict:
    size = {"size": SIZE} if extent == "global" and form.get("gather") == "conv" else {}
    return {"attention": "ge", "where": "last", "extent": extent} | form | size


def arm(attention: dict):
    def accuracy(seed: int) -> float:
        torch.manual_seed(seed)
        network = backbones.small(3, 4, widths=(32,), **attention)
        pictures, unseen = region_cue_task(9_600, seed=seed), region_cue_task(2_000, seed=1_000 + seed)
        budget = dict(steps=150, batch=64, lr=0.03, every=150)
        return fit(network, pictures, unseen, **budget, seed=seed, progress=False).accuracy

    return accuracy


def measure():
    arms = {"none": arm({})}
    for name, form in FORMS.items():
        arms |= {f"{name}, extent 8": arm(options(form, 8)), f"{name}, global": arm(options(form, "global"))}
    return compare(arms, seeds=range(40, 48), baseline="none", delta=0.05)
