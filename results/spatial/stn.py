"""Spatial transformers in front of a fully connected and a convolutional network, on six ways of warping digits.

As in the paper's first experiment, and smaller: its digits are MNIST's, its networks larger, its training hundreds of
times as long. Each transformer stands before the network that it is compared with; *wider* is that network with as many
parameters more as the transformer has, to within a unit.

Every arm gives one accuracy for each warp, on digits of which training has seen none. Steps and rate are the same for
all, set in pilots with seeds from 900 on. Of interest is a difference of 0.02.
"""

import torch
from torch import nn

from attnlib import compare, create, fit
from attnlib.cost import parameters
from attnlib.data.warped import warped_digits

SIZES = {"rotation": 28, "rts": 36, "projective": 28, "elastic": 28, "translation": 36, "clutter": 36}
# As many fragments for the room as the paper's 16 on 60×60 pixels.
KNOBS = {"clutter": dict(clutter=6)}
BUDGET = dict(steps=400, batch=64, lr=0.005, every=400, progress=False)


def connected(size: int, hidden: int = 64) -> nn.Sequential:
    """One hidden layer that sees every pixel at its own place."""
    return nn.Sequential(nn.Flatten(), nn.Linear(size * size, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def convolutional(width: int = 16) -> nn.Sequential:
    """Three convolutions, and of each channel the strongest answer, wherever it is."""
    def stage(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]

    return nn.Sequential(*stage(1, width), nn.MaxPool2d(2), *stage(width, 2 * width), nn.MaxPool2d(2),
                         *stage(2 * width, 2 * width), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))


# Of both, a network for pictures of this size; only the first has to know it.
FAMILIES = {"FCN": connected, "CNN": lambda size, width=16: convolutional(width)}


def wider(family, size: int) -> nn.Sequential:
    """The network of this family whose parameters come nearest to those of the transformer and the network."""
    aim = parameters(create("stn", 1)) + parameters(family(size))
    return min((family(size, width) for width in range(8, 160)), key=lambda network: abs(parameters(network) - aim))


def network(arm: str, size: int) -> nn.Module:
    kind, _, extra = arm.partition(", ")
    if extra == "wider":
        return wider(FAMILIES[kind], size)
    plain = FAMILIES[kind](size)  # before the transformer, so that all arms start from the same weights
    return nn.Sequential(create("stn", 1), plain) if extra == "STN" else plain


def digits(warp: str, seed: int):
    """8,000 to learn from, and 2,000 of other writers."""
    knobs = dict(size=SIZES[warp], **KNOBS.get(warp, {}))
    return (warped_digits(8_000, warp, part="train", seed=seed, **knobs),
            warped_digits(2_000, warp, part="test", seed=1_000 + seed, **knobs))


def arm(name: str):
    def measured(seed: int) -> dict[str, float]:
        scores = {}
        for warp, size in SIZES.items():
            train, test = digits(warp, seed)
            torch.manual_seed(seed)
            scores[warp] = fit(network(name, size), train, test, seed=seed, **BUDGET).accuracy
        return scores

    return measured


ARMS = [f"{kind}{extra}" for kind in FAMILIES for extra in ("", ", wider", ", STN")]


def measure():
    return compare({name: arm(name) for name in ARMS}, seeds=6, baseline="FCN", metric="rotation", delta=0.02)
