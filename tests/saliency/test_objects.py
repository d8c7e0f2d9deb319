import math

import pytest
import torch
from torch import nn

from attnlib import backbones, fit
from attnlib.data.odd_one_out import odd_one_out
from attnlib.saliency.object_measures import e_curve, f_curve, mae, s_measure
from attnlib.saliency.objects import object_maps, object_scores, pixel_f, pixel_loss

MASKS = torch.zeros(3, 6, 10, dtype=torch.bool)
MASKS[:, 1:4, 2:7] = True
SCORES = torch.randn(3, 1, 6, 10, generator=torch.Generator().manual_seed(0))


def test_the_loss_is_the_mean_over_pixels_of_minus_the_logarithm_of_what_was_given_to_the_truth():
    p = SCORES[:, 0].double().sigmoid()
    expected = -torch.where(MASKS, p, 1 - p).log().mean()
    assert float(pixel_loss(SCORES, MASKS)) == pytest.approx(float(expected), rel=1e-6)
    assert float(pixel_loss(SCORES, MASKS.float())) == pytest.approx(float(expected), rel=1e-6)
    assert float(pixel_loss(torch.zeros(3, 1, 6, 10), MASKS)) == pytest.approx(math.log(2))


def test_f_of_a_batch_is_that_of_the_set():
    assert float(pixel_f(SCORES, MASKS)) == float(f_curve(SCORES[:, 0].sigmoid(), MASKS).mean(0).max())
    perfect = torch.where(MASKS, 9.0, -9.0)[:, None]
    assert float(pixel_f(perfect, MASKS.float())) == 1
    some = MASKS.clone()
    some[1] = False
    assert float(pixel_f(perfect, some)) == 1


def test_the_four_scores_are_those_of_the_measures():
    maps = SCORES[:, 0].sigmoid()
    assert object_scores(maps, MASKS) == {
        "max F": float(f_curve(maps, MASKS).mean(0).max()), "S": float(s_measure(maps, MASKS).mean()),
        "max E": float(e_curve(maps, MASKS).mean(0).max()), "MAE": float(mae(maps, MASKS).mean()),
    }
    empty = MASKS.clone()
    empty[0] = False
    found = object_scores(maps, empty)
    assert found["max F"] == float(f_curve(maps[1:], MASKS[1:]).mean(0).max())
    assert all(map(math.isfinite, found.values()))


def test_maps_are_made_in_evaluation_mode_and_the_network_comes_back_as_it_was():
    network = backbones.small_unet(2, widths=(4, 8)).train()
    images = torch.rand(5, 2, 9, 14)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    maps = object_maps(network, images, batch=2)
    assert network.training and not maps.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.allclose(maps, network.eval()(images)[:, 0].sigmoid(), atol=1e-6)
    assert torch.equal(object_maps(network.double(), images), object_maps(network, images.double()))


def test_fit_takes_them():
    data = odd_one_out(64, seed=1)
    torch.manual_seed(0)
    pair = data.images, data.truth["mask"]
    run = fit(backbones.small_unet(3, widths=(4,)), pair, pair, steps=30, batch=16, lr=0.05, loss=pixel_loss,
              accuracy=pixel_f, progress=False)
    assert run.history["loss"].iloc[-1] < run.history["loss"].iloc[0] / 2
    assert 0 < run.accuracy <= 1


@pytest.mark.parametrize("scores", [torch.zeros(3, 6, 10), torch.zeros(3, 2, 6, 10), torch.zeros(3, 1, 5, 10)])
def test_scores_of_another_shape_are_refused(scores):
    with pytest.raises(ValueError, match="one score for each pixel"):
        pixel_loss(scores, MASKS)
    with pytest.raises(ValueError, match="one score for each pixel"):
        pixel_f(scores, MASKS)


def test_a_network_for_something_else_is_refused():
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\); for \(2, 6, 10\) pixels there are \(2, 4, 6, 10\) scores"):
        object_maps(nn.Conv2d(3, 4, 1), torch.zeros(2, 3, 6, 10))
