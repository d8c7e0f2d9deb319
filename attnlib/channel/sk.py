"""Selective Kernel: convolutions of different reach side by side, and shares of one that say which of them to hear."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnlib.attention import Attention, Description
from attnlib.probe import Trace, probe
from attnlib.registry import register
from attnlib.replace import Replacement, convolutions


@register("sk")
class SK(Attention):
    """Selective Kernel convolution: a layer that chooses the reach of its kernel, per picture and channel.

    Li, Wang, Hu, Yang, "Selective Kernel Networks", CVPR 2019, arXiv:1903.06586. ::

        U_m = relu(BN(conv_m(x)))                     split: M branches, 3×3 of dilation m, reach 2m+1   (B, C, H, W)
        z   = relu(BN(W · mean of Σ_m U_m))           fuse                                               (B, d)
        a_m = exp(A_m z) / Σ_k exp(A_k z)             select: a softmax over the *branches*              (B, M, C)
        y   = Σ_m a_m · U_m                                                                              (B, C, H, W)

    No map has a bias, and d = max(C/r, L). With M = 2 there are 2·(9C²/G + 2C) + dC + 2d + 2dC parameters.

    It replaces a 3×3 convolution with the normalisation and ReLU behind it, rather than following one; `install` does
    that. As a module of its own (``insert``) it is a further layer.

    Both steps need the branches, the dear part. So `attend` and `use` make them themselves, which keeps the two usable
    alone, and `forward` is written anew instead of composed of the two: it makes the branches once and hands them to
    both (`select`, `merge`). Nothing is kept between the two steps, so there is no state that a copy, a compiler or a
    second thread could meet half-way; and it holds while the weights are watched as well, which `fused` would not, so
    that watching a training does not update the running means of the normalisations twice.

    The mean of the sum is computed as the sum of the means, and the sum U is never formed.

    Args:
        channels: C, channels of the input.
        reduction: r.
        least: L, the smallest d.
        branches: M, 2 or more, or 1 for one plain convolution (its weights are all 1).
        groups: G of each branch; by default the paper's 32, or its largest divisor that divides both channel counts.
        stride: of the branches.
        out_channels: channels of the output; C by default. C in the formulae is then theirs, but for the branches.

    Shapes:
        x (B, C, H, W) → weights (B, M, C, 1, 1) → y (B, C, H, W); H and W are divided by `stride` and rounded up.

    Raises:
        ValueError: groups that do not divide the channels; branches, stride, `least` or reduction below 1; a picture
            alone in training mode, where z is normalised over the batch.
    """

    about = Description(
        title="Selective Kernel",
        paper="Li, Wang, Hu, Yang. Selective Kernel Networks. CVPR 2019. arXiv:1903.06586",
        cite="li2019sk",
        axes=("batch", "branch", "channel", "row", "column"),
        shape=("B", 2, "C", 1, 1),
        kind="softmax",
        sums_over=("branch",),
        passes=6,  # x is read for all branches, each branch written and read again for the sum, and y is written
        looks="convolve with M kernels, mean, softmax over them",
        acts="add up the kernels' outputs by their shares",
    )

    def __init__(
        self,
        channels: int,
        reduction: float = 16,
        *,
        least: int = 32,
        branches: int = 2,
        groups: int | None = None,
        stride: int = 1,
        out_channels: int | None = None,
    ) -> None:
        super().__init__(channels)
        out_channels = channels if out_channels is None else out_channels
        for word, value in (("out_channels", out_channels), ("branches", branches), ("stride", stride),
                            ("least", least), ("reduction", reduction)):
            if value < 1:
                raise ValueError(f"SK's {word} is at least 1, not {value}")
        groups = math.gcd(32, channels, out_channels) if groups is None else groups
        if groups < 1 or channels % groups or out_channels % groups:
            sizes = f"{channels} channels" + (f" and {out_channels} outputs" if out_channels != channels else "")
            raise ValueError(f"SK's groups must divide the {sizes}, which {groups} does not")
        self.stride, self.out_channels = stride, out_channels
        hidden = max(int(out_channels // reduction), least)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, out_channels, 3, stride, reach, reach, groups, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            )
            for reach in range(1, branches + 1)
        )
        self.reduce = nn.Sequential(nn.Conv2d(out_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU())
        self.expand = nn.Conv2d(hidden, branches * out_channels, 1, bias=False)
        for branch in self.branches:
            nn.init.kaiming_normal_(branch[0].weight)

    def describe(self) -> Description:
        out = "C" if self.out_channels == self.channels else self.out_channels
        shape, passes = ("B", len(self.branches), out, 1, 1), 2 + 2 * len(self.branches)
        return dataclasses.replace(super().describe(), shape=shape, passes=passes,
                                   drop_in=self.stride == 1 and out == "C")

    def split(self, x: Tensor) -> list[Tensor]:
        """What each kernel makes of `x`: M times (B, C, H, W)."""
        return [branch(x) for branch in self.branches]

    def select(self, seen: Sequence[Tensor]) -> Tensor:
        """Each branch's share, by channel, given what all of them see: (B, M, C, 1, 1)."""
        mean = sum(branch.mean((2, 3), keepdim=True) for branch in seen)  # (B, C, 1, 1)
        scores = self.expand(self.reduce(mean))  # (B, M·C, 1, 1)
        return scores.unflatten(1, (len(self.branches), self.out_channels)).softmax(1)

    def merge(self, seen: Sequence[Tensor], weights: Tensor) -> Tensor:
        """The branches, added up by their shares: (B, C, H, W)."""
        y = seen[0] * weights[:, 0]
        for number in range(1, len(seen)):
            y = torch.addcmul(y, seen[number], weights[:, number])
        return y

    def attend(self, x: Tensor) -> Tensor:
        return self.select(self.split(x))

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.merge(self.split(x), weights)

    def forward(self, x: Tensor) -> Tensor:
        _check(self, x)
        seen = self.split(x)
        return self.merge(seen, self.weights(self.select(seen), x, self))

    def check(self, x: Tensor) -> None:
        super().check(x)
        if self.training and len(x) == 1:
            raise ValueError("SK normalises over the batch in training: give it two pictures or more, or call eval()")

    @classmethod
    def install(cls, network: nn.Module, where: str | Sequence[str] | None = None, *, example: Tensor | None = None,
                **options: Any) -> Replacement:
        """Replace the 3×3 convolution of each block, its normalisation included, in place.

        Of a block with several, the first, behind which a ReLU follows. Stride and channels are taken over; so are the
        weights, into the first branch, where `groups` leaves them their shape.

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
        for name in convolutions(trace, cls.about.place if where is None else where, who="SK"):
            convolution, norm = network.get_submodule(name), _norm_behind(trace, name)
            attention = cls(convolution.in_channels, stride=convolution.stride[0],
                            out_channels=convolution.out_channels, **options)
            first, first_norm, _ = attention.branches[0]
            if first.weight.shape == convolution.weight.shape:
                first.load_state_dict({"weight": convolution.weight})
                if norm and network.get_submodule(norm).affine:
                    first_norm.load_state_dict(network.get_submodule(norm).state_dict())
            layers[name] = [convolution, attention.to(convolution.weight).train(convolution.training)]
            if norm:
                layers[norm] = [network.get_submodule(norm), nn.Identity()]
        return Replacement(network, layers)


# One opaque step to torch.fx, as in the base class.
@torch.fx.wrap
def _check(attention: Attention, x: Tensor) -> None:
    attention.check(x)


def _norm_behind(trace: Trace, convolution: str) -> str | None:
    """The batch normalisation that works on what `convolution` returns; the branches have their own."""
    made = trace.calls[convolution][0].returns
    return next((name for name, (call, *_) in trace.calls.items()
                 if call.takes == made and isinstance(call.module, nn.BatchNorm2d)), None)
