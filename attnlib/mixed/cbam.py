"""CBAM: a gate for every channel, then a gate for every position of what is left."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from attnlib.attention import Attention, Description
from attnlib.channel.avgmax import AvgMax
from attnlib.registry import register

PAPER = "Woo, Park, Lee, Kweon. CBAM: Convolutional Block Attention Module. ECCV 2018. arXiv:1807.06521"
# The halves that run, in their order.
ORDERS = {
    "channel-spatial": ("channel", "spatial"),
    "spatial-channel": ("spatial", "channel"),
    "parallel": ("channel", "spatial"),
    "channel": ("channel",),
    "spatial": ("spatial",),
}
SHAPES = {"channel": ("B", "C", 1, 1), "spatial": ("B", 1, "H", "W")}


class SpatialGate(Attention):
    """CBAM's spatial half by itself: one gate per position, from the mean and the maximum over its channels. ::

        a = mean of x over the channels                  (B, 1, H, W)
        m = maximum of x over the channels               (B, 1, H, W)
        s = sigmoid(k×k convolution of [a, m])           (B, 1, H, W)
        y = s * x                                        (B, C, H, W)

    The convolution has 2k² parameters, no bias, and reads zeros beyond the border. It starts from PyTorch's uniform
    distribution, with gates around one half. Where several channels share a maximum, its gradient goes to one of them
    (`strongest`).

    Args:
        channels: C, or None: this gate does not care.
        kernel_size: k, an odd number.
        batch_norm: put a batch normalisation, of one channel and two parameters, behind the convolution, as the
            authors' code does. Its factor starts at 0, as in their networks, so that every gate starts at one half; its
            running statistics move by 1 % a step, which takes hundreds of steps.
        normalize: standardise both maps over the batch and the positions (batch normalisation without parameters)
            before the convolution. Not in the paper; see `attnlib.channel.se`.

    Shapes:
        x (B, C, H, W) → weights (B, 1, H, W) → y (B, C, H, W).

    Raises:
        ValueError: `kernel_size` is not an odd whole number.
    """

    about = Description(
        title="Spatial gate of CBAM",
        paper=PAPER,
        cite="woo2018cbam",
        axes=("batch", "channel", "row", "column"),
        shape=SHAPES["spatial"],
        passes=3,  # one reading can give both mean and maximum; then x is read for the product, and y is written
        looks="mean and maximum over channels, one convolution",
        acts="multiply each position by its gate",
        name="spatial gate",  # for messages: it is not registered
    )

    def __init__(self, channels: int | None = None, kernel_size: int = 7, *, batch_norm: bool = False,
                 normalize: bool = False) -> None:
        super().__init__(channels)
        if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"CBAM's kernel_size is an odd whole number, so that it has a middle, not {kernel_size!r}")
        self.standardize = nn.BatchNorm2d(2, affine=False) if normalize else nn.Identity()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(1, momentum=0.01) if batch_norm else nn.Identity()
        if batch_norm:
            nn.init.zeros_(self.norm.weight)

    def attend(self, x: Tensor) -> Tensor:
        maps = torch.cat([x.mean(1, keepdim=True), strongest(x)], dim=1)  # (B, 2, H, W)
        return torch.sigmoid(self.norm(self.conv(self.standardize(maps))))  # (B, 1, H, W)

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return x * weights


@register("cbam")
class CBAM(Attention):
    """Convolutional Block Attention Module.

    Woo, Park, Lee, Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv:1807.06521. ::

        c = sigmoid(mlp(mean of x over positions) + mlp(maximum of x over positions))    channel   (B, C, 1, 1)
        f = c * x                                                                                  (B, C, H, W)
        s = sigmoid(conv([mean of f over channels, maximum of f over channels]))         spatial   (B, 1, H, W)
        y = s * f                                                                                  (B, C, H, W)

    Since s * f = (c * s) * x, the weights are the product of the two gates, one for every channel at every position:
    all that x is multiplied by. Its halves are mechanisms of their own, `channel` (`attnlib.channel.avgmax.AvgMax`)
    and `spatial` (`SpatialGate`), with a tap each. So ``only="*.spatial"`` records, switches off or replaces one half,
    and ``only="*.attention"`` the product alone, where `insert` put it. Without `only`, an edit meets the product
    alone, which has the halves in it.

    With h = C/r hidden units there are 2hC + h + C parameters in the channel half, and 2k² in the spatial one.

    The paper's formula of the perceptron has no biases; the authors' code has them, and so does the default here. Their
    code also has a batch normalisation behind the convolution, with two parameters, which the paper does not have:
    ``variant="official"``. It stacks the maximum before the mean, the paper and this module the mean before the
    maximum, so that its kernels are those here with the two input channels exchanged. timm's and pytorchcv's blocks
    have the batch normalisation too; timm's stacks the mean first, and has no biases unless asked for.

    Args:
        channels: C, channels of the input.
        reduction: r, the perceptron has C/r hidden units (rounded down, at least one).
        kernel_size: k of the convolution, an odd number.
        order: ``"channel-spatial"``, the paper's; ``"spatial-channel"``, its reverse; ``"parallel"``, where both halves
            see x itself, and their gates are multiplied as well; ``"channel"`` or ``"spatial"``, one half alone.
        variant: ``"paper"``, or ``"official"``, with a batch normalisation in the spatial half; see `SpatialGate`.
        bias: whether the perceptron has biases.
        pool: what the perceptron sees, ``"both"``, ``"average"`` or ``"max"``, as for `AvgMax`.
        normalize: standardise what both halves pool over the batch. Not in the paper; see `attnlib.channel.se`.

    Shapes:
        x (B, C, H, W) → weights (B, C, H, W), with ``order="channel"`` (B, C, 1, 1), with ``"spatial"`` (B, 1, H, W)
        → y (B, C, H, W).

    Raises:
        ValueError: reduction below 1 or above C, `kernel_size` not odd, or an unknown word for `order`, `variant` or
            `pool`.
    """

    made_of_parts = True
    about = Description(
        title="CBAM",
        paper=PAPER,
        cite="woo2018cbam",
        axes=("batch", "channel", "row", "column"),
        shape=("B", "C", "H", "W"),
        passes=4,  # x is read for the channels, read again for the positions, read for the product, and y is written
        looks="a gate per channel, then per position, from mean and max",
        acts="multiply by both gates",
    )

    def __init__(
        self,
        channels: int,
        reduction: float = 16,
        *,
        kernel_size: int = 7,
        order: Literal["channel-spatial", "spatial-channel", "parallel", "channel", "spatial"] = "channel-spatial",
        variant: Literal["paper", "official"] = "paper",
        bias: bool = True,
        pool: Literal["both", "average", "max"] = "both",
        normalize: bool = False,
    ) -> None:
        super().__init__(channels)
        for word, value, known in (("order", order, ORDERS), ("variant", variant, ("paper", "official"))):
            if value not in known:
                raise ValueError(f"CBAM's {word} is one of {', '.join(known)}, not {value!r}")
        self.order = order
        for half in ORDERS[order]:
            if half == "channel":
                self.channel = AvgMax(channels, reduction, bias=bias, pool=pool, normalize=normalize)
            else:
                official = variant == "official"
                self.spatial = SpatialGate(channels, kernel_size, batch_norm=official, normalize=normalize)

    @property
    def halves(self) -> list[Attention]:
        """The halves that run, in their order."""
        return [getattr(self, name) for name in ORDERS[self.order]]

    def describe(self) -> Description:
        about = super().describe()
        if self.order in SHAPES:
            return dataclasses.replace(about, shape=SHAPES[self.order], passes=3)
        return dataclasses.replace(about, passes=3) if self.order == "parallel" else about

    def attend(self, x: Tensor) -> Tensor:
        first, *second = self.halves
        gates = _tapped(first, x)
        for half in second:
            gates = gates * _tapped(half, x if self.order == "parallel" else x * gates)  # (B, C, H, W)
        return gates

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return x * weights

    def fused(self, x: Tensor) -> Tensor | None:
        """The same numbers with one large tensor instead of three, where no gradient needs those between.

        A compiler needs no such help, and a traced graph may be trained later.
        """
        if self.order in SHAPES or torch.is_grad_enabled():
            return None
        if torch.compiler.is_compiling() or isinstance(x, torch.fx.Proxy):
            return None
        first, second = self.halves
        if first.weights.watched or second.weights.watched:
            return None
        gates = first.attend(x)
        if self.order == "parallel":
            room, other = torch.empty_like(x), second.attend(x)
        else:
            room = x * gates
            other = second.attend(room)
        return torch.mul(gates, other, out=room).mul_(x)


@torch.fx.wrap
def strongest(x: Tensor) -> Tensor:
    """The maximum of every position of `x` (B, C, H, W) over its channels: (B, 1, H, W).

    Where several channels share it, the gradient goes to one of them. Behind a ReLU that makes no difference at a
    position of zeros: there the ReLU's own gradient is zero.
    """
    # Finding where the maximum is costs time forward, and saves more of it backward.
    if x.requires_grad and torch.is_grad_enabled():
        return x.max(1, keepdim=True).values
    return x.amax(1, keepdim=True)


def _tapped(half: Attention, x: Tensor) -> Tensor:
    return half.weights(half.attend(x), x, half)
