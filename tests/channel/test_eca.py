import math

import pytest
import torch
from torch import nn

from attnlib import backbones, create, insert
from attnlib.channel.eca import ECA, RELEASED, width

X = torch.randn(2, 32, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
RESNET50 = 25_557_032


def timms(channels: int) -> nn.Module:
    from timm.layers import EcaModule

    return EcaModule(channels)


BESIDE = {"timm": timms}  # what `make bench` measures the speed against


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("channels", [8, 32, 64, 256, 2048])
def test_equals_timm(channels):
    timm_layers = pytest.importorskip("timm.layers", reason="timm is not installed")
    theirs = timm_layers.EcaModule(channels).double()
    ours = ECA(channels).double()
    ours.conv.load_state_dict(theirs.conv.state_dict())  # fails where the widths differ
    x = X.repeat(1, math.ceil(channels / 32), 1, 1)[:, :channels]
    assert torch.equal(ours(x), theirs(x))


def naive(module: ECA, x: torch.Tensor) -> torch.Tensor:
    """The paper's equations, one number at a time."""
    w = module.conv.weight.flatten()
    batch, channels, rows, columns = x.shape
    y = torch.zeros_like(x)
    for n in range(batch):
        z = [sum(x[n, c, i, j] for i in range(rows) for j in range(columns)) / (rows * columns) for c in range(channels)]
        for c in range(channels):
            score = 0.0
            for j in range(len(w)):
                neighbour = c + j - len(w) // 2
                if 0 <= neighbour < channels:
                    score = score + w[j] * z[neighbour]
            y[n, c] = x[n, c] / (1 + torch.exp(-score))
    return y


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 13])
def test_equals_the_naive_loop(kernel_size):
    torch.manual_seed(0)
    module = ECA(7, kernel_size).double()
    nn.init.normal_(module.conv.weight)
    x = torch.randn(2, 7, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(module(x), naive(module, x), rtol=1e-12, atol=1e-12)


RULE = {1: 1, 2: 1, 4: 1, 7: 1, 8: 3, 16: 3, 32: 3, 64: 3, 127: 3, 128: 5, 256: 5, 512: 5, 1024: 5, 2047: 5, 2048: 7, 4096: 7}


@pytest.mark.parametrize("channels, expected", RULE.items())
def test_the_rule(channels, expected):
    assert width(channels) == expected == ECA(channels).kernel_size == count(ECA(channels))


def test_the_rule_takes_the_nearest_odd_number():
    for channels in range(1, 3_000):
        wanted, got = (math.log2(channels) + 1) / 2, width(channels)
        assert got % 2 == 1 and abs(got - wanted) <= 1
    assert width(4096, gamma=1, b=0) == 13 and width(4096, gamma=1, b=-1) == 11


def test_a_fixed_width_overrides_the_rule():
    assert count(create("eca", 256, kernel_size=9)) == 9 and create("eca", 256, gamma=1).kernel_size == 9


def test_the_three_counts_of_eca_resnet50():
    formula = backbones.resnet(50, "eca")
    inside = backbones.resnet(50, "eca", where="layer*.bn2")
    released = backbones.resnet(50, lambda channels: ECA(channels, RELEASED[channels]))
    assert [count(network) - RESNET50 for network in (released, formula, inside)] == [80, 86, 74]


def test_the_authors_default_width_gives_a_fourth_count():
    network = backbones.resnet(50, "eca", kernel_size=3)
    assert count(network) - RESNET50 == 3 * 16


def test_every_count_is_of_sixteen_gates():
    network = backbones.resnet(50)
    insertion = insert(network, "eca", where="layer*.bn2")
    assert [(m.channels, m.kernel_size) for m in insertion.modules.values()] == (
        3 * [(64, 3)] + 4 * [(128, 5)] + 6 * [(256, 5)] + 3 * [(512, 5)])


def test_there_is_no_bias_so_means_of_zero_open_every_gate_half_way():
    assert torch.equal(ECA(32).double().attend(torch.zeros_like(X)), torch.full((2, 32, 1, 1), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_a_channel_reaches_its_neighbours_and_no_other(kernel_size):
    torch.manual_seed(0)
    module, reach = ECA(32, kernel_size).double(), kernel_size // 2
    louder = X.clone()
    louder[:, 12] += 1
    changed = (module.attend(louder) != module.attend(X)).flatten(1).any(0)
    assert changed.nonzero().flatten().tolist() == list(range(12 - reach, 12 + reach + 1))


def test_permuting_channels_does_not_permute_the_output():
    torch.manual_seed(0)
    module, order = ECA(32).double(), torch.randperm(32)
    difference = (module(X[:, order]) - module(X)[:, order]).abs().max()
    assert difference > 1e-3


def test_width_one_is_the_only_one_that_is_equivariant_to_permutations():
    torch.manual_seed(0)
    module, order = ECA(32, 1).double(), torch.randperm(32)
    torch.testing.assert_close(module(X[:, order]), module(X)[:, order])


def test_channels_can_be_shifted_and_mirrored():
    torch.manual_seed(0)
    module, twin = ECA(32, 5).double(), ECA(32, 5).double()
    twin.conv.weight.data = module.conv.weight.data.flip(2)
    torch.testing.assert_close(twin(X.flip(1)), module(X).flip(1))
    inner = slice(2, -2)  # at the ends the means of channels that do not exist are 0
    shifted = module.attend(X[:, torch.arange(32).roll(-1)])[:, inner]
    torch.testing.assert_close(shifted[:, :-1], module.attend(X)[:, 3:-2])


def test_gates_do_not_know_where():
    module = ECA(32).double()
    torch.testing.assert_close(module.attend(X.roll((3, 5), (2, 3))), module.attend(X))
    shuffled = X.flatten(2)[:, :, torch.randperm(140)].view_as(X)
    torch.testing.assert_close(module.attend(shuffled), module.attend(X))


def test_normalising_standardises_every_channel_over_the_batch():
    module = ECA(32, normalize=True).double()
    z = module.squeezed(torch.randn(64, 32, 5, 3, dtype=torch.float64) * 3 + 1)
    torch.testing.assert_close(z.mean(0), torch.zeros_like(z[0]), atol=1e-12, rtol=0)
    assert ((z.std(0, correction=0) - 1).abs() < 1e-3).all()
    assert count(module) == count(ECA(32))


@pytest.mark.parametrize("options", [{"kernel_size": 4}, {"kernel_size": -1}, {"kernel_size": 65}, {"kernel_size": 3.0}])
def test_bad_widths_are_refused(options):
    with pytest.raises(ValueError, match="32 channels is an odd number from 1 to 63, not"):
        create("eca", 32, **options)


@pytest.mark.parametrize("options", [{"gamma": 0}, {"gamma": -2}])
def test_a_rule_without_sense_is_refused(options):
    with pytest.raises(ValueError, match="a gamma above 0"):
        create("eca", 32, **options)


def test_is_as_fast_as_timms(as_fast):
    as_fast(ECA(256), BESIDE, torch.randn(8, 256, 56, 56))
