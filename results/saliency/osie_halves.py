"""How alike are the maps of two groups of people who looked at the same photographs of OSIE?

An arm is the number of observers in either group; nobody is in both. One *seed* is one photograph, by its number, as in
`osie.py`; each number is the mean over twelve draws of the two groups. Blur and size as in `osie.py`. Delta was chosen
beforehand.
"""

import runpy
from pathlib import Path

from attnlib import compare
from attnlib.saliency.fixations import saliency_map
from attnlib.saliency.metrics import cc
from attnlib.saliency.observers import some_against_the_rest

OSIE = runpy.run_path(str(Path(__file__).with_name("osie.py")))
people, SIGMA = OSIE["looks"], OSIE["SIGMA"]
DRAWS = 12
COUNTS = (1, 2, 3, 4, 5, 6, 7)
PHOTOGRAPHS = range(1001, 1101)


def alike(maps, target):
    return cc(maps, saliency_map(target, SIGMA))


def arm(count: int):
    def measured(seed: int) -> float:
        names, fixations = people()
        here = fixations.on([names.index(str(seed))])
        scores = [some_against_the_rest(here, count, SIGMA, alike, rest=count, seed=draw) for draw in range(DRAWS)]
        return float(sum(scores) / DRAWS)

    return measured


def measure(photographs=PHOTOGRAPHS):
    people()  # says what is missing before the first arm does
    arms = {f"{count} and {count}": arm(count) for count in COUNTS}
    return compare(arms, seeds=list(photographs), metric="CC", delta=0.02, workers=1)
