"""The gate viewer carries the numbers of the network, and answers as the network does."""

import base64
import re

import numpy as np
import pytest
import torch
from torch import nn

from attnlib import backbones, create, held, intervene, record, switch_off, widgets
from attnlib.data import cue_task
from attnlib.widgets.gates import STATES


def unpacked(packed):
    if "f" in packed:
        return torch.from_numpy(np.frombuffer(base64.b64decode(packed["f"]), "<f4").copy()).reshape(packed["shape"])
    values = np.frombuffer(base64.b64decode(packed["q"]), np.uint8) / 255
    return torch.from_numpy(packed["low"] + values * (packed["high"] - packed["low"])).reshape(packed["shape"]).float()


def network(where="last", **options):
    torch.manual_seed(3)
    return backbones.small(3, 4, widths=(8, 12), attention="se", where=where, reduction=2, **options)


@pytest.fixture
def pictures():
    return cue_task(6, seed=5)


@pytest.mark.parametrize("order", ["as in the layer", "by learned size"])
def test_bars_start_in_the_order_asked_for(pictures, order):
    viewer = widgets.gates(network().eval(), pictures, order=order)
    heights = [float(height) for height in re.findall(r"v-([\d.]+)", viewer.still)]
    first = unpacked(viewer.data["gates"][0])[1, 0]
    expected = first if order == "as in the layer" else first.sort(descending=True).values
    low, high = viewer.data["bounds"]
    assert heights == pytest.approx((170 * (expected - low) / (high - low)).tolist(), abs=0.8)
    assert ["as in the layer", "by learned size"][viewer.data["sort"]] == order


def test_another_order_is_refused(pictures):
    with pytest.raises(ValueError, match="by learned size, not 'by name'"):
        widgets.gates(network(), pictures, order="by name")


def test_rows_are_the_gates_off_learned_and_shuffled(pictures):
    net = network().eval()
    viewer = widgets.gates(net, pictures, groups={"two": pictures.images[:2]})
    with record(net) as weights, torch.no_grad():
        net(pictures.images)
    learned = next(iter(weights.values())).flatten(1)
    rows = unpacked(viewer.data["gates"][0])
    assert rows.shape == (3, 7, 12) and viewer.data["states"] == list(STATES)
    assert torch.allclose(rows[1, :6], learned, atol=1 / 500)
    assert torch.equal(rows[0], torch.ones(7, 12))
    assert torch.allclose(rows[1, 6], learned[:2].mean(0), atol=1 / 500)
    # Shuffled: every row is the row of another picture.
    nearest = torch.cdist(rows[2, :6], learned).argmin(1)
    assert sorted(nearest.tolist()) == list(range(6)) and (nearest != torch.arange(6)).all()


def test_answers_are_the_network_s(pictures):
    net = network().eval()
    viewer = widgets.gates(net, pictures)
    answers = unpacked(viewer.data["answers"])
    with torch.no_grad():
        assert torch.allclose(answers[1], net(pictures.images).softmax(1), atol=1 / 500)
        with switch_off(net):
            assert torch.allclose(answers[0], net(pictures.images).softmax(1), atol=1 / 500)


def test_the_browser_s_arithmetic_gives_the_network_s_answer(pictures):
    net = network().eval()
    (affine,) = widgets.gates(net, pictures).data["affine"]
    slope, offset = unpacked(affine["slope"]), unpacked(affine["offset"])
    gates = torch.rand(6, 12)
    with intervene(net, lambda weights, x, attention: gates[..., None, None]), torch.no_grad():
        wanted = net(pictures.images)
    assert torch.allclose((slope @ gates[..., None])[..., 0] + offset, wanted, atol=1e-4)


def test_where_the_answer_bends_the_browser_is_not_asked(pictures):
    net = network(where="stage")
    with torch.no_grad():  # no gate may be so quiet that any line fits what it does
        net.stages[0].conv.weight.mul_(5)
    viewer = widgets.gates(net, pictures)
    assert viewer.data["affine"][0] is None and viewer.data["affine"][1] is not None
    assert viewer.data["layer"] == 1, "the last layer is shown first"


def test_the_kernel_answers_for_moved_gates(pictures):
    net = network(where="stage").eval()
    viewer, sent = widgets.gates(net, pictures), []
    viewer.send = sent.append
    viewer._asked(viewer, {"ask": "alive"}, [])
    viewer._asked(viewer, {"layer": 0, "item": 2, "gates": [0.25] * 8}, [])
    with intervene(net, held(0.25), only=viewer.data["layers"][0]), torch.no_grad():
        wanted = net(pictures.images[2:3]).softmax(1)[0]
    assert sent[0] == {"alive": True}
    assert torch.allclose(torch.tensor(sent[1]["answer"]), wanted, atol=1e-5)


def test_what_goes_wrong_with_moved_gates_is_said(pictures):
    net = network().eval()
    viewer, sent = widgets.gates(net, pictures), []
    viewer.send = sent.append
    net.head = nn.Linear(5, 4)
    viewer._asked(viewer, {"layer": 0, "item": 0, "gates": [1.0] * 12}, [])
    assert list(sent[0]) == ["error"] and sent[0]["error"].startswith("RuntimeError")


def test_the_network_stays_as_it_was(pictures):
    net = network().train()
    net.stages[0].eval()
    modes = [module.training for module in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    viewer = widgets.gates(net, pictures)
    viewer.answer(0, 0, [1.0] * 12)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_words_tell_what_is_seen(pictures):
    viewer = widgets.gates(network(), pictures, name="Gates of a small network")
    assert viewer.name == "Gates of a small network" and repr(viewer) == "Gates('Gates of a small network')"
    assert "12 gates" in viewer.alt and "6 pictures" in viewer.alt
    assert any(name in viewer.alt for name in pictures.classes)
    assert viewer.data["items"][0]["name"] == f"1: {pictures.classes[pictures.labels[0]]}"


def test_first_view_is_there_without_a_script(pictures):
    viewer = widgets.gates(network(), pictures)
    assert viewer.still.count("v-") == 12 and viewer.data["items"][0]["picture"] in viewer.still
    tallest = max(float(height) for height in re.findall(r"v-([\d.]+)", viewer.still))
    assert tallest == pytest.approx(170 * float(unpacked(viewer.data["gates"][0])[1, 0].max()), abs=1)


def test_many_channels_show_those_that_differ_most():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 400, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(400, 3))
    from attnlib import insert

    insert(net, "se", where="0")
    images = torch.rand(3, 3, 10, 14)
    viewer = widgets.gates(net, images)
    (shown,) = viewer.data["channels"]
    assert len(shown) == len(set(shown)) == 256 and shown == sorted(shown)
    assert viewer.data["gates"][0]["shape"] == [3, 3, 256]


@pytest.mark.parametrize("arguments, says", [
    (dict(labels=["a"]), "6 pictures, but 1 names"),
    (dict(classes=["a"]), "4 outputs, but 1 names"),
    (dict(layers=["a", "b"]), "1 layers, but 2 names"),
    (dict(only="nowhere"), "no attention is called 'nowhere'"),
])
def test_wrong_names_are_told(pictures, arguments, says):
    with pytest.raises(ValueError, match=says):
        widgets.gates(network(), pictures, **arguments)


def test_one_picture_cannot_be_shuffled(pictures):
    with pytest.raises(ValueError, match="at least two pictures"):
        widgets.gates(network(), pictures.images[:1])


def test_weights_with_positions_are_sent_to_the_map_viewer(pictures):
    with pytest.raises(ValueError, match="widgets.maps"):
        widgets.gates(network(squeeze="none"), pictures)


def test_weights_that_share_a_sum_are_no_gates(pictures):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), create("sk", 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="cannot be moved by itself"):
        widgets.gates(net.eval(), pictures)


def test_values_that_are_no_numbers_are_refused(pictures):
    net = network()
    with torch.no_grad():
        net.stages[1].attention.expand.bias[3] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        widgets.gates(net, pictures)
