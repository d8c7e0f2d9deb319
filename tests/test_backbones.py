"""The backbones: the papers' counts exactly, the same start with and without attention, and clear refusals."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnlib.attention import attentions
from attnlib.backbones import Block, Stage, resnet, small, small_resnet, small_unet
from attnlib.insert import insert
from attnlib.channel.se import SE

COUNTS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160}

# Residual blocks of each stage, and the channels at their ends.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
WIDTHS = {18: (64, 128, 256, 512), 34: (64, 128, 256, 512), 50: (256, 512, 1024, 2048), 101: (256, 512, 1024, 2048)}


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


@pytest.fixture
def torchvision():
    return pytest.importorskip("torchvision")


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def pair(build, attention="se", **options):
    """The same network without and with attention, built after the same seed."""
    torch.manual_seed(7)
    plain = build()
    torch.manual_seed(7)
    return plain, build(attention=attention, **options)


# ---- the ResNets of the papers


@pytest.mark.parametrize("depth", COUNTS)
def test_counts(torchvision, depth):
    with torch.device("meta"):
        assert parameters(resnet(depth)) == COUNTS[depth]


def test_published_count_of_se_resnet50(torchvision):
    with torch.device("meta"):
        assert parameters(resnet(50, "se")) == 28_088_024
        assert parameters(resnet(50, "se", bias=False)) == 28_071_976


@pytest.mark.parametrize(("depth", "reduction", "bias"), [
    (18, 2, True), (18, 8, False), (34, 4, True), (34, 32, False), (50, 8, True), (50, 32, True), (101, 4, False),
])
def test_count_of_se_resnet_at_any_reduction(torchvision, depth, reduction, bias):
    with torch.device("meta"):
        network = resnet(depth, "se", reduction=reduction, bias=bias)
    added = sum(
        blocks * (2 * width * (width // reduction) + bias * (width // reduction + width))
        for blocks, width in zip(BLOCKS[depth], WIDTHS[depth])
    )
    assert parameters(network) == COUNTS[depth] + added
    assert len(attentions(network)) == sum(BLOCKS[depth])


def test_the_same_network_as_torchvisions(torchvision):
    torch.manual_seed(3)
    theirs = torchvision.models.resnet18(weights=None)
    torch.manual_seed(3)
    ours = resnet(18)
    assert all(torch.equal(one, other) for one, other in zip(theirs.parameters(), ours.parameters(), strict=True))


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_backbones_start_from_the_same_weights(torchvision, stem):
    plain, attended = pair(lambda **o: resnet(18, stem=stem, classes=10, channels_in=1, **o), reduction=8)
    theirs = attended.state_dict()
    assert all(torch.equal(theirs[name], weight) for name, weight in plain.state_dict().items())
    assert len(theirs) == len(plain.state_dict()) + 8 * 4


def test_stems(torchvision):
    sizes = {}
    for stem in ("imagenet", "cifar"):
        network = resnet(18, "se", stem=stem, classes=7, channels_in=1).eval()
        network.layer4.register_forward_hook(lambda m, args, y, stem=stem: sizes.__setitem__(stem, y.shape[2:]))
        assert network(torch.rand(2, 1, 32, 64)).shape == (2, 7)
    assert sizes == {"imagenet": (1, 2), "cifar": (4, 8)}
    assert network.conv1.kernel_size == (3, 3) and network.conv1.stride == (1, 1)
    # Drawn as torchvision draws its own: the variance is 2 over the number of outgoing weights.
    assert network.conv1.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.15)


def test_another_place(torchvision):
    with torch.device("meta"):
        network = resnet(34, "se", where="transition", reduction=4)
        assert list(attentions(network)) == [f"layer{i}.{j}.attention" for i, j in ((1, 2), (2, 3), (3, 5))]
        network = resnet(18, lambda channels: SE(channels, 8), where="last")
        assert list(attentions(network)) == ["layer4.1.attention"]


def test_refusals(torchvision):
    with pytest.raises(ValueError, match="depth 18, 34, 50, 101, not 20"):
        resnet(20)
    with pytest.raises(ValueError, match="stem is 'imagenet' or 'cifar', not 'mnist'"):
        resnet(18, stem="mnist")
    with torch.device("meta"):
        with pytest.raises(ValueError, match="no mechanism is called 'see'; did you mean 'se'"):
            resnet(18, "see")
        with pytest.raises(TypeError, match="has no option 'ratio'"):
            resnet(18, "se", ratio=4)
        with pytest.raises(TypeError, match="reduction: no such option.*without attention="):
            resnet(18, reduction=4)
        with pytest.raises(TypeError, match="not a SE"):
            resnet(18, SE(64))


# ---- the small networks


def by_hand(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """`Small`, read off its weights."""
    for index, stage in enumerate(network.stages):
        if index:
            x = F.max_pool2d(x, 2)
        x = F.conv2d(x, stage.conv.weight, stage.conv.bias, padding=1)
        if isinstance(stage.norm, nn.BatchNorm2d):
            x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
        x = x.clamp(min=0)
    return x.mean((2, 3)) @ network.head.weight.T + network.head.bias


@pytest.mark.parametrize("norm", [True, False])
def test_small_computes_what_it_says(norm):
    network = small(2, 5, widths=(4, 6, 8), norm=norm).double()
    x = torch.rand(3, 2, 8, 12, dtype=torch.float64)
    assert torch.allclose(network(x), by_hand(network, x))
    weights = 9 * (2 * 4 + 4 * 6 + 6 * 8) + (2 if norm else 1) * (4 + 6 + 8)
    assert parameters(network) == weights + 8 * 5 + 5


def test_small_resnet_computes_what_it_says():
    network, x = small_resnet(1, 5, widths=(4, 8), blocks=2).eval(), torch.rand(3, 1, 12, 20)
    y = network.stem(x)
    for stage in network.stages:
        for block in stage:
            branch = block.norm2(block.conv2(block.norm1(block.conv1(y)).clamp(min=0)))
            y = (branch + block.shortcut(y)).clamp(min=0)
    assert y.shape == (3, 8, 6, 10)
    assert torch.allclose(network(x), network.head(y.mean((2, 3))), atol=1e-6)
    assert torch.allclose(network.features(x), y, atol=1e-6)
    shortcuts = [isinstance(block.shortcut, nn.Identity) for stage in network.stages for block in stage]
    assert shortcuts == [True, True, False, True]


@pytest.mark.parametrize("build", [small, small_resnet])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (9, 13)])
def test_pictures_of_any_size(build, size):
    network = build(1, 10, attention="se", reduction=2)
    network(torch.rand(4, 1, *size)).square().sum().backward()
    assert network(torch.rand(4, 1, *size)).shape == (4, 10)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(p.dtype == torch.float32 for p in network.parameters())


@pytest.mark.parametrize(("where", "expected"), [
    ("stage", ["stages.0.attention", "stages.1.attention"]),
    ("transition", ["stages.0.attention"]),
    ("last", ["stages.1.attention"]),
    ("stages.0", ["stages.0.attention"]),
    ("stages.*.norm", ["stages.0.norm.attention", "stages.1.norm.attention"]),
])
def test_where_in_small(where, expected):
    assert list(attentions(small(1, 3, attention="se", where=where, reduction=2))) == expected


@pytest.mark.parametrize(("where", "expected"), [
    (None, [f"stages.{i}.{j}.norm2.attention" for i in range(3) for j in range(2)]),
    ("stage", [f"stages.{i}.1.attention" for i in range(3)]),
    ("last", ["stages.2.1.attention"]),
])
def test_where_in_small_resnet(where, expected):
    assert list(attentions(small_resnet(1, 3, blocks=2, attention="se", where=where, reduction=2))) == expected


@pytest.mark.parametrize("build", [small, small_resnet])
@pytest.mark.parametrize("attention", ["se", SE, lambda channels, reduction: SE(channels, reduction)])
def test_small_ones_start_from_the_same_weights(build, attention):
    plain, attended = pair(lambda **o: build(1, 10, **o), attention, reduction=4)
    theirs = attended.state_dict()
    assert all(torch.equal(theirs[name], weight) for name, weight in plain.state_dict().items())
    assert len(theirs) > len(plain.state_dict())


def test_circular_padding_has_no_border():
    network = small(1, 3, widths=(4,), padding_mode="circular").eval()
    x = torch.rand(2, 1, 8, 12)
    moved = network.features(x.roll((3, 5), (2, 3)))
    assert torch.allclose(moved, network.features(x).roll((3, 5), (2, 3)), atol=1e-6)
    bordered = small(1, 3, widths=(4,)).eval()
    assert not torch.allclose(bordered.features(x.roll(3, 2)), bordered.features(x).roll(3, 2), atol=1e-3)


@pytest.mark.parametrize("module", [
    Stage(4, 4, halve=False, norm=True, padding_mode="zeros"), Block(4, 4, 1), Block(4, 8, 2),
], ids=["stage", "block", "halving block"])
def test_inputs_are_left_alone(module):
    x = torch.rand(2, 4, 8, 8, requires_grad=True)
    before = x.detach().clone()
    between = x * 1
    (module(between) + module(between)).sum().backward()
    assert torch.equal(between, before) and x.grad.isfinite().all()


@pytest.mark.parametrize("build", [small, small_resnet])
def test_channels_last_stays_and_changes_nothing(build):
    network, x = build(3, 4, attention="se", reduction=4).eval(), torch.rand(2, 3, 16, 24)
    expected = network(x)
    network.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(network(x), expected, atol=1e-6)
    assert network.features(x).is_contiguous(memory_format=torch.channels_last)


def learned(network, steps, loss) -> torch.Tensor:
    """The last loss of a short training."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        now = loss()
        now.backward()
        optimizer.step()
    return now


@pytest.mark.parametrize("build", [small, small_resnet])
def test_they_learn(build):
    network = build(1, 2, widths=(4, 8), attention="se", reduction=2)
    pictures, labels = torch.rand(32, 1, 8, 8), torch.arange(32) % 2
    pictures[labels == 1, :, :, ::2] = 0
    assert learned(network, 25, lambda: F.cross_entropy(network(pictures), labels)) < 0.1


@pytest.mark.parametrize("build", [small, small_resnet])
def test_torch_fx_can_follow_them(build):
    network, x = build(1, 3, attention="se", reduction=4).eval(), torch.rand(2, 1, 8, 8)
    assert torch.allclose(torch.fx.symbolic_trace(network)(x), network(x), atol=1e-6)


@pytest.mark.parametrize("build", [small, small_resnet])
def test_small_ones_refuse(build):
    with pytest.raises(ValueError, match=r"takes pictures \(B, 1, H, W\), not a tensor of shape \(2, 3, 8, 8\)"):
        build(1, 10)(torch.rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"not a tensor of shape \(1, 8, 8\)"):
        build(1, 10)(torch.rand(1, 8, 8))
    with pytest.raises(TypeError, match="no such option"):
        build(1, 10, reduction=4)
    with pytest.raises(TypeError, match="has no option"):
        build(1, 10, attention="se", ratio=4)


def test_an_unregistered_subclass_is_not_taken_for_its_parent():
    class Quieter(SE):
        def use(self, x, weights):
            return super().use(x, weights) / 2

    network = small(3, 4, widths=(8, 12), attention=Quieter, where="last", reduction=2)
    assert [type(attention) for attention in attentions(network).values()] == [Quieter]


# ---- the encoder–decoder


def unet_by_hand(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """`SmallUNet` with three stages in evaluation mode, read off its weights; sizes are multiples of 4."""
    def stage(module, x):
        y = F.conv2d(x, module.conv.weight, padding=1)
        norm = module.norm
        y = (y - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-5).sqrt()
        return (y * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)

    def halved(x):
        return x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax((3, 5))

    def doubled(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    full = stage(network.encoder[0], x)
    half = stage(network.encoder[1], halved(full))
    quarter = stage(network.encoder[2], halved(half))
    half = stage(network.decoder[1], torch.cat([half, doubled(quarter)], 1))
    full = stage(network.decoder[0], torch.cat([full, doubled(half)], 1))
    return torch.einsum("bchw,oc->bohw", full, network.head.weight[:, :, 0, 0]) + network.head.bias[:, None, None]


def test_small_unet_computes_what_it_says():
    network = small_unet(2, 3, widths=(4, 6, 8)).double()
    network(torch.rand(4, 2, 8, 12, dtype=torch.float64))  # running statistics that are not 0 and 1
    network.eval()
    x = torch.rand(3, 2, 12, 20, dtype=torch.float64)
    assert torch.allclose(network(x), unet_by_hand(network, x))
    weights = 9 * (2 * 4 + 4 * 6 + 6 * 8 + (6 + 8) * 6 + (4 + 6) * 4) + 2 * (4 + 6 + 8 + 6 + 4)
    assert parameters(network) == weights + 4 * 3 + 3


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (9, 4), (17, 30), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_unet_answers_for_every_pixel_of_any_size(size, channels):
    widths = (4, 6, 8) if min(size) >= 4 else (4,)
    network, x = small_unet(channels, 2, widths=widths).eval(), torch.rand(2, channels, *size)
    assert network(x).shape == (2, 2, *size)


def test_small_unet_sees_as_far_as_its_bottleneck_and_with_a_squeeze_everything():
    def reach(network):
        x = torch.rand(1, 1, 64, 64, requires_grad=True)
        network.eval()(x)[0, 0, 32, 32].backward()
        seen = x.grad[0, 0].nonzero()
        return (seen.amax(0) - seen.amin(0) + 1).tolist()

    assert reach(small_unet(1, widths=(4,))) == [3, 3]
    assert reach(small_unet(1, widths=(4, 8))) == [10, 10]
    assert reach(small_unet(1, widths=(4, 8), attention="se", reduction=2)) == [64, 64]


@pytest.mark.parametrize(("where", "expected"), [
    (None, ["encoder.0", "encoder.1", "encoder.2"]),
    ("encoder.?", ["encoder.0", "encoder.1", "encoder.2"]),
    ("decoder.?", ["decoder.0", "decoder.1"]),
    ("encoder.2", ["encoder.2"]),
    (["encoder.0", "decoder.0"], ["encoder.0", "decoder.0"]),
])
def test_where_in_small_unet(where, expected):
    place = {} if where is None else {"where": where}
    network = small_unet(1, attention="se", reduction=4, **place)
    assert list(attentions(network)) == [f"{name}.attention" for name in expected]
    with insert(small_unet(1), "se", where or "encoder.?", reduction=4) as inserted:
        assert list(inserted.modules) == expected


def test_small_unet_has_no_block_and_says_so():
    with pytest.raises(ValueError, match="no residual sums of feature maps"):
        insert(small_unet(1), "se", "block")


@pytest.mark.parametrize("attention", ["se", SE, lambda channels, reduction: SE(channels, reduction)])
def test_small_unets_start_from_the_same_weights(attention):
    plain, attended = pair(lambda **o: small_unet(1, 4, **o), attention, reduction=4)
    theirs = attended.state_dict()
    assert all(torch.equal(theirs[name], weight) for name, weight in plain.state_dict().items())
    assert len(theirs) > len(plain.state_dict())


def test_small_unet_keeps_channels_last_and_torch_fx_can_follow_it():
    network, x = small_unet(3, 1, attention="se", reduction=4).eval(), torch.rand(2, 3, 18, 25)
    expected = network(x)
    assert torch.allclose(torch.fx.symbolic_trace(network)(x), expected, atol=1e-6)
    network.to(memory_format=torch.channels_last)
    assert torch.allclose(network(x.contiguous(memory_format=torch.channels_last)), expected, atol=1e-6)


def test_small_unet_learns_where_a_square_is():
    rng = torch.Generator().manual_seed(0)
    masks = torch.zeros(32, 1, 12, 12)
    for mask, (top, left) in zip(masks, torch.randint(8, (32, 2), generator=rng).tolist()):
        mask[0, top : top + 4, left : left + 4] = 1
    pictures = masks + 0.3 * torch.randn(32, 1, 12, 12, generator=rng)
    network = small_unet(1, widths=(4, 8), attention="se", reduction=2)
    assert learned(network, 60, lambda: F.binary_cross_entropy_with_logits(network(pictures), masks)) < 0.06


def test_small_unet_refuses():
    for wrong in (dict(widths=(0, 8)), dict(out=0)):
        with pytest.raises(ValueError, match="one channel or more everywhere"):
            small_unet(3, **wrong)
    with pytest.raises(ValueError, match=r"takes pictures \(B, 1, H, W\), not a tensor of shape \(2, 3, 8, 8\)"):
        small_unet(1)(torch.rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match="3 stages halve a picture 2 times, so it needs 4 pixels or more on each side, not 3 × 9"):
        small_unet(1)(torch.rand(2, 1, 3, 9))
    with pytest.raises(TypeError, match="no such option"):
        small_unet(1, reduction=4)
    with pytest.raises(ValueError, match="widths"):
        small_unet(1, widths=())
