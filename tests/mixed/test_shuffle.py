import math

import pytest
import torch
import torchvision
from torch import nn

from attnlib import create, insert, intervene, shuffled, switch_off
from attnlib.mixed.shuffle import Shuffle

X = torch.randn(2, 32, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def lived(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 and evaluation mode, with parameters that are not those of the start."""
    rng = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    for values in module.parameters():
        values.data.copy_(torch.randn(values.shape, generator=rng))
    return module


def built(channels: int = 32, groups: int | None = 4, **options) -> Shuffle:
    return lived(Shuffle(channels, groups, **options))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# -- Against a loop: nobody else's implementation can be installed


@torch.no_grad()
def naive(module: Shuffle, x: torch.Tensor) -> torch.Tensor:
    """The paper's equations, one number at a time; group normalisation and shuffle included."""
    batch, channels, rows, columns = x.shape
    half = channels // (2 * module.groups)
    y = torch.zeros_like(x)
    for b in range(batch):
        for c in range(channels):
            k, second = c % half, c // half % 2 == 1
            values = [float(v) for v in x[b, c].flatten()]
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / len(values)
            for i in range(rows):
                for j in range(columns):
                    v = float(x[b, c, i, j])
                    if second and module.norm is not None:
                        n = (v - mean) / math.sqrt(variance + module.norm.eps)
                        n = n * float(module.norm.weight[k]) + float(module.norm.bias[k])
                    else:
                        n = v if second else mean
                    w, bias = ((module.position_weight, module.position_bias) if second else
                               (module.channel_weight, module.channel_bias))
                    # Channel c of the first half of all comes to place 2c, one of the second half to the place behind.
                    to = 2 * c if c < channels // 2 else 2 * (c - channels // 2) + 1
                    to = to if module.shuffle else c
                    y[b, to, i, j] = v / (1 + math.exp(-(float(w[k]) * n + float(bias[k]))))
    return y


@pytest.mark.parametrize("options", [{}, {"group_norm": False}, {"shuffle": False}])
@pytest.mark.parametrize("channels, groups, rows, columns", [(12, 2, 3, 4), (12, 3, 5, 2), (8, 1, 3, 3), (8, 4, 1, 1)])
def test_equals_the_naive_loop(channels, groups, rows, columns, options):
    module = built(channels, groups, **options)
    x = torch.randn(2, channels, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5
    torch.testing.assert_close(module(x), naive(module, x), rtol=1e-12, atol=1e-12)


class Obvious(nn.Module):
    """The calls that the formulae suggest, in their order."""

    def __init__(self, channels: int, groups: int = 64) -> None:
        super().__init__()
        half = channels // (2 * groups)
        self.groups, self.norm = groups, nn.GroupNorm(half, half)
        start = (0.0, 1.0, 0.0, 1.0)
        self.w1, self.b1, self.w2, self.b2 = (nn.Parameter(torch.full((1, half, 1, 1), v)) for v in start)

    def forward(self, x):
        batch, channels, rows, columns = x.shape
        p, q = x.reshape(batch * self.groups, -1, rows, columns).chunk(2, 1)
        p = p * torch.sigmoid(self.w1 * p.mean((2, 3), keepdim=True) + self.b1)
        q = q * torch.sigmoid(self.w2 * self.norm(q) + self.b2)
        y = torch.cat([p, q], 1).reshape(batch, 2, channels // 2, rows, columns)
        return y.transpose(1, 2).reshape(x.shape)


def test_value_and_gradients_equal_those_of_the_obvious_calls():
    ours, theirs = built(), Obvious(32, 4).double()
    for mine, other in ((ours.channel_weight, theirs.w1), (ours.channel_bias, theirs.b1),
                        (ours.position_weight, theirs.w2), (ours.position_bias, theirs.b2),
                        (ours.norm.weight, theirs.norm.weight), (ours.norm.bias, theirs.norm.bias)):
        other.data.copy_(mine.view_as(other))
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    mine, other = ours(x), theirs(y)
    torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    for out in (mine, other):
        (out * torch.arange(out.numel()).view_as(out).sin()).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.norm.weight.grad, theirs.norm.weight.grad)
    torch.testing.assert_close(ours.position_weight.grad, theirs.w2.grad.flatten())


# -- Counts


@pytest.mark.parametrize("channels, groups", [(256, 64), (512, 64), (256, 32), (32, 16), (12, 1)])
def test_parameter_count(channels, groups):
    assert count(Shuffle(channels, groups)) * groups == 3 * channels
    assert count(Shuffle(channels, groups, group_norm=False)) * groups == 2 * channels


def test_the_count_at_256_channels():
    assert count(Shuffle(256)) == 12


def test_resnet50_gets_708_parameters_and_not_the_300_of_the_abstract():
    network = torchvision.models.resnet50(weights=None)
    before = count(network)
    insert(network, "shuffle")
    assert count(network) - before == 708


def test_the_default_groups_are_64_or_what_divides():
    assert [Shuffle(c).groups for c in (256, 128, 64, 48, 6, 2)] == [64, 64, 32, 8, 1, 1]


# -- Properties


def test_it_starts_as_a_gain_of_sigmoid_1_with_channels_shuffled():
    order = [c // 2 + 16 * (c % 2) for c in range(32)]
    assert order[:4] == [0, 16, 1, 17]
    gain = torch.tensor(1.0, dtype=torch.float64).sigmoid()
    torch.testing.assert_close(create("shuffle", 32).double()(X), gain * X[:, order])
    assert abs(gain - 0.731) < 1e-4
    with switch_off(module := built()):
        assert torch.equal(module(X), X[:, order])
    with switch_off(module := built(shuffle=False)):
        assert torch.equal(module(X), X)


def test_halves_have_gates_of_their_kind():
    weights = built().attend(X).unflatten(1, (4, 2, 4))  # (B, group, half, channel, row, column)
    first, second = weights.unbind(2)
    assert torch.equal(first, first[..., :1, :1].expand_as(first))
    assert (second.flatten(3).std(-1) > 1e-3).all()
    assert 0 < weights.min() and weights.max() < 1


def test_weights_are_in_the_order_of_the_inputs_channels():
    module = built()
    y = module(X)
    torch.testing.assert_close(y[:, 0::2], (X * module.attend(X))[:, :16])
    torch.testing.assert_close(y[:, 1::2], (X * module.attend(X))[:, 16:])


def test_groups_share_their_parameters():
    module, order = built(), torch.tensor([2, 0, 3, 1])
    groups = X.unflatten(1, (4, 8))
    swapped = module.attend(groups[:, order].flatten(1, 2)).unflatten(1, (4, 8))
    torch.testing.assert_close(swapped, module.attend(X).unflatten(1, (4, 8))[:, order])


@pytest.mark.parametrize("channel", [1, 5])  # in a half for channels, and in one for positions
def test_a_gate_sees_its_own_channel_alone(channel):
    module, other = built(), X.clone()
    other[:, channel, 0, 0] += 9
    changed = (module.attend(other) != module.attend(X)).any(0).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [channel]


def test_the_second_half_does_not_see_contrast_and_brightness_unless_without_group_norm():
    other = X.unflatten(1, (4, 2, 4)).clone()
    other[:, :, 1] = 3 * other[:, :, 1] + 2
    other = other.flatten(1, 3)
    torch.testing.assert_close(built().attend(other), built().attend(X), rtol=1e-4, atol=1e-4)
    plain = built(group_norm=False)
    assert (plain.attend(other) - plain.attend(X)).abs().max() > 0.1


def test_permuting_positions_permutes_the_output():
    module, order = built(), torch.randperm(140)

    def moved(x):
        return x.flatten(2)[:, :, order].view_as(x)

    torch.testing.assert_close(module(moved(X)), moved(module(X)))


# -- The contract


@pytest.mark.parametrize("options", [{}, {"group_norm": False}, {"shuffle": False}, {"groups": 16}, {"groups": 1}])
def test_every_form_keeps_the_contract(options):
    module, before = built(**options), X.clone()
    assert torch.equal(module(X), module.use(X, module.attend(X))) and torch.equal(X, before)
    assert torch.equal(torch.fx.symbolic_trace(nn.Sequential(module))(X), module(X))
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), module(X))
    last = module(X.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, module(X))
    assert last.is_contiguous(memory_format=torch.channels_last)
    one = torch.randn(1, 32, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (one,), fast_mode=True)
    with intervene(module, shuffled()):
        torch.testing.assert_close(module(X), module.use(X, module.attend(X).flip(0)))


def test_autocast_leaves_the_precision_of_the_picture():
    module, x = built().float(), X.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), module(X.float()), rtol=0.05, atol=0.05)


def test_exports_for_any_size():
    module, sizes = built(), {axis: torch.export.Dim.DYNAMIC for axis in (0, 2, 3)}
    exported = torch.export.export(module, (X,), dynamic_shapes=(sizes,)).module()
    other = torch.randn(3, 32, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(exported(other), module(other))


@pytest.mark.parametrize("groups", [1, 16])
def test_one_pixel_of_a_picture_alone_can_be_trained_with(groups):
    """A single value standardises to 0; the gate is then what the shifts say."""
    module, x = built(groups=groups).train(), torch.randn(1, 32, 1, 1, dtype=torch.float64)
    of_positions = module.attend(x).unflatten(1, (groups, 2, -1))[0, :, 1, :, 0, 0]
    expected = (module.position_weight * module.norm.bias + module.position_bias).sigmoid()
    torch.testing.assert_close(of_positions, expected.expand_as(of_positions))


@pytest.mark.parametrize("channels, options, says", [
    (32, {"groups": 3}, "choose groups that divide 16"), (32, {"groups": 0}, "choose groups that divide 16"),
    (32, {"groups": 32}, "choose groups that divide 16"), (33, {}, "an even number of them, not 33"),
])
def test_bad_options_are_refused(channels, options, says):
    with pytest.raises(ValueError, match=says) as refused:
        create("shuffle", channels, **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["default", "channels-last"])
def test_is_as_fast_as_the_obvious_calls(layout, as_fast):
    as_fast(Shuffle(256), {"the obvious calls": Obvious}, torch.randn(4, 256, 56, 56).contiguous(memory_format=layout))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["default", "channels-last"])
def test_the_layout_stays_and_the_numbers_are_those_of_the_two_steps(layout):
    module, x = built(), X.contiguous(memory_format=layout)
    y = module(x)
    assert y.is_contiguous(memory_format=layout)
    torch.testing.assert_close(y, module.use(x, module.attend(x)), rtol=1e-12, atol=1e-12)
