"""Which blur makes of some people's fixations the map that predicts somebody else's best?

An arm is the standard deviation of the Gaussian, in pixels of OSIE's photographs of 600×800; OSIE's authors take 24.
One *seed* is one photograph, by its number, as in `osie.py`; the photographs themselves are not needed. Two questions
are asked: the map of fourteen observers predicts the fifteenth, and the map of one predicts the other fourteen; each
number is the mean over the fifteen.

Measured at 150×200 pixels. As in `osie.py`, a map read as a probability is mixed with one part in ten of the same at
every pixel, and information gain is over the fixations on all other pictures. The widths and delta were chosen on
photographs above 1100, of which none is scored here. Delta is a tenth of a bit: the place that is fixated gets 7 %
more probability.
"""

import dataclasses
import functools
import runpy
from pathlib import Path

import torch

from attnlib import compare
from attnlib.saliency.fixations import blur
from attnlib.saliency.metrics import auc_judd, information_gain, nss

OSIE = runpy.run_path(str(Path(__file__).with_name("osie.py")))
people, likely, SIGMA = (OSIE[name] for name in ("people", "likely", "SIGMA"))
QUARTER = 1 / 4
WIDTHS = (24, 6, 8, 12, 17, 34, 48, 68)
PHOTOGRAPHS = range(1001, 1101)


def made_by(here, others: bool):
    """The fixations on one picture as if on K pictures: those of observer k on picture k, or those of all but k."""
    number = torch.arange(here.observers)[:, None]
    picture, chosen = ((here.observer == number) != others).nonzero().T
    return dataclasses.replace(here, x=here.x[chosen], y=here.y[chosen], observer=here.observer[chosen],
                               picture=picture, pictures=here.observers, duration=None)


@functools.lru_cache(1)
def asked(seed: int):
    names, fixations, others = people()
    number = names.index(str(seed))
    here = fixations.on([number])
    one, rest = made_by(here, others=False), made_by(here, others=True)
    return {"": (rest, one), ", from one": (one, rest)}, blur(others[number], SIGMA)


def arm(width: float):
    def measured(seed: int) -> dict[str, float]:
        questions, baseline = asked(seed)
        found = {}
        for name, (source, target) in questions.items():
            maps = blur(source.counts(), width * QUARTER)
            found[f"information gain{name}"] = information_gain(likely(maps), target, baseline)
            found[f"NSS{name}"] = nss(maps, target)
            if not name:
                found["AUC"] = auc_judd(maps, target)
        return {name: float(scores.mean()) for name, scores in found.items()}

    return measured


def measure(photographs=PHOTOGRAPHS):
    people()  # says what is missing before the first arm does
    arms = {f"{width} px": arm(width) for width in WIDTHS}
    return compare(arms, seeds=list(photographs), baseline="24 px", metric="information gain", delta=0.1, workers=1)
