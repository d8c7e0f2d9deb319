"""Classical models of saliency, the centre bias and people themselves, on the photographs of OSIE and their fixations.

One *seed* is one photograph, by its number: the intervals are over pictures, and every arm is compared on the same
ones. Needs OSIE in ``ATTNLIB_DATA``. Everything is measured at 150×200 pixels, a quarter of the originals' sides, with
a blur of 6 pixels: the authors' 24 on the originals.

As probabilities, maps are mixed with one part in ten of the same at every pixel: the models do not mean that a pixel
with the value 0 can never be fixated. Information gain is over the fixations on all other pictures.
"""

import functools

import torch

from attnlib import compare
from attnlib.data.osie import osie_fixations, osie_pictures
from attnlib.saliency.fixations import blur, centre_bias, density, elsewhere, saliency_map
from attnlib.saliency.graph_based import graph_based
from attnlib.saliency.itti_koch import itti_koch
from attnlib.saliency.metrics import auc_judd, auc_shuffled, cc, information_gain, kl, nss, similarity
from attnlib.saliency.observers import one_against_the_others
from attnlib.saliency.spectral_residual import spectral_residual

SIZE, SIGMA, WHOLE = (150, 200), 6.0, (600, 800)
MODELS = {"spectral residual": spectral_residual, "Itti–Koch": itti_koch, "graph-based": graph_based}


@functools.cache
def looks():
    """All names and all fixations."""
    names, fixations = osie_fixations()
    return names, fixations.resized(SIZE)


@functools.cache
def people():
    """All names; all fixations; and for each picture the fixations on the 699 others."""
    names, fixations = looks()
    return names, fixations, elsewhere(fixations)


def likely(maps):
    """Maps as probabilities that exclude no place."""
    return 0.9 * density(maps) + 0.1 / maps[0].numel()


def scores(maps, fixations, others) -> dict[str, float]:
    """Every measure of one map (1, H, W)."""
    truth, chances = saliency_map(fixations, SIGMA), likely(maps)
    found = {
        "AUC": auc_judd(maps, fixations), "shuffled AUC": auc_shuffled(maps, fixations, others),
        "NSS": nss(maps, fixations), "CC": cc(maps, truth), "SIM": similarity(maps, truth), "KL": kl(chances, truth),
        "information gain": information_gain(chances, fixations, blur(others, SIGMA)),
    }
    return {name: float(score) for name, score in found.items()}


def map_of(arm: str, number: int):
    """The map (1, H, W) of an arm that is one for a whole picture, for photograph `number`."""
    if arm == "centre bias":
        return centre_bias(SIZE)[None]
    if arm == "fixations elsewhere":
        return blur(people()[2][number], SIGMA)[None]
    # The models see the photograph as it is, and their maps are reduced.
    images = osie_pictures(size=WHOLE, names=[people()[0][number]])[0].images
    return torch.nn.functional.interpolate(MODELS[arm](images)[:, None], SIZE, mode="area")[:, 0]


def model(arm: str):
    def measured(seed: int) -> dict[str, float]:
        names, fixations, others = people()
        number = names.index(str(seed))
        return scores(map_of(arm, number), fixations.on([number]), others[number : number + 1])

    return measured


def observers(predict: str):
    """One observer against the fourteen others, the mean over the fifteen."""
    def measured(seed: int) -> dict[str, float]:
        names, fixations, others = people()
        number = names.index(str(seed))
        here, there = fixations.on([number]), others[number : number + 1]
        found = []

        def noted(maps, target):
            found.append(scores(maps, target, there))
            return maps[:, 0, 0]

        one_against_the_others(here, SIGMA, noted, predict=predict)
        return {name: sum(score[name] for score in found) / len(found) for name in found[0]}

    return measured


ARMS = {name: model(name) for name in ("centre bias", "fixations elsewhere", *MODELS)} | {
    "one observer for the others": observers("others"), "the others for one observer": observers("one"),
}


def measure(count: int | None = None):
    """All arms on the photographs that are here, or on the first `count` of them."""
    seeds = [int(name) for name in osie_pictures(size=(3, 4))[0].classes][:count]
    return compare(ARMS, seeds=seeds, baseline="centre bias", metric="AUC", delta=0.01, workers=1)
