"""Which layers turn to the larger kernel as the object grows: the experiment of the page, with more seeds.

The network, delta and the main number were chosen after pilot runs with other seeds, among three kinds of network.
"""

import torch

from attnlib import backbones, compare, fit, record
from attnlib.data.sizes import size_task

PICTURES = dict(size=18)
LENGTHS = (3, 5, 7, 9)


def shares(network, length: float, copies: int, seed: int) -> torch.Tensor:
    """Per layer, the mean share of the larger kernel over 400 pictures."""
    with record(network.eval()) as weights, torch.no_grad():
        network(size_task(400, lengths=(length,), copies=copies, seed=seed, **PICTURES).images)
    return torch.stack([share[:, 1].mean() for share in weights.values()])


def arm(trained: bool):
    """The rise of the share by layer; an untrained network has seen pictures, so that its normalisations fit."""

    def measure(seed: int) -> dict[str, float]:
        torch.manual_seed(seed)
        network = backbones.small(1, 4, widths=(8, 16, 32, 32), attention="sk", where="stage", groups=1)
        pictures = size_task(4_800, lengths=LENGTHS, seed=seed, **PICTURES)
        budget = dict(steps=150, lr=0.02) if trained else dict(steps=20, lr=1e-9)
        fit(network, pictures, batch=32, seed=seed, progress=False, **budget)
        tiny, small, four, large = (
            shares(network, *bar, seed=1_000 + seed) for bar in ((3, 1), (4.5, 1), (4.5, 4), (9, 1)))
        rise = large - tiny
        found = {"layers 1–3": rise[:3].mean(), **{f"layer {n + 1}": each for n, each in enumerate(rise)},
                 "four bars": (four - small)[:3].mean(), "twice as long": (large - small)[:3].mean()}
        return {what: float(value) for what, value in found.items()}

    return measure


def measure():
    return compare({"untrained": arm(False), "trained": arm(True)}, seeds=range(100, 124), baseline="untrained",
                   metric="layers 1–3", delta=0.02)
