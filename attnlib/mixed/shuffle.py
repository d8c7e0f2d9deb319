"""Shuffle attention: one half of every group of channels gets gates for channels, the other gates for positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from attnlib.attention import Attention, Description
from attnlib.registry import register


@register("shuffle")
class Shuffle(Attention):
    """Shuffle attention.

    Zhang, Yang, "SA-Net: Shuffle Attention for Deep Convolutional Neural Networks", ICASSP 2021, arXiv:2102.00240. The
    channels are cut into G groups, and each group into two halves p and q of C/2G channels. ::

        s = sigmoid(w1 * mean of p over rows and columns + b1)      (B, C/2G), one gate for each channel
        t = sigmoid(w2 * GN(q) + b2)                                (B, C/2G, H, W), one for each position besides
        y = the halves s * p and t * q of all groups, shuffled      (B, C, H, W)

    GN standardises every channel over its own positions, and has a scale and a shift. So there are six numbers for each
    channel of a half, and all groups share them: 3C/G parameters. The scale and the shift of GN could be left to w2 and
    b2; the paper and its code have them nevertheless. All w start from 0 and all b from 1, so that at first every gate
    is sigmoid(1) = 0.731. The abstract says 300 parameters for ResNet-50; the authors' network has 708.

    The shuffle deals the channels alternately from the first and the second half of all channels: 0, C/2, 1, C/2 + 1,
    …. It comes last, so weight c belongs to channel c of the input, and with neutral weights the output is still the
    shuffled input. At the end of a residual branch, shuffled channels are added to those of a shortcut, which are not.

    The weights are a map for each channel; those of the halves p are the same everywhere on it.

    Args:
        channels: C, an even number.
        groups: G, of which 2G must divide C; by default the paper's 64, or its largest divisor for which that is so.
        group_norm: False leaves GN out, an ablation of the paper: t = sigmoid(w2 * q + b2), with 2C/G parameters.
        shuffle: False leaves the shuffle out, likewise.

    Shapes:
        x (B, C, H, W) → weights (B, C, H, W) → y (B, C, H, W).

    Raises:
        ValueError: an odd number of channels, or groups of which the double does not divide it.
    """

    about = Description(
        title="Shuffle attention",
        paper="Zhang, Yang. SA-Net: Shuffle Attention for Deep Convolutional Neural Networks. ICASSP 2021. "
              "arXiv:2102.00240",
        cite="zhang2021shuffle",
        axes=("batch", "channel", "row", "column"),
        shape=("B", "C", "H", "W"),
        passes=3,  # x is read for means and deviations, read again for the product, and y is written in its order
        looks="by group: half its means, half its standardised maps",
        acts="multiply by the gates, shuffle the channels",
    )

    def __init__(
        self, channels: int, groups: int | None = None, *, group_norm: bool = True, shuffle: bool = True
    ) -> None:
        super().__init__(channels)
        if channels % 2:
            raise ValueError(f"Shuffle cuts the channels into halves: it needs an even number of them, not {channels}")
        groups = math.gcd(64, channels // 2) if groups is None else groups
        if groups < 1 or channels % (2 * groups):
            raise ValueError(f"Shuffle cuts {channels} channels into {groups} groups of two halves: choose groups that "
                             f"divide {channels // 2}")
        self.groups, self.shuffle = groups, shuffle
        half = channels // (2 * groups)
        self.channel_weight, self.channel_bias = nn.Parameter(torch.zeros(half)), nn.Parameter(torch.ones(half))
        self.position_weight, self.position_bias = nn.Parameter(torch.zeros(half)), nn.Parameter(torch.ones(half))
        self.norm = nn.GroupNorm(half, half) if group_norm else None

    def attend(self, x: Tensor) -> Tensor:
        p, q = self.halves(x)
        s, t = self.gates(p, q)
        return torch.stack([s.expand_as(p), t], 2).flatten(1, 3)  # (B, C, H, W)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first and the second halves of all groups: (B, G, C/2G, H, W) each."""
        return x.unflatten(1, (self.groups, 2, -1)).unbind(2)

    def gates(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """The gates of the first halves' channels, (B, G, C/2G, 1, 1), and of the second halves' positions."""
        # In x's precision: under autocast the parameters and the normalisation are in float32.
        return torch.sigmoid(self.channel_scores(p).to(p.dtype)), torch.sigmoid(self.position_scores(q).to(q.dtype))

    def channel_scores(self, p: Tensor) -> Tensor:
        """What the channels' gates are the sigmoid of, for the first halves: (B, G, C/2G, 1, 1)."""
        mean = p.mean((3, 4), keepdim=True)
        return torch.addcmul(self.channel_bias[:, None, None], mean, self.channel_weight[:, None, None])

    def position_scores(self, q: Tensor) -> Tensor:
        """What the positions' gates are the sigmoid of, for the second halves: (B, G, C/2G, H, W)."""
        weight, bias = self.position_weight, self.position_bias
        if self.norm is None:
            return torch.addcmul(bias[:, None, None], q, weight[:, None, None])
        # Scale and shift once: w (γ n + β) + b = (wγ) n + (wβ + b).
        weight, bias = weight * self.norm.weight, weight * self.norm.bias + bias
        scores = torch.group_norm(q.flatten(0, 1), self.norm.num_groups, weight, bias, self.norm.eps)
        return scores.unflatten(0, (-1, self.groups))

    def fused(self, x: Tensor) -> Tensor:
        """The same numbers, without the channels' gates written out for every position.

        Half a group is too few channels for channels-last to be fast: such maps are turned, and turned back.
        """
        p, q = self.halves(x.contiguous())
        s, t = self.gates(p, q)
        return _laid_out_as(x, self.mix(torch.stack([p * s, q * t], 2).flatten(1, 3)))

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.mix(x * weights)

    def mix(self, y: Tensor) -> Tensor:
        """The shuffle, where it is wanted."""
        return torch.channel_shuffle(y, 2) if self.shuffle else y


# Its `if` would stop torch.fx; wrapped, it is one opaque step of the traced graph.
@torch.fx.wrap
def _laid_out_as(x: Tensor, y: Tensor) -> Tensor:
    turned = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return y.contiguous(memory_format=torch.channels_last) if turned else y
