import copy
import math

import pytest
import torch
import torchvision
from torch import nn

from attnlib import attentions, backbones, create, insert, intervene, record, shuffled, switch_off
from attnlib.channel.se import SE
from attnlib.mixed.pyramid import PSA

X = torch.randn(2, 32, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def built(channels: int = 32, **options) -> PSA:
    torch.manual_seed(0)
    module = PSA(channels, **options).double().eval()
    for layer in (module.reduce, module.expand):
        nn.init.normal_(layer.bias)
    return module


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# -- Against loops: nobody else's implementation can be installed


def convolved(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A grouped convolution of stride s that keeps the size at s = 1, one number at a time."""
    size, stride, wide = conv.kernel_size[0], conv.stride[0], x.shape[1] // conv.groups
    rows, columns = x.shape[2:]
    y = torch.zeros(len(x), conv.out_channels, -(-rows // stride), -(-columns // stride), dtype=x.dtype)
    for b, c, i, j in torch.cartesian_prod(*map(torch.arange, y.shape)).tolist():
        first = c // (conv.out_channels // conv.groups) * wide
        for k, p, q in torch.cartesian_prod(*map(torch.arange, (wide, size, size))).tolist():
            row, column = i * stride + p - size // 2, j * stride + q - size // 2
            if 0 <= row < rows and 0 <= column < columns:
                y[b, c, i, j] += conv.weight[c, k, p, q] * x[b, first + k, row, column]
    return y


@torch.no_grad()
def naive(module: PSA, x: torch.Tensor) -> torch.Tensor:
    """Split, squeeze, excite and weigh, one number at a time."""
    w1, b1 = module.reduce.weight[:, :, 0, 0], module.reduce.bias
    w2, b2 = module.expand.weight[:, :, 0, 0], module.expand.bias
    seen = [convolved(conv, x) for conv in module.branches]
    pictures = []
    for b in range(len(x)):
        scores = []
        for branch in seen:
            z = [float(plane.sum()) / plane.numel() for plane in branch[b]]
            hidden = [max(0.0, sum(float(w) * v for w, v in zip(row, z)) + float(at)) for row, at in zip(w1, b1)]
            out = [sum(float(w) * v for w, v in zip(row, hidden)) + float(at) for row, at in zip(w2, b2)]
            scores.append([1 / (1 + math.exp(-v)) for v in out] if module.gate == "sigmoid" else out)
        planes = []
        for number, branch in enumerate(seen):
            for c in range(branch.shape[1]):
                share = math.exp(scores[number][c]) / sum(math.exp(score[c]) for score in scores)
                planes.append(share * branch[b, c])
        pictures.append(torch.stack(planes))
    return torch.stack(pictures)


@pytest.mark.parametrize("options", [
    {"kernels": (3, 5, 7, 9)}, {"kernels": (3, 5), "groups": (1, 2)}, {"kernels": (3, 5), "gate": "none"},
    {"kernels": (1, 3), "stride": 2, "out_channels": 12},
])
@torch.no_grad()
def test_equals_the_naive_loop(options):
    module = built(8, reduction=2, **options)
    x = torch.randn(2, 8, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(module(x), naive(module, x), rtol=1e-12, atol=1e-12)


class Obvious(nn.Module):
    """The calls that the formulae suggest, in their order."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 4
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, width, k, padding=k // 2, groups=g, bias=False)
            for k, g in zip((3, 5, 7, 9), (1, 4, 8, 16)))
        self.excite = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, max(1, width // 16), 1), nn.ReLU(),
                                    nn.Conv2d(max(1, width // 16), width, 1), nn.Sigmoid())

    def forward(self, x):
        seen = [conv(x) for conv in self.convs]
        shares = torch.stack([self.excite(branch) for branch in seen], 1).softmax(1)
        return (torch.stack(seen, 1) * shares).flatten(1, 2)


def test_value_and_gradients_equal_those_of_the_obvious_calls():
    ours, theirs = built(64), Obvious(64).double()
    for mine, other in (*zip(ours.branches, theirs.convs), (ours.reduce, theirs.excite[1]),
                        (ours.expand, theirs.excite[3])):
        other.load_state_dict(mine.state_dict())
    x = torch.randn(2, 64, 10, 14, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    mine, other = ours(x), theirs(y)
    torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    for out in (mine, other):
        out.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.reduce.weight.grad, theirs.excite[1].weight.grad, rtol=1e-8, atol=1e-8)


def test_the_scores_are_those_of_one_squeeze_and_excitation_for_all_kernels():
    module, se = built(reduction=2), SE(8, 2).double()
    se.reduce.load_state_dict(module.reduce.state_dict())
    se.expand.load_state_dict(module.expand.state_dict())
    scores = torch.stack([se.attend(branch) for branch in module.split(X)], 1)
    torch.testing.assert_close(module.attend(X), scores.softmax(1), rtol=1e-13, atol=1e-13)


def test_kernels_in_reverse_are_the_authors_order():
    """Their code puts every further branch before the ones it has: the last kernel's channels come first."""
    ours, theirs = built(), built(kernels=(9, 7, 5, 3))
    assert [branch.groups for branch in theirs.branches] == [branch.groups for branch in ours.branches][::-1]
    for mine, other in zip(ours.branches, list(theirs.branches)[::-1]):
        other.load_state_dict(mine.state_dict())
    theirs.reduce, theirs.expand = ours.reduce, ours.expand
    out = None
    for branch, weights in zip(ours.split(X), ours.attend(X).unbind(1)):
        out = branch * weights if out is None else torch.cat([branch * weights, out], 1)
    torch.testing.assert_close(theirs(X), out)
    assert not torch.allclose(ours(X), out)


# -- Counts


@pytest.mark.parametrize("channels, hidden", [(256, 4), (64, 1), (1024, 16)])
def test_parameter_count(channels, hidden):
    width = channels // 4
    kernels = sum(channels * width * k * k // g for k, g in ((3, 1), (5, 4), (7, 8), (9, 16)))
    assert count(PSA(channels)) == kernels + 2 * hidden * width + hidden + width


def test_the_count_at_256_channels():
    assert count(PSA(256)) == 433_732


def test_epsanet50_has_the_authors_count():
    network = torchvision.models.resnet50(weights=None)
    replaced = PSA.install(network)
    assert len(replaced.modules) == 16 and count(network) == 22_561_715
    assert list(replaced.modules)[0] == "layer1.0.conv2" and isinstance(network.layer1[0].bn2, nn.BatchNorm2d)


@pytest.mark.parametrize("channels, options, groups", [
    (256, {}, [1, 4, 8, 16]), (64, {}, [1, 4, 8, 16]), (32, {}, [1, 4, 8, 8]), (8, {}, [1, 2, 2, 2]),
    (64, {"kernels": (1, 3, 5, 11)}, [1, 1, 4, 16]), (12, {"out_channels": 32}, [1, 4, 4, 4]),
])
def test_the_default_groups_are_the_papers_or_what_divides(channels, options, groups):
    assert [branch.groups for branch in PSA(channels, **options).branches] == groups


# -- The softmax of sigmoids


def test_weights_share_one_over_the_kernels():
    weights = built().attend(X)
    assert weights.shape == (2, 4, 8, 1, 1)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 8, 1, 1, dtype=torch.float64))
    assert (weights.sum(2) - 1).abs().min() > 0.1  # and not over the channels


@pytest.mark.parametrize("kernels, low, high", [((3, 5, 7, 9), 0.109, 0.475), ((3, 5), 0.269, 0.731), ((3,), 1, 1)])
def test_a_softmax_of_sigmoids_cannot_choose(kernels, low, high):
    """However large the scores are: the bounds are reached, and never left."""
    module = built(24, reduction=1, kernels=kernels)
    about = module.describe()
    assert about.bounds == pytest.approx((low, high), abs=5e-4)
    for sign, bound in ((1, high), (-1, low)):
        seen = [torch.full((1, module.width, 2, 3), -sign * 1e3, dtype=torch.float64) for _ in kernels]
        seen[0] = -seen[0]
        for layer in (module.reduce, module.expand):  # the score of a channel is its mean, where that is not negative
            nn.init.dirac_(layer.weight)
            nn.init.constant_(layer.bias, 500.0 if layer is module.reduce else -500.0)
        weights = module.select(seen)[0, 0]
        torch.testing.assert_close(weights, torch.full_like(weights, bound), atol=5e-4, rtol=0)


def test_without_the_sigmoid_it_can():
    for gate in ("none", "sigmoid"):
        module = built(gate=gate)
        nn.init.normal_(module.expand.weight, std=1e4)
        weights = module.attend(X)
        assert bool(weights.max() > 0.99 and weights.min() < 0.01) is (gate == "none")
        assert module.describe().bounds[0] <= weights.min() and weights.max() <= module.describe().bounds[1]


def test_equal_scores_are_uniform_which_is_neutral():
    module = built()
    nn.init.zeros_(module.expand.weight)
    assert torch.equal(module.attend(X), torch.full((2, 4, 8, 1, 1), 0.25, dtype=torch.float64))
    y = module(X)
    nn.init.normal_(module.expand.weight)
    assert not torch.allclose(module(X), y)
    with switch_off(module):
        torch.testing.assert_close(module(X), y)
    torch.testing.assert_close(y, torch.cat(module.split(X), 1) / 4)


# -- The kernels


def test_each_quarter_of_the_output_has_the_reach_of_its_kernel():
    module, other = built(), torch.zeros(1, 32, 15, 17, dtype=torch.float64)
    other[:, :, 7, 8] = 1
    with switch_off(module):
        reached = (module(other) != 0).any(1)
        assert reached.sum() == 81
        for part, size in zip(module(other).chunk(4, 1), (3, 5, 7, 9)):
            rows, columns = (part != 0).any(1)[0].nonzero().unbind(1)
            half = size // 2
            assert (int(rows.min()), int(rows.max())) == (7 - half, 7 + half)
            assert (int(columns.min()), int(columns.max())) == (8 - half, 8 + half)


def test_moving_what_is_far_from_the_border_moves_the_output_and_keeps_the_weights():
    module, x = built(), torch.zeros(2, 32, 24, 30, dtype=torch.float64)
    x[:, :, 6:12, 7:15] = X[:, :, :6, :8]
    moved = x.roll((5, -2), (2, 3))
    torch.testing.assert_close(module.attend(moved), module.attend(x))
    torch.testing.assert_close(module(moved), module(x).roll((5, -2), (2, 3)))


def test_a_channel_competes_with_its_like_in_the_other_kernels_only():
    module, seen = built(), built().split(X)
    for layer in (module.reduce, module.expand):
        layer.weight.data = torch.eye(8, dtype=torch.float64)[:, :, None, None]
        layer.bias.data = torch.zeros(8, dtype=torch.float64)
    before = module.select(seen)
    changed = [branch.clone() for branch in seen]
    changed[1][:, 3] += 5
    difference = (module.select(changed) - before).abs().amax((0, 3, 4)) > 1e-6
    assert difference.nonzero().tolist() == [[branch, 3] for branch in range(4)]


# -- The contract: branches are needed twice, and made once


@pytest.mark.parametrize("options", [
    {}, {"kernels": (9, 7, 5, 3)}, {"gate": "none"}, {"kernels": (3, 7)}, {"kernels": (5,)}, {"groups": (1, 1, 1, 1)},
])
def test_every_form_keeps_the_contract(options):
    module, before = built(**options), X.clone()
    assert torch.equal(module(X), module.use(X, module.attend(X))) and torch.equal(X, before)
    traced = torch.fx.symbolic_trace(nn.Sequential(module))
    torch.testing.assert_close(traced(X), module(X))
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), module(X))
    torch.testing.assert_close(module(X.contiguous(memory_format=torch.channels_last)), module(X))
    one = torch.randn(1, 32, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (one,), fast_mode=True)
    with intervene(module, shuffled()):
        torch.testing.assert_close(module(X), module.use(X, module.attend(X).flip(0)))
    assert module.describe().shape == ("B", *module.attend(X).shape[1:])


@pytest.mark.parametrize("watched", [False, True])
def test_forward_makes_the_branches_once(watched):
    module, runs = built(), []
    for branch in module.branches:
        branch.register_forward_hook(lambda *_: runs.append(1))
    if watched:
        with record(module):
            module(X)
    else:
        module(X)
    assert len(runs) == 4


def test_watching_a_training_step_changes_nothing():
    plain = built().train()
    watched = copy.deepcopy(plain)
    with record(watched) as weights:
        assert torch.equal(watched(X), plain(X))
    assert torch.equal(weights[""], plain.attend(X))


def test_other_sizes_of_output():
    module = built(stride=2, out_channels=64)
    assert module(X).shape == (2, 64, 5, 7) and module.attend(X).shape == (2, 4, 16, 1, 1)
    assert module(X[:, :, :9, :13]).shape == (2, 64, 5, 7)
    assert not module.describe().drop_in and PSA(64).describe().drop_in


@pytest.mark.parametrize("size", [(1, 1), (1, 7)])
def test_a_picture_alone_and_small_maps_can_be_trained_with(size):
    y = built().train()(torch.randn(1, 32, *size, dtype=torch.float64))
    assert y.shape == (1, 32, *size) and y.isfinite().all()


@pytest.mark.parametrize("options, says", [
    ({"kernels": ()}, "odd numbers, at least one"), ({"kernels": (3, 4)}, "odd numbers"),
    ({"kernels": (3, 5, 7)}, "32 channels among 3 kernels, which leaves 2 over"),
    ({"out_channels": 30}, "30 channels among 4 kernels"), ({"out_channels": 0}, "out_channels is at least 1"),
    ({"groups": (1, 4)}, "groups for each of its 4 kernels"), ({"groups": (1, 4, 8, 16)}, "the 8 of each kernel"),
    ({"groups": (0, 1, 1, 1)}, "groups must divide"), ({"gate": "tanh"}, "gate is one of sigmoid, none"),
    ({"stride": 0}, "stride is at least 1"), ({"reduction": 0}, "reduction is at least 1"),
])
def test_bad_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says) as refused:
        create("psa", 32, **options)
    assert "\n" not in str(refused.value)


# -- In networks


def test_install_replaces_the_first_3x3_convolution_of_each_block():
    network = backbones.small_resnet(1, 4, attention="psa")
    assert list(attentions(network)) == ["stages.0.0.conv1", "stages.1.0.conv1", "stages.2.0.conv1"]
    block = network.stages[1][0]
    assert isinstance(block.norm1, nn.BatchNorm2d)
    assert (block.conv1.stride, block.conv1.channels, block.conv1.out_channels) == (2, 16, 32)
    assert network(torch.zeros(2, 1, 16, 12)).shape == (2, 4)


@pytest.mark.parametrize("where, names", [
    ("stage", ["stages.0.conv", "stages.1.conv"]), ("last", ["stages.1.conv"]), ("stages.0.conv", ["stages.0.conv"]),
])
def test_install_at_other_places(where, names):
    network = backbones.small(1, 4, attention="psa", where=where, kernels=(3, 5), reduction=2)
    assert list(attentions(network)) == names and network(torch.zeros(2, 1, 16, 12)).shape == (2, 4)


def test_taken_out_the_network_is_what_it_was():
    torch.manual_seed(0)
    network, x = backbones.small_resnet(1, 4).double().eval(), torch.randn(2, 1, 16, 12, dtype=torch.float64)
    before, names = network(x), list(network.state_dict())
    with PSA.install(network) as replaced:
        assert not torch.equal(network(x), before)
        assert all(not module.training for module in replaced.modules.values())
        replaced.disable()
        assert torch.equal(network(x), before)
        replaced.enable()
    assert torch.equal(network(x), before) and list(network.state_dict()) == names


def test_networks_without_the_convolution_are_refused():
    with pytest.raises(ValueError, match="PSA replaces 3×3 convolutions .* none at '0'"):
        PSA.install(nn.Sequential(nn.Conv2d(1, 4, 5, padding=2)), "0")


def test_it_also_stands_behind_a_block():
    network = backbones.small_resnet(1, 4)
    insert(network, "psa", "block")
    assert network(torch.zeros(2, 1, 16, 12)).shape == (2, 4)


def test_is_as_fast_as_the_obvious_calls(as_fast):
    as_fast(PSA(64), {"the obvious calls": Obvious}, torch.randn(4, 64, 28, 28))
