import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from attnlib import create, insert, intervene, shuffled, switch_off
from attnlib.channel.se import SE
from attnlib.mixed.coordinate import Coordinate, strips

X = torch.randn(2, 32, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
DIRECTIONS = ("both", "rows", "columns")


def timms_own(channels: int) -> nn.Module:
    from timm.layers.coord_attn import CoordAttn

    return CoordAttn(channels, rd_channels=max(8, channels // 32), bias=True)


BESIDE = {"timm": timms_own}  # what `make bench` measures the speed against


def lived(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 and evaluation mode, with biases and a normalisation that do something."""
    rng = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.bias.data.copy_(torch.randn(layer.bias.shape, generator=rng))
        if isinstance(layer, nn.BatchNorm2d):
            for values, low in ((layer.weight.data, 0.5), (layer.bias.data, -0.5), (layer.running_mean, -0.5),
                                (layer.running_var, 0.5)):
                values.copy_(torch.rand(values.shape, generator=rng) + low)
    return module


def built(channels: int = 32, **options) -> Coordinate:
    torch.manual_seed(0)
    return lived(Coordinate(channels, **options))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# -- Against another implementation and a loop


def timms(ours: Coordinate) -> nn.Module:
    """timm's module with the weights of `ours`."""
    pytest.importorskip("timm.layers.coord_attn", reason="timm is not installed")
    theirs = timms_own(ours.channels).double()
    for part, other in ((ours.reduce, theirs.conv1), (ours.norm, theirs.bn1), (ours.rows, theirs.conv_h),
                        (ours.columns, theirs.conv_w)):
        other.load_state_dict(part.state_dict())
    return theirs


@pytest.mark.parametrize("channels", [32, 320])
def test_equals_timm(channels):
    ours = built(channels)
    x = torch.randn(2, channels, 10, 14, dtype=torch.float64)
    torch.testing.assert_close(ours(x), timms(ours).eval()(x), rtol=1e-13, atol=1e-13)


def test_equals_timm_while_it_trains():
    ours = built()
    theirs = timms(ours).train()
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    mine, other = ours.train()(x), theirs(y)
    torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.norm.running_var, theirs.bn1.running_var)
    mine.square().sum().backward()
    other.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.columns.weight.grad, theirs.conv_w.weight.grad, rtol=1e-10, atol=1e-10)


def gate(module: Coordinate, z: list, layer: nn.Conv2d, c: int) -> float:
    """The gate of channel c for one row or column of which z are the channels' means."""
    norm, score = module.norm, float(layer.bias[c])
    for h in range(len(norm.weight)):
        f = sum(float(module.reduce.weight[h, k, 0, 0]) * z[k] for k in range(len(z))) + float(module.reduce.bias[h])
        f = (f - float(norm.running_mean[h])) / math.sqrt(float(norm.running_var[h]) + norm.eps)
        f = f * float(norm.weight[h]) + float(norm.bias[h])
        score += float(layer.weight[c, h, 0, 0]) * f * min(max(f + 3, 0), 6) / 6
    return 1 / (1 + math.exp(-score))


@torch.no_grad()
def naive(module: Coordinate, x: torch.Tensor) -> torch.Tensor:
    """The paper's equations, one number at a time."""
    batch, channels, rows, columns = x.shape
    y = torch.zeros_like(x)
    for b in range(batch):
        of_rows = [[float(sum(x[b, c, i])) / columns for c in range(channels)] for i in range(rows)]
        of_columns = [[float(sum(x[b, c, :, j])) / rows for c in range(channels)] for j in range(columns)]
        for c in range(channels):
            r = [gate(module, z, module.rows, c) if module.rows else 1 for z in of_rows]
            s = [gate(module, z, module.columns, c) if module.columns else 1 for z in of_columns]
            for i in range(rows):
                for j in range(columns):
                    y[b, c, i, j] = r[i] * s[j] * x[b, c, i, j]
    return y


@pytest.mark.parametrize("directions", DIRECTIONS)
@pytest.mark.parametrize("rows, columns", [(3, 4), (5, 2), (1, 1)])
def test_equals_the_naive_loop(directions, rows, columns):
    module = built(4, least=3, directions=directions)
    x = torch.randn(2, 4, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(module(x), naive(module, x), rtol=1e-12, atol=1e-12)


# -- Counts


@pytest.mark.parametrize("channels, reduction, least, hidden", [
    (256, 32, 8, 8), (960, 32, 8, 30), (64, 4, 8, 16), (100, 3, 1, 33), (32, 32, 8, 8),
])
def test_parameter_count(channels, reduction, least, hidden):
    expected = 3 * hidden * channels + 3 * hidden + 2 * channels
    assert count(Coordinate(channels, reduction, least=least)) == expected
    for one in ("rows", "columns"):
        alone = Coordinate(channels, reduction, least=least, directions=one)
        assert count(alone) == expected - hidden * channels - channels


def test_the_count_at_256_channels():
    assert count(Coordinate(256)) == 6_680


def test_mobilenet_with_coordinate_attention_has_the_authors_count():
    """Behind the depth-wise convolution of every block that widens, which the first does not."""
    network = torchvision.models.mobilenet_v2(weights=None)
    insert(network, "coordinate", where=[f"features.{block}.conv.1" for block in range(2, 18)])
    assert count(network) == 3_950_648


# -- What the weights are


def test_weights_are_the_product_of_the_two_gates():
    module = built()
    rows, columns = module.gates(X)
    assert rows.shape == (2, 32, 10, 1) and columns.shape == (2, 32, 1, 14)
    weights = module.attend(X)
    assert torch.equal(weights, rows * columns) and torch.linalg.matrix_rank(weights).max() == 1
    assert 0 <= weights.min() and weights.max() <= 1
    torch.testing.assert_close(module(X), X * rows * columns)


@pytest.mark.parametrize("directions, shape, letters", [
    ("both", (2, 32, 10, 14), ("B", "C", "H", "W")), ("rows", (2, 32, 10, 1), ("B", "C", "H", 1)),
    ("columns", (2, 32, 1, 14), ("B", "C", 1, "W")),
])
def test_one_direction_alone_has_its_own_gates(directions, shape, letters):
    module = built(directions=directions)
    weights = module.attend(X)
    assert weights.shape == shape and module.describe().shape == letters and module(X).shape == X.shape
    both = built()
    both.load_state_dict(module.state_dict(), strict=False)
    if directions != "both":
        assert torch.allclose(weights, getattr(both.gates(X), directions))
        assert module.gates(X)[directions == "rows"] is None


def test_it_starts_at_a_quarter():
    torch.manual_seed(0)
    weights = Coordinate(256).double().eval().attend(torch.randn(4, 256, 10, 14, dtype=torch.float64))
    assert abs(weights.mean() - 0.25) < 0.02
    nothing = Coordinate(256).double().eval().attend(torch.zeros(1, 256, 3, 5, dtype=torch.float64))
    assert torch.equal(nothing, torch.full_like(nothing, 0.25))


def test_a_cross_is_seen_where_it_is_and_squeeze_and_excitation_does_not_see_it_move():
    x = torch.zeros(1, 32, 10, 14, dtype=torch.float64)
    x[:, :, 3] = x[:, :, :, 8] = 1
    rows, columns = built().gates(x)
    stands_out = [(gates - gates[:, :, :1, :1]).abs().amax((0, 1)).flatten() > 1e-9 for gates in (rows, columns)]
    assert [which.nonzero().flatten().tolist() for which in stands_out] == [[3], [8]]
    se = SE(32).double()
    torch.testing.assert_close(se.attend(x.roll((2, 3), (2, 3))), se.attend(x))


def test_a_gate_of_a_row_sees_its_row_alone():
    module, other = built(), X.clone()
    other[:, :, 4, 9] += 1
    before, after = module.gates(X), module.gates(other)
    for mine, theirs, where, axis in zip(before, after, (4, 9), (2, 3)):
        changed = (mine != theirs).movedim(axis, 0).flatten(1).any(1)
        assert changed.nonzero().flatten().tolist() == [where]


def test_permuting_rows_and_columns_permutes_the_output():
    module, rows, columns = built(), torch.randperm(10), torch.randperm(14)
    torch.testing.assert_close(module(X[:, :, rows][..., columns]), module(X)[:, :, rows][..., columns])
    shifted = module(X.roll((3, 5), (2, 3)))
    torch.testing.assert_close(shifted, module(X).roll((3, 5), (2, 3)))
    # But not any permutation of positions, as for a gate of the channel alone.
    anyhow = torch.randperm(140)
    mixed = module(X.flatten(2)[:, :, anyhow].view_as(X))
    assert not torch.allclose(mixed, module(X).flatten(2)[:, :, anyhow].view_as(X))


def test_transposing_the_picture_and_swapping_the_directions_transposes_the_output():
    module, twin = built(), built()
    twin.rows.load_state_dict(module.columns.state_dict())
    twin.columns.load_state_dict(module.rows.state_dict())
    torch.testing.assert_close(twin(X.mT), module(X).mT)


def test_permuting_channels_with_the_weights_permutes_the_output():
    module, twin, order = built(), built(), torch.randperm(32)
    twin.reduce.weight.data = module.reduce.weight.data[:, order]
    for mine, theirs in ((module.rows, twin.rows), (module.columns, twin.columns)):
        theirs.weight.data, theirs.bias.data = mine.weight.data[order], mine.bias.data[order]
    torch.testing.assert_close(twin(X[:, order]), module(X)[:, order])


def test_rows_and_columns_are_normalised_together():
    module = Coordinate(32).double().train()
    seen = []
    module.norm.register_forward_hook(lambda norm, given, made: seen.append(made))
    module(X)
    assert seen[0].shape == (2, 8, 24, 1)
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(8, dtype=torch.float64), atol=1e-12, rtol=0)
    # The means of all rows and of all columns have one mean, but not one variance.
    variances = [part.var((0, 2, 3), correction=0) for part in (seen[0], seen[0][:, :, :10], seen[0][:, :, 10:])]
    assert [bool(((v - 1).abs() < 0.01).all()) for v in variances] == [True, False, False]


# -- The contract


@pytest.mark.parametrize("directions", DIRECTIONS)
def test_every_form_keeps_the_contract(directions):
    module = built(directions=directions)
    before = X.clone()
    assert torch.equal(module(X), module.use(X, module.attend(X))) and torch.equal(X, before)
    assert torch.equal(torch.fx.symbolic_trace(nn.Sequential(module))(X), module(X))
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), module(X))
    one = torch.randn(1, 32, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (one,), fast_mode=True)
    with switch_off(module):
        assert torch.equal(module(X), X)
    with intervene(module, shuffled()):
        torch.testing.assert_close(module(X), X * module.attend(X).flip(0))


def test_exports_for_any_size():
    module, sizes = built(), {axis: torch.export.Dim.DYNAMIC for axis in (0, 2, 3)}
    exported = torch.export.export(module, (X,), dynamic_shapes=(sizes,)).module()
    other = torch.randn(3, 32, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(exported(other), module(other))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1)])
def test_a_picture_alone_and_small_maps_can_be_trained_with(size):
    y = Coordinate(32).double().train()(torch.randn(1, 32, *size, dtype=torch.float64))
    assert y.shape == (1, 32, *size) and y.isfinite().all()


@pytest.mark.parametrize("directions, size", [("rows", (1, 7)), ("columns", (6, 1))])
def test_nothing_to_normalise_over_is_refused(directions, size):
    module, x = Coordinate(32, directions=directions).double(), torch.randn(1, 32, *size, dtype=torch.float64)
    with pytest.raises(ValueError, match="two pictures or more, or call eval") as refused:
        module(x)
    assert "\n" not in str(refused.value)
    assert module.eval()(x).shape == x.shape and module.train()(x.mT).shape == x.mT.shape


@pytest.mark.parametrize("options, says", [
    ({"reduction": 0}, "reduction is at least 1, not 0"), ({"least": 0}, "least is at least 1"),
    ({"directions": "x"}, "directions is one of both, rows, columns, not 'x'"),
])
def test_bad_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        create("coordinate", 32, **options)


# -- The means, which are found in one way or another by how x lies in memory


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_means_are_those_of_rows_and_columns_in_any_layout(layout, dtype):
    x = X.to(dtype).contiguous(memory_format=layout)
    wanted = torch.cat([F.adaptive_avg_pool2d(X, (None, 1)), F.adaptive_avg_pool2d(X, (1, None)).mT], 2)
    exact = {} if dtype == torch.float64 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(strips(x).double(), wanted, **exact)
    # What follows then lies as x does, and no pass over it has to jump.
    assert Coordinate(32).to(dtype).eval().attend(x).stride() == x.stride()


def test_means_of_large_half_precision_numbers_do_not_overflow():
    x = torch.full((1, 1, 3, 200), 1000.0, dtype=torch.float16)
    assert (strips(x) == 1000).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_is_as_fast_as_timms(layout, as_fast):
    as_fast(Coordinate(256), BESIDE, torch.randn(4, 256, 56, 56).contiguous(memory_format=layout))
