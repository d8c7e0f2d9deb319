"""Residual attention: an hourglass beside the trunk makes a mask, and what passes the mask is added to the trunk."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.attention import Attention, Description
from attnlib.insert import insert
from attnlib.places import Places
from attnlib.probe import probe
from attnlib.registry import create, is_registered, register

# From the scores (B, C, H, W) to the mask.
MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "mixed": torch.sigmoid,
    "channel": lambda scores: F.normalize(scores, dim=1),
    "spatial": lambda scores: torch.sigmoid(_standardized(scores)),
}
BOUNDS = {"mixed": (0.0, 1.0), "channel": (-1.0, 1.0), "spatial": (0.0, 1.0)}


@register("residual_attention")
class ResidualAttention(Attention):
    """Attention module of the Residual Attention Network: (1 + mask) · trunk, both computed from the same map.

    Wang, Jiang, Qian, Yang, Li, Zhang, Wang, Tang, "Residual Attention Network for Image Classification", CVPR 2017,
    arXiv:1704.06904. ::

        u = p residual units of x                   before the fork     (B, C, H, W)
        T = t residual units of u                   trunk               (B, C, H, W)
        M = sigmoid(scores(hourglass(u)))           mask                (B, C, H, W)
        y = p residual units of (1 + M) · T         after the join      (B, C, H, W)

    The hourglass pools d times (3×3 maxima, stride 2), with r units after each pooling; then r units before each of d
    bilinear enlargements, back to the size from before that pooling, so that every H and W will do. To each enlarged
    map but the last the map of its size on the way down is added, through a unit of its own. The scores are
    two 1×1 convolutions, each behind batch normalisation and ReLU. A residual unit is a pre-activation bottleneck,
    v + W₃ f(W₂ f(W₁ f(v))) with f = relu(BN(·)), where W₂ is 3×3 and has h = C/4 channels. Nothing has a bias; all
    convolutions start from He's normal distribution.

    There are 2p + t + 2rd + d − 1 units of 2hC + 9h² + 2C + 4h parameters, and 2C² + 4C in the scores.

    With ``p=0, t=0`` the trunk is x itself: y = (1 + M(x)) · x, an attention with nothing beside it, which compares
    with the other mechanisms. ``unit=`` builds trunk and mask from other layers.

    The 1 is the paper's attention residual learning: a mask of 0 leaves the trunk as it is, so that neutral weights are
    0. With ``learning="naive"`` the masked trunk is M · T, and many masks in a row make the features vanish; there
    neutral weights are 1.

    The layers and their order are those of the authors' network files. How pooling and enlargement meet the borders the
    paper does not say; here windows are centred on every second position and corners put on corners, as in pytorchcv's
    network. In the authors' files the windows begin at every second position and the last is cut off, which gives
    nothing for a single row or column. pytorchcv's block differs from those files in two sums without parameters: what
    enters a skip connection is added once more beside it, and the trunk is added to the mask's branch before
    the scores. After the join it always has one unit.

    Args:
        channels: C, channels of the input.
        p: units before the fork, and as many after the join.
        t: units of the trunk.
        r: units between two poolings, and between two enlargements.
        depth: d, how often the mask's branch is pooled. In a network for ImageNet it is 3, 2 and 1 in the three stages,
            so that each mask is made from 7×7 positions; see `install`.
        learning: ``"residual"``, or ``"naive"`` for M · T, the paper's ablation.
        mask: what the scores become: ``"mixed"``, the paper's sigmoid; ``"channel"``, its ablation: divided by their
            length over the channels of a position; ``"spatial"``, its other one: standardised over the positions
            of a channel before the sigmoid.
        unit: makes a residual unit for a number of channels; by default `Unit`. It must keep the shape.

    Shapes:
        x (B, C, H, W) → weights (B, C, H, W) → y (B, C, H, W).

    Raises:
        ValueError: p, t or r below 0 or d below 1, no whole numbers, or an unknown word for `learning` or `mask`; in
            training mode one picture that is pooled to one position, where there is nothing to normalise over.
    """

    about = Description(
        title="Residual attention",
        paper="Wang, Jiang, Qian, Yang, Li, Zhang, Wang, Tang. Residual Attention Network for Image Classification. "
              "CVPR 2017. arXiv:1704.06904",
        cite="wang2017residual",
        axes=("batch", "channel", "row", "column"),
        shape=("B", "C", "H", "W"),
        passes=11,  # each of 2p + t units reads and writes; u is read for the mask, T is read, and y is written
        place="transition",
        looks="pool and convolve down, up again with skips, sigmoid",
        acts="multiply the trunk's features by one plus the mask",
    )

    def __init__(
        self,
        channels: int,
        p: int = 1,
        t: int = 2,
        r: int = 1,
        depth: int = 2,
        *,
        learning: Literal["residual", "naive"] = "residual",
        mask: Literal["mixed", "channel", "spatial"] = "mixed",
        unit: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__(channels)
        for name, number, least in (("p", p, 0), ("t", t, 0), ("r", r, 0), ("depth", depth, 1)):
            if not isinstance(number, int) or number < least:
                raise ValueError(f"ResidualAttention's {name} is a whole number from {least} on, not {number!r}")
        for word, value, known in (("learning", learning, ("residual", "naive")), ("mask", mask, tuple(MASKS))):
            if value not in known:
                raise ValueError(f"ResidualAttention's {word} is one of {', '.join(known)}, not {value!r}")
        self.p, self.t, self.r, self.depth, self.learning, self.mask = p, t, r, depth, learning, mask
        unit = Unit if unit is None else unit
        self.before = _units(channels, p, unit)
        self.trunk = _units(channels, t, unit)
        self.hourglass = Hourglass(channels, r, depth, unit)
        self.scores = nn.Sequential(*_activated(channels, channels), *_activated(channels, channels))
        self.after = _units(channels, p, unit)

    def describe(self) -> Description:
        passes = 3 + 2 * (2 * self.p + self.t)
        return dataclasses.replace(super().describe(), bounds=BOUNDS[self.mask], passes=passes)

    def look(self, u: Tensor) -> Tensor:
        """The mask, given what comes out before the fork: (B, C, H, W)."""
        return MASKS[self.mask](self.scores(self.hourglass(u)))

    def join(self, u: Tensor, mask: Tensor) -> Tensor:
        """The output, given the same and a mask: (B, C, H, W)."""
        trunk = self.trunk(u)
        masked = torch.addcmul(trunk, trunk, mask) if self.learning == "residual" else trunk * mask
        return self.after(masked)

    def attend(self, x: Tensor) -> Tensor:
        return self.look(self.before(x))

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.join(self.before(x), weights)

    def forward(self, x: Tensor) -> Tensor:
        # As in SK: what both steps need is computed once, also while the weights are watched.
        _check(self, x)
        u = self.before(x)
        return self.join(u, self.weights(self.look(u), x, self))

    def neutral(self, x: Tensor, weights: Tensor) -> Tensor:
        """What leaves the trunk as it is: 0 where 1 is added to the mask, and 1 where it is not."""
        return torch.zeros_like(weights) if self.learning == "residual" else torch.ones_like(weights)

    def check(self, x: Tensor) -> None:
        super().check(x)
        if self.training and self.r and len(x) == 1 and max(x.shape[2:]) <= 2**self.depth:
            raise ValueError(
                f"ResidualAttention normalises over pictures and positions in training, and {self.depth} poolings "
                f"leave one position of one picture of {x.shape[2]} × {x.shape[3]}: give it two, or call eval()"
            )

    @classmethod
    def install(cls, network: nn.Module, where: str | Sequence[str] | None = None, *, example: Tensor | None = None,
                depth: int | None = None, **options: Any):
        """Put one behind every stage but the last, as in the paper; return the handle of `insert`.

        Args:
            network: any network that takes one picture tensor.
            where: one of `insert`'s places, or names.
            example: an input for the one pass that finds the places, as for `insert`.
            depth: of all of them; by default 1 where the maps are smallest, and one more for each time they are twice
                as large, so that all masks are made from equally many positions.
            options: of this class.

        Raises:
            ValueError: as for `insert`.
        """
        where = where or cls.about.place
        make = functools.partial(create, cls.about.name) if is_registered(cls) else cls  # for its clearer errors
        if depth is not None:
            return insert(network, functools.partial(make, depth=depth, **options), where, example=example)
        trace = probe(getattr(network, "_orig_mod", network), example)
        rows = [trace.output(name).shape[2] for name in Places(trace).find(where)]
        depths = iter([1 + round(math.log2(some / min(rows))) for some in rows])
        return insert(network, lambda channels: make(channels, depth=next(depths), **options), where, example=example)


class Unit(nn.Module):
    """Residual unit with pre-activation: 1×1 to C/4 channels, 3×3, 1×1 back, each behind normalisation and ReLU.

    He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016, arXiv:1603.05027.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 4)
        self.body = nn.Sequential(
            *_activated(channels, hidden), *_activated(hidden, hidden, 3), *_activated(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Hourglass(nn.Module):
    """Down by `depth` poolings and up again, with residual units on both ways and between them; keeps the shape."""

    def __init__(self, channels: int, r: int, depth: int, unit: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.down = nn.ModuleList(_units(channels, r, unit) for _ in range(depth))
        self.up = nn.ModuleList(_units(channels, r, unit) for _ in range(depth))
        self.skip = nn.ModuleList(unit(channels) for _ in range(depth - 1))

    def forward(self, x: Tensor) -> Tensor:
        levels = [x]
        for units in self.down:
            levels.append(units(F.max_pool2d(levels[-1], 3, stride=2, padding=1)))
        y = levels.pop()
        for units in self.up:
            level = levels.pop()
            y = F.interpolate(units(y), size=level.shape[2:], mode="bilinear", align_corners=True)
            if levels:  # the size of x itself has no skip connection: the trunk is beside it
                y = y + self.skip[len(levels) - 1](level)
        return y


def _units(channels: int, count: int, unit: Callable[[int], nn.Module]) -> nn.Sequential:
    return nn.Sequential(*(unit(channels) for _ in range(count)))


def _activated(channels_in: int, channels_out: int, size: int = 1) -> list[nn.Module]:
    """Normalisation, ReLU and a convolution that keeps the size of the map."""
    convolution = nn.Conv2d(channels_in, channels_out, size, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight)
    return [nn.BatchNorm2d(channels_in), nn.ReLU(inplace=True), convolution]


def _standardized(scores: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over the positions of each channel."""
    centred = scores - scores.mean((2, 3), keepdim=True)
    return centred * (centred.square().mean((2, 3), keepdim=True) + 1e-5).rsqrt()


# One opaque step to torch.fx, as in the base class.
@torch.fx.wrap
def _check(attention: Attention, x: Tensor) -> None:
    attention.check(x)
