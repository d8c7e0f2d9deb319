"""How many observers are enough? The map of 1 to 14 of OSIE's observers predicts one who is not among them.

An arm is the number of observers in the map. One *seed* is one photograph, by its number, as in `osie.py`; each number
is the mean over twelve draws of who predicts whom, the same for all arms: with more observers in the map, those of the
smaller map are among them, and the one who is predicted is the same. Blur, size and probabilities as in `osie.py`.

Delta is a tenth of a bit, and was chosen on photographs above 1100, of which none is scored here.
"""

import runpy
from pathlib import Path

import torch

from attnlib import compare
from attnlib.saliency.fixations import blur
from attnlib.saliency.metrics import auc_judd, information_gain, nss
from attnlib.saliency.observers import some_against_the_rest

OSIE = runpy.run_path(str(Path(__file__).with_name("osie.py")))
people, likely, SIGMA = (OSIE[name] for name in ("people", "likely", "SIGMA"))
DRAWS = 12
COUNTS = (14, 1, 2, 3, 4, 5, 7, 10)
PHOTOGRAPHS = range(1001, 1101)


def arm(count: int):
    def measured(seed: int) -> dict[str, float]:
        names, fixations, others = people()
        number = names.index(str(seed))
        here, baseline, found = fixations.on([number]), blur(others[number], SIGMA), []

        def scores(maps, target):
            gain = information_gain(likely(maps), target, baseline)
            found.append(torch.stack([gain, nss(maps, target), auc_judd(maps, target)]).flatten())
            return gain

        for draw in range(DRAWS):
            some_against_the_rest(here, count, SIGMA, scores, seed=draw)
        return dict(zip(("information gain", "NSS", "AUC"), torch.stack(found).mean(0).tolist()))

    return measured


def measure(photographs=PHOTOGRAPHS):
    people()  # says what is missing before the first arm does
    arms = {f"{count} observer" + "s" * (count > 1): arm(count) for count in COUNTS}
    return compare(arms, seeds=list(photographs), baseline="14 observers", metric="information gain", delta=0.1,
                   workers=1)
