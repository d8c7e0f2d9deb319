import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from attnlib import create, insert
from attnlib.channel.avgmax import AvgMax
from attnlib.channel.se import SE, maximum

X = torch.randn(2, 32, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def timms(channels: int) -> nn.Module:
    from timm.layers.cbam import ChannelAttn

    return ChannelAttn(channels, rd_ratio=1 / 16, mlp_bias=True)


BESIDE = {"timm": timms}  # what `make bench` measures the speed against


def with_biases(module: AvgMax) -> AvgMax:
    """With biases that are not zero, as they are after training."""
    for layer in (module.reduce, module.expand):
        nn.init.normal_(layer.bias)
    return module


def theirs_from(ours: AvgMax, channels: int) -> nn.Module:
    cbam = pytest.importorskip("timm.layers.cbam", reason="timm is not installed")
    theirs = cbam.ChannelAttn(channels, rd_ratio=1 / ours.reduction, mlp_bias=ours.reduce.bias is not None)
    theirs = theirs.to(ours.reduce.weight.dtype)
    theirs.fc1.load_state_dict(ours.reduce.state_dict())
    theirs.fc2.load_state_dict(ours.expand.state_dict())
    return theirs


@pytest.mark.parametrize("reduction", [16, 4])
def test_equals_timm(reduction):
    torch.manual_seed(0)
    ours = with_biases(AvgMax(32, reduction).double())
    torch.testing.assert_close(ours(X), theirs_from(ours, 32)(X), rtol=1e-14, atol=1e-14)


def test_equals_timm_without_biases():
    torch.manual_seed(0)
    ours = AvgMax(32, bias=False).double()
    torch.testing.assert_close(ours(X), theirs_from(ours, 32)(X), rtol=1e-14, atol=1e-14)


def test_gradients_equal_timms():
    torch.manual_seed(0)
    ours = with_biases(AvgMax(32, 4).double())
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    ours(x).square().sum().backward()
    theirs_from(ours, 32)(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-12, atol=1e-12)


def naive(module: AvgMax, x: torch.Tensor) -> torch.Tensor:
    """The paper's equation, one number at a time."""
    w1, b1 = module.reduce.weight[:, :, 0, 0], module.reduce.bias
    w2, b2 = module.expand.weight[:, :, 0, 0], module.expand.bias
    batch, channels, rows, columns = x.shape
    y = torch.zeros_like(x)
    for b in range(batch):
        means, maxima = [], []
        for c in range(channels):
            values = [x[b, c, i, j] for i in range(rows) for j in range(columns)]
            means.append(sum(values) / len(values))
            maxima.append(max(values))
        chosen = {"average": [means], "max": [maxima], "both": [means, maxima]}[module.pool]
        score = [0.0] * channels
        for z in chosen:
            hidden = [max(0, sum(w1[h, c] * z[c] for c in range(channels)) + b1[h]) for h in range(len(w1))]
            for c in range(channels):
                score[c] = score[c] + sum(w2[c, h] * hidden[h] for h in range(len(w1))) + b2[c]
        for c in range(channels):
            y[b, c] = x[b, c] / (1 + torch.exp(-score[c]))
    return y


@pytest.mark.parametrize("pool", ["both", "average", "max"])
def test_equals_the_naive_loop(pool):
    torch.manual_seed(0)
    module = with_biases(AvgMax(6, 2, pool=pool).double())
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(module(x), naive(module, x), rtol=1e-12, atol=1e-12)


def test_the_average_alone_is_squeeze_and_excitation():
    torch.manual_seed(0)
    ours, se = with_biases(AvgMax(32, pool="average").double()), SE(32).double()
    se.load_state_dict(ours.state_dict())
    assert torch.equal(ours(X), se(X))


def test_the_maximum_alone_is_squeeze_and_excitation_with_its_max_squeeze():
    torch.manual_seed(0)
    ours, se = with_biases(AvgMax(32, pool="max").double()), SE(32, squeeze="max").double()
    se.load_state_dict(ours.state_dict())
    assert torch.equal(ours(X), se(X))


def test_scores_of_both_are_the_sum_of_either():
    torch.manual_seed(0)
    both = with_biases(AvgMax(32, 4).double())
    alone = {pool: AvgMax(32, 4, pool=pool).double() for pool in ("average", "max")}
    for module in alone.values():
        module.load_state_dict(both.state_dict())
    scores = sum(module.attend(X).logit() for module in alone.values())
    torch.testing.assert_close(both.attend(X).logit(), scores)


@pytest.mark.parametrize("pool", ["both", "average", "max"])
@pytest.mark.parametrize("channels, reduction, bias", [(256, 16, True), (256, 16, False), (64, 4, True), (48, 7, True)])
def test_parameter_count(channels, reduction, bias, pool):
    hidden = channels // reduction
    expected = 2 * hidden * channels + (hidden + channels if bias else 0)
    module = AvgMax(channels, reduction, bias=bias, pool=pool, normalize=True)
    assert sum(p.numel() for p in module.parameters()) == expected


def test_the_count_at_256_channels_is_cbams_without_its_spatial_gate():
    # CBAM has 8,564 there; its 7×7 convolution of two maps, without bias, and its batch normalisation have 100.
    assert sum(p.numel() for p in AvgMax(256).parameters()) == 8_564 - (7 * 7 * 2 + 2)


def test_resnet50_has_as_many_parameters_as_with_cbam_less_its_spatial_gates():
    network = torchvision.models.resnet50(weights=None)
    insert(network, "avgmax", where="block")
    assert sum(p.numel() for p in network.parameters()) == 28_089_624 - 16 * (7 * 7 * 2 + 2)


def test_gates_are_open_half_way_when_nothing_stands_out():
    # With zero biases, descriptors of zeros give sigmoid(0) everywhere.
    gates = AvgMax(32).double().attend(torch.zeros_like(X))
    assert torch.equal(gates, torch.full((2, 32, 1, 1), 0.5, dtype=torch.float64))


def test_gates_do_not_know_where():
    module = AvgMax(32).double()
    torch.testing.assert_close(module.attend(X.roll((3, 5), (2, 3))), module.attend(X))
    shuffled = X.flatten(2)[:, :, torch.randperm(140)].view_as(X)
    torch.testing.assert_close(module.attend(shuffled), module.attend(X))


def test_permuting_channels_with_the_weights_permutes_the_output():
    torch.manual_seed(0)
    module, order, twin = with_biases(AvgMax(32, 4).double()), torch.randperm(32), AvgMax(32, 4).double()
    twin.load_state_dict({
        "reduce.weight": module.reduce.weight[:, order], "reduce.bias": module.reduce.bias,
        "expand.weight": module.expand.weight[order], "expand.bias": module.expand.bias[order],
    })
    torch.testing.assert_close(twin(X[:, order]), module(X)[:, order])


def test_one_bright_pixel_moves_the_maximum_and_hardly_the_mean():
    x = torch.zeros(1, 32, 50, 50)
    x[0, 0, 7, 9] = 1.0
    z = AvgMax(32).squeezed(x)
    assert list(z) == ["average", "max"]
    assert z["max"][0, 0] == 1 and z["average"][0, 0] == pytest.approx(1 / 2500)


def test_normalising_standardises_means_and_maxima_each_by_themselves():
    module = AvgMax(32, normalize=True).double()
    batch = torch.randn(64, 32, 5, 3, dtype=torch.float64) * 3 + 1
    for z in module.squeezed(batch).values():
        torch.testing.assert_close(z.mean(0), torch.zeros_like(z[0]), atol=1e-12, rtol=0)
        assert ((z.std(0, correction=0) - 1).abs() < 1e-3).all()
    assert sum(p.numel() for p in module.parameters()) == sum(p.numel() for p in AvgMax(32).parameters())


@pytest.mark.parametrize("options, says", [
    ({"reduction": 33}, "between 1 and the 32 channels"), ({"reduction": 0}, "between 1 and"),
    ({"pool": "mean"}, "pool is one of both, average, max"),
])
def test_bad_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        create("avgmax", 32, **options)


# -- The maximum, which is found in one way where a gradient is wanted and in another where none is


LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


@LAYOUTS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_maximum_is_the_same_with_and_without_a_gradient(layout, dtype):
    x = X.to(dtype).contiguous(memory_format=layout)
    wanted = torch.stack([plane.max() for plane in x.flatten(0, 1)]).view(2, 32, 1, 1)
    assert torch.equal(maximum(x), wanted) and torch.equal(maximum(x.clone().requires_grad_()), wanted)
    assert maximum(x[:0].clone().requires_grad_()).shape == (0, 32, 1, 1)


@LAYOUTS
def test_the_gradient_of_the_maximum_is_its_derivative(layout):
    # All values are far apart, so that no step of the numerical derivative makes another one the largest.
    x = torch.randperm(2 * 140, generator=torch.Generator().manual_seed(0)).double().view(1, 2, 10, 14)
    x = x.contiguous(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(maximum, (x,)) and torch.autograd.gradgradcheck(maximum, (x,))


@LAYOUTS
def test_one_of_the_pixels_that_share_a_maximum_gets_the_gradient(layout):
    x = torch.zeros(1, 2, 10, 14, dtype=torch.float64)
    x[0, 0, 3, 5] = x[0, 0, 7, 2] = x[0, 1, 9, 13] = 1
    x = x.contiguous(memory_format=layout).requires_grad_()
    maximum(x).sum().backward()
    assert x.grad.nonzero().tolist() == [[0, 0, 3, 5], [0, 1, 9, 13]] and x.grad.sum() == 2


def test_behind_a_relu_a_channel_of_zeros_gets_no_gradient():
    x = (-X.abs()).requires_grad_()
    maximum(x.relu()).sum().backward()
    assert not x.grad.any()


def test_both_ways_compile_and_trace():
    torch.compiler.reset()
    module = AvgMax(32).double()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    traced = torch.fx.symbolic_trace(nn.Sequential(module))
    gradients = []
    for same in (module, compiled, traced):
        x = X.clone().requires_grad_()
        same(x).square().sum().backward()
        gradients.append(x.grad)
        with torch.no_grad():
            torch.testing.assert_close(same(X), module(X))
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


@pytest.mark.parametrize("wanted", [False, True])
def test_exports_for_any_size(wanted):
    module, sizes = AvgMax(32).double(), {axis: torch.export.Dim.DYNAMIC for axis in (0, 2, 3)}
    exported = torch.export.export(module, (X.clone().requires_grad_(wanted),), dynamic_shapes=(sizes,)).module()
    other = torch.randn(3, 32, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(exported(other), module(other))


@LAYOUTS
def test_the_maximum_is_as_fast_as_either_way(layout, as_fast):
    class By(nn.Module):
        def __init__(self, way):
            super().__init__()
            self.way = way

        def forward(self, x):
            return self.way(x)

    ways = {"amax": lambda x: x.amax((2, 3), keepdim=True), "pooling": lambda x: F.adaptive_max_pool2d(x, 1)}
    x = torch.randn(8, 256, 56, 56).contiguous(memory_format=layout)
    as_fast(By(maximum), {label: lambda channels, way=way: By(way) for label, way in ways.items()}, x, most=1.5)


# -- Speed


def test_is_as_fast_as_timms(as_fast):
    as_fast(AvgMax(256), BESIDE, torch.randn(4, 256, 56, 56))
