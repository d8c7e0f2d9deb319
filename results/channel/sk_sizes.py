"""Which layers turn to the larger kernel as the object grows, and whether it is the size that they follow.

The network, delta and the main number were chosen after pilot runs with other seeds, among three kinds of network.
"""

import torch

from attnlib import backbones, compare, fit, record
from attnlib.data.sizes import size_task

LENGTHS = (3, 5, 7, 9)


def bars(count: int, length: float, copies: int = 1, light: float = 1.0, *, seed: int) -> torch.Tensor:
    """Pictures of bars of one length, `light` times as bright, in the same noise."""
    task = dict(size=18, lengths=(length,), copies=copies, seed=seed)
    return size_task(count, **task).images + (light - 1) * size_task(count, **task, noise=0.0).images


def shares(network, pictures: torch.Tensor) -> torch.Tensor:
    """Per picture and layer, the mean share of the larger kernel: (N, layers)."""
    with record(network.eval()) as weights, torch.no_grad():
        network(pictures)
    return torch.stack([share[:, 1].mean((1, 2, 3)) for share in weights.values()], 1)


def rises(network, seed: int) -> dict[str, torch.Tensor]:
    """What the shares gain, layer by layer, from a short bar to something else."""
    def seen(*bar) -> torch.Tensor:
        return shares(network, bars(400, *bar, seed=seed))

    tiny, large = seen(3), seen(9)
    mixed = torch.cat([tiny, large])[torch.randperm(800)]
    short = seen(4.5).mean(0)
    grown = {"twice as long": (9,), "four of them": (4.5, 4), "large, half as bright": (9, 1, 0.5),
             "short, twice as bright": (4.5, 1, 2.0)}
    found = {what: seen(*bar).mean(0) - short for what, bar in grown.items()}
    return {"rise": large.mean(0) - tiny.mean(0), "lengths shuffled": mixed[:400].mean(0) - mixed[400:].mean(0)} | found


def arm(trained: bool):
    """The rises; an untrained network has seen pictures, so that its normalisations fit."""

    def measure(seed: int) -> dict[str, float]:
        torch.manual_seed(seed)
        network = backbones.small(1, 4, widths=(8, 16, 32, 32), attention="sk", where="stage", groups=1)
        pictures = size_task(4_800, lengths=LENGTHS, seed=seed, size=18)
        budget = dict(steps=150, lr=0.02) if trained else dict(steps=20, lr=1e-9)
        fit(network, pictures, batch=32, seed=seed, progress=False, **budget)
        by_layer = rises(network, 1_000 + seed)
        layers = by_layer.pop("rise")
        found = {"layers 1–3": layers[:3].mean(), **{f"layer {n + 1}": each for n, each in enumerate(layers)},
                 **{what: rise[:3].mean() for what, rise in by_layer.items()}}
        return {what: float(value) for what, value in found.items()}

    return measure


def measure():
    return compare({"untrained": arm(False), "trained": arm(True)}, seeds=range(100, 124), baseline="untrained",
                   metric="layers 1–3", delta=0.02)
