"""Pyramid split attention: kernels of several sizes side by side, and for each channel a share for every size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.attention import Attention, Description
from attnlib.channel.se import bottleneck
from attnlib.probe import probe
from attnlib.registry import register
from attnlib.replace import Replacement, convolutions

GATES = {"sigmoid": torch.sigmoid, "none": lambda scores: scores}


@register("psa")
class PSA(Attention):
    """Pyramid split attention, which its authors call pyramid squeeze attention.

    Zhang, Zu, Lu, Zou, Meng, "EPSANet: An Efficient Pyramid Squeeze Attention Block on Convolutional Neural Network",
    ACCV 2022, arXiv:2105.14447. (Polarized self-attention and point-wise spatial attention are called PSA too.) ::

        F_i = conv_i(x)                                 split: S kernels of size k_i, C/S channels each   (B, C/S, H, W)
        s_i = sigmoid(W2 relu(W1 mean(F_i) + b1) + b2)  squeeze-and-excitation, the same for every i      (B, C/S)
        a_i = exp(s_i) / Σ_m exp(s_m)                   a softmax over the *kernels*                      (B, C/S)
        y   = the a_i * F_i, one behind the other                                                         (B, C, H, W)

    The convolutions have no biases. With w = C/S and h = w/r there are Σ_i C w k_i² / G_i + 2hw + h + w parameters.

    As its scores are gates between 0 and 1, the softmax cannot close a branch or choose one: with S = 4, no weight is
    below 1/(1 + 3e) = 0.109 or above e/(e + 3) = 0.475. ``gate="none"`` lifts that. And since the branches are put one
    behind the other rather than added up, channel c of one kernel competes with channel c of the others, although these
    are different channels.

    It replaces a 3×3 convolution rather than following one; `install` does that. As a module of its own (``insert``) it
    is a further layer. As in `attnlib.channel.sk.SK`, `attend` and `use` both make the branches, and `forward` makes
    them once.

    The authors' code puts the branches in the reverse order, the largest kernel first, which is
    ``kernels=(9, 7, 5, 3)``: the same but for the order of the channels, which the next layer learns. All convolutions
    start from He's normal distribution. A collection on PyPI (fightingcv-attention 1.0.0) has a module of this name
    without parameters, which overwrites its input.

    Args:
        channels: C, channels of the input.
        reduction: r; the bottleneck has w/r units (rounded down, at least one).
        kernels: the sizes k_i, odd numbers; S is how many they are.
        groups: G_i for every kernel. By default 1 for a kernel up to 3 and 2^((k−1)/2) for a larger one, which is 1, 4,
            8, 16 for the paper's; or the largest divisor of that which divides the channels and w.
        gate: ``"sigmoid"``, the paper's; ``"none"``: the softmax is taken of the scores themselves, as in SK.
        stride: of the branches.
        out_channels: channels of the output; C by default. Then w is theirs.

    Shapes:
        x (B, C, H, W) → weights (B, S, C/S, 1, 1) → y (B, C, H, W); H and W are divided by `stride` and rounded up.

    Raises:
        ValueError: no kernel or one that is not odd; kernels whose number does not divide the output's channels; groups
            of another number, or that do not divide; stride or reduction below 1; an unknown `gate`.
    """

    about = Description(
        title="Pyramid split attention",
        paper="Zhang, Zu, Lu, Zou, Meng. EPSANet: An Efficient Pyramid Squeeze Attention Block on Convolutional Neural "
              "Network. ACCV 2022. arXiv:2105.14447",
        cite="zhang2022epsanet",
        axes=("batch", "branch", "channel", "row", "column"),
        shape=("B", 4, "C/4", 1, 1),
        kind="softmax",
        sums_over=("branch",),
        bounds=(1 / (1 + 3 * math.e), math.e / (math.e + 3)),
        passes=4,  # x is read for all branches, which are as large together: written, read again, and y is written
        looks="convolve with S kernels, SE on each, softmax over them",
        acts="multiply each kernel's channels by their shares",
    )

    def __init__(
        self,
        channels: int,
        reduction: float = 16,
        *,
        kernels: Sequence[int] = (3, 5, 7, 9),
        groups: Sequence[int] | None = None,
        gate: Literal["sigmoid", "none"] = "sigmoid",
        stride: int = 1,
        out_channels: int | None = None,
    ) -> None:
        super().__init__(channels)
        out_channels = channels if out_channels is None else out_channels
        if gate not in GATES:
            raise ValueError(f"PSA's gate is one of {', '.join(GATES)}, not {gate!r}")
        for word, value in (("out_channels", out_channels), ("stride", stride), ("reduction", reduction)):
            if value < 1:
                raise ValueError(f"PSA's {word} is at least 1, not {value}")
        groups = _checked(channels, out_channels, kernels, groups)
        self.width = out_channels // len(kernels)
        self.gate, self.stride, self.out_channels = gate, stride, out_channels
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, self.width, kernel, stride, kernel // 2, groups=group, bias=False)
            for kernel, group in zip(kernels, groups)
        )
        self.reduce, self.expand = bottleneck("PSA", self.width, min(reduction, self.width))
        for branch in self.branches:
            nn.init.kaiming_normal_(branch.weight)

    def describe(self) -> Description:
        others = len(self.branches) - 1
        bounds = (1 / (1 + others * math.e), math.e / (math.e + others)) if self.gate == "sigmoid" else (0.0, 1.0)
        return dataclasses.replace(
            super().describe(), shape=("B", len(self.branches), self.width, 1, 1), bounds=bounds,
            drop_in=self.stride == 1 and self.out_channels == self.channels,
        )

    def split(self, x: Tensor) -> list[Tensor]:
        """What each kernel makes of `x`: S times (B, C/S, H, W)."""
        return [branch(x) for branch in self.branches]

    def select(self, seen: Sequence[Tensor]) -> Tensor:
        """Each kernel's share, by channel, given what all of them see: (B, S, C/S, 1, 1)."""
        means = torch.stack([branch.mean((2, 3), keepdim=True) for branch in seen], 1)  # (B, S, C/S, 1, 1)
        # The bottleneck is the same for all kernels: they go through it as pictures of one batch.
        scores = self.expand(F.relu(self.reduce(means.flatten(0, 1)))).unflatten(0, means.shape[:2])
        return GATES[self.gate](scores).softmax(1)

    def merge(self, seen: Sequence[Tensor], weights: Tensor) -> Tensor:
        """The branches times their shares, one behind the other: (B, C, H, W)."""
        return torch.cat([branch * weights[:, number] for number, branch in enumerate(seen)], 1)

    def attend(self, x: Tensor) -> Tensor:
        return self.select(self.split(x))

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.merge(self.split(x), weights)

    def forward(self, x: Tensor) -> Tensor:
        _check(self, x)
        seen = self.split(x)
        return self.merge(seen, self.weights(self.select(seen), x, self))

    @classmethod
    def install(cls, network: nn.Module, where: str | Sequence[str] | None = None, *, example: Tensor | None = None,
                **options: Any) -> Replacement:
        """Replace the 3×3 convolution of each block, in place; the normalisation behind it stays.

        Of a block with several, the first. Stride and channels are taken over; weights are not, as no kernel has their
        shape.

        Args:
            network: any network that takes one picture tensor.
            where: one of `insert`'s places, or names: the convolution is the first at that place, inside the block or
                the stage that ends there; by default every block's.
            example: an input for the one pass that finds the places, as for `insert`.
            options: of this class.

        Returns:
            A handle that puts the convolutions back, and the mechanisms in again.

        Raises:
            ValueError: no such place, or one without a 3×3 convolution; or options that are refused.
        """
        network = getattr(network, "_orig_mod", network)
        trace = probe(network, example)
        layers: dict[str, list[nn.Module]] = {}
        for name in convolutions(trace, cls.about.place if where is None else where, who="PSA"):
            convolution = network.get_submodule(name)
            attention = cls(convolution.in_channels, stride=convolution.stride[0],
                            out_channels=convolution.out_channels, **options)
            layers[name] = [convolution, attention.to(convolution.weight).train(convolution.training)]
        return Replacement(network, layers)


# One opaque step to torch.fx, as in the base class.
@torch.fx.wrap
def _check(attention: Attention, x: Tensor) -> None:
    attention.check(x)


def _checked(channels: int, out_channels: int, kernels: Sequence[int], groups: Sequence[int] | None) -> list[int]:
    """The groups of each kernel, where kernels and groups are possible."""
    if not kernels or any(not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0 for kernel in kernels):
        raise ValueError(f"PSA's kernels are odd numbers, at least one, not {kernels!r}")
    width, left = divmod(out_channels, len(kernels))
    if left:
        raise ValueError(f"PSA divides {out_channels} channels among {len(kernels)} kernels, which leaves {left} over")
    if groups is None:
        groups = [math.gcd(2 ** (kernel // 2) if kernel > 3 else 1, channels, width) for kernel in kernels]
    if len(groups) != len(kernels):
        raise ValueError(f"PSA needs groups for each of its {len(kernels)} kernels, not {list(groups)}")
    if any(group < 1 or channels % group or width % group for group in groups):
        raise ValueError(f"PSA's groups must divide the {channels} channels and the {width} of each kernel, "
                         f"not {list(groups)}")
    return list(groups)
