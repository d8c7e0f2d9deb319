import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from attnlib import create, insert, plot, record, switch_off
from attnlib.mixed.bam import BAM

X = torch.randn(3, 32, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
OFFICIAL = {"variant": "official"}


class AsWritten(nn.Module):
    """The equations in the obvious way: both branches stretched to the size of x, one operation after another."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        h = channels // 16
        self.channel = nn.Sequential(nn.Conv2d(channels, h, 1), nn.ReLU(), nn.Conv2d(h, channels, 1),
                                     nn.BatchNorm2d(channels))
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, h, 1), nn.ReLU(), nn.Conv2d(h, h, 3, padding=4, dilation=4), nn.ReLU(),
            nn.Conv2d(h, h, 3, padding=4, dilation=4), nn.ReLU(), nn.Conv2d(h, 1, 1), nn.BatchNorm2d(1))

    def forward(self, x):
        u = self.channel(F.avg_pool2d(x, x.shape[2:])).expand_as(x)
        v = self.spatial(x).expand_as(x)
        return x + x * torch.sigmoid(u + v)


def pytorchcvs(channels: int) -> nn.Module:
    from pytorchcv.models.bamresnet import BamBlock

    return BamBlock(channels)


BESIDE = {"as written": AsWritten}  # what `make bench` measures the speed against


def lived(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 and evaluation mode, with biases and normalisations that do something."""
    rng = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.bias.data.copy_(torch.randn(part.bias.shape, generator=rng))
        if isinstance(part, nn.BatchNorm2d):
            for values, low in ((part.weight.data, 0.5), (part.bias.data, -0.5), (part.running_mean, -0.5),
                                (part.running_var, 0.5)):
                values.copy_(torch.rand(values.shape, generator=rng) + low)
    return module.double().eval()


def built(seed: int = 0, **options) -> BAM:
    torch.manual_seed(seed)
    return lived(BAM(32, **{"reduction": 4, "dilation": 2, **options}))


# -- Other people's code


def pytorchcvs_from(ours: BAM) -> nn.Module:
    models = pytest.importorskip("pytorchcv.models.bamresnet", reason="pytorchcv is not installed")
    theirs = models.BamBlock(32).double().eval()
    layers = [part for part in ours.modules() if isinstance(part, (nn.Conv2d, nn.BatchNorm2d))]
    linear = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
    others = [part for part in theirs.modules() if isinstance(part, linear)]
    assert len(layers) == len(others) == 10
    for layer, other in zip(layers, others):
        state = {k: v.flatten(1) if isinstance(other, nn.Linear) and k == "weight" else v
                 for k, v in layer.state_dict().items()}
        other.load_state_dict(state)
    return theirs


def test_the_official_variant_equals_pytorchcv():
    ours = built(reduction=16, dilation=4, **OFFICIAL)
    torch.testing.assert_close(ours(X), pytorchcvs_from(ours)(X), rtol=1e-13, atol=1e-13)


def test_gradients_equal_pytorchcvs_while_it_trains():
    ours = built(reduction=16, dilation=4, **OFFICIAL)
    theirs = pytorchcvs_from(ours)
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    ours.train()(x).square().sum().backward()
    theirs.train()(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-10, atol=1e-10)


def test_equals_the_equations_as_written():
    """And trains with them: the batch's own means and variances, and every parameter's gradient."""
    torch.manual_seed(0)
    ours, theirs = lived(BAM(32)), AsWritten(32).double()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(X), theirs.eval()(X), rtol=1e-13, atol=1e-13)
    for module in (ours, theirs):
        module.train()(X).square().sum().backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-9)


# -- The paper's formula


def batch_norm(value, norm: nn.BatchNorm2d, c: int):
    return (value - norm.running_mean[c]) / (norm.running_var[c] + norm.eps).sqrt() * norm.weight[c] + norm.bias[c]


def naive_convolution(conv: nn.Conv2d, x: torch.Tensor, dilation: int) -> torch.Tensor:
    """One picture (C, H, W), one number at a time; zeros beyond the border."""
    outputs, channels, size, _ = conv.weight.shape
    y, middle = torch.zeros(outputs, *x.shape[1:], dtype=x.dtype), size // 2
    for o, i, j in torch.cartesian_prod(*map(torch.arange, y.shape)).tolist():
        total = conv.bias[o]
        for c, p, q in torch.cartesian_prod(*map(torch.arange, (channels, size, size))).tolist():
            row, column = i + dilation * (p - middle), j + dilation * (q - middle)
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                total = total + conv.weight[o, c, p, q] * x[c, row, column]
        y[o, i, j] = total
    return y


def naive_branch(chain: nn.Sequential, x: torch.Tensor, dilation: int, official: bool) -> torch.Tensor:
    """A branch on one picture (C, H, W): a normalisation at its end, or officially before every ReLU."""
    layers = [part for part in chain if isinstance(part, nn.Conv2d)]
    norms = [part for part in chain if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == (len(layers) - 1 if official else 1)
    for at, layer in enumerate(layers):
        last = at == len(layers) - 1
        x = naive_convolution(layer, x, dilation)
        if official != last:
            norm = norms[at] if official else norms[0]
            x = torch.stack([batch_norm(plane, norm, c) for c, plane in enumerate(x)])
        x = x if last else torch.stack([torch.where(plane > 0, plane, 0 * plane) for plane in x])
    return x


def naive(module: BAM, x: torch.Tensor, dilation: int, official: bool, combine: str) -> torch.Tensor:
    y = torch.zeros_like(x)
    for b, picture in enumerate(x):
        means = torch.stack([plane.sum() / plane.numel() for plane in picture]).view(-1, 1, 1)
        u = naive_branch(module.channel, means, dilation, official)
        v = naive_branch(module.spatial, picture, dilation, official)
        for c, i, j in torch.cartesian_prod(*map(torch.arange, picture.shape)).tolist():
            one, other = u[c, 0, 0], v[0, i, j]
            score = {"sum": one + other, "product": one * other, "max": max(one, other)}[combine]
            y[b, c, i, j] = (1 + 1 / (1 + torch.exp(-score))) * picture[c, i, j]
    return y


@torch.no_grad()
@pytest.mark.parametrize("variant, combine", [
    ("paper", None), ("paper", "product"), ("paper", "max"), ("official", None), ("official", "sum"),
])
def test_equals_the_naive_loop(variant, combine):
    torch.manual_seed(0)
    module = lived(BAM(6, 2, dilation=2, variant=variant, combine=combine))
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    combine = combine or {"paper": "sum", "official": "product"}[variant]
    torch.testing.assert_close(module(x), naive(module, x, 2, variant == "official", combine), rtol=1e-12, atol=1e-12)


# -- Counts


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("channels, reduction", [(256, 16), (64, 4), (48, 7), (5, 5)])
def test_parameter_count(channels, reduction):
    h = channels // reduction
    channel, spatial = 2 * h * channels + h + channels, h * channels + 18 * h**2 + 4 * h + 1  # without normalisations
    for variant, norms in (("paper", (2 * channels, 2)), ("official", (2 * h, 6 * h))):
        options = {"reduction": reduction, "variant": variant}
        assert count(BAM(channels, branches="channel", **options)) == channel + norms[0]
        assert count(BAM(channels, branches="spatial", **options)) == spatial + norms[1]
        formula = {"paper": 18 * h**2 + 3 * h * channels + 5 * h + 3 * channels + 3,
                   "official": 18 * h**2 + 3 * h * channels + 13 * h + channels + 1}[variant]
        assert count(BAM(channels, **options)) == formula == channel + spatial + sum(norms)


def test_the_published_count_at_256_channels():
    assert count(BAM(256, **OFFICIAL)) == 17_361
    # Two for each of 256 channels and one map at the ends, rather than for four times 16 inside.
    assert count(BAM(256)) == 17_361 + 2 * (256 + 1) - 2 * 4 * 16


def test_resnet50_has_the_published_count():
    network = torchvision.models.resnet50(weights=None)
    insertion = insert(network, "bam", variant="official")
    assert count(network) == 25_915_099 and len(insertion.modules) == 3


# -- What it does to a picture


@pytest.mark.parametrize("options", [{}, OFFICIAL, {"branches": "channel"}, {"branches": "spatial"}])
def test_starts_with_one_and_a_half_times_the_input(options):
    # Zeros, with biases of zero and normalisations that have seen nothing, give sigmoid(0) everywhere.
    module = BAM(32, **options).double().eval()
    weights = module.attend(torch.zeros_like(X))
    assert torch.equal(weights, torch.full_like(weights, 0.5))
    assert torch.equal(module.use(X, weights), 1.5 * X)


@pytest.mark.parametrize("options", [{}, OFFICIAL])
def test_starts_with_about_one_and_a_half_times_the_input_while_it_trains(options):
    gains = []
    for seed in range(10):
        torch.manual_seed(seed)
        gains.append((BAM(32, **options).double()(X.relu()).sum() / X.relu().sum()).detach())
    assert 1.4 < torch.stack(gains).mean() < 1.6


@pytest.mark.parametrize("options", [{}, OFFICIAL, {"combine": "max"}])
def test_the_output_is_between_once_and_twice_the_input(options):
    module = built(**options)
    weights, gain = module.attend(X), module(X) / X
    assert 0 < weights.min() and weights.max() < 1 and weights.std() > 0.05
    torch.testing.assert_close(gain, 1 + weights, rtol=1e-9, atol=1e-9)


def test_switched_off_it_gives_the_input():
    module = built()
    with switch_off(module):
        assert torch.equal(module(X), X)
    assert not torch.equal(module(X), X)


@pytest.mark.parametrize("combine, joined", [("sum", torch.add), ("product", torch.mul), ("max", torch.maximum)])
def test_scores_of_both_branches_are_combined(combine, joined):
    module = built(combine=combine)
    u, v = module.scores(X)
    assert u.shape == (3, 32, 1, 1) and v.shape == (3, 1, 10, 14)
    torch.testing.assert_close(module.attend(X), torch.sigmoid(joined(u, v)))
    for branch, score in (("channel", u), ("spatial", v)):
        alone = built(branches=branch)
        alone.load_state_dict({k: s for k, s in module.state_dict().items() if k.startswith(branch)})
        assert torch.equal(alone.attend(X), torch.sigmoid(score)) and alone.attend(X).shape == score.shape
        torch.testing.assert_close(alone(X), X + X * torch.sigmoid(score))


def test_variants_combine_in_their_own_way():
    assert BAM(32).combine == "sum" and BAM(32, **OFFICIAL).combine == "product"
    swapped = built(combine="sum", **OFFICIAL)
    assert not torch.allclose(swapped(X), built(**OFFICIAL)(X))  # the same weights, by the same seeds


def test_recorded_gates_are_those_used():
    module = built()
    with record(module) as weights:
        y = module(X)
    torch.testing.assert_close(y, (1 + weights[""]) * X)


@pytest.mark.parametrize("branches, shape", [
    ("both", ("B", "C", "H", "W")), ("channel", ("B", "C", 1, 1)), ("spatial", ("B", 1, "H", "W")),
])
def test_describes_its_weights(branches, shape):
    assert built(branches=branches).describe().shape == shape


def test_is_drawn():
    drawn = plot.diagram(create("bam", 64), attend=[["channel branch", "spatial branch"], "sum", "sigmoid"])
    assert "weights s (B×64×H×W)" in drawn.alt and "channel branch beside spatial branch" in drawn.alt
    assert "ChannelBranch (learned), then SpatialBranch (learned)" in plot.diagram(create("bam", 64)).alt


# -- What the branches can and cannot tell apart


@pytest.mark.parametrize("options", [{}, OFFICIAL])
def test_the_channel_branch_does_not_know_where(options):
    module = built(**options)
    shuffled = X.flatten(2)[:, :, torch.randperm(140)].view_as(X)
    torch.testing.assert_close(module.scores(shuffled)[0], module.scores(X)[0])
    assert not torch.allclose(module.scores(shuffled)[1], module.scores(X)[1])


def test_the_spatial_branch_gives_all_channels_one_map():
    u, v = (module := built()).scores(X)
    score = module.attend(X).logit()
    torch.testing.assert_close(score - u, v.expand_as(score))


def test_permuting_channels_with_the_weights_permutes_the_output():
    module, order, twin = built(), torch.randperm(32), built(1)
    state = module.state_dict()
    moved = {k: state[k][:, order] for k in ("channel.0.weight", "spatial.0.weight")}
    moved |= {k: v[order] for k, v in state.items() if k.startswith(("channel.2.", "channel.3.")) and v.dim()}
    twin.load_state_dict(state | moved)
    torch.testing.assert_close(twin(X[:, order]), module(X)[:, order])


@pytest.mark.parametrize("dilation", [1, 3, 4])
@pytest.mark.parametrize("options", [{}, OFFICIAL])
def test_a_position_sees_a_grid_around_itself(options, dilation):
    """Two 3×3 kernels of dilation d reach 2d to every side, and see every d-th row and column."""
    module = built(dilation=dilation, **options)
    x = torch.zeros(1, 32, 19, 21, dtype=torch.float64)
    here = x.clone()
    here[0, :, 9, 10] = X[0, :, 0, 0]
    changed = (module.scores(here)[1] - module.scores(x)[1]).abs()[0, 0] > 1e-12
    seen = torch.zeros_like(changed)
    seen[9 - 2 * dilation : 10 + 2 * dilation : dilation, 10 - 2 * dilation : 11 + 2 * dilation : dilation] = True
    assert not changed[~seen].any() and changed[seen].sum() > 0.8 * 25  # a ReLU may be silent at some of them
    reached = changed.nonzero()
    assert reached.amin(0).tolist() == [9 - 2 * dilation, 10 - 2 * dilation]
    assert reached.amax(0).tolist() == [9 + 2 * dilation, 10 + 2 * dilation]


def test_away_from_the_border_what_moves_moves_the_map():
    module = built()
    field = torch.randn(2, 32, 30, 33, dtype=torch.float64)
    v, moved = module.scores(field)[1], module.scores(field.roll((3, 5), (2, 3)))[1]
    torch.testing.assert_close(moved[:, :, 8:25, 10:28], v[:, :, 5:22, 5:23])


@pytest.mark.parametrize("options", [{}, OFFICIAL])
def test_the_mean_is_over_all_positions_of_a_map_that_is_not_square(options):
    """The authors' pooling leaves out the right columns of 10×14, and fails on 14×10."""
    module = built(**options)
    for x in (X, X.mT.contiguous()):
        here = x.clone()
        here[:, :, -1, -1] += 5
        assert ((module.scores(here)[0] - module.scores(x)[0]).abs() > 1e-6).all()
    torch.testing.assert_close(module.scores(X.mT)[0], module.scores(X)[0])


# -- Sizes, training, bad options


@pytest.mark.parametrize("options", [{}, OFFICIAL, {"branches": "channel"}, {"branches": "spatial"}])
@pytest.mark.parametrize("shape", [(1, 32, 1, 1), (1, 32, 1, 9), (3, 32, 7, 1), (1, 32, 11, 5)])
def test_takes_maps_of_any_size(shape, options):
    x = torch.rand(shape, dtype=torch.float64) + 0.1
    y = built(**options)(x)
    assert y.shape == shape and (x < y).all() and (y < 2 * x).all()


@pytest.mark.parametrize(
    "options", [{}, OFFICIAL, {"combine": "max"}, {"branches": "channel"}, {"branches": "spatial"}])
@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_is_the_derivative(options, training):
    torch.manual_seed(0)
    module = lived(BAM(4, 2, dilation=1, **options)).train(training)
    x = torch.randn(3, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,), atol=1e-4)


@pytest.mark.parametrize("options", [{}, OFFICIAL, {"branches": "channel"}])
def test_a_picture_alone_is_refused_in_training(options):
    module = built(**options).train()
    with pytest.raises(ValueError, match="two pictures or more, or call eval"):
        module(X[:1])
    assert torch.isfinite(module(X[:2])).all() and torch.isfinite(module.eval()(X[:1])).all()


def test_the_spatial_branch_alone_trains_on_a_picture_alone():
    module = built(branches="spatial").train()
    assert torch.isfinite(module(X[:1])).all()
    with pytest.raises(ValueError, match="two pictures or more"):
        module(X[:1, :, :1, :1])


@pytest.mark.parametrize("options, says", [
    ({"reduction": 33}, "BAM's reduction must lie between 1 and the 32 channels"), ({"reduction": 0}, "between 1 and"),
    ({"dilation": 0}, "dilation is a whole number"), ({"dilation": 1.5}, "dilation is a whole number"),
    ({"branches": "none"}, "branches is one of both, channel, spatial"), ({"variant": "code"}, "paper, official"),
    ({"combine": "mean"}, "combine is one of sum, product, max"),
    ({"combine": "sum", "branches": "channel"}, "nothing to combine"),
])
def test_bad_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        create("bam", 32, **options)


# -- Speed


def test_is_as_fast_as_written_out(as_fast):
    as_fast(BAM(256), BESIDE, torch.randn(4, 256, 56, 56))


def test_the_official_variant_is_as_fast_as_pytorchcvs(as_fast):
    as_fast(BAM(256, **OFFICIAL), {"pytorchcv": pytorchcvs}, torch.randn(4, 256, 56, 56))
