"""How far is one fixation from the next? OSIE's observers, the same fixations in another order, and simulated ones.

The distance between successive fixations of one observer, averaged over all of a photograph, as a share of its width.
Simulated observers are as in `osie_people.py`: nine fixations, each drawn by itself from the map of all fifteen people.
One *seed* is one photograph, by its number, as in `osie.py`. Delta was chosen beforehand.
"""

import runpy
from pathlib import Path

import torch

from attnlib import compare
from attnlib.saliency.fixations import blur
from attnlib.saliency.observers import simulated_observers

OSIE = runpy.run_path(str(Path(__file__).with_name("osie.py")))
people, SIZE, SIGMA = (OSIE[name] for name in ("looks", "SIZE", "SIGMA"))
DRAWS = 20
PHOTOGRAPHS = range(1001, 1101)


def step(seen, order) -> float:
    """The mean distance between fixations of the same observer that follow each other in this order."""
    x, y, who = (column[order] for column in (seen.x, seen.y, seen.observer))
    far = (x.diff() ** 2 + y.diff() ** 2).sqrt() / SIZE[1]
    return float(far[who[1:] == who[:-1]].mean())


def anew(seen):
    """Every observer's fixations in a random order, one observer after the other."""
    mixed = torch.randperm(len(seen))
    return mixed[seen.observer[mixed].argsort(stable=True)]


def arm(which: str):
    def measured(seed: int) -> float:
        names, fixations = people()
        seen = fixations.on([names.index(str(seed))])
        if which == "simulated":
            seen, _ = simulated_observers(blur(seen.counts(), SIGMA), centre=0, lapse=0.1, seed=seed)
        if which == "in a random order":
            return sum(step(seen, anew(seen)) for _ in range(DRAWS)) / DRAWS
        return step(seen, torch.arange(len(seen)))

    return measured


def measure(photographs=PHOTOGRAPHS):
    people()  # says what is missing before the first arm does
    arms = {which: arm(which) for which in ("as they came", "in a random order", "simulated")}
    return compare(arms, seeds=list(photographs), metric="step", delta=0.01, workers=1)
