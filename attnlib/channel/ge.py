"""Gather-Excite: every region of the picture gets a gate for each channel, computed from the region's surroundings."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.attention import Attention, Description
from attnlib.channel.se import bottleneck
from attnlib.registry import register

GATHERS = ("average", "conv")
EXCITES = ("plain", "subnetwork")


@register("ge")
class GE(Attention):
    """Gather-Excite block.

    Hu, Shen, Albanie, Sun, Vedaldi, "Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks",
    NeurIPS 2018, arXiv:1810.12348. With the extent (ratio) e, the map of H×W positions becomes one of h×w, where
    h = H/e and w = W/e are rounded up. ::

        g[u, v] = summary of the x[i, j] with |i − e·u| < e and |j − e·v| < e     gather    (B, C, h, w)
        y = sigmoid(interp(g)) * x                                               excite    (B, C, H, W)

    `interp` stretches the small map to H×W by its nearest entries. A window reaches e − 1 positions to both sides of
    e·u, so that it overlaps its neighbours; the gate computed from it is for the e×e positions that *begin* there.
    The paper's names for the pairs:

    ==========  ==================  ========================  =======================================================
    name        `gather`            `excite`                  parameters, for C channels
    ==========  ==================  ========================  =======================================================
    GE-θ⁻       ``"average"``       ``"plain"``               none
    GE-θ        ``"conv"``          ``"plain"``               11 C log₂(e); global: (H W + 2) C
    GE-θ⁺       ``"conv"``          ``"subnetwork"``          those, and 2 C C/r + C/r + C
    SE          ``"average"``       ``"subnetwork"``          2 C C/r + C/r + C, with the global extent
    ==========  ==================  ========================  =======================================================

    The sigmoid is taken before stretching, which gives the same numbers and takes fewer exponentials: the weights are
    the small map. As in the authors' released networks (global ones only; they gave none with another extent), the
    convolutions have no biases and the subnetwork has. Between two convolutions there is a ReLU, as in timm's block; no
    network file of the authors has more than one of them. The subnetwork starts from He's normal
    distribution, as in `SE`; theirs from one of deviation 0.01. Averages at the border are over the positions that
    exist. Where H is no multiple of e, the nearest entry is that of resizing: floor(i · h / H), not floor(i / e).

    Args:
        channels: C, channels of the input.
        extent: e, a power of two (the paper's are 2, 4 and 8), or ``"global"``: one window, the whole map.
        gather: ``"average"``, or ``"conv"``: log₂(e) depth-wise 3×3 convolutions of stride 2, each with a batch
            normalisation; with the global extent one depth-wise kernel of the size of the map.
        excite: ``"plain"``: the gathered values are the gates' arguments, each channel by itself; ``"subnetwork"``:
            two 1×1 convolutions mix the channels before, C → C/r → C; with ``gather="conv"`` after a ReLU.
        reduction: r of the subnetwork, which has C/r channels inside (rounded down, at least one).
        size: (H, W) of the map, or one number for both; needed by ``gather="conv"`` with the global extent alone.
        normalize: standardise every gathered channel over the batch and its positions (batch normalisation without
            parameters) before the excitation. Not in the paper, whose ``"conv"`` does it already; see `SE`.

    Shapes:
        x (B, C, H, W) → weights (B, C, h, w), or (B, C, 1, 1) with the global extent → y (B, C, H, W). H and W need
        not be multiples of e.

    Raises:
        ValueError: an extent that is no power of two, an unknown word for `gather` or `excite`, a reduction below 1 or
            above C, a missing or superfluous `size`, or an input of another size than that.
    """

    about = Description(
        title="Gather-Excite",
        paper="Hu, Shen, Albanie, Sun, Vedaldi. Gather-Excite: Exploiting Feature Context in Convolutional Neural "
              "Networks. NeurIPS 2018. arXiv:1810.12348",
        cite="hu2018ge",
        axes=("batch", "channel", "row", "column"),
        shape=("B", "C", 1, 1),
        passes=3,  # x is read for the windows, read again for the product, and y is written
        looks="mean of each channel in a window, sigmoid",
        acts="multiply the positions of a window by its gate",
    )

    def __init__(
        self,
        channels: int,
        extent: int | Literal["global"] = "global",
        *,
        gather: Literal["average", "conv"] = "average",
        excite: Literal["plain", "subnetwork"] = "plain",
        reduction: float = 16,
        size: int | tuple[int, int] | None = None,
        normalize: bool = False,
    ) -> None:
        super().__init__(channels)
        for word, value, known in (("gather", gather, GATHERS), ("excite", excite, EXCITES)):
            if value not in known:
                raise ValueError(f"GE's {word} is one of {', '.join(known)}, not {value!r}")
        if extent != "global" and not _is_power_of_two(extent):
            raise ValueError(f"GE's extent is a power of two from 2 on, or 'global', not {extent!r}")
        self.extent = extent
        self.size = _checked_size(size, needed=gather == "conv" and extent == "global")
        self.gather = Average(extent) if gather == "average" else _convolutions(channels, extent, self.size)
        self.standardize = nn.BatchNorm2d(channels, affine=False) if normalize else nn.Identity()
        self.excite = nn.Identity() if excite == "plain" else _subnetwork(channels, reduction, relu=gather == "conv")

    def describe(self) -> Description:
        about = super().describe()
        return about if self.extent == "global" else dataclasses.replace(about, shape=("B", "C", "h", "w"))

    def check(self, x: Tensor) -> None:
        super().check(x)
        if self.size is not None and tuple(x.shape[2:]) != self.size:
            raise ValueError(
                f"GE's kernel was made for maps of {self.size[0]} × {self.size[1]}, but the input has "
                f"{x.shape[2]} × {x.shape[3]}; build it with size={tuple(x.shape[2:])}, or gather by 'average'"
            )

    def attend(self, x: Tensor) -> Tensor:
        gathered = self.standardize(self.gather(x))  # (B, C, h, w)
        return torch.sigmoid(self.excite(gathered))  # (B, C, h, w)

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return scale(x, weights)


class Average(nn.Module):
    """The mean of each channel in windows that reach ``extent - 1`` positions to all sides, ``extent`` apart."""

    def __init__(self, extent: int | Literal["global"]) -> None:
        super().__init__()
        self.extent = extent

    def forward(self, x: Tensor) -> Tensor:
        if self.extent == "global":
            return x.mean((2, 3), keepdim=True)
        e = self.extent
        return F.avg_pool2d(x, kernel_size=2 * e - 1, stride=e, padding=e - 1, count_include_pad=False)


@torch.fx.wrap
def scale(x: Tensor, gates: Tensor) -> Tensor:
    """`x` (B, C, H, W) times `gates` (B, C, h, w), stretched to H×W by the nearest entry: floor(i · h / H)."""
    (rows, columns), (h, w) = x.shape[2:], gates.shape[2:]
    if (h, w) == (1, 1):
        return x * gates
    if rows % h == 0 and columns % w == 0:
        # Along a row the gates are repeated, down the rows they are broadcast. The stretched map is never formed, and
        # the backward pass adds up whole rows: broadcast over its block, a gate would be the sum of many short pieces.
        wide = gates.repeat_interleave(columns // w, dim=3)
        return (x.unflatten(2, (h, rows // h)) * wide[:, :, :, None]).flatten(2, 3)
    return x * gates[:, :, _nearest(h, rows, x)][:, :, :, _nearest(w, columns, x)]


def _nearest(few: int, many: int, like: Tensor) -> Tensor:
    return torch.arange(many, device=like.device) * few // many


def _is_power_of_two(extent: object) -> bool:
    return isinstance(extent, int) and extent >= 2 and extent & (extent - 1) == 0


def _checked_size(size: int | tuple[int, int] | None, needed: bool) -> tuple[int, int] | None:
    if not needed:
        if size is not None:
            raise ValueError("GE needs a size only with gather='conv' and the global extent; leave it out")
        return None
    size = (size, size) if isinstance(size, int) else size
    if size is None or len(size) != 2 or min(size) < 1:
        raise ValueError(f"GE's global kernel is as large as the map: give its size=(rows, columns), not {size!r}")
    return tuple(size)


def _convolutions(channels: int, extent: int | Literal["global"], size: tuple[int, int] | None) -> nn.Sequential:
    """Depth-wise convolutions that summarise the windows, each with its batch normalisation."""
    layers: list[nn.Module] = []
    for index in range(1 if extent == "global" else int(math.log2(extent))):
        if extent == "global":
            conv = nn.Conv2d(channels, channels, size, groups=channels, bias=False)
        else:
            conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
        nn.init.kaiming_normal_(conv.weight)
        layers += [nn.ReLU()] * (index > 0) + [conv, nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers)


def _subnetwork(channels: int, reduction: float, relu: bool) -> nn.Sequential:
    """Two 1×1 convolutions, down to C/r channels and up again."""
    down, up = bottleneck("GE", channels, reduction)
    return nn.Sequential(*[nn.ReLU()] * relu, down, nn.ReLU(), up)
