import pytest
import torch
import torchvision
from torch import nn

from attnlib import create, insert
from attnlib.channel.se import SE

X = torch.randn(2, 32, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def copied(reduce: nn.Module, expand: nn.Module, into: SE) -> SE:
    for ours, theirs in ((into.reduce, reduce), (into.expand, expand)):
        ours.load_state_dict(theirs.state_dict())
    return into


# What `make bench` measures the speed against.
BESIDE = {"torchvision": lambda channels: torchvision.ops.SqueezeExcitation(channels, channels // 16)}


def test_equals_torchvision():
    theirs = torchvision.ops.SqueezeExcitation(32, 2).double()
    ours = copied(theirs.fc1, theirs.fc2, SE(32, 16).double())
    assert torch.equal(ours(X), theirs(X))


def test_equals_timm():
    timm_layers = pytest.importorskip("timm.layers", reason="timm is not installed")
    theirs = timm_layers.SEModule(32, rd_ratio=1 / 16, rd_divisor=1).double()
    ours = copied(theirs.fc1, theirs.fc2, SE(32, 16).double())
    assert torch.equal(ours(X), theirs(X))


def naive(module: SE, x: torch.Tensor) -> torch.Tensor:
    """The paper's three equations, one number at a time."""
    w1, b1 = module.reduce.weight[:, :, 0, 0], module.reduce.bias
    w2, b2 = module.expand.weight[:, :, 0, 0], module.expand.bias
    batch, channels, rows, columns = x.shape
    y = torch.zeros_like(x)
    for b in range(batch):
        z = [sum(x[b, c, i, j] for i in range(rows) for j in range(columns)) / (rows * columns) for c in range(channels)]
        hidden = [max(0, sum(w1[h, c] * z[c] for c in range(channels)) + b1[h]) for h in range(len(w1))]
        for c in range(channels):
            s = 1 / (1 + torch.exp(-(sum(w2[c, h] * hidden[h] for h in range(len(w1))) + b2[c])))
            y[b, c] = s * x[b, c]
    return y


def test_equals_the_naive_loop():
    torch.manual_seed(0)
    module = SE(6, 2).double()
    nn.init.normal_(module.reduce.bias)
    nn.init.normal_(module.expand.bias)
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(module(x), naive(module, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels, reduction, bias", [(256, 16, True), (256, 16, False), (64, 4, True), (48, 7, True)])
def test_parameter_count(channels, reduction, bias):
    hidden = channels // reduction
    expected = 2 * hidden * channels + (hidden + channels if bias else 0)
    assert sum(p.numel() for p in SE(channels, reduction, bias=bias).parameters()) == expected


def test_the_published_count_at_256_channels():
    assert sum(p.numel() for p in SE(256).parameters()) == 8_464


@pytest.mark.parametrize("bias, total", [(True, 28_088_024), (False, 28_071_976)])
def test_se_resnet50_has_the_published_count(bias, total):
    network = torchvision.models.resnet50(weights=None)
    insert(network, "se", where="block", bias=bias)
    assert sum(p.numel() for p in network.parameters()) == total


def test_gates_are_open_half_way_when_nothing_stands_out():
    # With zero biases, a descriptor of zeros gives sigmoid(0) everywhere.
    assert torch.equal(SE(32).double()(torch.zeros_like(X)), torch.zeros_like(X))
    assert torch.equal(SE(32).double().attend(torch.zeros_like(X)), torch.full((2, 32, 1, 1), 0.5, dtype=torch.float64))


def test_gates_do_not_know_where():
    module = SE(32).double()
    shifted = X.roll((3, 5), (2, 3))
    torch.testing.assert_close(module.attend(shifted), module.attend(X))
    shuffled = X.flatten(2)[:, :, torch.randperm(140)].view_as(X)
    torch.testing.assert_close(module.attend(shuffled), module.attend(X))


def test_permuting_channels_with_the_weights_permutes_the_output():
    module, order = SE(32).double(), torch.randperm(32)
    twin = SE(32).double()
    twin.load_state_dict({
        "reduce.weight": module.reduce.weight[:, order], "reduce.bias": module.reduce.bias,
        "expand.weight": module.expand.weight[order], "expand.bias": module.expand.bias[order],
    })
    torch.testing.assert_close(twin(X[:, order]), module(X)[:, order])


def test_without_the_squeeze_every_position_has_its_own_gate():
    torch.manual_seed(0)
    module = SE(32, 2, squeeze="none").double()
    weights = module.attend(X)
    assert weights.shape == X.shape and module.describe().shape == ("B", "C", "H", "W")
    here = X.clone()
    here[:, :, 0, 0] += 1
    changed = (module.attend(here) != weights).any(1)
    assert changed[:, 0, 0].all() and changed.sum() == 2


def test_a_constant_squeeze_gives_every_picture_the_same_gates():
    weights = SE(32, squeeze="constant").double().attend(X)
    assert weights.shape == (2, 32, 1, 1) and torch.equal(weights[0], weights[1])


def test_the_max_squeeze_sees_one_pixel_that_the_mean_hardly_notices():
    x = torch.zeros(1, 32, 50, 50)
    x[0, 0, 7, 9] = 1.0
    assert SE(32, squeeze="max").squeezed(x)[0, 0] == 1 and SE(32).squeezed(x)[0, 0] == pytest.approx(1 / 2500)


@pytest.mark.parametrize("gate, low, high", [("sigmoid", 0, 1), ("tanh", -1, 1), ("relu", 0, float("inf"))])
def test_gate_bounds(gate, low, high):
    module = SE(32, gate=gate).double()
    nn.init.normal_(module.expand.bias, std=5)
    weights = module.attend(X)
    assert module.describe().bounds == (low, high) and low <= weights.min() and weights.max() <= high


def test_normalising_standardises_every_channel_over_the_batch():
    module = SE(32, normalize=True).double()
    batch = torch.randn(64, 32, 5, 3, dtype=torch.float64) * 3 + 1
    z = module.squeezed(batch)
    torch.testing.assert_close(z.mean(0), torch.zeros_like(z[0]), atol=1e-12, rtol=0)
    assert ((z.std(0, correction=0) - 1).abs() < 1e-3).all()
    assert sum(p.numel() for p in module.parameters()) == sum(p.numel() for p in SE(32).parameters())


@pytest.mark.parametrize("options, says", [
    ({"reduction": 33}, "between 1 and the 32 channels"), ({"reduction": 0}, "between 1 and"),
    ({"squeeze": "mean"}, "squeeze is one of avg, max, none, constant"), ({"gate": "softmax"}, "sigmoid, tanh, relu"),
])
def test_bad_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        create("se", 32, **options)


def test_is_as_fast_as_torchvisions(as_fast):
    as_fast(SE(256), BESIDE, torch.randn(8, 256, 56, 56))


def test_a_slower_block_would_be_noticed(as_fast):
    class Twice(SE):
        def forward(self, x):
            return super().forward(super().forward(x))

    with pytest.raises(pytest.fail.Exception, match="forward takes at best .*torchvision"):
        as_fast(Twice(256), BESIDE, torch.randn(2, 256, 56, 56), tries=2)
