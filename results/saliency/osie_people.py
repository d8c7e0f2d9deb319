"""Is one of OSIE's observers as predictable as another? And is one simulated observer?

An arm is one of the fifteen observers, whom the map of the fourteen others predicts; *everybody* is the mean of the
fifteen. The simulated ones are drawn from the map of all fifteen, nine fixations each, with one part in ten at any
place; they are predicted in the same way. One *seed* is one photograph, by its number, as in `osie.py`. Blur and size
as there. Delta was chosen beforehand.
"""

import functools
import runpy
from pathlib import Path

import torch

from attnlib import compare
from attnlib.saliency.fixations import blur
from attnlib.saliency.metrics import nss
from attnlib.saliency.observers import one_against_the_others, simulated_observers

OSIE = runpy.run_path(str(Path(__file__).with_name("osie.py")))
people, SIGMA = OSIE["looks"], OSIE["SIGMA"]
PHOTOGRAPHS = range(1001, 1101)


@functools.lru_cache(1)
def predicted(seed: int) -> dict[str, torch.Tensor]:
    """NSS of every observer, and of every simulated one, on one photograph."""
    names, fixations = people()
    here = fixations.on([names.index(str(seed))])
    simulated, _ = simulated_observers(blur(here.counts(), SIGMA), centre=0, lapse=0.1, seed=seed)
    who = {"NSS": here, "NSS, simulated": simulated}
    return {name: one_against_the_others(seen, SIGMA, nss)[0] for name, seen in who.items()}


def arm(observer: int | None):
    def measured(seed: int) -> dict[str, float]:
        found = predicted(seed)
        return {name: float(scores.mean() if observer is None else scores[observer]) for name, scores in found.items()}

    return measured


def measure(photographs=PHOTOGRAPHS):
    people()  # says what is missing before the first arm does
    arms = {"everybody": arm(None)} | {f"observer {k + 1}": arm(k) for k in range(15)}
    return compare(arms, seeds=list(photographs), metric="NSS", delta=0.1, workers=1)
