"""The page's small model of saliency, trained on OSIE: what the classical models see, weighed by likelihood.

A place's score is a weighted sum of five channels: the contrasts of brightness, colour and direction of Itti and Koch's
model, the spectral residual, and the logarithm of a centre bias; a softmax over all places makes a probability of it.
The weights have the highest likelihood of the fixations on four fifths of the photographs, and are tried on the others.
*Without the centre* lacks the last channel; *centre alone* has only that one, so that it learns how wide the bias is.

One *seed* is one photograph, by its number, and the scores are those of `osie.py`, to be compared with its arms. The
weights are those that the photograph was predicted with; 0 where there are none. Nothing was tuned.
"""

import functools
import runpy
from pathlib import Path

import torch

from attnlib import compare
from attnlib.data.osie import osie_pictures
from attnlib.saliency.features import resized
from attnlib.saliency.fixations import centre_bias, stretched
from attnlib.saliency.itti_koch import conspicuities
from attnlib.saliency.spectral_residual import spectral_residual

SIZE, GRID, WHOLE, FOLDS = (150, 200), (38, 50), (600, 800), 5
CHANNELS = ("brightness", "colour", "direction", "spectral residual", "centre")
ARMS = {"learned": (0, 1, 2, 3, 4), "learned, without the centre": (0, 1, 2, 3), "centre alone, learned": (4,)}
OSIE = runpy.run_path(str(Path(__file__).with_name("osie.py")))


def channels(images) -> torch.Tensor:
    """(N, 5, 38, 50), the first four in 0–1."""
    seen = [*conspicuities(images), spectral_residual(images)[:, None]]
    maps = torch.cat([stretched(resized(one, GRID)) for one in seen], 1).double()
    return torch.cat([maps, centre_bias(GRID).log().expand(len(maps), 1, -1, -1)], 1)


@functools.cache
def everything():
    """All channels and fixations on the grid, with the photographs' numbers."""
    numbers = [int(name) for name in osie_pictures(size=(3, 4))[0].classes]
    seen = torch.cat([channels(osie_pictures(size=WHOLE, names=[str(one)])[0].images) for one in numbers])
    return numbers, seen, osie_pictures(size=GRID)[1].counts()


@functools.cache
def weights(used: tuple[int, ...], fold: int) -> torch.Tensor:
    """Of the highest likelihood on all photographs but those of the fold; it has a single maximum."""
    numbers, seen, counts = everything()
    chosen = torch.tensor(numbers) % FOLDS != fold
    maps, looks = seen[chosen][:, list(used)].flatten(2), counts[chosen].flatten(1)
    found = torch.zeros(len(used), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([found], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        likelihood = (torch.einsum("k,nkp->np", found, maps).log_softmax(1) * looks).sum() / looks.sum()
        (-likelihood).backward()
        return -likelihood

    optimiser.step(loss)
    return found.detach()


def arm(used: tuple[int, ...]):
    def measured(seed: int) -> dict[str, float]:
        numbers, seen, _ = everything()
        learned = weights(used, seed % FOLDS)
        score = torch.einsum("k,nkhw->nhw", learned, seen[numbers.index(seed), list(used)][None])
        maps = resized(score[:, None], SIZE).flatten(1).softmax(1).view(1, *SIZE)
        names, fixations, others = OSIE["people"]()
        number = names.index(str(seed))
        found = OSIE["scores"](maps, fixations.on([number]), others[number : number + 1])
        told = dict.fromkeys(CHANNELS, 0.0) | {CHANNELS[k]: float(w) for k, w in zip(used, learned)}
        return found | {f"weight of {name}": weight for name, weight in told.items()}

    return measured


def measure(count: int | None = None):
    """All arms on the photographs that are here, or on the first `count` of them."""
    seeds = everything()[0][:count]
    return compare({name: arm(used) for name, used in ARMS.items()}, seeds=seeds, baseline="centre alone, learned",
                   metric="AUC", delta=0.01, workers=1)
