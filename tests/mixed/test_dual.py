import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from attnlib import attentions, backbones, create, held, insert, intervene, plot, record, shuffled, switch_off
from attnlib.mixed.dual import MANY, ChannelAffinity, Dual, PositionAttention

X = torch.randn(2, 16, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LARGE = torch.randn(2, 16, 27, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
VARIANTS = ("paper", "official")
KINDS = (PositionAttention, ChannelAffinity, Dual)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def grown(module: nn.Module) -> nn.Module:
    """In float64, with scales that are not zero, as they are after training: at zero most mistakes are invisible."""
    for name, parameter in module.double().named_parameters():
        if name.endswith(("alpha", "beta")):
            nn.init.constant_(parameter, 0.7 if name.endswith("alpha") else -0.6)
    return module


def built(kind=PositionAttention, channels=16, **options):
    torch.manual_seed(0)
    return grown(kind(channels, **options))


# -- Counts


@pytest.mark.parametrize("channels", [256, 64, 40])
def test_parameter_count(channels):
    for reduction in (1, 2, 8, 7):
        d = channels // reduction
        by_formula = 2 * d * (channels + 1) + channels * (channels + 1) + 1
        assert count(PositionAttention(channels, reduction)) == by_formula
    assert count(ChannelAffinity(channels)) == 1
    assert count(Dual(channels)) == count(PositionAttention(channels)) + 1


def test_counts_at_256_channels_and_what_the_variants_divide_by():
    assert count(PositionAttention(256, variant="official")) == count(PositionAttention(256, 8)) == 82_241
    assert count(PositionAttention(256)) == count(PositionAttention(256, 1)) == 3 * 256 * 257 + 1
    assert count(Dual(256, variant="official")) == 82_242


# -- Against another implementation, loops and identities


def pytorchcvs():
    return pytest.importorskip("pytorchcv.models.danet", reason="pytorchcv is not installed")


def test_position_attention_equals_pytorchcvs_and_so_do_its_gradients():
    ours = built(variant="official")
    theirs = pytorchcvs().PosAttBlock(16).double()
    for mine, other in ((ours.query, theirs.query_conv), (ours.key, theirs.key_conv), (ours.value, theirs.value_conv)):
        other.load_state_dict(mine.state_dict())
    theirs.scale.alpha.data.copy_(ours.alpha.data)
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    torch.testing.assert_close(ours(x), theirs(y), rtol=1e-12, atol=1e-12)
    ours(x).square().sum().backward()
    theirs(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(ours.alpha.grad, theirs.scale.alpha.grad)


def test_channel_affinity_equals_pytorchcvs():
    ours, theirs = built(ChannelAffinity, variant="official"), pytorchcvs().ChaAttBlock().double()
    theirs.scale.alpha.data.copy_(ours.beta.data)
    torch.testing.assert_close(ours(X / 5), theirs(X / 5), rtol=1e-12, atol=1e-12)


def naive_positions(module: PositionAttention, x: torch.Tensor) -> torch.Tensor:
    """The formula, one number at a time."""

    def mapped(conv, b, n):
        w = conv.weight[:, :, 0, 0]
        return [sum(w[o, c] * a[b, c, n] for c in range(channels)) + conv.bias[o] for o in range(len(w))]

    batch, channels, rows, columns = x.shape
    a, n = x.flatten(2), rows * columns
    y = torch.zeros_like(a)
    for b in range(batch):
        q, k, v = ([mapped(conv, b, i) for i in range(n)] for conv in (module.query, module.key, module.value))
        for j in range(n):
            e = [math.exp(sum(one * other for one, other in zip(q[j], k[i]))) for i in range(n)]
            for c in range(channels):
                y[b, c, j] = module.alpha * sum(e[i] / sum(e) * v[i][c] for i in range(n)) + a[b, c, j]
    return y.view_as(x)


def naive_channels(beta: float, sign: int, x: torch.Tensor) -> torch.Tensor:
    batch, channels, rows, columns = x.shape
    a, n = x.flatten(2), rows * columns
    y = torch.zeros_like(a)
    for b in range(batch):
        for j in range(channels):
            energies = [sum(float(a[b, j, m] * a[b, i, m]) for m in range(n)) for i in range(channels)]
            e = [math.exp(sign * energy) for energy in energies]
            for m in range(n):
                y[b, j, m] = beta * sum(e[i] / sum(e) * a[b, i, m] for i in range(channels)) + a[b, j, m]
    return y.view_as(x)


@torch.no_grad()
@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("rows, columns", [(3, 5), (1, 4)])
def test_position_attention_equals_the_naive_loop(reduction, rows, columns):
    module = built(channels=4, reduction=reduction)
    x = torch.randn(2, 4, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(module(x), naive_positions(module, x), rtol=1e-12, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("variant, sign", [("paper", 1), ("official", -1)])
def test_channel_affinity_equals_the_naive_loop(variant, sign):
    module = built(ChannelAffinity, 5, variant=variant)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(module(x), naive_channels(-0.6, sign, x), rtol=1e-12, atol=1e-12)


def test_the_released_codes_energy_is_the_negative_one():
    """It takes the softmax of the largest energy of a row minus each, which only turns the sign."""
    energy = X.flatten(2) @ X.flatten(2).mT
    theirs = (energy.amax(2, keepdim=True) - energy).softmax(2)
    torch.testing.assert_close(built(ChannelAffinity, variant="official").attend(X), theirs)


def test_the_papers_sign_finds_like_channels_and_the_codes_sign_unlike_ones():
    x = X.clone()
    x[:, 3], x[:, 5] = x[:, 0], -x[:, 0]  # a twin of channel 0, and its opposite
    like, unlike = (built(ChannelAffinity, variant=variant).attend(x)[:, 0] for variant in VARIANTS)
    half = torch.full((2,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(like[:, 0], half)
    torch.testing.assert_close(like[:, 3], half)
    torch.testing.assert_close(unlike[:, 5], 2 * half)


def test_sums_over_all_positions_leave_every_channel_to_itself():
    """So large are the energies of an ordinary map that the paper's softmax is the identity matrix."""
    weights = built(ChannelAffinity).attend(X)
    torch.testing.assert_close(weights, torch.eye(16, dtype=torch.float64).expand(2, -1, -1), rtol=0, atol=1e-6)
    assert built(ChannelAffinity).attend(X / 30).max() < 0.1


# -- At the start


@pytest.mark.parametrize("variant", VARIANTS)
def test_before_training_y_is_x_and_for_both_together_twice_x(variant):
    for kind, gain in ((PositionAttention, 1), (ChannelAffinity, 1), (Dual, 2)):
        assert torch.equal(kind(16, variant=variant).double()(X), gain * X)


def test_at_first_only_the_scales_learn():
    """At zero they hide everything else, and get a gradient themselves."""
    module = Dual(16).double()
    module(X).pow(3).sum().backward()
    moving = {name for name, parameter in module.named_parameters() if parameter.grad.any()}
    assert moving == {"alpha", "channel.beta"}


# -- Weights


def test_each_query_shares_one_among_the_keys():
    weights = built().attend(X)
    ones = torch.ones(2, 140, dtype=torch.float64)
    torch.testing.assert_close(weights.sum(2), ones)
    assert not torch.allclose(weights.sum(1), ones, atol=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_channel_shares_one_among_the_channels_it_hears(variant):
    weights = built(ChannelAffinity, variant=variant).attend(X / 8)
    ones = torch.ones(2, 16, dtype=torch.float64)
    torch.testing.assert_close(weights.sum(2), ones)
    assert not torch.allclose(weights.sum(1), ones, atol=1e-3)


def test_a_position_hears_the_key_that_answers_its_query():
    """With q, k and v the identity, a position finds the one that looks like it, and takes what is there."""
    module = grown(PositionAttention(16))
    for conv in (module.query, module.key, module.value):
        nn.init.eye_(conv.weight.data[:, :, 0, 0])
        nn.init.zeros_(conv.bias)
    x = torch.zeros(1, 16, 2, 3, dtype=torch.float64)
    x[0, 0, 0, 0] = x[0, 0, 1, 2] = 9.0
    weights = module.attend(x)[0]
    torch.testing.assert_close(weights[0, [0, 5]], torch.tensor([0.5, 0.5], dtype=torch.float64))
    torch.testing.assert_close(module(x)[0, 0, 0, 0], x.new_tensor(9 + 0.7 * 9))


def test_the_bias_of_the_key_cancels():
    """It adds the same to all products of a query, which a softmax does not notice."""
    module = built()
    before = module.attend(X)
    nn.init.normal_(module.key.bias)
    torch.testing.assert_close(module.attend(X), before)
    nn.init.normal_(module.query.bias)
    assert not torch.allclose(module.attend(X), before)


def test_switched_off_every_position_gets_the_mean_of_all_and_every_channel_too():
    positions, channels = built(), built(ChannelAffinity)
    for x in (X, LARGE):
        with switch_off(positions), switch_off(channels):
            expected = x + 0.7 * positions.value(x).mean((2, 3), keepdim=True)
            torch.testing.assert_close(positions(x), expected)
            torch.testing.assert_close(channels(x), x - 0.6 * x.mean(1, keepdim=True))


def test_one_position_attends_to_itself():
    module, x = built(), X[:, :, :1, :1]
    torch.testing.assert_close(module(x), x + 0.7 * module.value(x))
    assert torch.equal(module.attend(x), torch.ones(2, 1, 1, dtype=torch.float64))


# -- The fused path


class Sizes(TorchDispatchMode):
    """Collects the number of elements of all that is computed."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.seen += [part.numel() for part in (out if isinstance(out, tuple) else (out,))
                      if isinstance(part, torch.Tensor)]
        return out


def forms_the_weights(module: nn.Module, x: torch.Tensor) -> bool:
    with torch.no_grad(), Sizes() as sizes:
        module(x)
    return max(sizes.seen) >= len(x) * x[0, 0].numel() ** 2


@pytest.mark.parametrize("kind", [PositionAttention, Dual])
def test_many_positions_form_no_weights_unless_somebody_watches(kind):
    module = built(kind)
    assert LARGE[0, 0].numel() >= MANY and not forms_the_weights(module, LARGE)
    with record(module):
        assert forms_the_weights(module, LARGE)
    handle = module.weights.register_forward_hook(lambda *_: None)
    assert forms_the_weights(module, LARGE)
    handle.remove()
    assert not forms_the_weights(module, LARGE)


@pytest.mark.parametrize("kind", [PositionAttention, Dual])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "x", [X, LARGE, LARGE.contiguous(memory_format=torch.channels_last)], ids=["few", "many", "channels last"])
def test_watched_or_not_the_numbers_and_gradients_are_the_same(kind, variant, x):
    module, gradients = built(kind, variant=variant), []
    for watched in (False, True):
        x, twin = x.detach().requires_grad_(), copy.deepcopy(module)
        if watched:
            with record(twin) as weights:
                y = twin(x)
            assert weights[""].shape == (2, x[0, 0].numel(), x[0, 0].numel())
        else:
            y = twin(x)
        y.square().sum().backward()
        gradients.append([y.detach(), x.grad.clone(), *(p.grad for p in twin.parameters())])
        x.grad = None
    for fused, plain in zip(*gradients):
        # The gradient of the key's bias is zero, and then what is left of it is rounding.
        torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-9 * max(1.0, float(plain.abs().max())))


def test_an_edit_reaches_the_output_also_where_weights_would_not_be_formed():
    module = built()
    with intervene(module, held(0.0)):
        assert torch.equal(module(LARGE), LARGE)
    with intervene(module, shuffled()):
        assert not torch.allclose(module(LARGE), module.use(LARGE, module.attend(LARGE)))


# -- Properties


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_permuting_the_positions_permutes_the_output(kind, variant):
    module, order = built(kind, variant=variant), torch.randperm(140, generator=torch.Generator().manual_seed(4))

    def permuted(x):
        return x.flatten(2)[:, :, order].view_as(x)

    x = X / 5
    torch.testing.assert_close(module(permuted(x)), permuted(module(x)))
    assert not torch.allclose(permuted(x), x)


@pytest.mark.parametrize("variant", VARIANTS)
def test_permuting_the_channels_permutes_the_output(variant):
    module, order = built(Dual, variant=variant), torch.randperm(16, generator=torch.Generator().manual_seed(5))
    twin = copy.deepcopy(module)
    for conv in (twin.query, twin.key, twin.value):
        conv.weight.data = conv.weight.data[:, order].clone()
    twin.value.weight.data, twin.value.bias.data = twin.value.weight.data[order].clone(), module.value.bias.data[order]
    x = X / 5
    torch.testing.assert_close(twin(x[:, order]), module(x)[:, order])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_with_scales_that_have_grown_the_contract_holds(kind, variant):
    module, x = built(kind, variant=variant), X / 4
    before = x.clone()
    plain = module(x)
    assert torch.equal(x, before) and torch.equal(plain, module.use(x, module.attend(x)))
    torch.testing.assert_close(module(x[:1]), plain[:1])
    torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), plain)
    assert module(x[:0]).shape == (0, 16, 10, 14)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(module, backend="aot_eager", fullgraph=True)(x), plain)
    torch.testing.assert_close(torch.fx.symbolic_trace(nn.Sequential(module))(x), plain)
    small = (torch.randn(1, 16, 2, 3, dtype=torch.float64) / 2).requires_grad_()
    assert torch.autograd.gradcheck(module, (small,), fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_exports_for_any_size(kind):
    module, sizes = built(kind), {axis: torch.export.Dim.DYNAMIC for axis in (0, 2, 3)}
    exported = torch.export.export(module, (X,), dynamic_shapes=(sizes,)).module()
    for other in (X[:1, :, :9, :7].repeat(3, 1, 1, 1), LARGE):
        torch.testing.assert_close(exported(other), module(other))


def test_many_positions_compile_and_trace():
    module = built()
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(module, backend="aot_eager", fullgraph=True)(LARGE), module(LARGE))
    torch.testing.assert_close(torch.fx.symbolic_trace(nn.Sequential(module))(LARGE), module(LARGE))
    assert module(LARGE[:0]).shape == LARGE[:0].shape


# -- Both together


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("x", [X / 5, LARGE / 9], ids=["few", "many"])
def test_dual_is_the_sum_of_the_two(variant, x):
    both = built(Dual, variant=variant)
    positions, channels = built(variant=variant), built(ChannelAffinity, variant=variant)
    positions.load_state_dict(both.state_dict(), strict=False)
    assert channels.variant == both.channel.variant == variant
    torch.testing.assert_close(both(x), positions(x) + channels(x))


def test_both_softmaxes_of_dual_are_watched_and_switched_each_by_itself():
    network = nn.Sequential(nn.Conv2d(16, 16, 1), built(Dual)).double()
    with record(network) as weights:
        network(X)
    assert {name: tuple(w.shape) for name, w in weights.items()} == {"1": (2, 140, 140), "1.channel": (2, 16, 16)}
    features, dual = network[0](X), network[1]
    positions = 0.7 * dual.value(features).mean((2, 3), keepdim=True)
    channels = -0.6 * features.mean(1, keepdim=True)
    with switch_off(network):
        torch.testing.assert_close(network(X), 2 * features + positions + channels)
    with switch_off(network, only="*.channel"):
        torch.testing.assert_close(network(X), PositionAttention.use(dual, features, dual.attend(features))
                                   + features + channels)


def test_dual_can_be_inserted():
    network = backbones.small_resnet(1, 4, widths=(8, 16), blocks=1)
    before = [name for name, _ in network.named_parameters()]
    handle = insert(network, Dual, "last", variant="official")
    found = list(attentions(network).values())
    assert [type(a) for a in found] == [Dual, ChannelAffinity] and found[0].query.out_channels == 2
    assert network(torch.zeros(2, 1, 16, 12)).shape == (2, 4)
    handle.remove()
    assert [name for name, _ in network.named_parameters()] == before
    Dual.install(network)
    assert len(attentions(network)) == 2


# -- Descriptions and bad options


def test_the_floor_of_the_traffic_knows_how_many_channels_queries_and_keys_have():
    assert PositionAttention(64).describe().passes == 9 and Dual(64).describe().name == ""
    assert PositionAttention(64, variant="official").describe().passes == 5


@pytest.mark.parametrize("name", ["position_attention", "channel_affinity"])
def test_diagrams_say_how_they_look(name):
    drawn = plot.diagram(create(name, 64), attend=["products", "softmax"])
    assert create(name, 64).describe().title in drawn.alt and "B×64×H×W" in drawn.alt


@pytest.mark.parametrize("name, options, says", [
    ("position_attention", {"reduction": 33}, "between 1 and the 32 channels, not 33"),
    ("position_attention", {"reduction": 0.5}, "between 1 and the 32 channels"),
    ("position_attention", {"variant": "theirs"}, "PositionAttention's variant is 'paper' or 'official', not 'theirs'"),
    ("channel_affinity", {"variant": "theirs"}, "ChannelAffinity's variant is"),
])
def test_bad_options_are_refused(name, options, says):
    with pytest.raises(ValueError, match=says):
        create(name, 32, **options)


def test_too_few_channels_to_divide_are_refused():
    with pytest.raises(ValueError, match="Dual's reduction must lie between 1 and the 4 channels, not 8"):
        Dual(4, variant="official")


def test_channel_affinity_takes_any_number_of_channels():
    module = grown(create("channel_affinity"))
    torch.testing.assert_close(module(X[:, :5]), built(ChannelAffinity, 5)(X[:, :5]))


# -- Speed


class ObviousPositions(nn.Module):
    """The calls that the formula suggests."""

    def __init__(self, channels, reduction):
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, channels // reduction, 1) for _ in range(2))
        self.value, self.scale = nn.Conv2d(channels, channels, 1), nn.Parameter(torch.ones(1))

    def forward(self, x):
        query, key, value = (conv(x).flatten(2) for conv in (self.query, self.key, self.value))
        shares = torch.softmax(torch.bmm(query.transpose(1, 2), key), dim=-1)
        return self.scale * torch.bmm(value, shares.transpose(1, 2)).view_as(x) + x


class ObviousChannels(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        maps = x.flatten(2)
        shares = F.softmax(torch.bmm(maps, maps.transpose(1, 2)), dim=-1)
        return self.scale * torch.bmm(shares, maps).view_as(x) + x


@pytest.mark.parametrize("reduction", [1, 8])
@pytest.mark.parametrize("size", [(8, 64, 14, 14), (2, 64, 36, 36)])
def test_position_attention_is_as_fast_as_the_obvious_way(size, reduction, as_fast):
    ways = {"the obvious calls": lambda channels: ObviousPositions(channels, reduction)}
    as_fast(PositionAttention(64, reduction), ways, torch.randn(size))


def test_channel_affinity_is_as_fast_as_the_obvious_way(as_fast):
    ways = {"the obvious calls": lambda channels: ObviousChannels()}
    as_fast(ChannelAffinity(128), ways, torch.randn(4, 128, 56, 56))
