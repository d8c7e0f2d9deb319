"""Networks to put mechanisms into: the ResNets of the papers, and small ones that a page trains in seconds.

All draw the network's weights first and the mechanism's afterwards. Two networks built after the same
``torch.manual_seed``, one with and one without attention, therefore start from the same backbone, weight for weight.

`attention` is what `insert` takes: a registry name, a class, or a function ``channels -> Attention``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.attention import Attention
from attnlib.insert import insert
from attnlib.registry import mechanism

Mechanism = str | type[Attention] | Callable[..., Attention] | None
Where = str | Sequence[str] | None

DEPTHS = (18, 34, 50, 101)


def resnet(
    depth: int,
    attention: Mechanism = None,
    *,
    stem: Literal["imagenet", "cifar"] = "imagenet",
    classes: int = 1000,
    channels_in: int = 3,
    where: Where = None,
    **options: Any,
) -> nn.Module:
    """torchvision's ResNet without pretrained weights, with a mechanism where its paper puts it.

    He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385; the stride of a
    bottleneck is in its 3×3 convolution, as in all later papers on attention.

    Args:
        depth: 18, 34, 50 or 101.
        attention: the mechanism, or None.
        stem: ``"imagenet"``: 7×7 convolution of stride 2 and a max-pool; ``"cifar"``: 3×3 of stride 1 and no pool.
        classes: length of the output.
        channels_in: channels of the pictures.
        where: one of `insert`'s places; by default the mechanism's own.
        options: the mechanism's own, in the words of its paper.

    Shapes:
        (B, channels_in, H, W) → (B, classes).

    Raises:
        ValueError: another depth or stem, or a mechanism that does not exist or refuses its options.
        TypeError: options without a mechanism, or one that it does not have.
    """
    if depth not in DEPTHS:
        raise ValueError(f"resnet has depth {', '.join(map(str, DEPTHS))}, not {depth!r}")
    if stem not in ("imagenet", "cifar"):
        raise ValueError(f"resnet's stem is 'imagenet' or 'cifar', not {stem!r}")
    from torchvision import models

    network = getattr(models, f"resnet{depth}")(weights=None, num_classes=classes)
    if stem == "cifar":
        network.conv1 = _first_convolution(channels_in, kernel=3, stride=1)
        network.maxpool = nn.Identity()
    elif channels_in != 3:
        network.conv1 = _first_convolution(channels_in, kernel=7, stride=2)
    return _with_attention(network, attention, where, options)


def _first_convolution(channels_in: int, kernel: int, stride: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels_in, 64, kernel, stride, padding=kernel // 2, bias=False)
    # As torchvision initialises all of its ResNet's convolutions.
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def small(
    channels_in: int,
    classes: int,
    *,
    attention: Mechanism = None,
    widths: Sequence[int] = (16, 32),
    where: Where = "stage",
    norm: bool = True,
    padding_mode: str = "zeros",
    **options: Any,
) -> Small:
    """A plain network for pictures of 8 to 32 pixels, with a mechanism behind its stages.

    Args:
        channels_in: channels of the pictures.
        classes: length of the output.
        attention: the mechanism, or None.
        widths: channels of each stage; the first works at full size, each later one at half the size before.
        where: one of `insert`'s places: ``"stage"``, ``"last"``, or names such as ``"stages.0"``.
        norm: whether the stages have batch normalisation.
        padding_mode: of the convolutions, as in `torch.nn.Conv2d`; zeros tell a network where the border is.
        options: the mechanism's own.

    Shapes:
        (B, channels_in, H, W) → (B, classes).
    """
    return _with_attention(Small(channels_in, classes, widths, norm, padding_mode), attention, where, options)


def small_resnet(
    channels_in: int,
    classes: int,
    *,
    widths: Sequence[int] = (16, 32, 64),
    blocks: int = 1,
    attention: Mechanism = None,
    where: Where = None,
    **options: Any,
) -> SmallResNet:
    """A small residual network for pictures of 8 to 32 pixels, with a mechanism where its paper puts it.

    Args:
        channels_in: channels of the pictures.
        classes: length of the output.
        widths: channels of each stage; the first works at full size, each later one at half the size before.
        blocks: residual blocks in each stage.
        attention: the mechanism, or None.
        where: one of `insert`'s places; by default the mechanism's own.
        options: the mechanism's own.

    Shapes:
        (B, channels_in, H, W) → (B, classes).
    """
    return _with_attention(SmallResNet(channels_in, classes, widths, blocks), attention, where, options)


def small_unet(
    channels_in: int,
    out: int = 1,
    *,
    widths: Sequence[int] = (16, 32, 64),
    attention: Mechanism = None,
    where: Where = "encoder.?",
    **options: Any,
) -> SmallUNet:
    """A small encoder–decoder that answers for every pixel, with a mechanism behind the stages of its encoder.

    After Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015,
    arXiv:1505.04597: the encoder halves the picture from stage to stage; each stage of the decoder doubles it again and
    reads, beside the coarse map, what the encoder had at that size. Unlike the paper's, a stage has one convolution
    instead of two, with batch normalisation and padding, so that output and picture are of one size; and doubling
    repeats pixels instead of learning to.

    The ways past the coarse maps leave no such thing as a last stage, so `insert`'s words do not fit here. Places have
    names: ``"encoder.0"`` at full size, the last of the encoder (``"encoder.2"`` for three widths) the bottleneck,
    ``"decoder.0"`` at full size again; ``"encoder.?"`` and ``"decoder.?"`` are all of one side.

    Args:
        channels_in: channels of the pictures.
        out: numbers for each pixel: 1 for "object or not", K for K classes or K heat maps. Scores, before any sigmoid
            or softmax.
        widths: channels of each stage of the encoder, and in reverse of the decoder; the first works at full size,
            each later one at half the size before, rounded down. One width makes no decoder.
        attention: the mechanism, or None.
        where: names or patterns of modules.
        options: the mechanism's own.

    Shapes:
        (B, channels_in, H, W) → (B, out, H, W). H and W may be odd; both are at least 2 to the power of one less than
        the number of widths.

    Raises:
        ValueError: pictures that are too small, or with another number of channels.
    """
    return _with_attention(SmallUNet(channels_in, out, widths), attention, where, options)


class Stage(nn.Module):
    """Convolution, normalisation, ReLU; halves the picture first if asked to."""

    def __init__(self, channels_in: int, channels: int, *, halve: bool, norm: bool, padding_mode: str) -> None:
        super().__init__()
        self.halve = halve
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1, bias=not norm, padding_mode=padding_mode)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.halve:
            x = F.max_pool2d(x, 2)
        return F.relu(self.norm(self.conv(x)))


class Small(nn.Module):
    """See `small`. Features (B, C, h, w) come from `features`, scores (B, classes) from their means."""

    def __init__(
        self, channels_in: int, classes: int, widths: Sequence[int], norm: bool = True, padding_mode: str = "zeros"
    ) -> None:
        super().__init__()
        self.channels_in = channels_in
        self.stages = nn.Sequential(*(
            Stage(before, width, halve=index > 0, norm=norm, padding_mode=padding_mode)
            for index, (before, width) in enumerate(zip([channels_in, *widths], widths))
        ))
        self.head = nn.Linear(widths[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        _check_channels(x, self.channels_in)
        return self.stages(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Block(nn.Module):
    """Two convolutions and a shortcut, He et al. 2016; the shortcut is a 1×1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(branch + self.shortcut(x))


class SmallResNet(nn.Module):
    """See `small_resnet`. Features (B, C, h, w) come from `features`, scores (B, classes) from their means."""

    def __init__(self, channels_in: int, classes: int, widths: Sequence[int], blocks: int = 1) -> None:
        super().__init__()
        self.channels_in = channels_in
        self.stem = Stage(channels_in, widths[0], halve=False, norm=True, padding_mode="zeros")
        self.stages = nn.Sequential(*(
            nn.Sequential(*(
                Block(width if block else before, width, stride=2 if index and not block else 1)
                for block in range(blocks)
            ))
            for index, (before, width) in enumerate(zip([widths[0], *widths], widths))
        ))
        self.head = nn.Linear(widths[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        _check_channels(x, self.channels_in)
        return self.stages(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class SmallUNet(nn.Module):
    """See `small_unet`. ``decoder[0]`` works at full size, as ``encoder[0]`` does."""

    def __init__(self, channels_in: int, out: int, widths: Sequence[int]) -> None:
        super().__init__()
        if not widths:
            raise ValueError("small_unet has one stage or more; give the channels of each: widths=(16, 32)")
        if min(*widths, out) < 1:
            raise ValueError(f"small_unet has one channel or more everywhere, not widths={tuple(widths)} and out={out}")
        self.channels_in = channels_in
        self.encoder = nn.ModuleList(
            Stage(before, width, halve=index > 0, norm=True, padding_mode="zeros")
            for index, (before, width) in enumerate(zip([channels_in, *widths], widths))
        )
        self.decoder = nn.ModuleList(
            Stage(width + below, width, halve=False, norm=True, padding_mode="zeros")
            for width, below in zip(widths, widths[1:])
        )
        self.head = nn.Conv2d(widths[0], out, 1)

    def forward(self, x: Tensor) -> Tensor:
        _check_channels(x, self.channels_in)
        _check_sides(x, len(self.encoder))
        seen = []
        for stage in self.encoder:
            x = stage(x)
            seen.append(x)
        for stage, beside in zip(reversed(self.decoder), reversed(seen[:-1])):
            x = stage(torch.cat([beside, F.interpolate(x, size=beside.shape[2:])], 1))
        return self.head(x)


# One opaque step to torch.fx, which cannot follow the `if`.
@torch.fx.wrap
def _check_channels(x: Tensor, channels: int) -> None:
    if x.dim() != 4 or x.shape[1] != channels:
        raise ValueError(f"this network takes pictures (B, {channels}, H, W), not a tensor of shape {tuple(x.shape)}")


@torch.fx.wrap
def _check_sides(x: Tensor, stages: int) -> None:
    least = 2 ** (stages - 1)
    if min(x.shape[2:]) < least:
        raise ValueError(f"{stages} stages halve a picture {stages - 1} times, so it needs {least} pixels or more on "
                         f"each side, not {x.shape[2]} × {x.shape[3]}")


def _with_attention(network: nn.Module, attention: Mechanism, where: Where, options: dict[str, Any]) -> Any:
    if attention is None:
        if options:
            raise TypeError(f"{', '.join(options)}: no such option, or an option of a mechanism without attention=")
        return network
    if isinstance(attention, str):
        attention = mechanism(attention)
    if isinstance(attention, type) and issubclass(attention, Attention):
        attention.install(network, where, **options)
    else:
        insert(network, attention, where, **options)
    return network
