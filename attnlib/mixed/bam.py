"""BAM: what a channel says and what a position says, added up to one gate for both together."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from attnlib.attention import Attention, Description
from attnlib.channel.se import SQUEEZES, bottleneck
from attnlib.registry import register

COMBINE = {"sum": torch.add, "product": torch.mul, "max": torch.maximum}
SHAPES = {"both": ("B", "C", "H", "W"), "channel": ("B", "C", 1, 1), "spatial": ("B", 1, "H", "W")}


@register("bam")
class BAM(Attention):
    """Bottleneck Attention Module.

    Park, Woo, Lee, Kweon, "BAM: Bottleneck Attention Module", BMVC 2018, arXiv:1807.06514. Two branches see x side by
    side, one everywhere in every channel, one every channel in the surroundings of a position. ::

        u = BN(W2 relu(W1 z + b1) + b2),   z = mean of x over positions          channel    (B, C, 1, 1)
        v = BN(1×1 conv of relu 3×3 conv of relu 3×3 conv of relu 1×1 conv of x)   spatial    (B, 1, H, W)
        s = sigmoid(u + v)                                                       weights    (B, C, H, W)
        y = (1 + s) * x                                                                     (B, C, H, W)

    The first three convolutions give C/r channels, the last gives one; the 3×3 ones have dilation d, so that v sees
    4d + 1 rows and columns; all have biases. The paper's equations show no ReLU; the authors' code has one behind
    every linear map but the last of its branch, and so does this.

    With h = C/r there are 18h² + 3hC + 5h + 3C + 3 parameters: 2hC + h + 3C in the channel branch, and
    hC + 18h² + 4h + 3 in the spatial one; 18h² + 3hC + 13h + C + 1 with ``variant="official"``.

    ``variant="official"`` is the authors' code: it *multiplies* u and v, has a batch normalisation behind every linear
    map but the last of its branch, and none at the ends. It pools with a window of H×H, which is no mean over the
    positions of a map that is not square; here that is a mean in both variants. pytorchcv's block is the official one.
    The linear maps start from He's normal distribution with biases of zero; the paper does not say how.

    The paper puts it between the stages of a network, `where="transition"`. Since 1 + s never falls below 1, this
    attention can stress and not suppress. The neutral weights are 0: then y is x.

    Args:
        channels: C, channels of the input.
        reduction: r, both branches have C/r channels inside (rounded down, at least one).
        dilation: d of the 3×3 convolutions.
        branches: ``"both"``, or ``"channel"`` or ``"spatial"`` alone: then s = sigmoid(u), or sigmoid(v).
        variant: ``"paper"`` or ``"official"``.
        combine: how u and v become one: ``"sum"``, ``"product"`` or ``"max"``; by default the variant's. In
            the paper's comparison the sum does better than the product.

    Shapes:
        x (B, C, H, W) → weights (B, C, H, W), of the channel branch alone (B, C, 1, 1), of the spatial one alone
        (B, 1, H, W) → y (B, C, H, W).

    Raises:
        ValueError: reduction below 1 or above C, a dilation below 1, an unknown word, or `combine` for one branch; a
            picture alone in training mode, where u is normalised over the batch.
    """

    about = Description(
        title="BAM",
        paper="Park, Woo, Lee, Kweon. BAM: Bottleneck Attention Module. BMVC 2018. arXiv:1807.06514",
        cite="park2018bam",
        axes=("batch", "channel", "row", "column"),
        shape=SHAPES["both"],
        passes=3,  # one reading serves both branches, which go on with C/r channels; x is read again, and y is written
        place="transition",
        looks="a channel branch and a dilated spatial branch, added",
        acts="multiply by one plus the gate",
    )

    def __init__(
        self,
        channels: int,
        reduction: float = 16,
        *,
        dilation: int = 4,
        branches: Literal["both", "channel", "spatial"] = "both",
        variant: Literal["paper", "official"] = "paper",
        combine: Literal["sum", "product", "max"] | None = None,
    ) -> None:
        super().__init__(channels)
        official = variant == "official"
        if combine is not None and branches != "both":
            raise ValueError(f"BAM has nothing to combine with branches={branches!r}; leave combine={combine!r} out")
        combine = ("product" if official else "sum") if combine is None else combine
        for word, value, known in (("branches", branches, SHAPES), ("variant", variant, ("paper", "official")),
                                   ("combine", combine, COMBINE)):
            if value not in known:
                raise ValueError(f"BAM's {word} is one of {', '.join(known)}, not {value!r}")
        if not isinstance(dilation, int) or dilation < 1:
            raise ValueError(f"BAM's dilation is a whole number from 1 on, not {dilation!r}")
        self.branches, self.combine = branches, combine
        down, up = bottleneck("BAM", channels, reduction)
        if branches != "spatial":
            self.channel = ChannelBranch(*_chain([down, up], official))
        if branches != "channel":
            self.spatial = SpatialBranch(*_chain(_convolutions(channels, down.out_channels, dilation), official))

    def describe(self) -> Description:
        return dataclasses.replace(super().describe(), shape=SHAPES[self.branches])

    def check(self, x: Tensor) -> None:
        super().check(x)
        if self.training and (len(x) if self.branches != "spatial" else x[:, :1].numel()) == 1:
            raise ValueError("BAM normalises over the batch in training: give it two pictures or more, or call eval()")

    def scores(self, x: Tensor) -> list[Tensor]:
        """What the branches say, u (B, C, 1, 1) and v (B, 1, H, W), or that of the one there is."""
        u = [self.channel(SQUEEZES["avg"](x))] if self.branches != "spatial" else []
        v = [self.spatial(x)] if self.branches != "channel" else []
        return u + v

    def attend(self, x: Tensor) -> Tensor:
        scores = self.scores(x)
        if len(scores) == 1:
            return torch.sigmoid(scores[0])
        # Nothing else needs the combined scores, not even their gradient: the gates take their place.
        return COMBINE[self.combine](*scores).sigmoid_()  # (B, C, H, W)

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return torch.addcmul(x, x, weights)

    def neutral(self, x: Tensor, weights: Tensor) -> Tensor:
        """Zeros: nothing is added to x."""
        return torch.zeros_like(weights)


class ChannelBranch(nn.Sequential):
    """The means of the channels (B, C, 1, 1) → what they say of every channel, u (B, C, 1, 1)."""


class SpatialBranch(nn.Sequential):
    """x (B, C, H, W) → what its surroundings say of every position, v (B, 1, H, W)."""


def _convolutions(channels: int, hidden: int, dilation: int) -> list[nn.Conv2d]:
    """Those of the spatial branch: C → C/r, twice C/r → C/r with a 3×3 kernel of this dilation, C/r → 1."""
    wide = {"kernel_size": 3, "padding": dilation, "dilation": dilation}
    layers = [nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, hidden, **wide), nn.Conv2d(hidden, hidden, **wide),
              nn.Conv2d(hidden, 1, 1)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layers


def _chain(layers: list[nn.Conv2d], official: bool) -> list[nn.Module]:
    """The linear maps with ReLU between them; batch normalisation at the end, or officially before every ReLU."""
    parts: list[nn.Module] = []
    for layer in layers[:-1]:
        parts += [layer, *[nn.BatchNorm2d(layer.out_channels)] * official, nn.ReLU(inplace=True)]
    return [*parts, layers[-1], *[nn.BatchNorm2d(layers[-1].out_channels)] * (not official)]
