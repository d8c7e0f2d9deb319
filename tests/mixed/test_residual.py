import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnlib import attentions, backbones, create, held, insert, intervene, plot, record, switch_off
from attnlib.mixed.residual import ResidualAttention, Unit

X = torch.randn(2, 16, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ALONE = {"p": 0, "t": 0}  # the mask, and nothing beside it


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def lived(module: ResidualAttention) -> ResidualAttention:
    """In float64 and evaluation mode, with normalisations that do something, and statistics of what they have seen."""
    norms = [m for m in module.double().train().modules() if isinstance(m, nn.BatchNorm2d)]
    rng = torch.Generator().manual_seed(0)
    for norm in norms:
        norm.momentum = None  # the running statistics become those of the one pass below
        for values, low in ((norm.weight.data, 0.5), (norm.bias.data, -0.5)):
            values.copy_(torch.rand(values.shape, generator=rng) + low)
    with torch.no_grad():
        module(torch.randn(8, module.channels, 12, 9, dtype=torch.float64, generator=rng))
    for norm in norms:
        norm.momentum = 0.1
    return module.eval()


def built(channels=16, **options) -> ResidualAttention:
    torch.manual_seed(0)
    return lived(ResidualAttention(channels, **options))


# -- Counts


@pytest.mark.parametrize("channels", [256, 64, 18])
@pytest.mark.parametrize("p, t, r, depth", [(1, 2, 1, 1), (1, 2, 1, 3), (2, 4, 3, 2), (0, 0, 1, 2), (1, 0, 0, 2)])
def test_parameter_count(channels, p, t, r, depth):
    h = channels // 4
    units = 2 * p + t + 2 * r * depth + depth - 1
    expected = units * (2 * h * channels + 9 * h**2 + 2 * channels + 4 * h) + 2 * channels**2 + 4 * channels
    assert count(ResidualAttention(channels, p, t, r, depth)) == expected


def test_the_count_of_the_first_module_of_attention_56():
    assert count(Unit(256)) == 70_400
    assert count(ResidualAttention(256, depth=3)) == 12 * 70_400 + 132_096


@pytest.mark.parametrize("name, modules, expected", [(56, (1, 1, 1), 31_810_728), (92, (1, 2, 3), 52_466_344)])
def test_the_published_networks_have_their_counts(name, modules, expected):
    """A stem; in each stage one unit that changes the channels, then modules; three units at the end, and a head."""

    def widening(before, after):
        h = after // 4
        return 2 * before + before * h + 4 * h + 9 * h**2 + h * after + before * after

    total, before = 7 * 7 * 3 * 64 + 2 * 64, 64
    for channels, number, depth in zip((256, 512, 1024), modules, (3, 2, 1)):
        total += widening(before, channels) + number * count(ResidualAttention(channels, depth=depth))
        before = channels
    total += widening(1024, 2048) + 2 * count(Unit(2048)) + 2 * 2048 + 2048 * 1000 + 1000
    assert total == expected and name == 20 + 12 * sum(modules)  # the depth of the trunk, in layers


# -- Against another implementation, and a loop


def copied(unit: Unit, theirs: nn.Module) -> None:
    for number, block in enumerate((theirs.body.conv1, theirs.body.conv2, theirs.body.conv3)):
        block.bn.load_state_dict(unit.body[3 * number].state_dict())
        block.conv.load_state_dict(unit.body[3 * number + 2].state_dict())


def pytorchcvs(ours: ResidualAttention) -> nn.Module:
    """pytorchcv's block with the weights of `ours`."""
    resattnet = pytest.importorskip("pytorchcv.models.resattnet", reason="pytorchcv is not installed")
    theirs = resattnet.AttBlock(ours.channels, ours.channels, ours.depth, [ours.p, ours.t, ours.r]).double()
    glass, depth = ours.hourglass, ours.depth
    pairs = [*zip(ours.before, theirs.init_blocks.blocks), *zip(ours.trunk, theirs.hg.skip_seq[0].blocks),
             (ours.after[0], theirs.final_block)]
    for level in range(depth):
        pairs += zip(glass.down[level], theirs.hg.down_seq[level].res_blocks.blocks)
        pairs += zip(glass.up[level], theirs.hg.up_seq[depth - 1 - level].res_blocks.blocks)
    pairs += [(glass.skip[level], theirs.hg.skip_seq[level + 1].skip1) for level in range(depth - 1)]
    for unit, other in pairs:
        copied(unit, other)
    for number, block in enumerate((theirs.middle_block.conv1, theirs.middle_block.conv2)):
        block.bn.load_state_dict(ours.scores[3 * number].state_dict())
        block.conv.load_state_dict(ours.scores[3 * number + 2].state_dict())
    return theirs.train(ours.training)


@pytest.mark.parametrize("depth, r", [(1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("training", [False, True])
def test_equals_pytorchcv_but_for_what_it_adds(depth, r, training):
    ours = built(r=r, depth=depth)
    assert count(ours) == count(pytorchcvs(ours))
    theirs = pytorchcvs(ours.train(training))
    x = torch.randn(2, 16, 8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    # As in the authors' network files: the input of a skip connection once, and no trunk in the mask's branch.
    for level in range(1, depth):
        theirs.hg.skip_seq[level] = theirs.hg.skip_seq[level].skip1
    with_trunk, trunk = theirs.hg(theirs.init_blocks(x))
    mask = theirs.middle_block(with_trunk - trunk)
    torch.testing.assert_close(ours(x), theirs.final_block((1 + mask) * trunk), rtol=1e-10, atol=1e-10)


def activated(v, norm, conv):
    """relu(BN(v)), then the convolution of a map (C, H, W), one number at a time."""
    channels, rows, columns = v.shape
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    f = [[[max(0.0, float((v[c, i, j] - norm.running_mean[c]) * scale[c] + norm.bias[c])) for j in range(columns)]
          for i in range(rows)] for c in range(channels)]
    w, reach = conv.weight.tolist(), conv.weight.shape[2] // 2
    out = torch.zeros(len(w), rows, columns, dtype=v.dtype)
    for o, i, j in torch.cartesian_prod(*map(torch.arange, out.shape)).tolist():
        out[o, i, j] = sum(
            w[o][c][i2 - i + reach][j2 - j + reach] * f[c][i2][j2]
            for c in range(channels)
            for i2 in range(max(0, i - reach), min(rows, i + reach + 1))
            for j2 in range(max(0, j - reach), min(columns, j + reach + 1)))
    return out


def naive_units(v, units):
    for unit in units:
        after = v
        for number in range(3):
            after = activated(after, unit.body[3 * number], unit.body[3 * number + 2])
        v = v + after
    return v


def naive_pooled(v):
    channels, rows, columns = v.shape
    out = torch.zeros(channels, -(-rows // 2), -(-columns // 2), dtype=v.dtype)
    for c, i, j in torch.cartesian_prod(*map(torch.arange, out.shape)).tolist():
        out[c, i, j] = max(v[c, a, b] for a in range(max(0, 2 * i - 1), min(rows, 2 * i + 2))
                           for b in range(max(0, 2 * j - 1), min(columns, 2 * j + 2)))
    return out


def naive_enlarged(v, rows, columns):
    """Bilinear, corners on corners."""

    def around(at, few, many):
        place = at * (few - 1) / (many - 1) if many > 1 else 0.0
        low = min(int(place), max(few - 2, 0))
        return low, min(low + 1, few - 1), place - low

    out = torch.zeros(len(v), rows, columns, dtype=v.dtype)
    for c, i, j in torch.cartesian_prod(*map(torch.arange, out.shape)).tolist():
        (a, b, down), (left, right, over) = around(i, v.shape[1], rows), around(j, v.shape[2], columns)
        above, below = ((1 - over) * v[c, k, left] + over * v[c, k, right] for k in (a, b))
        out[c, i, j] = (1 - down) * above + down * below
    return out


def naive(module: ResidualAttention, x: torch.Tensor) -> torch.Tensor:
    u = naive_units(x, module.before)
    levels = [u]
    for units in module.hourglass.down:
        levels.append(naive_units(naive_pooled(levels[-1]), units))
    v = levels[-1]
    for level in range(module.depth - 1, -1, -1):
        v = naive_units(v, module.hourglass.up[module.depth - 1 - level])
        v = naive_enlarged(v, *levels[level].shape[1:])
        if level > 0:
            v = v + naive_units(levels[level], [module.hourglass.skip[level - 1]])
    for number in range(2):
        v = activated(v, module.scores[3 * number], module.scores[3 * number + 2])
    mask, trunk = 1 / (1 + torch.exp(-v)), naive_units(u, module.trunk)
    return naive_units(((1 + mask) if module.learning == "residual" else mask) * trunk, module.after)


@torch.no_grad()
@pytest.mark.parametrize("rows, columns, depth", [(5, 3, 2), (6, 4, 1), (1, 4, 3)])
@pytest.mark.parametrize("learning", ["residual", "naive"])
def test_equals_the_naive_loop(rows, columns, depth, learning):
    module = built(4, depth=depth, learning=learning)
    x = torch.randn(2, 4, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(module(x), torch.stack([naive(module, one) for one in x]), rtol=1e-10, atol=1e-10)


# -- The mask


def test_with_nothing_beside_it_y_is_x_times_one_plus_the_mask():
    module = built(**ALONE)
    mask = module.attend(X)
    torch.testing.assert_close(module(X), (1 + mask) * X)
    assert mask.shape == X.shape and 0 < mask.min() and mask.max() < 1
    naive_one = built(**ALONE, learning="naive")
    torch.testing.assert_close(naive_one(X), mask * X)


@torch.no_grad()
def test_at_the_start_masks_are_around_one_half():
    torch.manual_seed(0)
    module = ResidualAttention(64, **ALONE).double().train()
    mask = module.attend(torch.randn(8, 64, 10, 14, dtype=torch.float64))
    assert abs(float(mask.mean()) - 0.5) < 0.05 and 0.05 < float(mask.std()) < 0.35


@pytest.mark.parametrize("learning", ["residual", "naive"])
def test_switched_off_the_trunk_is_as_it_would_be_without_the_mask(learning):
    module = built(learning=learning)
    with switch_off(module):
        assert torch.equal(module(X), module.after(module.trunk(module.before(X))))


def test_many_naive_masks_make_the_features_vanish_and_many_residual_ones_do_not():
    sizes = {}
    for learning in ("residual", "naive"):
        torch.manual_seed(0)
        stack = nn.Sequential(*(ResidualAttention(8, **ALONE, learning=learning) for _ in range(10))).double().train()
        x = torch.randn(4, 8, 6, 7, dtype=torch.float64)
        sizes[learning] = stack(x).detach().abs().mean() / x.abs().mean()
    assert sizes["naive"] < 0.02 and sizes["residual"] > 1


def test_channel_masks_have_length_one_at_every_position():
    mask = built(mask="channel").attend(X)
    torch.testing.assert_close(mask.square().sum(1), torch.ones(2, 10, 14, dtype=torch.float64))
    assert mask.min() < 0 and ResidualAttention(16, mask="channel").describe().bounds == (-1, 1)


def test_spatial_masks_are_standardised_in_every_channel_of_every_picture():
    module = built(mask="spatial")
    scores = module.attend(X).logit()
    torch.testing.assert_close(scores.mean((2, 3)), torch.zeros(2, 16, dtype=torch.float64), rtol=0, atol=1e-10)
    assert ((scores.std((2, 3), correction=0) - 1).abs() < 1e-3).all()
    assert torch.equal(module.attend(X[:, :, :1, :1]), torch.full((2, 16, 1, 1), 0.5, dtype=torch.float64))


@torch.no_grad()
def test_mixed_masks_differ_between_channels_and_positions():
    mask = built().attend(X)
    assert float(mask.std((2, 3)).min()) > 0.01 and float(mask.std(1).min()) > 0.01


def test_pooling_is_what_lets_the_mask_see_far():
    """Without units a mask sees one window; four poolings bring in the whole map."""
    for depth, far in ((1, False), (4, True)):
        module = built(8, p=0, t=0, r=0 if depth == 1 else 1, depth=depth)
        x = torch.randn(1, 8, 16, 20, dtype=torch.float64, requires_grad=True)
        module.attend(x)[0, :, 0, 0].sum().backward()
        seen = x.grad.abs().sum((0, 1))
        assert seen[:2, :2].any() and bool(seen[-4:, -4:].any()) is far


# -- Sizes


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("rows, columns", [(1, 1), (1, 7), (2, 3), (5, 3), (7, 7), (13, 4), (16, 17)])
def test_any_size_will_do(rows, columns, depth):
    module = built(8, depth=depth)
    x = torch.randn(2, 8, rows, columns, dtype=torch.float64)
    assert module(x).shape == module.attend(x).shape == x.shape and module(x).isfinite().all()


def test_rows_and_columns_are_treated_alike():
    module = built(depth=3)
    turned = copy.deepcopy(module)
    for conv in (m for m in turned.modules() if isinstance(m, nn.Conv2d)):
        conv.weight.data = conv.weight.data.mT.contiguous()
    torch.testing.assert_close(turned(X.mT), module(X).mT)


def test_permuting_the_channels_permutes_the_output():
    module, order = built(), torch.randperm(16, generator=torch.Generator().manual_seed(3))
    twin = copy.deepcopy(module)

    def permute(norm, *convs):
        for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            values.copy_(values[order])
        for conv, axis in convs:
            conv.weight.data = conv.weight.data.index_select(axis, order)

    for unit in (m for m in twin.modules() if isinstance(m, Unit)):
        permute(unit.body[0], (unit.body[2], 1), (unit.body[8], 0))
    for start in (0, 3):
        permute(twin.scores[start], (twin.scores[start + 2], 1), (twin.scores[start + 2], 0))
    torch.testing.assert_close(twin(X[:, order]), module(X)[:, order])


# -- The contract: what comes before the fork is needed twice, and made once


@pytest.mark.parametrize("watched", [False, True])
def test_forward_makes_what_is_before_the_fork_once(watched):
    module, runs = built(), []
    module.before.register_forward_hook(lambda *_: runs.append(1))
    if watched:
        with record(module) as weights:
            y = module(X)
        assert weights[""].shape == X.shape
    else:
        y = module(X)
    assert len(runs) == 1 and torch.equal(y, module.use(X, module.attend(X)))


def test_watching_a_training_step_changes_nothing():
    plain = built().train()
    watched = copy.deepcopy(plain)
    y = plain(X)
    with record(watched):
        assert torch.equal(watched(X), y)
    for name, buffer in plain.named_buffers():
        assert torch.equal(watched.get_buffer(name), buffer), name


def test_an_edit_of_the_mask_reaches_the_output():
    module = built(**ALONE)
    with intervene(module, held(0.25)):
        torch.testing.assert_close(module(X), 1.25 * X)


@pytest.mark.parametrize("options", [
    ALONE | {"learning": "naive"}, {"mask": "channel", "depth": 1}, ALONE | {"mask": "spatial"}, {"r": 0, "depth": 3},
    {"unit": lambda channels: nn.Conv2d(channels, channels, 3, padding=1), "t": 1},
])
def test_every_form_keeps_the_contract(options):
    module = built(8, **options)
    x = X[:, :8]
    before = x.clone()
    y = module(x)
    assert torch.equal(x, before) and torch.equal(y, module.use(x, module.attend(x)))
    torch.testing.assert_close(module(x[1:]), y[1:])
    torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), y)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(module, backend="aot_eager", fullgraph=True)(x), y)
    torch.testing.assert_close(torch.fx.symbolic_trace(nn.Sequential(module))(x), y)
    assert module(x[:0]).shape == (0, 8, 10, 14)
    one = torch.randn(1, 8, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (one,), fast_mode=True)
    module.train()(x.clone().requires_grad_()).square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_units_of_ones_own_make_trunk_and_mask():
    module = built(8, p=1, t=3, r=2, depth=2, unit=lambda channels: nn.Conv2d(channels, channels, 3, padding=1))
    assert [len(part) for part in (module.before, module.trunk, module.after)] == [1, 3, 1]
    assert not any(isinstance(m, Unit) for m in module.modules())
    assert sum(isinstance(m, nn.Conv2d) for m in module.modules()) == 1 + 3 + 1 + 2 * 2 * 2 + 1 + 2


def test_exports_for_any_size():
    module, sizes = built(depth=2), {axis: torch.export.Dim.DYNAMIC for axis in (0, 2, 3)}
    exported = torch.export.export(module, (X,), dynamic_shapes=(sizes,)).module()
    other = torch.randn(3, 16, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(exported(other), module(other))


# -- In networks


def test_installed_the_masks_are_pooled_to_one_size_as_in_the_paper():
    network = backbones.resnet(50, "residual_attention", classes=10)
    found = attentions(network)
    assert [(a.channels, a.depth, a.p, a.t, a.r) for a in found.values()] == [
        (256, 3, 1, 2, 1), (512, 2, 1, 2, 1), (1024, 1, 1, 2, 1)]


def test_a_depth_that_is_given_is_that_of_all():
    network = backbones.small_resnet(1, 4, attention="residual_attention", depth=2, **ALONE)
    assert [a.depth for a in attentions(network).values()] == [2, 2]
    assert network(torch.zeros(2, 1, 28, 20)).shape == (2, 4)


@pytest.mark.parametrize("where, depths", [("stage", [3, 2, 1]), ("last", [1]), ("block", [3, 2, 1])])
def test_install_at_other_places(where, depths):
    network = backbones.small_resnet(1, 4, attention="residual_attention", where=where, **ALONE)
    assert [a.depth for a in attentions(network).values()] == depths


def test_unknown_options_are_told_from_the_known_ones():
    network = backbones.small_resnet(1, 4)
    with pytest.raises(TypeError, match="'residual_attention' has no option 'q'; it has: p, t, r, depth"):
        ResidualAttention.install(network, q=1)
    with pytest.raises(ValueError, match="p is a whole number"):
        ResidualAttention.install(network, depth=1, p=-1)
    assert not attentions(network)


def test_a_subclass_installs_itself():
    class Mine(ResidualAttention):
        pass

    network = backbones.small_resnet(1, 4)
    Mine.install(network, **ALONE)
    assert {type(a) for a in attentions(network).values()} == {Mine}


def test_taken_out_the_network_is_what_it_was():
    torch.manual_seed(0)
    network, x = backbones.small_resnet(1, 4).eval(), torch.randn(2, 1, 16, 12)
    before = network(x)
    handle = ResidualAttention.install(network)
    assert not torch.equal(network(x), before)
    handle.remove()
    assert torch.equal(network(x), before)
    insert(network, "residual_attention", "last", **ALONE)
    assert [a.depth for a in attentions(network).values()] == [2]


# -- Descriptions and bad options


def test_description_knows_how_many_units_read_and_write():
    assert ResidualAttention(16).describe().passes == 11 and ResidualAttention(16, **ALONE).describe().passes == 3


def test_the_diagram_says_how_it_looks():
    drawn = plot.diagram(create("residual_attention", 64), attend=["pool", "enlarge", "sigmoid"])
    assert "Residual attention" in drawn.alt and "weights s (B×64×H×W)" in drawn.alt


@pytest.mark.parametrize("options, says", [
    ({"p": -1}, "p is a whole number from 0 on, not -1"), ({"t": 1.5}, "t is a whole number from 0 on, not 1.5"),
    ({"r": -1}, "r is a whole number from 0 on"), ({"depth": 0}, "depth is a whole number from 1 on, not 0"),
    ({"learning": "both"}, "learning is one of residual, naive, not 'both'"),
    ({"mask": "soft"}, "mask is one of mixed, channel, spatial, not 'soft'"),
])
def test_bad_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        create("residual_attention", 32, **options)


def test_one_picture_that_is_pooled_to_one_position_cannot_be_trained_with():
    module = built(depth=2).train()
    with pytest.raises(ValueError, match="2 poolings leave one position of one picture of 4 × 3") as refused:
        module(X[:1, :, :4, :3])
    assert "\n" not in str(refused.value)
    for x in (X[:1, :, :5, :3], X[:2, :, :4, :3]):
        assert module(x).shape == x.shape
    assert module.eval()(X[:1, :, :4, :3]).isfinite().all()


# -- Speed


class Obvious(nn.Module):
    """The same layers, called as the formula suggests."""

    def __init__(self, of: ResidualAttention):
        super().__init__()
        self.of, self.pool = copy.deepcopy(of), nn.MaxPool2d(3, 2, 1)

    def forward(self, x):
        u = self.of.before(x)
        middle = self.of.hourglass.down[0](self.pool(u))
        low = self.of.hourglass.up[0](self.of.hourglass.down[1](self.pool(middle)))
        low = F.interpolate(low, size=middle.shape[2:], mode="bilinear", align_corners=True)
        low = self.of.hourglass.up[1](low + self.of.hourglass.skip[0](middle))
        mask = torch.sigmoid(self.of.scores(F.interpolate(low, size=u.shape[2:], mode="bilinear", align_corners=True)))
        return self.of.after((1 + mask) * self.of.trunk(u))


@pytest.mark.parametrize("options", [{}, ALONE])
def test_is_as_fast_as_the_obvious_way(options, as_fast):
    ours = ResidualAttention(64, **options)
    as_fast(ours, {"the obvious calls": lambda channels: Obvious(ours)}, torch.randn(2, 64, 28, 28))
