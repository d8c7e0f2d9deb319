import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from attnlib import backbones, create, insert
from attnlib.channel.ge import GE, scale
from attnlib.channel.se import SE

X = torch.randn(2, 32, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
EXTENTS = (2, 4, 8)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def built(**options) -> GE:
    torch.manual_seed(0)
    return GE(32, **options).double().eval()


# -- Against loops and other implementations


def naive(x: torch.Tensor, extent: int) -> torch.Tensor:
    """GE-θ⁻ by the definition, one number at a time."""
    batch, channels, rows, columns = x.shape
    h, w = -(-rows // extent), -(-columns // extent)
    y = torch.zeros_like(x)
    for b in range(batch):
        for c in range(channels):
            for i in range(rows):
                for j in range(columns):
                    u, v = i * h // rows, j * w // columns
                    window = [
                        float(x[b, c, p, q]) for p in range(rows) for q in range(columns)
                        if abs(p - extent * u) < extent and abs(q - extent * v) < extent
                    ]
                    y[b, c, i, j] = x[b, c, i, j] * torch.tensor(sum(window) / len(window)).sigmoid()
    return y


@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("rows, columns", [(10, 14), (8, 16), (3, 5), (1, 9)])
def test_average_equals_the_naive_loop(extent, rows, columns):
    x = torch.randn(2, 3, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(GE(3, extent)(x), naive(x, extent), rtol=1e-6, atol=1e-7)


def test_global_average_is_the_sigmoid_of_the_mean_times_x():
    torch.testing.assert_close(GE(32)(X), X * X.mean((2, 3), keepdim=True).sigmoid(), rtol=1e-14, atol=0)


def test_an_extent_beyond_the_map_is_the_global_one():
    torch.testing.assert_close(GE(32, 16)(X), GE(32)(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", range(1, 40))
@pytest.mark.parametrize("extent", EXTENTS)
def test_stretching_is_torchs_nearest_interpolation(size, extent):
    gates = torch.rand(2, 3, -(-size // extent), 2, dtype=torch.float64)
    x = torch.randn(2, 3, size, 4, dtype=torch.float64)
    assert torch.equal(scale(x, gates), x * F.interpolate(gates, size=(size, 4)))


def test_with_a_subnetwork_and_the_global_average_it_is_squeeze_and_excitation():
    theirs = torchvision.ops.SqueezeExcitation(32, 2).double()
    ours = built(excite="subnetwork")
    for mine, other in ((ours.excite[0], theirs.fc1), (ours.excite[2], theirs.fc2)):
        mine.load_state_dict(other.state_dict())
    torch.testing.assert_close(ours(X), theirs(X), rtol=1e-14, atol=0)


def test_standardised_it_is_our_standardised_squeeze_and_excitation():
    torch.manual_seed(0)
    ours, theirs = GE(32, excite="subnetwork", reduction=4, normalize=True).double(), SE(32, 4, normalize=True).double()
    for mine, other in ((ours.excite[0], theirs.reduce), (ours.excite[2], theirs.expand)):
        mine.load_state_dict(other.state_dict())
    torch.testing.assert_close(ours.train()(X), theirs.train()(X))


def test_a_constant_kernel_gathers_the_mean():
    module = built(gather="conv", size=(10, 14))
    nn.init.constant_(module.gather[0].weight, 1 / 140)
    module.gather[1].eps = 0.0  # running mean 0 and variance 1: the normalisation is then the identity
    torch.testing.assert_close(module(X), GE(32)(X))


def test_every_convolution_sees_its_own_channel_and_halves_the_map():
    module = built(extent=4, gather="conv")
    by_hand = X
    for conv, norm, relu in ((module.gather[0], module.gather[1], True), (module.gather[3], module.gather[4], False)):
        by_hand = torch.cat([F.conv2d(by_hand[:, [c]], conv.weight[[c]], stride=2, padding=1) for c in range(32)], 1)
        by_hand = by_hand / (1 + norm.eps) ** 0.5
        by_hand = by_hand.relu() if relu else by_hand
    assert by_hand.shape == (2, 32, 3, 4)
    torch.testing.assert_close(module.attend(X), by_hand.sigmoid())


# -- Counts


@pytest.mark.parametrize("extent", [*EXTENTS, "global"])
def test_theta_minus_adds_nothing_to_resnet50(extent):
    assert count(backbones.resnet(50, "ge", extent=extent)) == count(backbones.resnet(50)) == 25_557_032


@pytest.mark.parametrize("excite, total", [("plain", 31_106_600), ("subnetwork", 33_637_592)])
def test_the_learned_pairs_have_the_counts_of_the_authors_resnet50(excite, total):
    """Kernels of 56, 28, 14 and 7 behind 256, 512, 1024 and 2048 channels, as in their network files."""
    network = backbones.resnet(50)
    insert(network, lambda c: GE(c, gather="conv", excite=excite, size=14_336 // c), where="block")
    assert count(network) == total
    by_formula = sum(n * c * (k * k + 2) for n, c, k in ((3, 256, 56), (4, 512, 28), (6, 1024, 14), (3, 2048, 7)))
    subnetworks = 28_088_024 - 25_557_032 if excite == "subnetwork" else 0  # those of SE-ResNet-50
    assert total == 25_557_032 + by_formula + subnetworks


@pytest.mark.parametrize("extent, convolutions", [(2, 1), (4, 2), (8, 3)])
def test_parameters_grow_with_the_logarithm_of_the_extent(extent, convolutions):
    assert count(GE(256, extent, gather="conv")) == 11 * 256 * convolutions
    assert count(GE(256, extent, gather="conv", excite="subnetwork")) == 11 * 256 * convolutions + count(SE(256))


def test_the_subnetwork_alone_costs_the_same_at_every_extent():
    assert {count(GE(256, e, excite="subnetwork")) for e in (*EXTENTS, "global")} == {count(SE(256))} == {8_464}


# -- Properties


@pytest.mark.parametrize("extent, grid", [(2, (5, 7)), (4, (3, 4)), (8, (2, 2)), ("global", (1, 1))])
@pytest.mark.parametrize("gather", ["average", "conv"])
@pytest.mark.parametrize("excite", ["plain", "subnetwork"])
def test_weights_have_the_gathered_size_for_any_map(extent, grid, gather, excite):
    size = (10, 14) if gather == "conv" and extent == "global" else None
    module = built(extent=extent, gather=gather, excite=excite, size=size)
    weights = module.attend(X)
    assert weights.shape == (2, 32, *grid) and module(X).shape == X.shape
    assert 0 <= weights.min() and weights.max() <= 1
    assert module.describe().shape == (("B", "C", 1, 1) if extent == "global" else ("B", "C", "h", "w"))


@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("gather", ["average", "conv"])
def test_a_gate_sees_its_window_and_nothing_else(extent, gather):
    """The window reaches extent − 1 positions from the first of the block, also through the convolutions."""
    torch.manual_seed(0)
    module = GE(1, extent, gather=gather).double().eval()
    for conv in (m for m in module.modules() if isinstance(m, nn.Conv2d)):
        nn.init.uniform_(conv.weight, 0.5, 1)  # so that no ReLU closes
    x = torch.rand(1, 1, 32, 1, dtype=torch.float64, requires_grad=True)
    gate = 16 // extent
    module.attend(x)[0, 0, gate].sum().backward()
    seen = x.grad.flatten().nonzero().flatten().tolist()
    assert seen == list(range(16 - extent + 1, 16 + extent))


def test_plain_excitation_keeps_channels_apart_and_a_subnetwork_mixes_them():
    other = X.clone()
    other[:, 0] += 1
    for excite, mixes in (("plain", False), ("subnetwork", True)):
        module = built(extent=4, excite=excite, reduction=2)
        changed = (module.attend(other) != module.attend(X)).any(0).flatten(1).any(1)
        assert changed[0] and bool(changed[1:].any()) is mixes


def test_global_gates_do_not_know_where_unless_they_have_a_kernel():
    rolled = X.roll((3, 5), (2, 3))
    torch.testing.assert_close(built().attend(rolled), built().attend(X))
    kernel = built(gather="conv", size=(10, 14))
    assert not torch.allclose(kernel.attend(rolled), kernel.attend(X))


@pytest.mark.parametrize("extent", EXTENTS)
def test_shifting_by_the_extent_shifts_the_gates(extent):
    x = torch.zeros(1, 2, 64, 64, dtype=torch.float64)
    x[..., 16:32, 16:32] = torch.randn(1, 2, 16, 16, dtype=torch.float64)
    module = GE(2, extent)
    moved = module.attend(x.roll((extent, 2 * extent), (2, 3)))
    torch.testing.assert_close(moved, module.attend(x).roll((1, 2), (2, 3)))


def test_permuting_channels_permutes_the_output():
    order = torch.randperm(32)
    for extent in (4, "global"):
        torch.testing.assert_close(GE(32, extent)(X[:, order]), GE(32, extent)(X)[:, order])


@pytest.mark.parametrize("options", [
    {"extent": 4}, {"extent": 8, "gather": "conv"}, {"extent": 2, "gather": "conv", "excite": "subnetwork"},
    {"gather": "conv", "excite": "subnetwork", "size": (10, 14)}, {"extent": 4, "excite": "subnetwork"},
])
def test_every_form_keeps_the_contract(options):
    module = built(**options)
    assert torch.equal(module(X), module.use(X, module.attend(X)))
    torch.testing.assert_close(module(X.contiguous(memory_format=torch.channels_last)), module(X))
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), module(X))
    assert module(X[:0]).shape == (0, 32, 10, 14)
    module.train()(X.clone().requires_grad_()).square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    one = torch.randn(1, 32, 10, 14, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module.eval(), (one,), fast_mode=True)


def test_normalising_standardises_over_the_batch_and_its_positions():
    module = GE(32, 4, normalize=True).double().train()
    z = module.standardize(module.gather(torch.randn(64, 32, 9, 7, dtype=torch.float64) * 3 + 1))
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(32, dtype=torch.float64), atol=1e-12, rtol=0)
    assert count(module) == 0


# -- Bad input


@pytest.mark.parametrize("options, says", [
    ({"extent": 3}, "power of two"), ({"extent": 1}, "power of two"), ({"extent": 0}, "power of two"),
    ({"extent": "all"}, "'global', not 'all'"), ({"extent": 4.0}, "power of two"),
    ({"gather": "max"}, "gather is one of average, conv"), ({"excite": "mlp"}, "excite is one of plain, subnetwork"),
    ({"gather": "conv"}, r"give its size=\(rows, columns\)"),
    ({"gather": "conv", "size": (7, 0)}, "as large as the map"),
    ({"size": 7}, "leave it out"), ({"extent": 4, "gather": "conv", "size": 7}, "leave it out"),
    ({"excite": "subnetwork", "reduction": 33}, "between 1 and the 32 channels"),
])
def test_bad_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        create("ge", 32, **options)


def test_a_map_of_another_size_than_the_kernel_is_refused():
    with pytest.raises(ValueError, match="7 × 7, but the input has 10 × 14; build it with size=.10, 14.") as refused:
        GE(32, gather="conv", size=7).double()(X)
    assert "\n" not in str(refused.value)


# -- Speed


class Obvious(nn.Module):
    """The calls that the formula suggests; timm's block cannot be built in the pinned version."""

    def __init__(self, extent):
        super().__init__()
        self.extent = extent

    def forward(self, x):
        if self.extent == "global":
            return x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1))
        gathered = F.avg_pool2d(x, 2 * self.extent - 1, self.extent, self.extent - 1, count_include_pad=False)
        return x * torch.sigmoid(F.interpolate(gathered, size=x.shape[2:]))


@pytest.mark.parametrize("extent", ["global", 2, 8])
def test_is_as_fast_as_the_obvious_way(extent, as_fast):
    as_fast(GE(256, extent), {"the obvious calls": lambda channels: Obvious(extent)}, torch.randn(4, 256, 56, 56))
