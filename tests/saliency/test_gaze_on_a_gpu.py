"""Fixations, measures and models give the same on a GPU as on a CPU."""

import pytest
import torch

from attnlib.data.fixations import Fixations
from attnlib.saliency import metrics, object_measures
from attnlib.saliency.fixations import blur, centre_bias, elsewhere, saliency_map
from attnlib.saliency.graph_based import graph_based
from attnlib.saliency.itti_koch import itti_koch
from attnlib.saliency.observers import one_against_the_others, simulated_observers, some_against_the_rest
from attnlib.saliency.spectral_residual import spectral_residual

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

MAPS = torch.rand(3, 20, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SEEN, _ = simulated_observers(MAPS, observers=4)
PICTURES = torch.rand(2, 3, 60, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def both(function):
    """What `function` gives for the two devices."""
    here, there = function(lambda data: data), function(lambda data: data.to("cuda"))
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("name", ["auc_judd", "nss", "cc", "similarity", "kl", "auc_shuffled", "information_gain"])
def test_measures(name):
    measure = getattr(metrics, name)

    def scored(to):
        seen = to(SEEN)
        more = {"auc_shuffled": (seen, elsewhere(seen)), "auc_judd": (seen,), "nss": (seen,),
                "information_gain": (seen, centre_bias((20, 30), device=seen.x.device))}
        return measure(to(MAPS), *more.get(name, (saliency_map(seen, 2.0),)))

    both(scored)


@pytest.mark.parametrize("name", ["mae", "f_curve", "adaptive_f", "e_curve", "s_measure"])
def test_object_measures(name):
    both(lambda to: getattr(object_measures, name)(to(MAPS), to(MAPS > 0.8)))


@pytest.mark.parametrize("model", [spectral_residual, itti_koch, graph_based])
def test_models(model):
    both(lambda to: model(to(PICTURES)))


def test_fixations():
    both(lambda to: to(SEEN).on([2, 0]).by(1, 3).resized((7, 9)).counts())
    both(lambda to: blur(to(MAPS), 1.5, border="inside"))
    both(lambda to: simulated_observers(to(MAPS))[0].counts())
    both(lambda to: one_against_the_others(to(SEEN), 1.5, metrics.nss))
    both(lambda to: some_against_the_rest(to(SEEN), 2, 1.5, metrics.auc_judd))
    assert isinstance(SEEN.to("cuda"), Fixations) and SEEN.to("cuda").picture.device.type == "cuda"
