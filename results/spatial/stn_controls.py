"""What of a spatial transformer does it, and what it undoes, on digits turned, scaled and placed by lot.

All networks end in the same hidden layer. *Features beside*: the transformer's localisation network, whose features go
to the answer; nothing is sampled. *One map*: a transformer whose coefficients are learned and the same for all
pictures. *True map*: a transformer that is told the map by which each picture was deformed. The transformer itself is
also trained five times as long.

What is undone of the angle, of the size and of the place: 1 − (spread after / spread before)², where the spread is the
standard deviation of what is left over (`attnlib.spatial.transforms.left_over`), within a digit's class, since each
class may have a pose of its own. 1 is all, and 0 nothing. Pictures, steps and rate are those of stn.py, whose seeds
from 900 on also served the pilots of this one. Of interest is a difference of 0.02.
"""

import runpy
from pathlib import Path

import torch
from torch import nn

from attnlib import compare, create, fit, intervene, record
from attnlib.spatial.transforms import Affine, left_over, pose
from attnlib.train import evaluate

shared = runpy.run_path(str(Path(__file__).with_name("stn.py")))
digits, network, BUDGET = (shared[name] for name in ("digits", "network", "BUDGET"))
SIZE, LONGER = shared["SIZES"]["rts"], 5


class Beside(nn.Module):
    """The plain network, and beside it the localisation network with an answer of its own, added."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = network("FCN", SIZE)
        self.localisation = create("stn", 1).localisation
        self.answer = nn.Linear(32, 10)

    def forward(self, x):
        return self.plain(x) + self.answer(self.localisation(x))


class Told(nn.Module):
    """Samples by the map that comes with the picture: in its first row of numbers, which are cut off before."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer, self.plain = create("stn", 1), network("FCN", SIZE)

    def forward(self, x):
        return self.plain(self.transformer.use(x[:, :, 1:], x[:, 0, 0, :6]))


def told(pictures):
    row = torch.zeros(len(pictures), 1, 1, SIZE)
    row[:, 0, 0, :6] = pictures.truth["map"]
    return torch.cat([row, pictures.images], 2), pictures.labels


def one_map():
    made = network("FCN, STN", SIZE)
    made[0].coefficients.weight.requires_grad_(False)  # from zero: the bias alone is left
    made[0].localisation.requires_grad_(False)
    return made


def undone(made, test) -> dict[str, float]:
    """The share of the variance within a class that is undone, of the angle, the logarithm of the scale, the place."""
    with record(made) as weights, torch.no_grad():
        made(test.images)
    (predicted,) = weights.values()
    identity = predicted.new_tensor(Affine.identity).expand_as(predicted)
    before, after = (spreads(left_over(maps, test.truth["map"]), test.labels) for maps in (identity, predicted))
    return {f"{name} undone": float(1 - after[name] / before[name]) for name in before}


def spreads(left, labels) -> dict[str, torch.Tensor]:
    """Variances within a class."""
    found = pose(left)
    values = {"angle": found["angle"], "size": found["scale"].log(), "place": torch.stack([found["x"], found["y"]], 1)}
    return {name: torch.stack([each[labels == k].var(0).sum() for k in range(10)]).mean()
            for name, each in values.items()}


def arm(build, see=lambda pictures: pictures, steps=BUDGET["steps"]):
    def measured(seed: int) -> dict[str, float]:
        train, test = digits("rts", seed)
        torch.manual_seed(seed)
        made = build()
        budget = BUDGET | dict(steps=steps, every=steps)
        scores = {"accuracy": fit(made, see(train), see(test), seed=seed, **budget).accuracy}
        nothing = dict.fromkeys(("angle undone", "size undone", "place undone"), 0.0)
        scores |= undone(made, test) if isinstance(made, nn.Sequential) and hasattr(made[0], "transform") else nothing
        if build is transformer:
            with intervene(made, lambda weights, x, module: weights.roll(1, 0)):
                scores["another's map"] = evaluate(made, test).accuracy
        else:
            scores["another's map"] = scores["accuracy"]
        return scores

    return measured


def transformer():
    return network("FCN, STN", SIZE)


def measure():
    return compare({
        "FCN": arm(lambda: network("FCN", SIZE)), "STN": arm(transformer), "features beside": arm(Beside),
        "one map": arm(one_map), "true map": arm(Told, told),
        "STN, longer": arm(transformer, steps=LONGER * BUDGET["steps"]),
        "FCN, longer": arm(lambda: network("FCN", SIZE), steps=LONGER * BUDGET["steps"]),
    }, seeds=6, baseline="FCN", delta=0.02)
