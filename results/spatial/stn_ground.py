"""What a transformer does if what lies outside the picture is not what lies behind the object.

Digits are standardised (their mean taken away, divided by their standard deviation) before or after the transformer,
which sees 0 outside the picture. *Filled*: standardised before, with the standardised ground as `fill`. *White
outside*: standardised after, but outside lies what is as bright as the strokes.

Metrics, on digits turned, scaled and placed by lot (rts) and on upright ones (none): the accuracy, the mean scale of
the maps (above 1 the transformer zooms out), and the share of the output that shows what lies outside the picture.
Network, steps and rate are near those of stn.py, with half of the pictures. Of interest is a difference of 0.02.
"""

import runpy
from pathlib import Path

import torch
from torch import nn

from attnlib import compare, create, fit, record
from attnlib.data.warped import warped_digits
from attnlib.spatial.transforms import places, pose

shared = runpy.run_path(str(Path(__file__).with_name("stn.py")))
connected, SIZES = shared["connected"], shared["SIZES"] | {"none": 28}
BUDGET = shared["BUDGET"] | dict(steps=300, every=300)
ARMS = ("after", "before", "before, filled", "white outside")


class Standardised(nn.Module):
    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def forward(self, x):
        return (x - self.mean) / self.deviation


def network(arm: str, images, size: int) -> nn.Sequential:
    mean, deviation = float(images.mean()), float(images.std())
    plain, even = connected(size), Standardised(mean, deviation)
    outside = {"before, filled": -mean / deviation, "white outside": 1.0}.get(arm, 0.0)
    transformer = create("stn", 1, fill=outside)
    return nn.Sequential(even, transformer, plain) if "before" in arm else nn.Sequential(transformer, even, plain)


def arm(name: str):
    def measured(seed: int) -> dict[str, float]:
        scores = {}
        for warp in ("rts", "none"):
            size = SIZES[warp]
            train = warped_digits(4_000, warp, size, part="train", seed=seed)
            test = warped_digits(2_000, warp, size, part="test", seed=1_000 + seed)
            torch.manual_seed(seed)
            made = network(name, train.images, size)
            accuracy = fit(made, train, test, seed=seed, **BUDGET).accuracy
            scores |= {f"{what}, {warp}": value for what, value in seen(made, test, size).items()}
            scores[f"accuracy, {warp}"] = accuracy
        return scores

    return measured


def seen(made, test, size: int) -> dict[str, float]:
    with record(made) as weights, torch.no_grad():
        made(test.images)
    (maps,) = weights.values()
    family = next(part.transform for part in made if hasattr(part, "transform"))
    outside = (family(maps, places(size, size, maps)).abs() > 1).any(2)
    return {"scale": float(pose(maps)["scale"].mean()), "outside": float(outside.float().mean())}


def measure():
    return compare({name: arm(name) for name in ARMS}, seeds=6, baseline="after", metric="accuracy, rts", delta=0.02)
