"""Soft channel attention: one gate per channel, computed from the mean and the maximum of every channel."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.attention import Attention, Description
from attnlib.channel.se import SQUEEZES, bottleneck
from attnlib.registry import register

POOLS = {"average": SQUEEZES["avg"], "max": SQUEEZES["max"]}


@register("avgmax")
class AvgMax(Attention):
    """Channel attention from average and maximum, through one perceptron that both share.

    The channel half of CBAM: Woo, Park, Lee, Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018,
    arXiv:1807.06521. Also known as soft channel attention. ::

        a = mean of x over rows and columns             (B, C)
        m = maximum of x over rows and columns          (B, C)
        s = sigmoid(mlp(a) + mlp(m))                    (B, C)
        y = s * x                                       (B, C, H, W)
        mlp(z) = W2 relu(W1 z + b1) + b2                the same W1, b1, W2, b2 for a and for m

    With h = C/r hidden units there are 2hC + h + C parameters, as many as in squeeze-and-excitation, which this is with
    ``pool="average"``. Since the perceptron runs twice, b2 counts twice.

    The paper's formula has no biases; the authors' code has them, and so does the default here. The linear maps start
    from He's normal distribution, as in `attnlib.channel.se`; the paper does not say how, and the authors' code leaves
    it to PyTorch. Where several pixels share a maximum, the authors' max pooling gives the gradient to one of them.
    Here that is so on a CPU; elsewhere it is divided among them (`attnlib.channel.se.maximum`).

    Args:
        channels: C, channels of the input.
        reduction: r, the bottleneck has C/r units (rounded down, at least one).
        bias: whether the two linear maps have biases.
        pool: ``"both"``, the paper's; ``"average"`` or ``"max"`` alone, its ablations.
        normalize: standardise every pooled channel over the batch (batch normalisation without parameters, one for the
            means and one for the maxima) before the perceptron. Not in the paper; see `attnlib.channel.se`.

    Shapes:
        x (B, C, H, W) → weights (B, C, 1, 1) → y (B, C, H, W).

    Raises:
        ValueError: reduction below 1 or above C, or an unknown word for `pool`.
    """

    about = Description(
        title="Average and max channel attention",
        paper="Woo, Park, Lee, Kweon. CBAM: Convolutional Block Attention Module. ECCV 2018. arXiv:1807.06521",
        cite="woo2018cbam",
        axes=("batch", "channel", "row", "column"),
        shape=("B", "C", 1, 1),
        passes=3,  # one reading can give both mean and maximum; then x is read for the product, and y is written
        looks="mean and maximum of each channel, one shared perceptron",
        acts="multiply each channel by its gate",
    )

    def __init__(
        self,
        channels: int,
        reduction: float = 16,
        *,
        bias: bool = True,
        pool: Literal["both", "average", "max"] = "both",
        normalize: bool = False,
    ) -> None:
        super().__init__(channels)
        if pool not in ("both", *POOLS):
            raise ValueError(f"AvgMax's pool is one of both, {', '.join(POOLS)}, not {pool!r}")
        self.reduction = reduction
        self.pool = pool
        pools = POOLS if pool == "both" else (pool,)
        self.standardize = nn.ModuleDict({
            name: nn.BatchNorm2d(channels, affine=False) if normalize else nn.Identity() for name in pools
        })
        self.reduce, self.expand = bottleneck("AvgMax", channels, reduction, bias)

    def squeezed(self, x: Tensor) -> dict[str, Tensor]:
        """The descriptors, each (B, C, 1, 1), by the name of their pooling."""
        return {name: standardize(POOLS[name](x)) for name, standardize in self.standardize.items()}

    def perceptron(self, z: Tensor) -> Tensor:
        """What one descriptor (B, C, 1, 1) adds to the gates' scores, likewise (B, C, 1, 1)."""
        return self.expand(F.relu(self.reduce(z)))

    def attend(self, x: Tensor) -> Tensor:
        scores = [self.perceptron(z) for z in self.squeezed(x).values()]
        return torch.sigmoid(sum(scores))  # (B, C, 1, 1)

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return x * weights
