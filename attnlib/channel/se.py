"""Squeeze-and-Excitation: every channel gets one gate, computed from the means of all channels."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.attention import Attention, Description
from attnlib.registry import register

SQUEEZES = {
    "avg": lambda x: x.mean((2, 3), keepdim=True),
    "max": lambda x: maximum(x),
    "none": lambda x: x,
    "constant": lambda x: torch.ones_like(x[:, :, :1, :1]),
}
GATES = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": F.relu}
BOUNDS = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "relu": (0.0, float("inf"))}


@register("se")
class SE(Attention):
    """Squeeze-and-Excitation block.

    Hu, Shen, Albanie, Sun, Wu, "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507. ::

        z = mean of x over rows and columns        squeeze      (B, C)
        s = sigmoid(W2 relu(W1 z + b1) + b2)       excitation   (B, C)
        y = s * x                                  scale        (B, C, H, W)

    The paper's equations have no biases; the authors' released networks do, and so does the default here
    (``bias=False`` is the equation). The two linear maps start from He's normal distribution, as the paper's networks
    do. With h = C/r hidden units there are 2hC + h + C parameters.

    Args:
        channels: C, channels of the input.
        reduction: r, the bottleneck has C/r units (rounded down, at least one).
        bias: whether the two linear maps have biases.
        squeeze: ``"avg"``, the paper's; ``"max"``, its ablation; ``"none"``, its "NoSqueeze": the two linear maps
            work at every position by themselves, with the same parameters and without a global view; ``"constant"``,
            a control that is not in the paper: a vector of ones, so that the gates are learned but the same for
            every picture.
        gate: ``"sigmoid"``, the paper's; ``"tanh"`` and ``"relu"``, its ablations.
        normalize: standardise every squeezed channel over the batch (batch normalisation without parameters) before
            the excitation. Not in the paper: means over many pixels differ little from picture to picture, and this
            lets a network see the difference within few steps.

    Shapes:
        x (B, C, H, W) → weights (B, C, 1, 1), or (B, C, H, W) with ``squeeze="none"`` → y (B, C, H, W).

    Raises:
        ValueError: reduction below 1 or above C, or an unknown word for `squeeze` or `gate`.
    """

    about = Description(
        title="Squeeze-and-Excitation",
        paper="Hu, Shen, Albanie, Sun, Wu. Squeeze-and-Excitation Networks. CVPR 2018. arXiv:1709.01507",
        cite="hu2018se",
        axes=("batch", "channel", "row", "column"),
        shape=("B", "C", 1, 1),
        passes=3,  # x is read for the means, read again for the product, and y is written
        looks="mean of each channel, two linear maps, sigmoid",
        acts="multiply each channel by its gate",
    )

    def __init__(
        self,
        channels: int,
        reduction: float = 16,
        *,
        bias: bool = True,
        squeeze: Literal["avg", "max", "none", "constant"] = "avg",
        gate: Literal["sigmoid", "tanh", "relu"] = "sigmoid",
        normalize: bool = False,
    ) -> None:
        super().__init__(channels)
        for word, value, known in (("squeeze", squeeze, SQUEEZES), ("gate", gate, GATES)):
            if value not in known:
                raise ValueError(f"SE's {word} is one of {', '.join(known)}, not {value!r}")
        self.reduction = reduction
        self.squeeze = squeeze
        self.gate = gate
        self.standardize = nn.BatchNorm2d(channels, affine=False) if normalize else nn.Identity()
        self.reduce, self.expand = bottleneck("SE", channels, reduction, bias)

    def describe(self) -> Description:
        about = super().describe()
        shape = ("B", "C", "H", "W") if self.squeeze == "none" else about.shape
        return dataclasses.replace(about, shape=shape, bounds=BOUNDS[self.gate])

    def squeezed(self, x: Tensor) -> Tensor:
        """The channel descriptor z: (B, C, 1, 1), or the shape of `x` with ``squeeze="none"``."""
        return self.standardize(SQUEEZES[self.squeeze](x))

    def attend(self, x: Tensor) -> Tensor:
        z = self.squeezed(x)  # (B, C, 1, 1)
        hidden = F.relu(self.reduce(z))  # (B, C/r, 1, 1)
        return GATES[self.gate](self.expand(hidden))  # (B, C, 1, 1)

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return x * weights


def bottleneck(who: str, channels: int, reduction: float, bias: bool = True) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Two 1×1 convolutions, C → C/r → C, which start from He's normal distribution; their biases start from 0.

    Args:
        who: the mechanism they are for, which an error names.
        channels: C.
        reduction: r; C/r is rounded down.
        bias: whether they have biases.

    Raises:
        ValueError: reduction below 1 or above C.
    """
    if not 1 <= reduction <= channels:
        raise ValueError(f"{who}'s reduction must lie between 1 and the {channels} channels, not {reduction}")
    hidden = int(channels // reduction)
    reduce, expand = nn.Conv2d(channels, hidden, 1, bias=bias), nn.Conv2d(hidden, channels, 1, bias=bias)
    for layer in (reduce, expand):
        nn.init.kaiming_normal_(layer.weight)
        if bias:
            nn.init.zeros_(layer.bias)
    return reduce, expand


@torch.fx.wrap
def maximum(x: Tensor) -> Tensor:
    """The maximum of every channel of `x` (B, C, H, W): (B, C, 1, 1).

    Where several pixels share it, the gradient goes to one of them on a CPU, and in equal parts to all of them
    elsewhere. Behind a ReLU that makes no difference in a channel of zeros: there the ReLU's own gradient is zero.
    """
    # On a CPU, max pooling is slower forward, as it notes where the maximum is, but so much faster backward that both
    # together take a third of the time, or less. On CUDA its gradient is not deterministic.
    if x.requires_grad and torch.is_grad_enabled() and x.device.type == "cpu":
        return F.adaptive_max_pool2d(x, 1).flatten(1)[:, :, None, None]
    return x.amax((2, 3), keepdim=True)
