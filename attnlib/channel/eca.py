"""Efficient channel attention: a channel's gate comes from its own mean and those of its nearest neighbours."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from attnlib.attention import Attention, Description
from attnlib.registry import register


def width(channels: int, gamma: float = 2, b: float = 1) -> int:
    """The paper's width of the convolution for C channels: the odd number nearest to log₂(C)/γ + b/γ.

    Between two odd numbers it is the larger one. 8 to 127 channels get 3, up to 2,047 get 5, fewer than 8 get 1.

    Raises:
        ValueError: fewer than one channel, or gamma not above 0.
    """
    if channels < 1 or not gamma > 0:
        raise ValueError(f"ECA's width needs at least one channel and a gamma above 0, not {channels} and {gamma}")
    whole = int(abs((math.log2(channels) + b) / gamma))
    return whole if whole % 2 else whole + 1


@register("eca")
class ECA(Attention):
    """Efficient channel attention.

    Wang, Wu, Zhu, Li, Zuo, Hu, "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR
    2020, arXiv:1910.03151. ::

        z = mean of x over rows and columns                       (B, C)
        s = sigmoid(Σ_j w_j z_{c+j}),  j from −(k−1)/2 to (k−1)/2 (B, C)
        y = s * x                                                 (B, C, H, W)

    One row of k numbers w for all channels, and no bias: k parameters. Beyond the first and the last channel the means
    count as 0. The order of the channels therefore matters, as it does in no other channel gate of this chapter.

    The authors' code takes the width as an argument, one for each stage. Their ResNet-50 has 3, 5, 5, 7, which the rule
    gives for no single count of channels per stage: the blocks' outputs (256 … 2048) would get 5, 5, 5, 7, and their
    inner widths (64 … 512) 3, 5, 5, 5. Here the rule sees the channels the gate multiplies; `RELEASED` has theirs.
    timm's module never goes below 3, where the rule gives 1 for fewer than 8 channels.

    Args:
        channels: C, channels of the input.
        kernel_size: k, an odd number up to 2C − 1 (beyond, it would see nothing more); None is the paper's rule.
        gamma, b: of the rule; 2 and 1 are the paper's.
        normalize: standardise every channel's mean over the batch (batch normalisation without parameters) before the
            convolution. Not in the paper; see `attnlib.channel.se.SE`, which has the same option.

    Shapes:
        x (B, C, H, W) → weights (B, C, 1, 1) → y (B, C, H, W).

    Raises:
        ValueError: a width that is even, below 1 or above 2C − 1; or gamma not above 0.
    """

    about = Description(
        title="Efficient channel attention",
        paper="Wang, Wu, Zhu, Li, Zuo, Hu. ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks. "
              "CVPR 2020. arXiv:1910.03151",
        cite="wang2020eca",
        axes=("batch", "channel", "row", "column"),
        shape=("B", "C", 1, 1),
        passes=3,  # x is read for the means, read again for the product, and y is written
        looks="mean of each channel, convolution over channels, sigmoid",
        acts="multiply each channel by its gate",
    )

    def __init__(
        self, channels: int, kernel_size: int | None = None, *, gamma: float = 2, b: float = 1, normalize: bool = False
    ) -> None:
        super().__init__(channels)
        if kernel_size is None:
            kernel_size = width(channels, gamma, b)
        most = 2 * channels - 1
        if not isinstance(kernel_size, int) or kernel_size % 2 == 0 or not 1 <= kernel_size <= most:
            raise ValueError(f"ECA's kernel_size for {channels} channels is an odd number from 1 to {most}, "
                             f"not {kernel_size!r}")
        self.standardize = nn.BatchNorm1d(channels, affine=False) if normalize else nn.Identity()
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    @property
    def kernel_size(self) -> int:
        """k, how many neighbouring means a gate sees, its own among them."""
        return self.conv.kernel_size[0]

    def squeezed(self, x: Tensor) -> Tensor:
        """The channel descriptor z, (B, C)."""
        return self.standardize(x.mean((2, 3)))

    def attend(self, x: Tensor) -> Tensor:
        z = self.squeezed(x)  # (B, C)
        scores = self.conv(z.unsqueeze(1))  # (B, 1, C)
        return torch.sigmoid(scores).transpose(1, 2).unsqueeze(3)  # (B, C, 1, 1)

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return x * weights


RELEASED = {256: 3, 512: 5, 1024: 5, 2048: 7}
"""The authors' widths in the four stages of their ResNet-50, by the channels of the stage's output."""
