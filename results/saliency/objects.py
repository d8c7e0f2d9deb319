"""Salient objects in two tasks: a plain network, more of it, and the same with four channel attentions.

Scenes: an animal among things that are none. Odd one out: the figure whose colour no other one has. What was
measured: the four measures on unseen pictures of either task; and the maximal F of the odd one in pictures that are
not as in training, larger ones and ones with more figures. One minus the mean absolute error, so that larger is better.

Steps, learning rate and deltas were fixed with seeds from 900 on: 0.02 for F, S and E, 0.005 for the mean absolute
error. The one measurement that the question is about is the maximal F on scenes.
"""

import functools

import torch

from attnlib import backbones, compare, fit
from attnlib.data import scenes
from attnlib.data.odd_one_out import odd_one_out
from attnlib.saliency.objects import object_maps, object_scores, pixel_loss

GATES = dict(reduction=4, normalize=True)
ARMS = {
    "none": {},
    "wider": {"widths": (9, 16)},
    "deeper": {"widths": (8, 16, 32)},
    "SE": {"attention": "se"} | GATES,
    "ECA": {"attention": "eca", "normalize": True},
    "GE": {"attention": "ge", "normalize": True},
    "avgmax": {"attention": "avgmax"} | GATES,
}
MAKERS = {"scenes": functools.partial(scenes, clutter=0.5, distractors=2), "odd one": odd_one_out}
ELSEWHERE = {"64 px": {"size": 64}, "12 figures": {"figures": 12}}


def marked(network, pictures) -> dict[str, float]:
    return object_scores(object_maps(network, pictures.images), pictures.truth["mask"])


def trained(options, make, seed: int, steps: int = 250):
    """The network, and its scores on unseen pictures. It sees each picture of its training once."""
    pictures, unseen = make(16 * steps, seed=seed), make(400, seed=1_000 + seed)
    torch.manual_seed(seed)
    network = backbones.small_unet(3, **{"widths": (8, 16)} | options)
    fit(network, (pictures.images, pictures.truth["mask"]), steps=steps, batch=16, lr=0.04, loss=pixel_loss, seed=seed,
        progress=False)
    return network, marked(network, unseen)


def arm(options):
    def both_tasks(seed: int) -> dict[str, float]:
        found = {}
        for task, make in MAKERS.items():
            network, scores = trained(options, make, seed)
            found |= {f"{what}, {task}": scores[what] for what in ("max F", "S", "max E")}
            found[f"1 − MAE, {task}"] = 1 - scores["MAE"]
        for name, other in ELSEWHERE.items():
            unlike = odd_one_out(400, seed=2_000 + seed, **other)
            found[f"max F, odd one, {name}"] = marked(network, unlike)["max F"]
        return found

    return both_tasks


def measure():
    arms = {name: arm(options) for name, options in ARMS.items()}
    return compare(arms, seeds=range(8), baseline="none", metric="max F, scenes", delta=0.02)
