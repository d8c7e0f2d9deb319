import math

import pytest
import torch
from torch import nn

from attnlib import Attention, Description, cost, create
from attnlib.attention import attentions

X = torch.randn(2, 16, 10, 14, generator=torch.Generator().manual_seed(0))


class Gate(Attention):
    """Counts by hand: reads x once for the mean, once for the product, writes y."""

    about = Description(title="Gate", paper="Nobody, 2000", cite="", axes=("batch", "channel", "row", "column"),
                        shape=("B", "C", 1, 1))

    def attend(self, x):
        return x.mean((2, 3), keepdim=True)

    def use(self, x, weights):
        return x * weights


class Hungry(Gate):
    def use(self, x, weights):
        return (x + 0) * (weights.expand_as(x) * 1)


def test_parameters_count_shared_ones_once():
    one = nn.Linear(3, 5)
    assert cost.parameters(nn.Sequential(one, one)) == 20
    assert cost.parameters(create("se", 64, reduction=16)) == 2 * 64 * 4 + 4 + 64
    one.weight.requires_grad_(False)
    assert cost.parameters(one) == 20


def test_flops_of_known_layers():
    assert cost.flops(nn.Conv2d(16, 8, 3, padding=1), X) == 2 * 2 * 8 * 16 * 9 * 10 * 14
    assert cost.flops(nn.Linear(14, 5), X) == 2 * (2 * 16 * 10) * 14 * 5
    assert cost.flops(nn.ReLU(), X) == 0


def test_traffic_of_known_operators():
    size = X.numel() * 4
    assert cost.traffic(nn.ReLU(), X).moved == 2 * size
    assert cost.traffic(nn.ReLU(inplace=True), X.clone()).moved == 2 * size
    assert cost.traffic(nn.Flatten(), X).moved == 0  # a view moves nothing
    assert cost.traffic(nn.Linear(14, 14, bias=False), X).moved == 2 * size + 14 * 14 * 4


def test_traffic_of_a_mechanism_against_its_floor():
    size, small = X.numel() * 4, 2 * 16 * 4
    seen = cost.traffic(Gate(), X)
    assert seen.moved == 3 * size + 2 * small and seen.least == 3 * size
    assert seen.ratio == pytest.approx(seen.moved / (3 * size))
    # x read and written for x + 0, the expanded weights read once and written in full, and the product.
    assert cost.traffic(Hungry(), X).moved == (size + small) + (2 * size) + (small + size) + (3 * size)


def test_copies_and_fills_are_counted_as_they_move():
    class Copies(nn.Module):
        def forward(self, x):
            return torch.empty_like(x).copy_(x).zero_()

    size = X.numel() * 4
    assert cost.traffic(Copies(), X).moved == 2 * size + size


def test_a_network_has_no_known_floor():
    seen = cost.traffic(nn.ReLU(), X)
    assert seen.least is None and seen.ratio is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_se_moves_little_more_than_it_must(dtype):
    x = torch.zeros(4, 64, 20, 28, dtype=dtype)
    assert 1 <= cost.traffic(create("se", 64).to(dtype), x).ratio < 1.02


def test_latency_has_ordered_quartiles_and_counts_the_batch():
    seen = cost.latency(create("se", 16), X, seconds=0.02)
    assert 0 < seen.low <= seen.median <= seen.high and seen.runs >= 5 and seen.batch == 2
    assert seen.throughput == pytest.approx(2 / seen.median)
    assert "2 pictures" in str(seen) and "CPU thread" in str(seen)


def test_slower_is_measured_as_slower():
    class Repeat(nn.Module):
        def __init__(self, times):
            super().__init__()
            self.times, self.layer = times, nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x):
            for _ in range(self.times):
                x = self.layer(x)
            return x

    seen = cost.latencies({"once": Repeat(1), "often": Repeat(20)}, X, seconds=0.05)
    assert seen["often"].median > 4 * seen["once"].median
    trained = cost.latency(Repeat(20), X, backward=True, seconds=0.05)
    assert trained.median > 1.2 * seen["often"].median


def test_modules_are_measured_in_turn():
    order = []

    class Told(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            order.append(self.name)
            return x

    cost.latencies({"a": Told("a"), "b": Told("b")}, X, seconds=0)
    assert order[-4:] == ["a", "b", "a", "b"]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.Dropout(0.5), create("se", 16))


@pytest.mark.parametrize("measure", [
    cost.flops, cost.traffic, lambda m, x: cost.latency(m, x, seconds=0),
    lambda m, x: cost.latency(m, x, backward=True, seconds=0), lambda m, x: cost.table({"a": m}, x, seconds=0),
])
def test_measuring_changes_nothing(measure):
    model = network()
    model[1].eval()
    model[3].register_buffer("calls", torch.zeros(1))
    model[3].register_forward_hook(lambda module, inputs, output: module.calls.add_(1) and None)
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes, state, x = [m.training for m in model.modules()], torch.get_rng_state(), X.clone().requires_grad_()
    measure(model, x)
    assert [m.training for m in model.modules()] == modes and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert x.grad is None and torch.equal(x, X)
    first, *others = model.parameters()
    assert torch.equal(first.grad, torch.ones_like(first)) and all(p.grad is None for p in others)


def test_the_mode_comes_back_after_an_error():
    model = network()
    with pytest.raises(RuntimeError):
        cost.flops(model, torch.zeros(1, 3, 8, 8))
    assert all(module.training for module in model.modules())


def test_a_training_pass_needs_something_to_train():
    class Detached(nn.Module):
        def forward(self, x):
            return x.detach()

    with pytest.raises(ValueError, match="Detached gives nothing that has a gradient"):
        cost.latency(Detached(), X, backward=True)


def test_memory_format_is_the_examples():
    seen = []

    class Look(nn.Module):
        def forward(self, x):
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return x

    cost.latency(Look(), X.to(memory_format=torch.channels_last), seconds=0)
    assert all(seen)
    with torch.enable_grad():
        seen.clear()
        cost.latency(Look(), X.to(memory_format=torch.channels_last), backward=True, seconds=0)
    assert all(seen)


@pytest.mark.parametrize("measure", [cost.flops, cost.traffic, cost.latency])
def test_nothing_to_measure_with_is_an_error(measure):
    with pytest.raises(ValueError, match="holds no picture"):
        measure(nn.ReLU(), torch.zeros(0, 3, 4, 4))
    with pytest.raises(TypeError, match="not on a list"):
        measure(nn.ReLU(), [1.0])


def test_table_is_per_picture():
    table = cost.table({"relu": nn.ReLU(), "se": create("se", 16)}, X, seconds=0)
    assert list(table.index) == ["relu", "se"]
    assert list(table.columns) == ["parameters", "MFLOPs", "MB moved", "× least"]
    assert table.loc["relu", "MB moved"] == pytest.approx(2 * 16 * 10 * 14 * 4 / 1e6)
    assert table.loc["se", "MFLOPs"] == pytest.approx(2 * 2 * 16 / 1e6)
    assert math.isnan(table.loc["relu", "× least"]) and table.loc["se", "× least"] >= 1
    timed = cost.table({"relu": nn.ReLU()}, X, seconds=0.01).loc["relu"]
    assert timed["ms low"] <= timed["ms"] <= timed["ms high"]
    assert timed["pictures/s"] == pytest.approx(1e3 / timed["ms"])


def rows(card, heading=""):
    """Rows below a heading, or all those that have none."""
    return {name: value for title, rows in card.groups if title == heading for name, value in rows}


def test_card_says_what_is_known():
    card = cost.card("se", X, paper={"top-1": "77.2 %"}, measured={"effect": 0.01}, use_when="Always.",
                     not_when="Never.", network=network(), seconds=0)
    assert card.title == "Squeeze-and-Excitation"
    assert rows(card)["paper"].startswith("Hu, Shen") and rows(card)["parameters"] == "49"
    assert rows(card)["shapes"] == "x (2, 16, 10, 14) → weights (2, 16, 1, 1) → y (2, 16, 10, 14)"
    assert rows(card)["arithmetic"].startswith("64 FLOPs per picture")
    assert rows(card)["weights"] == "gate, one for each channel of each picture"
    assert "1.0" in rows(card)["memory traffic"] and rows(card)["use it when"] == "Always."
    assert rows(card, "in the paper") == {"top-1": "77.2 %"} and rows(card, "measured here") == {"effect": "0.01"}
    assert "2,401 parameters (Sequential)" in rows(card)["in the whole network"]


def test_card_prints_what_is_missing_as_missing():
    card = rows(cost.card(Gate(), X, seconds=0))
    assert card["in the paper"] == card["measured here"] == "no number given"
    assert card["use it when"] == card["not when"] == "not said"
    assert card["time, on this machine"] == "not measured"


def test_card_text_is_the_same_on_every_machine_and_its_html_holds_the_time():
    first, second = (cost.card("se", X, seconds=0.001) for _ in range(2))
    assert repr(first) == repr(second) and "time" not in repr(first)
    page = first._repr_html_()
    assert "time, on this machine" in page and " ms (" in page and page.count('scope="row"') == len(rows(first))


def test_card_groups_numbers_below_one_heading_each():
    card = cost.card("se", X, paper={"parameters": "28.1 million", "top-1": "77.2 %"}, measured={"ms": 4}, seconds=0)
    assert [title for title, _ in card.groups] == ["", "in the paper", "measured here", ""]
    assert rows(card)["parameters"] == "49" and rows(card, "in the paper")["parameters"] == "28.1 million"
    lines = str(card).splitlines()
    at = lines.index("  in the paper")
    assert [line.split()[0] for line in lines[at + 1 : at + 3]] == ["parameters", "top-1"]
    assert lines[at + 3] == "  measured here"
    assert lines[at + 4].startswith("    ms ") and lines[at + 5].startswith("  use")
    values = ["49", "28.1 million", "77.2 %", "4", "not said"]
    assert len({line.index(value) for value in values for line in lines if line.endswith(f"  {value}")}) == 1
    page = card._repr_html_()
    assert page.count("<tbody>") == 4 and page.count('<tbody><tr><th colspan="2" scope="rowgroup">') == 2


def test_card_without_numbers_has_no_heading():
    page = cost.card("se", X, measured={}, seconds=0)._repr_html_()
    assert '<th colspan="2"' not in page and page.count("no number given") == 2


def test_card_escapes_what_it_is_given():
    assert "a &lt; b" in cost.card(Gate(), X, use_when="a < b", seconds=0)._repr_html_()


def test_card_chooses_an_example_of_the_mechanisms_channels():
    assert "(1, 32, 56, 56)" in rows(cost.card(create("se", 32), seconds=0))["shapes"]
    assert "(1, 256, 56, 56)" in rows(cost.card("se", seconds=0))["shapes"]


def test_card_leaves_the_mechanism_alone():
    model = network()
    (name,) = attentions(model)
    cost.card(model.get_submodule(name), X, seconds=0)
    assert model.training and all(module.training for module in model.modules())
