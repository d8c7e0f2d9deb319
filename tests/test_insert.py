"""Insertion: where it puts mechanisms in networks it has never heard of, and that it leaves no trace behind."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnlib.attention import Attention, Description, Tap, attentions
from attnlib.backbones import small, small_resnet
from attnlib.channel.se import SE
from attnlib.insert import Insertion, _attended_class, insert
from attnlib.observe import record, switch_off
from attnlib.places import Places
from attnlib.probe import Trace, probe


class Plus(Attention):
    """Adds one weight per channel, the same everywhere: visible wherever it stands."""

    about = Description(
        title="Plus", paper="none", cite="none", axes=("batch", "channel", "row", "column"), shape=("B", "C", 1, 1),
        bounds=None, place="last",
    )

    def __init__(self, channels: int, value: float = 1.0) -> None:
        super().__init__(channels)
        self.value = nn.Parameter(torch.full((channels,), value))

    def attend(self, x):
        return self.value.reshape(1, -1, 1, 1).expand(len(x), -1, 1, 1)

    def use(self, x, weights):
        return x + weights


@pytest.fixture(autouse=True)
def _one_thread_one_seed():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def places(network: nn.Module) -> Places:
    return Places(probe(network))


def tiny() -> nn.Module:
    return small_resnet(3, 5, widths=(8, 16), blocks=1).eval()


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


# ---- networks that were written by others


def torchvision_blocks(network: nn.Module) -> list[str]:
    """The end of every residual branch, told from torchvision's own classes: what `insert` must find without them."""
    found = []
    for name, module in network.named_modules():
        kind, residual = type(module).__name__, getattr(module, "use_res_connect", True)
        if kind == "BasicBlock":
            found.append(f"{name}.bn2")
        elif kind == "Bottleneck":
            found.append(f"{name}.bn3")
        elif kind == "InvertedResidual" and residual and hasattr(module, "conv"):
            found.append(f"{name}.conv.{len(module.conv) - 1}")
        elif kind in ("InvertedResidual", "MBConv") and residual and hasattr(module, "block"):
            found.append(f"{name}.block.{len(module.block) - 1}.1")
        elif kind == "CNBlock":
            found.append(f"{name}.stochastic_depth")
        elif kind == "ResBottleneckBlock":
            found.append(f"{name}.f.c.1")
    return found


TORCHVISION = {
    "resnet18": (8, ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]),
    "resnet50": (16, ["layer1.2", "layer2.3", "layer3.5", "layer4.2"]),
    "resnext50_32x4d": (16, ["layer1.2", "layer2.3", "layer3.5", "layer4.2"]),
    "vgg11_bn": (0, ["features.2", "features.6", "features.13", "features.20", "features.27"]),
    "densenet121": (0, [*(f"features.transition{i}.conv" for i in (1, 2, 3)), "features.norm5"]),
    "mobilenet_v2": (10, ["features.1", "features.3", "features.6", "features.13", "features.18.2"]),
    "mobilenet_v3_small": (6, ["features.1", "features.3", "features.8", "features.12.2"]),
    "efficientnet_b0": (9, ["features.1.0", "features.2.1", "features.3.1", "features.5.2", "features.8.2"]),
    "convnext_tiny": (18, ["features.1.2", "features.3.2", "features.5.8", "features.7.2"]),
    "regnet_y_400mf": (16, [f"trunk_output.block{i}.block{i}-{last}" for i, last in enumerate((0, 2, 5, 5), 1)]),
    "squeezenet1_1": (0, ["features.4", "features.7", "features.12"]),
    "shufflenet_v2_x0_5": (0, ["stage2.3", "stage3.7", "conv5.2"]),
}

TIMM = {
    "resnet18": ([f"layer{i}.{j}.bn2" for i in range(1, 5) for j in range(2)], [f"layer{i}.1" for i in range(1, 5)]),
    # Its stem has three convolutions, and is still no stage.
    "resnet26d": ([f"layer{i}.{j}.bn3" for i in range(1, 5) for j in range(2)], [f"layer{i}.1" for i in range(1, 5)]),
    "efficientnet_b0": (
        [f"blocks.{i}.{j}.bn3" for i, n in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 4)) for j in range(1, n)],
        ["blocks.0.0", "blocks.1.1", "blocks.2.1", "blocks.4.2", "bn2"],
    ),
    "convnext_atto": (
        [f"stages.{i}.blocks.{j}.drop_path" for i, n in enumerate((2, 2, 6, 2)) for j in range(n)],
        [f"stages.{i}" for i in range(4)],
    ),
    "regnety_002": (
        [f"s{i}.b{j}.conv3" for i, n in enumerate((1, 1, 4, 7), 1) for j in range(1, n + 1)], ["s1", "s2", "s3", "s4"]
    ),
    "mobilenetv3_small_050": (
        [f"blocks.{i}.bn3" for i in ("1.1", "2.1", "2.2", "3.0", "3.1", "4.1", "4.2")],
        ["blocks.0.0", "blocks.1.1", "blocks.3.1", "blocks.5.0"],
    ),
    "skresnet18": (
        [f"layer{i}.{j}.conv2" for i in range(1, 5) for j in range(2)], [f"layer{i}.1" for i in range(1, 5)]
    ),
    "resnetv2_18": (
        [f"stages.{i}.blocks.{j}.conv2" for i in range(4) for j in range(2)],
        ["stages.0", "stages.1", "stages.2", "norm"],
    ),
    "edgenext_xx_small": (
        [f"stages.{i}.blocks.{j}.drop_path" for i, n in enumerate((2, 1, 5, 1)) for j in range(n)],
        [f"stages.{i}" for i in range(4)],
    ),
}


def stands_and_leaves(network: nn.Module, blocks: list[str], stages: list[str]) -> None:
    """Everything that must hold in a real network: the places, the forward, the backward, and the way back."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # some networks start with branches of zero, which pass no gradient on
    found = places(network)
    assert found.blocks() == blocks
    assert found.stages() == stages
    assert found.find("last") == stages[-1:] and found.find("transition") == stages[:-1]

    x = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        before, kept = network(x), state(network)
    insertion = insert(network, "se", ["block", "stage"] if blocks else "stage", reduction=4)
    assert sorted(insertion.modules) == sorted(blocks + stages)
    assert set(kept) < set(network.state_dict())
    for name, attention in insertion.modules.items():
        assert network.get_submodule(f"{name}.attention") is attention

    network(x).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert all(any(p.grad.abs().sum() > 0 for p in a.parameters()) for a in insertion.modules.values())
    assert next(network.parameters()).grad.abs().sum() > 0

    insertion.remove()
    with torch.no_grad():
        assert torch.equal(network(x), before)
    assert same(network.state_dict(), kept)
    assert not any(type(module).__name__.startswith("Attended") for module in network.modules())
    network.zero_grad()


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    models = pytest.importorskip("torchvision.models")
    network = getattr(models, name)(weights=None, num_classes=10, **({"init_weights": False} if "vgg" in name else {}))
    if "vgg" in name:
        network.classifier = nn.Linear(512 * 7 * 7, 10)  # its own has a hundred million weights
    count, stages = TORCHVISION[name]
    blocks = torchvision_blocks(network)
    assert len(blocks) == count
    stands_and_leaves(network, blocks, stages)


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    timm = pytest.importorskip("timm")
    stands_and_leaves(timm.create_model(name, pretrained=False, num_classes=10), *TIMM[name])


def test_no_feature_maps_in_a_transformer():
    models = pytest.importorskip("torchvision.models")
    swin = models.SwinTransformer([4, 4], 12, [1, 1], [1, 1], [4, 4], num_classes=3)
    for where in ("stage", "last"):
        with pytest.raises(ValueError, match="no stage of this SwinTransformer ends in a feature map"):
            insert(swin, "se", where)
    with pytest.raises(ValueError, match="no residual sums of feature maps"):
        insert(swin, "se", "block")
    # Its maps are (B, H, W, C): not to be taken for (B, C, H, W).
    with pytest.raises(ValueError, match=r"'features.1.0' returns a tensor of shape \(1, 16, 24, 12\)"):
        insert(swin, "se", "features.1.0")


@pytest.mark.parametrize(("shape", "expected"), [
    ((1, 8, 16, 24), True), ((1, 8, 3, 5), True), ((1, 8, 1, 1), True),
    ((1, 8, 54, 86), True),  # after five convolutions of 3 × 3 without padding
    ((1, 16, 24, 8), False), ((1, 16, 24, 32), False),  # channels last
    ((1, 8, 384, 384), False),  # every position with every other
    ((1, 384, 8), False), ((1, 8), False), ((0, 8, 16, 24), False),
])
def test_what_is_a_feature_map(shape, expected):
    trace = Trace(nn.Identity(), torch.zeros(1, 3, 64, 96))
    trace.add([0], torch.empty(shape))
    assert trace.is_map(1) is expected


class ChannelsLast(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, channels, 4, 4), nn.LayerNorm(channels)

    def forward(self, x):
        return self.norm(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [8, 32, 40])
def test_channels_last_is_no_feature_map(channels):
    # 32 and 40 channels are near 36, which would be in proportion to 24 columns.
    refuses(ChannelsLast(channels), rf"shape \(1, 16, 24, {channels}\), not a feature map", Plus, "norm")
    assert list(insert(ChannelsLast(channels), Plus, "conv").modules) == ["conv"]


# ---- places in networks written for the question


class Functional(nn.Module):
    """Residual blocks as people write them: in place, scaled, reused ReLU, and a parallel sum that is no shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.in_place = nn.Conv2d(4, 4, 3, padding=1)
        self.scaled = nn.Conv2d(4, 4, 3, padding=1)
        self.one, self.other, self.join = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.inner, self.outer = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.stem(x))
        branch = self.in_place(x)
        branch += x
        x = self.relu(branch)
        x = torch.add(0.2 * self.scaled(x), x)
        x = x + self.join(self.one(x) + self.other(x))
        inner = self.inner(x)
        x = x + self.outer(inner + inner.mean((2, 3), keepdim=True) * inner)
        return x.mean((2, 3))


def test_residual_sums_and_others():
    # The inner sum at the end is residual too, but its branch is no module's output.
    assert places(Functional()).blocks() == ["in_place", "scaled", "join", "outer"]


class NoBranch(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = self.one(x)
        x = self.other(x + x)
        return x + 0.5 * x


def test_sums_without_a_branch():
    assert places(NoBranch()).blocks() == []


class UNet(nn.Module):
    """A long skip around residual blocks: nothing but the blocks' own sums is residual, and there is no spine in it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.down, self.up = nn.Conv2d(4, 8, 3, 2, padding=1), nn.ConvTranspose2d(8, 4, 2, 2)
        self.high, self.low = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        high = self.stem(x)
        high = high + self.high(high)
        low = self.down(high)
        low = low + self.low(low)
        return self.head(torch.cat([high, self.up(low)], 1))


def test_blocks_inside_a_long_skip():
    assert places(UNet()).blocks() == ["high", "low"]


def test_plain_chains_have_stages_too():
    def layer(channels_in, channels, stride=1):
        convolution = nn.Conv2d(channels_in, channels, 3, stride, padding=1)
        return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())

    plain = nn.Sequential(
        layer(1, 4), layer(4, 4), nn.MaxPool2d(2), layer(4, 8), layer(8, 8, stride=2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )
    assert places(plain).stages() == ["1.2", "3.2", "4.2"]
    assert places(nn.Sequential(plain)).stages() == ["0.1.2", "0.3.2", "0.4.2"]
    # Where nothing branches there is no block, and so no stem before the blocks.
    assert places(nn.Sequential(layer(1, 4, stride=2), layer(4, 8, stride=2))).stages() == ["0.2", "1.2"]


class OtherLayout(nn.Module):
    """Its second stage works on (B, H, W, C), its third on (B, H·W, C); only the first ends in a feature map."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.second, self.third = nn.Conv2d(4, 8, 3, 2, padding=1), nn.Conv2d(8, 8, 3, 2, padding=1)
        self.mix, self.attend = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = self.second(self.first(x)).permute(0, 2, 3, 1)
        x = x + self.mix(x)
        x = self.third(x.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        return x + self.attend(x)


def test_stages_that_go_on_in_another_layout_do_not_end_in_a_map():
    assert places(OtherLayout()).stages() == ["first.1"]


class OwnGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


class Doubled(nn.Module):
    def forward(self, x):
        return OwnGradient.apply(x)


def test_what_torch_functions_do_not_show_is_seen_at_the_module():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Doubled(), nn.Conv2d(4, 4, 3, padding=1), Doubled())
    assert places(network).stages() == ["3"]


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, padding=1)

    def forward(self, x):
        a = self.a(x)
        return {"high": a, "low": self.b(a)}


def test_networks_that_return_several_maps():
    assert places(Several()).stages() == ["a", "b"]


def test_containers_stand_for_the_module_inside():
    network = tiny()
    assert places(network).find("stages.1") == ["stages.1.0"]
    assert places(network).find("stages") == ["stages.1.0"]
    assert places(network).find(["stages.?.0.norm2", "last", "stages"]) == ["stages.0.0.norm2", "stages.1.0.norm2",
                                                                             "stages.1.0"]


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

    def forward(self, x):
        return self.body(x)


def test_a_container_stands_for_nothing_outside():
    network = nn.Sequential(Wrapped())
    assert places(network).find("0.body") == ["0.body.1"]
    assert places(network).find("last") == ["0"]


def test_a_star_is_every_module_but_the_network_itself():
    assert places(Several()).find("*") == ["a", "b"]
    assert places(Wrapped()).find("") == [""]


def test_patterns_with_an_example():
    square = torch.zeros(2, 3, 32, 32)
    insertion = insert(tiny(), Plus, "stages.*.norm1", example=square)
    assert list(insertion.modules) == ["stages.0.0.norm1", "stages.1.0.norm1"]
    assert [a.channels for a in insertion.modules.values()] == [8, 16]


def test_the_place_of_the_paper_is_the_default():
    assert list(insert(tiny(), Plus).modules) == ["stages.1.0"]
    assert list(insert(tiny(), "se", reduction=2).modules) == ["stages.0.0.norm2", "stages.1.0.norm2"]
    assert list(insert(tiny(), lambda channels: SE(channels, 2)).modules) == ["stages.0.0.norm2", "stages.1.0.norm2"]


def test_it_stands_exactly_behind_the_branch():
    network, x = tiny(), torch.rand(2, 3, 12, 20)
    block, twin = network.stages[0][0], copy.deepcopy(network.stages[0][0])
    insert(network, Plus, "block", value=0.7)
    inside = network.stem(x)
    branch = twin.norm2(twin.conv2(F.relu(twin.norm1(twin.conv1(inside)))))
    assert torch.equal(block(inside), F.relu((branch + 0.7) + twin.shortcut(inside)))


# ---- probing leaves no trace


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.dropout = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.norm(self.conv(x + torch.randn_like(x))))


def test_probing_leaves_no_trace():
    network = nn.Sequential(Noisy(), Noisy().eval(), nn.Conv2d(4, 4, 1))
    network[1].conv = nn.Conv2d(4, 4, 3, padding=1)
    network[2].requires_grad_(False)
    network.eval().train()
    network[1].norm.eval()
    modes = [module.training for module in network.modules()]
    gradients = [p.requires_grad for p in network.parameters()]
    kept, random = state(network), torch.get_rng_state()
    own = [{k: v for k, v in vars(m).items() if not k.startswith("_")} for m in network.modules()]

    insertion = insert(network, Plus, "2")

    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for n, m in network.named_modules() if "attention" not in n] == modes
    assert [p.requires_grad for n, p in network.named_parameters() if "attention" not in n] == gradients
    assert insertion.modules["2"].value.requires_grad
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in network.modules())
    insertion.remove()
    assert same(network.state_dict(), kept)
    assert [{k: v for k, v in vars(m).items() if not k.startswith("_")} for m in network.modules()] == own


def test_a_failing_probe_leaves_no_trace():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 2)).train()
    with pytest.raises(ValueError, match=r"does not run on a picture of shape \(1, 3, 64, 96\).*pass one.*example="):
        insert(network, Plus, "0")
    assert all(module.training and not module._forward_hooks for module in network.modules())
    assert torch.is_grad_enabled()


def test_the_mechanism_takes_mode_device_and_precision():
    network = tiny().double().train()
    network.stages[0].eval()
    first, second = insert(network, "se", "block", reduction=2).modules.values()
    assert (first.training, second.training) == (False, True)
    assert first.reduce.weight.dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        (attention,) = insert(tiny(), Plus).modules.values()
    assert attention.value.dtype == torch.float32
    with torch.device("meta"):
        network = tiny()
    (attention,) = insert(network, Plus).modules.values()
    assert attention.value.device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_and_layouts(dtype):
    network = tiny()
    insertion = insert(network, "se", "block", reduction=2)
    x = torch.rand(2, 3, 16, 24)
    expected = network(x)
    assert torch.allclose(network(x.contiguous(memory_format=torch.channels_last)), expected, atol=1e-6)
    network.to(dtype)
    assert next(iter(insertion.modules.values())).reduce.weight.dtype == dtype
    assert torch.allclose(network(x.to(dtype)).float(), expected, atol=0.1 if dtype == torch.bfloat16 else 1e-5)


# ---- the handle


def test_off_on_out():
    network, x = tiny(), torch.rand(2, 3, 16, 24)
    before, kept = network(x), state(network)
    classes = [type(module) for module in network.modules()]
    insertion = insert(network, Plus, "stage")
    after = network(x)
    assert insertion.enabled and not torch.allclose(after, before)
    for _ in range(2):
        insertion.disable()
        assert not insertion.enabled and torch.equal(network(x), before)
    for _ in range(2):
        insertion.enable()
        assert insertion.enabled and torch.equal(network(x), after)
    for _ in range(2):
        insertion.remove()
        assert not insertion.enabled and torch.equal(network(x), before)
    insertion.disable()
    assert same(network.state_dict(), kept) and [type(module) for module in network.modules()] == classes
    assert list(insertion.modules) == ["stages.0.0", "stages.1.0"]
    with pytest.raises(RuntimeError, match="insert them again"):
        insertion.enable()


def test_context_manager_removes_after_an_exception():
    network = tiny()
    kept = state(network)
    with pytest.raises(KeyError), insert(network, Plus) as insertion:
        assert isinstance(insertion, Insertion) and len(attentions(network)) == 1
        raise KeyError
    assert same(network.state_dict(), kept)


def test_the_handle_says_what_it_did():
    insertion = insert(tiny(), "se", "block", reduction=2)
    lines = repr(insertion).splitlines()
    assert lines[0] == f"Insertion('block': 2 places, {2 * 8 * 4 + 4 + 8 + 2 * 16 * 8 + 8 + 16} parameters, on)"
    assert lines[1:] == ["  stages.0.0.norm2  SE(8)", "  stages.1.0.norm2  SE(16)"]
    insertion.disable()
    assert "off" in repr(insertion)
    insertion.remove()
    assert "removed" in repr(insertion)


def test_insertions_stack_and_leave_in_any_order():
    network, x = tiny(), torch.rand(2, 3, 16, 24)
    before = network(x)
    blocks, stages = insert(network, "se", "block", reduction=2), insert(network, Plus, "stage")
    assert list(attentions(network)) == ["stages.0.0.norm2.attention", "stages.0.0.attention",
                                         "stages.1.0.norm2.attention", "stages.1.0.attention"]
    blocks.remove()
    assert list(stages.modules) == ["stages.0.0", "stages.1.0"] and len(attentions(network)) == 2
    stages.remove()
    assert torch.equal(network(x), before)


def test_a_class_changed_meanwhile_is_not_lost():
    network = tiny()
    insertion = insert(network, Plus, "stages.0.0.conv1")
    nn.utils.parametrizations.weight_norm(network.stages[0][0].conv1)
    with pytest.raises(RuntimeError, match="'stages.0.0.conv1' became a ParametrizedAttendedConv2d"):
        insertion.remove()
    assert insertion.enabled


# ---- weights, copies, files


def test_old_weights_still_load():
    network, donor = tiny(), tiny()
    insert(network, "se", "block", reduction=2)
    missing, unexpected = network.load_state_dict(donor.state_dict(), strict=False)
    assert unexpected == [] and missing and all(".attention." in name for name in missing)
    assert "stages.0.0.norm2.attention.reduce.weight" in missing
    assert all(torch.equal(network.state_dict()[name], value) for name, value in donor.state_dict().items())
    insert(donor, "se", "block", reduction=2)
    donor.load_state_dict(network.state_dict())


@pytest.mark.parametrize("method", ["deepcopy", "pickle", "save"])
def test_copies_have_their_own_attention(method):
    network, x = tiny(), torch.rand(2, 3, 16, 24)
    insertion = insert(network, Plus, ["block", "stage"])
    expected = network(x)
    if method == "deepcopy":
        twin = copy.deepcopy(network)
    elif method == "pickle":
        pickled = pickle.dumps(network)
        _attended_class.cache_clear()  # as in another process
        twin = pickle.loads(pickled)
    else:
        file = io.BytesIO()
        torch.save(network, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert torch.equal(twin(x), expected)
    assert list(attentions(twin)) == list(attentions(network))
    for name, attention in attentions(twin).items():
        assert attention is not network.get_submodule(name)
        nn.init.zeros_(attention.value)
    assert not torch.equal(twin(x), expected) and torch.equal(network(x), expected)
    insertion.remove()
    assert len(attentions(twin)) == 4


def test_a_copy_keeps_its_mechanisms_switched_off():
    network, x = tiny(), torch.rand(2, 3, 16, 24)
    before = network(x)
    insertion = insert(network, Plus)
    insertion.disable()
    twin = copy.deepcopy(network)
    insertion.enable()
    assert torch.equal(twin(x), before)


def test_isinstance_and_type():
    network = tiny()
    insert(network, Plus, ["stages.0.0.norm1", "stages.0.0.norm2"])
    one, other = network.stages[0][0].norm1, network.stages[0][0].norm2
    # Code that folds normalisation into convolutions looks at the exact type; it must not find it here.
    assert isinstance(one, nn.BatchNorm2d) and type(one) is not nn.BatchNorm2d and type(one) is type(other)


# ---- compiled, exported, watched


def test_compiled_networks_notice_every_switch():
    torch.compiler.reset()
    network, x = tiny(), torch.rand(2, 3, 16, 24)
    before = network(x)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), before)
    insertion = insert(compiled, "se", "block", reduction=2)
    assert list(insertion.modules) == ["stages.0.0.norm2", "stages.1.0.norm2"]
    after = network(x)
    assert not torch.allclose(after, before)
    assert torch.equal(compiled(x), after)
    with record(network) as seen:
        compiled(x)
    with record(network) as expected:
        network(x)
    assert list(seen) == ["stages.0.0.norm2.attention", "stages.1.0.norm2.attention"]
    assert all(torch.equal(seen[name], expected[name]) for name in expected)
    with switch_off(network):
        assert torch.allclose(compiled(x), before, atol=1e-6)
    insertion.disable()
    assert torch.equal(compiled(x), before)
    insertion.enable()
    assert torch.equal(compiled(x), after)
    insertion.remove()
    assert torch.equal(compiled(x), before)


def test_probing_compiles_nothing():
    torch.compiler.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    network, x = tiny(), torch.rand(2, 3, 16, 24)
    before = network(x)
    network.stages[0].compile(backend=backend)
    network.stages[1] = torch.compile(network.stages[1], backend=backend)
    insertion = insert(network, "se", "block", reduction=2)
    assert graphs == [] and list(insertion.modules) == ["stages.0.0.norm2", "stages.1._orig_mod.0.norm2"]
    assert not torch.allclose(network(x), before) and len(graphs) == 2
    insertion.remove()
    assert torch.allclose(network(x), before, atol=1e-6)


def test_compiled_training():
    torch.compiler.reset()
    network, x = tiny().train(), torch.rand(2, 3, 16, 24)
    insertion = insert(network, "se", "block", reduction=2)
    torch.compile(network, backend="aot_eager", fullgraph=True)(x).square().sum().backward()
    compiled = {name: p.grad for name, p in network.named_parameters()}
    network.zero_grad()
    network(x).square().sum().backward()
    for name, p in network.named_parameters():
        assert torch.allclose(compiled[name], p.grad, rtol=1e-4, atol=1e-4 * p.grad.abs().max()), name
    assert all(p.grad.abs().sum() > 0 for p in insertion.modules["stages.1.0.norm2"].expand.parameters())


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
def test_inductor():
    torch.compiler.reset()
    network, x = small(1, 3, widths=(4,), attention="se", reduction=2).eval(), torch.rand(2, 1, 8, 12)
    with torch.no_grad():
        assert torch.allclose(torch.compile(network, fullgraph=True)(x), network(x), atol=1e-5)


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    network, x = tiny(), torch.rand(2, 3, 16, 24)
    insert(network, "se", ["block", "last"], reduction=2)
    exported = torch.export.export(network, (x,), strict=strict)
    assert torch.allclose(exported.module()(x), network(x), atol=1e-6)
    assert "stages.0.0.norm2.attention.reduce.weight" in exported.state_dict


@pytest.fixture(scope="module")
def se_resnet18():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    network = models.resnet18(weights=None, num_classes=10).eval()
    insert(network, "se")
    return network


def test_record_and_switch_off_by_qualified_name(se_resnet18):
    x = torch.rand(2, 3, 64, 64)
    with record(se_resnet18, only="layer1.0.bn2.attention") as weights:
        on = se_resnet18(x)
    assert list(weights) == ["layer1.0.bn2.attention"]
    assert weights["layer1.0.bn2.attention"].shape == (2, 64, 1, 1)
    with switch_off(se_resnet18):
        off = se_resnet18(x)
    assert not torch.allclose(on, off)


def test_feature_extraction_sees_the_tap(se_resnet18):
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    x, tap = torch.rand(2, 3, 64, 64), "layer1.0.bn2.attention.weights"
    extractor = extraction.create_feature_extractor(
        se_resnet18, {tap: "weights", "layer4": "features"}, tracer_kwargs={"leaf_modules": [Tap]}
    ).eval()
    found = extractor(x)
    with record(se_resnet18) as weights:
        scores = se_resnet18(x)
    assert torch.equal(found["weights"], weights["layer1.0.bn2.attention"])
    assert torch.allclose(se_resnet18.fc(found["features"].mean((2, 3))), scores, atol=1e-5)


def test_captum_sees_the_tap(se_resnet18):
    attr = pytest.importorskip("captum.attr")
    x, tap = torch.rand(2, 3, 64, 64), se_resnet18.layer4[1].bn2.attention.weights
    with record(se_resnet18) as weights:
        se_resnet18(x)
    activation = attr.LayerActivation(se_resnet18, tap).attribute(x)
    assert torch.equal(activation, weights["layer4.1.bn2.attention"])
    with record(se_resnet18, keep_graph=True) as weights:
        scores = se_resnet18(x)
    weight = weights["layer4.1.bn2.attention"]
    (gradient,) = torch.autograd.grad(scores[:, 3].sum(), weight)
    cam = attr.LayerGradCam(se_resnet18, tap).attribute(x, target=3)
    assert torch.allclose(cam, (gradient * weight).sum(1, keepdim=True), atol=1e-6)


# ---- refusals: one sentence, and nothing has changed


def refuses(network: nn.Module, match: str, *args, error=ValueError, **options) -> None:
    kept, classes = state(network), [type(module) for module in network.modules()]
    with pytest.raises(error, match=match) as raised:
        insert(network, *args, **options)
    assert "\n" not in str(raised.value)
    assert same(network.state_dict(), kept) and [type(module) for module in network.modules()] == classes
    assert all(not module._forward_hooks for module in network.modules())


def test_unknown_places():
    refuses(tiny(), r"called 'blok'.*words block, stage, transition, last.*near it are: block", "se", "blok")
    refuses(tiny(), r"'stages\.1\.0\.norm3'.*near it are:.*stages\.1\.0\.norm2", "se", "stages.1.0.norm3")
    refuses(tiny(), "say where", "se", [])


def test_places_that_return_no_feature_map():
    refuses(tiny(), r"'head' returns a tensor of shape \(1, 5\), not a feature map.*come from: stem", Plus, "head")
    refuses(Several(), "returns a dict, not a feature map", Plus, "")
    refuses(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), "'1' returns a tensor of shape", Plus, "1")


def test_places_that_do_not_run_once():
    relu = nn.ReLU()
    network = nn.Sequential(nn.Conv2d(1, 2, 3), relu, nn.Conv2d(2, 2, 3), relu)
    refuses(network, "'1' runs 2 times in a forward pass", Plus, "1")
    network = tiny()
    network.spare = nn.Conv2d(3, 3, 1)
    refuses(network, "'spare' does not run in a forward pass", Plus, "spare")


class Summed(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + x


def test_containers_that_nothing_inside_can_stand_for():
    refuses(nn.Sequential(Summed(nn.Conv2d(1, 1, 3, padding=1))), "'0' is a Summed and would run", Plus, "0")


def test_words_that_name_nothing():
    plain = small(3, 5, widths=(8, 16))
    refuses(plain, r"no residual sums.*use 'stage' \(stages.0, stages.1\), 'last'", "se", "block")
    refuses(small(3, 5, widths=(8,)), r"has one stage \(stages.0\), and so no 'transition'", "se", "transition")
    refuses(nn.Sequential(nn.Conv2d(3, 4, 64), nn.Flatten()), "no stage of this Sequential", "se", "last",
            example=torch.zeros(1, 3, 64, 64))


def test_places_that_are_taken():
    network = tiny()
    insert(network, "se", "block", reduction=2)
    refuses(network, "'stages.0.0.norm2' already has an attention", Plus, "block")
    network = tiny()
    network.stages[1][0].norm2.attention = nn.Identity()
    refuses(network, "'stages.1.0.norm2' has something of its own called 'attention'", Plus, "block")
    network = tiny()
    network.stages[1][0].norm2.forward = network.stages[1][0].norm2.forward
    refuses(network, "does not run its class's forward", Plus, "block")
    network = tiny()
    insert(network, Plus)
    refuses(network, "is called 'stages.1.0.attention.weights'", Plus, "stages.1.0.attention.weights")
    refuses(network, "is an attention itself", Plus, "stages.1.0.attention")


def test_mechanisms_that_cannot_stand_there():
    refuses(tiny(), "reduction must lie between 1 and the 8 channels, not 16", "se", "block")
    # The second place fails when the first mechanism is already made.
    refuses(tiny(), "reduction must lie between", lambda channels: SE(channels, 2 if channels == 8 else 99), "block")

    class Pooled(Plus):
        about = dataclasses.replace(Plus.about, title="Pooled", drop_in=False)

    refuses(tiny(), "Pooled does not return the shape it is given", Pooled)
    refuses(tiny(), "Pooled does not return the shape it is given", lambda channels: Pooled(channels), "last")
    shared = Plus(8)
    refuses(tiny(), "every place needs a mechanism of its own", lambda channels: shared, "block")


def test_what_is_no_mechanism():
    refuses(tiny(), "not a SE", SE(8, 2), error=TypeError)
    refuses(tiny(), "not a int", 3, error=TypeError)
    refuses(tiny(), "needs an attnlib.Attention for each place, not a Identity", nn.Identity, error=TypeError)
    refuses(tiny(), "no mechanism is called 'sse'; did you mean 'se'", "sse")
    refuses(tiny(), "has no option 'ratio'; it has: reduction", "se", ratio=4, error=TypeError)
    with pytest.raises(TypeError, match="takes a torch.nn.Module, not str"):
        insert("resnet18", "se")


def test_networks_that_need_an_example():
    with pytest.raises(ValueError, match="no Conv2d that tells its input; pass a picture: example="):
        insert(nn.Sequential(nn.LazyConv2d(4, 3)), Plus, "0")
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 28 * 28, 10))
    refuses(network, "does not run on a picture", Plus, "last")
    assert list(insert(network, Plus, "last", example=torch.zeros(1, 1, 28, 28)).modules) == ["0"]
