"""What choosing the kernel is worth on the planted size task: against equal shares, and against one kernel.

In the network of the page, with four layers, and in its first two layers alone. The learning rate is that of two which
suited SK and equal shares better, with other seeds than these.
"""

import contextlib

import torch

from attnlib import backbones, compare, fit, switch_off
from attnlib.channel.sk import SK
from attnlib.data.sizes import size_task

PICTURES = dict(size=18, lengths=(3, 5, 7, 9))
NETWORKS = {"accuracy": (8, 16, 32, 32), "accuracy, two layers": (8, 16)}


def trained(widths, branches: int, chosen: bool, seed: int) -> float:
    """The accuracy on unseen pictures of one network."""
    torch.manual_seed(seed)
    network = backbones.small(1, 4, widths=widths)
    SK.install(network, "stage", branches=branches, groups=1)
    pictures, unseen = size_task(6_400, seed=seed, **PICTURES), size_task(5_000, seed=1_000 + seed, **PICTURES)
    with contextlib.nullcontext() if chosen else switch_off(network):
        run = fit(network, pictures, unseen, steps=150, batch=32, lr=0.05, every=150, seed=seed, progress=False)
    return run.accuracy


def arm(branches: int, chosen: bool):
    """One kernel, or two whose shares are computed or held equal, during the training as well."""
    return lambda seed: {what: trained(widths, branches, chosen, seed) for what, widths in NETWORKS.items()}


def measure():
    arms = {"equal shares": arm(2, False), "3×3 alone": arm(1, True), "SK": arm(2, True)}
    return compare(arms, seeds=range(40, 48), baseline="equal shares", delta=0.01)
