"""Recurrent attention among clutter: the digits of ram.py, each with three fragments of other digits of 5×5 pixels.

The retina has a third patch here, 32×32 pixels reduced to 8×8, and training shows twice as many pictures. Both were set
in pilots of *learned* with seeds from 900 on, delta before the first run. Four seeds were measured first; the other two
were added later, without regard to what the four had shown.
"""

import runpy
from pathlib import Path

import torch

from attnlib import compare, create, fit
from attnlib.data.warped import warped_digits
from attnlib.spatial.reinforce import correct, reinforce
from attnlib.train import evaluate

shared = runpy.run_path(str(Path(__file__).with_name("ram.py")))
SIZE, DIGIT = shared["SIZE"], shared["DIGIT"]
EYE = shared["EYE"] | {"scales": 3}
BUDGET = dict(steps=1_000, batch=256, lr=0.004, every=1_000, progress=False)


def digits(seed: int):
    knobs = dict(size=SIZE, digit=DIGIT, clutter=3, fragment=5)
    return (warped_digits(20_000, "clutter", part="train", seed=seed, **knobs),
            warped_digits(4_000, "clutter", part="test", seed=10_000 + seed, **knobs))


def glimpses(**options):
    def measured(seed: int) -> dict[str, float]:
        train, test = digits(seed)
        torch.manual_seed(seed)
        network = create("ram", 1, **EYE | options)
        fit(network, train, loss=reinforce, accuracy=correct, seed=seed, **BUDGET)
        return {"accuracy": evaluate(network, test, loss=reinforce, accuracy=correct).accuracy,
                "pixels": network.pixels}

    return measured


def convolution(seed: int) -> dict[str, float]:
    train, test = digits(seed)
    torch.manual_seed(seed)
    network = shared["convolutional"]()
    fit(network, train, seed=seed, **BUDGET)
    return {"accuracy": evaluate(network, test).accuracy, "pixels": SIZE**2}


def measure():
    arms = {"random": glimpses(policy="random"), "learned": glimpses(), "middle": glimpses(policy="middle"),
            "CNN, all": convolution}
    return compare(arms, seeds=6, baseline="random", delta=0.02)
