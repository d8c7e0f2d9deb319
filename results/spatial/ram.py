"""Recurrent attention on small digits anywhere in a dark picture: does it pay to choose where to look?

Three glimpses of a retina of two patches, 8×8 pixels sharp and 16×16 reduced to 8×8, in pictures of 32×32 pixels. The
arms that read by glimpses differ in who chooses the places, and in nothing else: the network itself (*learned*), chance,
or nobody, who looks at the middle throughout or at three places spread over the picture, the same in every one. *Attached*
lets the gradient of the classifier through the places.

Four arms have no glimpses. A convolutional and a fully connected network see the whole picture; and two more of either
kind see all of it as coarse as it takes to have no more numbers than the glimpses have, or hardly more. All arms have the
same pictures, steps and rate, set in pilots of *learned* with seeds from 900 on; delta was fixed before the first run.
"""

import contextlib
import runpy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from attnlib import compare, create, fit, intervene
from attnlib.data.warped import warped_digits
from attnlib.spatial.reinforce import correct, reinforce
from attnlib.spatial.retina import covered
from attnlib.train import evaluate

convolutional = runpy.run_path(str(Path(__file__).with_name("stn.py")))["convolutional"]
SIZE, DIGIT, COARSE = 32, 12, 20
SPREAD = torch.tensor([[-0.4, -0.4], [0.4, -0.4], [0.0, 0.4]])
EYE = dict(glimpses=3, patch=8, scales=2, hidden=128, sigma=0.25, gain=0.2)
BUDGET = dict(steps=1_000, batch=128, lr=0.004, every=1_000, progress=False)


class Coarse(nn.Module):
    """All of the picture, at `COARSE`×`COARSE` pixels: each the mean of those it covers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, size=(COARSE, COARSE), mode="area")


def connected(size: int, hidden: int = 128) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(size * size, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
                         nn.Linear(hidden, 10))


def digits(seed: int):
    """10,000 to learn from, and 4,000 of other writers."""
    return (warped_digits(10_000, "translation", SIZE, digit=DIGIT, part="train", seed=seed),
            warped_digits(4_000, "translation", SIZE, digit=DIGIT, part="test", seed=10_000 + seed))


def glimpses(places: torch.Tensor | None = None, **options):
    def measured(seed: int) -> dict[str, float]:
        train, test = digits(seed)
        torch.manual_seed(seed)
        network = create("ram", 1, **EYE | options)
        chosen = contextlib.nullcontext() if places is None else intervene(network, lambda at, x, ram: places.expand_as(at))
        with chosen:
            fit(network, train, loss=reinforce, accuracy=correct, seed=seed, **BUDGET)
        with torch.no_grad():
            torch.manual_seed(seed)
            at = network.attend(test.images) if places is None else places.expand(len(test), -1, -1)
            right = network.use(test.images, at).argmax(1) == test.labels
        ink = test.truth["mask"]
        sharp = (covered(at, SIZE, SIZE, network.patch) & ink).sum((1, 2)) / ink.sum((1, 2))
        return {"accuracy": float(right.float().mean()), "pixels": network.pixels, "digit seen sharp": float(sharp.mean())}

    return measured


def whole(network, pixels: int):
    def measured(seed: int) -> dict[str, float]:
        train, test = digits(seed)
        torch.manual_seed(seed)
        trained = network()
        fit(trained, train, seed=seed, **BUDGET)
        return {"accuracy": evaluate(trained, test).accuracy, "pixels": pixels,
                "digit seen sharp": float(pixels == SIZE**2)}

    return measured


ARMS = {
    "random": glimpses(policy="random"),
    "learned": glimpses(),
    "middle": glimpses(policy="middle"),
    "spread": glimpses(SPREAD, policy="middle"),
    "attached": glimpses(attached=True),
    "CNN, all": whole(convolutional, SIZE**2),
    "CNN, coarse": whole(lambda: nn.Sequential(Coarse(), convolutional()), COARSE**2),
    "FCN, all": whole(lambda: connected(SIZE), SIZE**2),
    "FCN, coarse": whole(lambda: nn.Sequential(Coarse(), connected(COARSE)), COARSE**2),
}


def measure():
    return compare(ARMS, seeds=6, baseline="random", delta=0.02)
