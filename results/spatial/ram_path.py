"""Recurrent attention: would one good path, the same in every picture, do as well as places that are chosen anew?

The task, the network and the training are those of ram.py. In *one path* the three places are six parameters, learned
by the same REINFORCE with the same noise, baseline, steps and rate: a locator that does not see the state. It starts
from the fixed triangle of ram.py, which favours it: from the middle, where *learned* starts, it ended lower in pilots.
Nor has it the gain of 0.2, with which the places hardly moved. *σ half* and *σ double* are *learned* with another
noise.

Noise in training may harm the reader. So *read anew* is, for *one path*, the accuracy of a second network, which reads
at the places of the first from the beginning of its training and without noise, as *spread* of ram.py does. No other
arm is read anew: there it is the accuracy itself.

Pilots had seeds 900 and 901; delta is that of ram.py.
"""

import contextlib
import runpy
from pathlib import Path

import torch
from torch import Tensor, nn

from attnlib import compare, create, fit, intervene
from attnlib.spatial.reinforce import correct, reinforce
from attnlib.spatial.retina import covered

shared = runpy.run_path(str(Path(__file__).with_name("ram.py")))
SIZE, EYE, BUDGET, SPREAD = shared["SIZE"], shared["EYE"], shared["BUDGET"], shared["SPREAD"]


class OnePath(nn.Module):
    """A locator that gives each glimpse a place of its own, whatever the state.

    States come step by step (B, hidden) while it looks, and all at once (B, T, hidden) for the densities.
    """

    def __init__(self, places: Tensor, gain: float) -> None:
        super().__init__()
        self.places, self.gain = nn.Parameter(places.clone()), gain
        self.step = 0

    def forward(self, states: Tensor) -> Tensor:
        places = self.places / self.gain  # the network multiplies by it
        if states.dim() == 3:
            return places.expand(len(states), -1, -1)
        now, self.step = self.step, (self.step + 1) % len(places)
        return places[now].expand(len(states), -1)


def trained(seed: int, pictures, one_path: bool = False, fixed: Tensor | None = None, **options):
    """A network that has learned to look, or was made to look at `fixed` (T, 2) from the beginning, without noise."""
    torch.manual_seed(seed)
    network = create("ram", 1, **EYE | options, policy="learned" if fixed is None else "middle")
    if one_path:
        network.locator = OnePath(SPREAD, network.gain)
    chosen = contextlib.nullcontext() if fixed is None else intervene(network, lambda at, x, ram: fixed.expand_as(at))
    with chosen:
        fit(network, pictures, loss=reinforce, accuracy=correct, seed=seed, **BUDGET)
    return network


@torch.no_grad()
def accuracy(network, pictures, at: Tensor) -> float:
    return float((network.use(pictures.images, at).argmax(1) == pictures.labels).float().mean())


def glimpses(one_path: bool = False, **options):
    def measured(seed: int) -> dict[str, float]:
        train, test = shared["digits"](seed)
        network = trained(seed, train, one_path, **options)
        at = network.attend(test.images)
        right = again = accuracy(network, test, at)
        if one_path:
            again = accuracy(trained(seed, train, fixed=at[0]), test, at)
        ink = test.truth["mask"]
        sharp = (covered(at, SIZE, SIZE, network.patch) & ink).sum((1, 2)) / ink.sum((1, 2))
        ends = zip(("x1", "y1", "x2", "y2", "x3", "y3"), at.mean(0).flatten().tolist())  # the mean over pictures
        return {"accuracy": right, "read anew": again, "digit seen sharp": float(sharp.mean())} | dict(ends)

    return measured


ARMS = {
    "learned": glimpses(),
    "one path": glimpses(one_path=True),
    "σ half": glimpses(sigma=EYE["sigma"] / 2),
    "σ double": glimpses(sigma=EYE["sigma"] * 2),
}


def measure():
    return compare(ARMS, seeds=6, baseline="learned", delta=0.02)
