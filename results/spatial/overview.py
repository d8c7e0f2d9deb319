"""The three spatial mechanisms, and plain networks, on one cluttered task.

Digits of 20×20 pixels anywhere on 40×40, among eight fragments of other digits. *Whole picture*, *half the resolution*
and *spatial transformer* end in the same convolutions; *narrow* has half as many channels, and does with about as
little arithmetic as the transformer. Dynamic capacity and recurrent attention are networks of their own. Each arm is
trained with eight fragments and tested with none, 4, 8 and 16: one accuracy each.

Steps and rates were set in pilots with seeds from 900 on, for each kind of network by itself: supervised ones stop to
gain within SUPERVISED; recurrent attention, which learns by trial, gets several times as many pictures. Of interest is
a difference of 0.02.
"""

import runpy
from pathlib import Path

import torch
from torch import nn

from attnlib import compare, create, fit
from attnlib.data.warped import warped_digits
from attnlib.spatial.dcn import accuracy, hinted
from attnlib.spatial.reinforce import correct, reinforce
from attnlib.spatial.transforms import Window
from attnlib.train import evaluate

convolutions = runpy.run_path(str(Path(__file__).with_name("stn.py")))["convolutional"]
SIZE, LEARNED_WITH, TESTED_WITH = 40, 8, (0, 4, 8, 16)
SUPERVISED = dict(steps=800, batch=64, lr=0.005)
REWARDED = dict(steps=2_500, batch=128, lr=0.003)
RETINA = dict(glimpses=4, patch=8, scales=3, hidden=256, sigma=0.2, gain=0.2)


def digits(count: int, part: str, seed: int, clutter: int = LEARNED_WITH):
    return warped_digits(count, "clutter", SIZE, clutter=clutter, part=part, seed=seed)


def reduced() -> nn.Sequential:
    """The same convolutions on a picture of 20×20 pixels."""
    last = convolutions()
    return nn.Sequential(nn.AvgPool2d(SIZE // 20), last)


def transformed() -> nn.Sequential:
    """A window of 20×20 pixels, a quarter of the picture, placed by the transformer, before the same convolutions.

    Its size is fixed. In pilots a window that may also grow (``transform="crop"``) stayed where it began, at nearly all
    of the picture: convolutions with a maximum over places answer alike wherever the digit is.
    """
    last = convolutions()  # first, so that it starts as elsewhere
    return nn.Sequential(create("stn", 1, transform=Window(0.5), size=20), last)


NETWORKS = {
    "whole picture": convolutions,
    "narrow": lambda: convolutions(8),
    "half the resolution": reduced,
    "spatial transformer": transformed,
    "dynamic capacity": lambda: create("dcn", 1, k=8),
    "its coarse part": lambda: create("dcn", 1, k=0),
    "recurrent attention": lambda: create("ram", 1, **RETINA),
    "random glimpses": lambda: create("ram", 1, policy="random", **RETINA),
}


def options(name: str) -> dict:
    """How this arm is trained."""
    if name in ("recurrent attention", "random glimpses"):
        return dict(loss=reinforce, accuracy=correct, **REWARDED)
    if name in ("dynamic capacity", "its coarse part"):
        return dict(loss=hinted(0), accuracy=accuracy, **SUPERVISED)
    return SUPERVISED


def trained(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network, how = NETWORKS[name](), options(name)
    fit(network, digits(20_000, "train", seed), seed=seed, every=how["steps"], progress=False, **how)
    return network


def arm(name: str):
    def measured(seed: int) -> dict[str, float]:
        network = trained(name, seed)
        return {f"{clutter} fragments": evaluate(network, digits(2_000, "test", 1_000 + seed, clutter)).accuracy
                for clutter in TESTED_WITH}

    return measured


def measure():
    return compare({name: arm(name) for name in NETWORKS}, seeds=6, baseline="whole picture",
                   metric=f"{LEARNED_WITH} fragments", delta=0.02)
