import pytest
import torch
import torchvision
from torch import nn

from attnlib import Tap, create, insert, intervene, plot, record, shuffled, switch_off
from attnlib.channel.avgmax import AvgMax
from attnlib.channel.se import SE
from attnlib.mixed.cbam import CBAM, ORDERS, SpatialGate, strongest

X = torch.randn(2, 32, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SEQUENTIAL = ["channel-spatial", "spatial-channel"]


def timms(channels: int) -> nn.Module:
    from timm.layers.cbam import CbamModule

    return CbamModule(channels, mlp_bias=True)


BESIDE = {"timm": timms}  # what `make bench` measures the speed against


def lived(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 and evaluation mode, with biases and normalisations that do something."""
    rng = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.bias is not None:
            part.bias.data.copy_(torch.randn(part.bias.shape, generator=rng))
        if isinstance(part, nn.BatchNorm2d):
            affine = [(part.weight.data, 0.5), (part.bias.data, -0.5)] if part.affine else []
            for values, low in (*affine, (part.running_mean, -0.5), (part.running_var, 0.5)):
                values.copy_(torch.rand(values.shape, generator=rng) + low)
    return module.double().eval()


def built(seed: int = 0, **options) -> CBAM:
    torch.manual_seed(seed)
    return lived(CBAM(32, **{"reduction": 4, **options}))


# -- Other people's code


def timms_from(ours: CBAM) -> nn.Module:
    cbam = pytest.importorskip("timm.layers.cbam", reason="timm is not installed")
    theirs = cbam.CbamModule(32, rd_ratio=1 / ours.channel.reduction, mlp_bias=ours.channel.reduce.bias is not None,
                             spatial_kernel_size=ours.spatial.conv.kernel_size[0]).double().eval()
    theirs.channel.fc1.load_state_dict(ours.channel.reduce.state_dict())
    theirs.channel.fc2.load_state_dict(ours.channel.expand.state_dict())
    theirs.spatial.conv.conv.load_state_dict(ours.spatial.conv.state_dict())
    theirs.spatial.conv.bn.load_state_dict(ours.spatial.norm.state_dict())
    return theirs


@pytest.mark.parametrize("options", [{}, {"reduction": 16}, {"kernel_size": 3}, {"bias": False}])
def test_the_official_variant_equals_timm(options):
    ours = built(variant="official", **options)
    torch.testing.assert_close(ours(X), timms_from(ours)(X), rtol=1e-13, atol=1e-13)


def test_gradients_equal_timms_while_it_trains():
    ours = built(variant="official")
    theirs = timms_from(ours)
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    ours.train()(x).square().sum().backward()
    theirs.train()(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(ours.spatial.conv.weight.grad, theirs.spatial.conv.conv.weight.grad)
    torch.testing.assert_close(ours.channel.reduce.weight.grad, theirs.channel.fc1.weight.grad)


def test_the_official_variant_equals_pytorchcv():
    """Written by others from the authors' code: the maximum comes before the mean."""
    models = pytest.importorskip("pytorchcv.models.cbamresnet", reason="pytorchcv is not installed")
    ours, theirs = built(variant="official", reduction=16), models.CbamBlock(32).double().eval()
    for linear, conv in ((theirs.ch_gate.mlp.fc1, ours.channel.reduce), (theirs.ch_gate.mlp.fc2, ours.channel.expand)):
        linear.load_state_dict({"weight": conv.weight[:, :, 0, 0], "bias": conv.bias})
    theirs.sp_gate.conv.conv.load_state_dict({"weight": ours.spatial.conv.weight.flip(1)})
    theirs.sp_gate.conv.bn.load_state_dict(ours.spatial.norm.state_dict())
    torch.testing.assert_close(ours(X), theirs(X), rtol=1e-13, atol=1e-13)


# -- The paper's formula


def naive_channel(module: AvgMax, x: torch.Tensor) -> torch.Tensor:
    """The channel gates of one picture (C, H, W), one number at a time."""
    w1, b1 = module.reduce.weight[:, :, 0, 0], module.reduce.bias
    w2, b2 = module.expand.weight[:, :, 0, 0], module.expand.bias
    channels = len(x)
    score = [0.0] * channels
    for z in ([plane.sum() / plane.numel() for plane in x], [plane.max() for plane in x]):
        hidden = [max(0, sum(w1[h, c] * z[c] for c in range(channels)) + b1[h]) for h in range(len(w1))]
        for c in range(channels):
            score[c] = score[c] + sum(w2[c, h] * hidden[h] for h in range(len(w1))) + b2[c]
    return torch.stack([1 / (1 + torch.exp(-value)) for value in score]).view(-1, 1, 1)


def naive_spatial(module: SpatialGate, x: torch.Tensor) -> torch.Tensor:
    """The spatial gates of one picture (C, H, W), one number at a time."""
    kernel, (channels, rows, columns) = module.conv.weight[0], x.shape
    reach = kernel.shape[1] // 2
    gates = torch.zeros(1, rows, columns, dtype=x.dtype)
    for i in range(rows):
        for j in range(columns):
            score = 0.0
            for p in range(-reach, reach + 1):
                for q in range(-reach, reach + 1):
                    if 0 <= i + p < rows and 0 <= j + q < columns:
                        values = [x[c, i + p, j + q] for c in range(channels)]
                        score = score + kernel[0, reach + p, reach + q] * sum(values) / channels
                        score = score + kernel[1, reach + p, reach + q] * max(values)
            if isinstance(norm := module.norm, nn.BatchNorm2d):
                score = (score - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
            gates[0, i, j] = 1 / (1 + torch.exp(-score))
    return gates


def naive(module: CBAM, x: torch.Tensor) -> torch.Tensor:
    by = {"channel": lambda seen: naive_channel(module.channel, seen),
          "spatial": lambda seen: naive_spatial(module.spatial, seen)}
    out = []
    for picture in x:
        y = picture
        for half in ORDERS[module.order]:
            y = y * by[half](picture if module.order == "parallel" else y)
        out.append(y)
    return torch.stack(out)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("order", ORDERS)
def test_equals_the_naive_loop(order, variant):
    torch.manual_seed(0)
    module = lived(CBAM(6, 2, kernel_size=3, order=order, variant=variant))
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    wanted = naive(module, x)
    torch.testing.assert_close(module(x), wanted, rtol=1e-12, atol=1e-12)
    with torch.enable_grad():  # another way through the same numbers
        torch.testing.assert_close(module(x).detach(), wanted, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_equals_the_naive_loop_with_the_papers_kernel():
    torch.manual_seed(0)
    module = lived(CBAM(4, 2))
    x = torch.randn(1, 4, 6, 9, dtype=torch.float64)
    torch.testing.assert_close(module(x), naive(module, x), rtol=1e-12, atol=1e-12)


# -- Counts


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("channels, reduction, size, bias", [
    (256, 16, 7, True), (256, 16, 3, False), (64, 4, 7, True), (48, 7, 5, True),
])
def test_parameter_count(channels, reduction, size, bias):
    hidden = channels // reduction
    halves = {"channel": 2 * hidden * channels + (hidden + channels if bias else 0), "spatial": 2 * size**2}
    for order, names in ORDERS.items():
        for variant, norm in (("paper", 0), ("official", 2)):
            module = CBAM(channels, reduction, kernel_size=size, bias=bias, order=order, variant=variant)
            assert count(module) == sum(halves[name] for name in names) + norm * ("spatial" in names)


def test_the_published_count_at_256_channels():
    assert count(CBAM(256, variant="official")) == 8_564
    assert count(CBAM(256)) == 8_562 and count(CBAM(256, order="channel")) == 8_464


def test_resnet50_has_the_published_count():
    network = torchvision.models.resnet50(weights=None)
    insert(network, "cbam", variant="official")
    assert count(network) == 28_089_624


# -- What it starts from


def test_gates_are_a_quarter_when_nothing_stands_out():
    # With zero biases, zeros give sigmoid(0) in both halves.
    assert torch.equal(CBAM(32).double().attend(torch.zeros_like(X)), torch.full_like(X, 0.25))


def test_starts_with_gates_around_a_quarter():
    gates = []
    for seed in range(20):
        torch.manual_seed(seed)
        gates.append(CBAM(32).double().attend(X.relu()).mean())
    assert 0.2 < torch.stack(gates).mean() < 0.3


def test_the_official_spatial_gate_starts_at_one_half():
    module = CBAM(32, variant="official").double()
    for mode in (module.train(), module.eval()):
        assert torch.equal(mode(X), X * (mode.channel.attend(X) * 0.5))
    assert torch.equal(SpatialGate(batch_norm=True).double().attend(X), torch.full_like(X[:, :1], 0.5))


def test_the_official_normalisation_is_the_only_difference():
    paper, official = built(), built(variant="official")
    official.load_state_dict(paper.state_dict(), strict=False)
    official.spatial.norm.load_state_dict(  # by these, it does nothing
        {"weight": torch.ones(1), "bias": torch.zeros(1), "running_mean": torch.zeros(1),
         "running_var": torch.full((1,), 1 - official.spatial.norm.eps), "num_batches_tracked": torch.tensor(0)})
    torch.testing.assert_close(official(X), paper(X))
    assert not torch.allclose(built(variant="official")(X), paper(X))
    assert official.spatial.norm.momentum == 0.01


# -- Two halves


@pytest.mark.parametrize("order", ["channel-spatial", "spatial-channel", "parallel"])
def test_the_weights_are_the_product_of_both_gates(order):
    module = built(order=order)
    with record(module) as weights:
        y = module(X)
    assert list(weights) == ["", *ORDERS[order]]
    assert weights["channel"].shape == (2, 32, 1, 1) and weights["spatial"].shape == (2, 1, 10, 14)
    assert torch.equal(weights[""], weights["channel"] * weights["spatial"]) and torch.equal(y, X * weights[""])
    assert weights[""].min() > 0 and weights[""].max() < 1


@pytest.mark.parametrize("order", ORDERS)
def test_each_half_sees_what_the_paper_shows_it(order):
    module = built(order=order)
    with record(module) as weights:
        module(X)
    seen = X
    for half in module.halves:
        name = "channel" if isinstance(half, AvgMax) else "spatial"
        assert torch.equal(weights[name], half.attend(seen))
        seen = X if order == "parallel" else X * weights[name]


def test_orders_differ():
    outputs = []
    for order in ORDERS:
        module = built(order=order)
        module.load_state_dict(built().state_dict(), strict=False)
        outputs.append(module(X))
    for i, one in enumerate(outputs):
        for other in outputs[:i]:
            assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("order", ["channel-spatial", "spatial-channel", "parallel"])
def test_with_one_half_switched_off_it_is_the_other_alone(order, grad):
    module = built(order=order)
    for off, left in (("channel", "spatial"), ("spatial", "channel")):
        alone = built(order=left)
        alone.load_state_dict({k: v for k, v in module.state_dict().items() if k.startswith(left)})
        with switch_off(module, only=off), torch.set_grad_enabled(grad):
            assert torch.equal(module(X), alone(X))
    with switch_off(module), torch.set_grad_enabled(grad):
        assert torch.equal(module(X), X)


@pytest.mark.parametrize("grad", [True, False])
def test_one_edit_at_the_product_shuffles_it_once(grad):
    module = built()
    with intervene(module, shuffled()), torch.set_grad_enabled(grad):
        assert torch.equal(module(X), module.use(X, module.attend(X).flip(0)))


def test_halves_can_be_named_in_a_network():
    network = torchvision.models.resnet18(weights=None).eval()
    insertion = insert(network, "cbam", "last")
    (name,) = insertion.modules
    picture = torch.randn(1, 3, 64, 96)
    with record(network) as weights:
        network(picture)
    assert list(weights) == [f"{name}.attention", f"{name}.attention.channel", f"{name}.attention.spatial"]
    with record(network, only="*.attention") as weights:
        network(picture)
    assert list(weights) == [f"{name}.attention"]


def test_one_half_alone_is_that_mechanism():
    channel, spatial = built(order="channel"), built(order="spatial")
    assert torch.equal(channel(X), channel.channel(X)) and torch.equal(spatial(X), spatial.spatial(X))
    assert [name for name, _ in channel.named_children()] == ["weights", "channel"]
    assert [name for name, _ in spatial.named_children()] == ["weights", "spatial"]


def test_the_channel_half_of_averages_is_squeeze_and_excitation():
    ours, se = built(order="channel", pool="average"), SE(32, 4).double()
    se.load_state_dict({k.removeprefix("channel."): v for k, v in ours.state_dict().items()})
    assert torch.equal(ours(X), se(X))


@pytest.mark.parametrize("order, shape, passes", [
    ("channel-spatial", ("B", "C", "H", "W"), 4), ("spatial-channel", ("B", "C", "H", "W"), 4),
    ("parallel", ("B", "C", "H", "W"), 3), ("channel", ("B", "C", 1, 1), 3), ("spatial", ("B", 1, "H", "W"), 3),
])
def test_describes_its_weights(order, shape, passes):
    module = built(order=order)
    sizes = {"B": 2, "C": 32, "H": 10, "W": 14}
    assert module.describe().shape == shape and module.describe().passes == passes
    assert module.attend(X).shape == tuple(sizes.get(letter, letter) for letter in shape)


def test_is_drawn_half_by_half():
    assert "AvgMax (learned), then SpatialGate (learned)" in plot.diagram(create("cbam", 64)).alt
    assert "SpatialGate (learned), then AvgMax" in plot.diagram(create("cbam", 64, order="spatial-channel")).alt
    drawn = plot.diagram(create("cbam", 64), attend=["channel gates", "spatial gates"])
    assert "weights s (B×64×H×W)" in drawn.alt and "x × s" in drawn.alt


# -- What it can and cannot tell apart


def test_channel_gates_do_not_know_where_and_spatial_gates_not_which():
    module = built(order="parallel")
    places, channels = torch.randperm(140), torch.randperm(32)
    channel, spatial = module.channel.attend(X), module.spatial.attend(X)
    torch.testing.assert_close(module.channel.attend(X.flatten(2)[:, :, places].view_as(X)), channel)
    torch.testing.assert_close(module.spatial.attend(X[:, channels]), spatial)
    assert not torch.allclose(module.channel.attend(X[:, channels]), channel[:, channels])
    assert not torch.allclose(module.spatial.attend(X.roll(1, 3)), spatial)


def test_permuting_channels_with_the_weights_permutes_the_output():
    module, order, twin = built(), torch.randperm(32), built(1)
    twin.load_state_dict(module.state_dict() | {
        "channel.reduce.weight": module.channel.reduce.weight[:, order],
        "channel.expand.weight": module.channel.expand.weight[order],
        "channel.expand.bias": module.channel.expand.bias[order],
    })
    torch.testing.assert_close(twin(X[:, order]), module(X)[:, order])


@pytest.mark.parametrize("order", ORDERS)
def test_what_moves_in_an_empty_field_moves_the_output(order):
    module = built(order=order)
    field = torch.zeros(2, 32, 20, 23, dtype=torch.float64)
    field[:, :, 4:9, 5:11] = X[:, :, :5, :6]
    torch.testing.assert_close(module(field.roll((6, 7), (2, 3))), module(field).roll((6, 7), (2, 3)))


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_spatial_gate_sees_as_far_as_its_kernel(size):
    gate = lived(SpatialGate(kernel_size=size))
    here = X.clone()
    here[:, :, 4, 6] += 1
    changed = (gate.attend(here) - gate.attend(X)).abs()[:, 0] > 1e-9
    wanted = torch.zeros_like(changed)
    wanted[:, 4 - size // 2 : 5 + size // 2, 6 - size // 2 : 7 + size // 2] = True
    assert torch.equal(changed, wanted)


def test_the_kernel_sees_the_mean_first():
    gate = SpatialGate(kernel_size=1).double()
    for at, map in enumerate((X.mean(1, keepdim=True), X.amax(1, keepdim=True))):
        with torch.no_grad():
            gate.conv.weight.zero_()[:, at] = 1.0
        torch.testing.assert_close(gate.attend(X).logit(), map)


def test_normalising_standardises_what_both_halves_pool():
    module = CBAM(32, kernel_size=1, normalize=True).double()
    batch = torch.randn(64, 32, 5, 3, dtype=torch.float64) * 3 + 1
    for z in module.channel.squeezed(batch).values():
        torch.testing.assert_close(z.mean(0), torch.zeros_like(z[0]), atol=1e-12, rtol=0)
    for at in (0, 1):
        with torch.no_grad():
            module.spatial.conv.weight.zero_()[:, at] = 1.0
        scores = module.spatial.attend(batch).logit()
        assert abs(scores.mean()) < 1e-9 and abs(scores.std(correction=0) - 1) < 1e-3


# -- Sizes and layouts


@pytest.mark.parametrize("shape", [(1, 32, 1, 1), (1, 32, 1, 9), (3, 32, 7, 1), (1, 32, 11, 5)])
@pytest.mark.parametrize("order", ORDERS)
def test_takes_maps_of_any_size(order, shape):
    module, x = built(order=order), torch.randn(shape, dtype=torch.float64)
    y = module(x)
    assert y.shape == shape and not torch.equal(y, x)
    if shape == (1, 32, 1, 1):  # nothing but the middle of the kernel is over a pixel
        torch.testing.assert_close(y, naive(module, x))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_the_gradient_is_the_derivative(order, variant):
    torch.manual_seed(0)
    module = lived(CBAM(4, 2, order=order, variant=variant)).train()
    # All values are far apart, so that no step of the numerical derivative makes another one the largest.
    x = (torch.randperm(2 * 4 * 15).double().view(2, 4, 3, 5) / 30).requires_grad_()
    assert torch.autograd.gradcheck(module, (x,), atol=1e-4)


@pytest.mark.parametrize("options, says", [
    ({"reduction": 33}, "between 1 and the 32 channels"), ({"reduction": 0}, "between 1 and"),
    ({"order": "both"}, "order is one of channel-spatial, spatial-channel, parallel, channel, spatial, not 'both'"),
    ({"variant": "released"}, "variant is one of paper, official"), ({"pool": "mean"}, "pool is one of both"),
    ({"kernel_size": 4}, "odd"), ({"kernel_size": -3}, "odd"), ({"kernel_size": 3.0}, "odd"),
])
def test_bad_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        create("cbam", 32, **options)


# -- The maximum over channels, which is found in one way where a gradient is wanted and in another where none is


LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


@LAYOUTS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_maximum_is_the_same_with_and_without_a_gradient(layout, dtype):
    x = X.to(dtype).contiguous(memory_format=layout)
    largest = [x[:, :, i, j].sort(1).values[:, -1] for i in range(10) for j in range(14)]
    wanted = torch.stack(largest, 1).view(2, 1, 10, 14)
    assert torch.equal(strongest(x), wanted) and torch.equal(strongest(x.clone().requires_grad_()), wanted)
    assert strongest(x[:0].clone().requires_grad_()).shape == (0, 1, 10, 14)


def test_one_of_the_channels_that_share_a_maximum_gets_the_gradient():
    x = torch.zeros(1, 4, 2, 3, dtype=torch.float64)
    x[0, 1] = x[0, 3] = 1
    x.requires_grad_()
    strongest(x).sum().backward()
    assert x.grad[0, [0, 2]].sum() == 0 and torch.equal(x.grad.sum(1), torch.ones(1, 2, 3, dtype=torch.float64))


# -- Without a gradient: the same numbers, in less room


@LAYOUTS
@pytest.mark.parametrize("order", ORDERS)
def test_is_the_same_without_a_gradient(order, layout):
    module, x = built(order=order), X.contiguous(memory_format=layout)
    before = x.clone()
    with torch.no_grad():
        y = module(x)
        assert (module.fused(x) is None) == (order in ("channel", "spatial"))
    assert torch.equal(y, module(x)) and torch.equal(x, before)
    assert y.is_contiguous(memory_format=layout)
    with torch.inference_mode():
        assert torch.equal(module(x), y)


@torch.no_grad()
@pytest.mark.parametrize("order", ["channel-spatial", "spatial-channel", "parallel"])
def test_is_the_same_without_a_gradient_in_mixed_precision(order):
    module, x = built(order=order).float(), X.float()
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
        with record(module):
            watched = module(x)
    assert y.dtype == watched.dtype and torch.equal(y, watched)


@torch.no_grad()
def test_a_watched_half_is_not_passed_by():
    module, seen = built(), {}
    handles = [half.weights.register_forward_hook(lambda tap, given, gates, half=half: seen.update({half: given[1]}))
               for half in module.halves]
    y = module(X)
    gates = module.channel.attend(X)
    for handle in handles:
        handle.remove()
    assert torch.equal(seen[module.channel], X)
    # What a watcher keeps is not written over.
    assert torch.equal(seen[module.spatial], X * gates) and torch.equal(y, module(X))


@pytest.mark.parametrize("wanted", [False, True])
def test_compiles_and_traces_with_and_without_a_gradient(wanted):
    torch.compiler.reset()
    module = built()
    with torch.set_grad_enabled(wanted):
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        traced = torch.fx.symbolic_trace(nn.Sequential(module))
        expected = module(X)
        torch.testing.assert_close(compiled(X), expected)
        torch.testing.assert_close(traced(X), expected)
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    traced(x).square().sum().backward()
    module(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_features_are_found_at_the_taps():
    network = torchvision.models.resnet18(weights=None).eval()
    (name,) = insert(network, "cbam", "last").modules
    taps = {f"{name}.attention.{half}weights": half or "both" for half in ("", "channel.", "spatial.")}
    extractor = torchvision.models.feature_extraction.create_feature_extractor(
        network, taps, tracer_kwargs={"leaf_modules": [Tap]})
    found = extractor(torch.randn(1, 3, 64, 96))
    torch.testing.assert_close(found["both"], found["channel."] * found["spatial."])


def test_exports_for_any_size():
    module, sizes = built(), {axis: torch.export.Dim.DYNAMIC for axis in (0, 2, 3)}
    exported = torch.export.export(module, (X,), dynamic_shapes=(sizes,)).module()
    other = torch.randn(3, 32, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(exported(other), module(other))


# -- Speed


def test_is_as_fast_as_timms(as_fast):
    as_fast(CBAM(256, variant="official"), BESIDE, torch.randn(4, 256, 56, 56))
