import copy
import math

import pytest
import torch
import torchvision
from torch import nn

from attnlib import attentions, backbones, create, insert, intervene, record
from attnlib.channel.sk import SK

X = torch.randn(2, 64, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def timms_own(channels: int) -> nn.Module:
    from timm.layers import SelectiveKernel

    return SelectiveKernel(
        channels, channels, groups=32, rd_ratio=1 / 16, rd_divisor=32, split_input=False)


BESIDE = {"timm": timms_own}  # what `make bench` measures the speed against


def lived(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 and evaluation mode, with normalisations that do something."""
    rng = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, low in ((norm.weight.data, 0.5), (norm.bias.data, -0.5), (norm.running_mean, -0.5),
                                (norm.running_var, 0.5)):
                values.copy_(torch.rand(values.shape, generator=rng) + low)
    return module.double().eval()


def timms(ours: SK) -> nn.Module:
    """timm's module with the weights of `ours`."""
    timm_layers = pytest.importorskip("timm.layers", reason="timm is not installed")
    channels, groups = ours.channels, ours.branches[0][0].groups
    theirs = timm_layers.SelectiveKernel(
        channels, channels, groups=groups, rd_ratio=1 / 16, rd_divisor=32, split_input=False)
    pairs = [*zip(ours.branches, theirs.paths)]
    pairs = [(part, getattr(path, name)) for branch, path in pairs for part, name in zip(branch, ("conv", "bn"))]
    pairs += zip((*ours.reduce[:2], ours.expand), (theirs.attn.fc_reduce, theirs.attn.bn, theirs.attn.fc_select))
    for part, other in pairs:
        other.load_state_dict(part.state_dict())
    return theirs


@pytest.mark.parametrize("channels, groups", [(64, 32), (64, 4), (32, None)])
def test_equals_timm(channels, groups):
    ours = lived(SK(channels, groups=groups))
    theirs = timms(ours).double().eval()
    torch.testing.assert_close(ours(X[:, :channels]), theirs(X[:, :channels]), rtol=1e-12, atol=1e-12)


def test_equals_timm_while_it_trains():
    ours = SK(64).double()
    theirs = timms(ours).double()
    torch.testing.assert_close(ours(X), theirs(X), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.reduce[1].running_mean, theirs.attn.bn.running_mean)
    torch.testing.assert_close(ours.branches[1][1].running_var, theirs.paths[1].bn.running_var)


def normalised(value: torch.Tensor, norm: nn.BatchNorm2d, c: int) -> torch.Tensor:
    scale = norm.weight[c] / (norm.running_var[c] + norm.eps).sqrt()
    return torch.clamp((value - norm.running_mean[c]) * scale + norm.bias[c], min=0)


def naive(module: SK, x: torch.Tensor) -> torch.Tensor:
    """Split, fuse and select, one number at a time."""
    batch, channels, rows, columns = x.shape
    kernels, width = len(module.branches), channels // module.branches[0][0].groups
    u = torch.zeros(kernels, *x.shape, dtype=x.dtype)
    for m, (conv, norm, _) in enumerate(module.branches):
        for b, c, i, j in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist():
            total, first = 0.0, c // width * width
            for k, p, q in torch.cartesian_prod(*map(torch.arange, (width, 3, 3))).tolist():
                row, column = i + (p - 1) * (m + 1), j + (q - 1) * (m + 1)
                if 0 <= row < rows and 0 <= column < columns:
                    total = total + conv.weight[c, k, p, q] * x[b, first + k, row, column]
            u[m, b, c, i, j] = normalised(total, norm, c)
    w, norm, a = module.reduce[0].weight[:, :, 0, 0], module.reduce[1], module.expand.weight[:, :, 0, 0]
    y = torch.zeros_like(x)
    for b in range(batch):
        s = [sum(u[m, b, c].sum() for m in range(kernels)) / (rows * columns) for c in range(channels)]
        z = [normalised(sum(w[h, c] * s[c] for c in range(channels)), norm, h) for h in range(len(w))]
        for c in range(channels):
            e = [math.exp(sum(a[m * channels + c, h] * z[h] for h in range(len(w)))) for m in range(kernels)]
            for m in range(kernels):
                y[b, c] += e[m] / sum(e) * u[m, b, c]
    return y


@torch.no_grad()
@pytest.mark.parametrize("branches", [2, 3])
def test_equals_the_naive_loop(branches):
    module = lived(SK(4, 2, least=3, groups=2, branches=branches))
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(module(x), naive(module, x), rtol=1e-12, atol=1e-12)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("channels, groups, hidden", [(256, 32, 32), (1024, 32, 64), (64, 1, 32)])
def test_parameter_count(channels, groups, hidden):
    expected = 2 * (9 * channels**2 // groups + 2 * channels) + 3 * hidden * channels + 2 * hidden
    assert count(SK(channels, groups=groups)) == expected


def test_the_published_count_at_256_channels():
    assert count(SK(256)) == 62_528


def test_sk_resnext50_has_the_published_count():
    network = torchvision.models.resnext50_32x4d(weights=None)
    replaced = SK.install(network)
    assert len(replaced.modules) == 16 and count(network) == 27_479_784


@torch.no_grad()
def test_sk_resnext50_is_timms_score_for_score():
    """The same count could hide a layer in the wrong place; the same scores cannot."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    ours = torchvision.models.resnext50_32x4d(weights=None)
    SK.install(ours)
    theirs = timm.create_model("skresnext50_32x4d")
    values = lived(ours).state_dict().values()
    assert [v.shape for v in values] == [v.shape for v in theirs.state_dict().values()]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values)))
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    expected = theirs.double().eval()(x)
    torch.testing.assert_close(ours(x), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_the_default_groups_are_32_or_what_divides():
    assert [SK(c).branches[0][0].groups for c in (256, 32, 48, 6)] == [32, 32, 16, 2]
    assert SK(64, out_channels=48).branches[1][0].groups == 16


# -- The contract: branches are needed twice, and made once


def test_attend_and_use_give_what_forward_gives():
    module = lived(SK(64))
    assert torch.equal(module(X), module.use(X, module.attend(X)))


@pytest.mark.parametrize("watched", [False, True])
def test_forward_makes_the_branches_once(watched):
    module, runs = lived(SK(64)), []
    for branch in module.branches:
        branch[0].register_forward_hook(lambda *_: runs.append(1))
    if watched:
        with record(module):
            module(X)
    else:
        module(X)
    assert len(runs) == 2


def test_watching_a_training_step_changes_nothing():
    plain = SK(64).double()
    watched = copy.deepcopy(plain)
    y = plain(X)
    with record(watched) as weights:
        assert torch.equal(watched(X), y)
    assert weights[""].shape == (2, 2, 64, 1, 1)
    for name, buffer in plain.named_buffers():
        assert torch.equal(watched.get_buffer(name), buffer), name


def test_an_edit_of_the_weights_reaches_the_output():
    module = lived(SK(64))

    def large_alone(weights, x, attention):
        return torch.stack([torch.zeros_like(weights[:, 0]), torch.ones_like(weights[:, 1])], 1)

    with intervene(module, large_alone):
        torch.testing.assert_close(module(X), module.branches[1](X))


# -- Properties


def test_the_softmax_is_over_branches_and_not_over_channels():
    weights = lived(SK(64, branches=3)).attend(X)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 64, 1, 1, dtype=torch.float64))
    assert ((weights.sum(2) - 64 / 3).abs() > 1e-3).any() and SK(64, branches=3).describe().shape[1] == 3


def test_weights_are_about_half_before_any_training():
    torch.manual_seed(0)
    weights = SK(256).attend(torch.randn(8, 256, 6, 5)).detach()
    assert abs(float(weights[:, 0].mean()) - 0.5) < 0.05 and 0.2 < float(weights.quantile(0.05)) < 0.5


def test_the_branches_reach_3_5_and_7():
    module = SK(8, branches=3, groups=8).double().eval()
    for branch in module.branches:
        nn.init.ones_(branch[0].weight)
    x = torch.zeros(1, 8, 11, 9, dtype=torch.float64)
    x[:, :, 5, 4] = 1
    for reach, seen in enumerate(module.split(x), 1):
        rows, columns = (seen[0, 0] > 0).nonzero().T
        assert sorted(set(rows.tolist())) == [5 - reach, 5, 5 + reach]
        assert sorted(set(columns.tolist())) == [4 - reach, 4, 4 + reach]


def test_one_branch_is_a_convolution():
    module = lived(SK(64, branches=1))
    assert torch.equal(module.attend(X), torch.ones(2, 1, 64, 1, 1, dtype=torch.float64))
    assert torch.equal(module(X), module.branches[0](X))


def test_permuting_the_channels_permutes_the_output():
    module, order = lived(SK(16, groups=1)), torch.randperm(16)
    twin, both = copy.deepcopy(module), torch.cat([order, order + 16])
    for branch in twin.branches:
        branch[0].weight.data = branch[0].weight[order][:, order].detach()
        for values in (branch[1].weight.data, branch[1].bias.data, branch[1].running_mean, branch[1].running_var):
            values.copy_(values[order])
    twin.reduce[0].weight.data = module.reduce[0].weight[:, order].detach()
    twin.expand.weight.data = module.expand.weight[both].detach()
    torch.testing.assert_close(twin(X[:, :16][:, order]), module(X[:, :16])[:, order])


def test_a_stride_and_other_channels():
    module = lived(SK(64, stride=2, out_channels=32))
    assert module(X).shape == (2, 32, 5, 7) and module.attend(X).shape == (2, 2, 32, 1, 1)
    about = module.describe()
    assert not about.drop_in and about.shape == ("B", 2, 32, 1, 1) and SK(64, branches=3).describe().passes == 8


@pytest.mark.parametrize("options, says", [
    ({"groups": 5}, "groups must divide the 32 channels, which 5"), ({"groups": 0}, "which 0 does not"),
    ({"branches": 0}, "branches is at least 1"), ({"stride": 0}, "stride is at least 1"),
    ({"reduction": 0}, "reduction is at least 1"), ({"out_channels": 0}, "out_channels is at least 1"),
    ({"groups": 32, "out_channels": 48}, "32 channels and 48 outputs"),
])
def test_bad_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        create("sk", 32, **options)


def test_a_picture_alone_cannot_be_trained_with():
    module = SK(64).double()
    with pytest.raises(ValueError, match="two pictures or more, or call eval"):
        module(X[:1])
    assert module.eval()(X[:1]).shape == (1, 64, 10, 14)


# -- In networks


def test_install_replaces_the_convolution_that_a_relu_follows():
    network = backbones.small_resnet(1, 4, attention="sk")
    assert list(attentions(network)) == ["stages.0.0.conv1", "stages.1.0.conv1", "stages.2.0.conv1"]
    block = network.stages[1][0]
    assert isinstance(block.norm1, nn.Identity) and isinstance(block.norm2, nn.BatchNorm2d)
    assert (block.conv1.stride, block.conv1.channels, block.conv1.out_channels) == (2, 16, 32)
    assert network(torch.zeros(2, 1, 16, 12)).shape == (2, 4)


@pytest.mark.parametrize("where, names", [
    ("stage", ["stages.0.conv", "stages.1.conv"]), ("last", ["stages.1.conv"]), ("stages.0.conv", ["stages.0.conv"]),
])
def test_install_at_other_places(where, names):
    network = backbones.small(1, 4, attention="sk", where=where)
    assert list(attentions(network)) == names and network(torch.zeros(2, 1, 16, 12)).shape == (2, 4)


def test_the_first_branch_takes_over_the_weights_of_its_shape():
    network = torchvision.models.resnext50_32x4d(weights=None)
    convolution, norm = network.layer2[0].conv2, network.layer2[0].bn2
    nn.init.uniform_(norm.running_mean)
    SK.install(network, "layer2.0.conv2")
    first, first_norm, _ = network.layer2[0].conv2.branches[0]
    assert torch.equal(first.weight, convolution.weight) and torch.equal(first_norm.running_mean, norm.running_mean)


def test_taken_out_the_network_is_what_it_was():
    torch.manual_seed(0)
    network, x = backbones.small_resnet(1, 4).eval(), torch.randn(2, 1, 16, 12)
    before, names = network(x), list(network.state_dict())
    replaced = SK.install(network)
    assert replaced.enabled and not torch.equal(network(x), before)
    replaced.disable()
    assert not replaced.enabled and torch.equal(network(x), before) and list(network.state_dict()) == names
    replaced.enable()
    assert len(attentions(network)) == 3
    with replaced:
        assert not torch.equal(network(x), before)
    assert torch.equal(network(x), before)
    with pytest.raises(RuntimeError, match="install them again"):
        replaced.enable()


def test_install_keeps_precision_and_mode_and_refuses_networks_without_the_convolution():
    network = backbones.small_resnet(1, 4).double().eval()
    (mechanism, *_) = SK.install(network).modules.values()
    assert not mechanism.training and mechanism.expand.weight.dtype == torch.float64
    with pytest.raises(ValueError, match="there is none at '0'"):
        SK.install(nn.Sequential(nn.Conv2d(1, 4, 5, padding=2)), "0")


def test_it_also_stands_behind_a_block():
    network = backbones.small_resnet(1, 4)
    insert(network, "sk", "block")
    assert network(torch.zeros(2, 1, 16, 12)).shape == (2, 4)


def test_torch_fx_can_follow_it():
    network = lived(nn.Sequential(SK(64), nn.Flatten()))
    torch.testing.assert_close(torch.fx.symbolic_trace(network)(X), network(X))


def test_is_as_fast_as_timms(as_fast):
    as_fast(SK(128), BESIDE, torch.randn(4, 128, 28, 28))
