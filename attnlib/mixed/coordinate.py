"""Coordinate attention: a gate for every row and one for every column of each channel."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.attention import Attention, Description
from attnlib.registry import register

SHAPES = {"both": ("B", "C", "H", "W"), "rows": ("B", "C", "H", 1), "columns": ("B", "C", 1, "W")}


class Gates(NamedTuple):
    """The two factors of the weights; None where that direction is left out."""

    rows: Tensor | None
    columns: Tensor | None


@register("coordinate")
class Coordinate(Attention):
    """Coordinate attention.

    Hou, Zhou, Feng, "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021, arXiv:2103.02907. ::

        z = means of the rows, then means of the columns, in one line     (B, C, H + W)
        f = hswish(BN(W1 z + b1)), with h = max(L, C/r) channels          (B, h, H + W)
        r = sigmoid(Wr f + br) at the first H places                      (B, C, H)
        c = sigmoid(Wc f + bc) at the others                              (B, C, W)
        y[i, j] = r[i] * c[j] * x[i, j]                                   (B, C, H, W)

    There are 3hC + 3h + 2C parameters. Every place of the line is computed by itself, so the gate of a row depends on
    the mean of that row alone (and, in training, on the batch through the normalisation). It is told what is in the row
    and not which row it is: permuted rows get permuted gates.

    The weights are the product r[i] · c[j], which is what multiplies x: a map for each channel. `gates` gives the two
    factors.

    The paper leaves the non-linearity open; hswish (x · relu6(x + 3) / 6), the biases and L = 8 are those of the
    authors' code. In the paper the module stands inside a block of MobileNetV2, behind the depth-wise convolution;
    `install` puts it at the end of a residual branch. The linear maps start from He's normal distribution, their biases
    from 0, as in `attnlib.channel.se`. timm's module finds h by another rule unless it is given ``rd_channels``, and
    has biases only with ``bias=True``.

    Args:
        channels: C, channels of the input.
        reduction: r.
        least: L, the smallest h.
        directions: ``"both"``, the paper's; ``"rows"`` or ``"columns"``, its ablations, have the gates of that one
            direction, and hC + C parameters less.

    Shapes:
        x (B, C, H, W) → weights (B, C, H, W) → y (B, C, H, W). The weights of rows alone are (B, C, H, 1), those of
        columns alone (B, C, 1, W).

    Raises:
        ValueError: reduction or `least` below 1, or an unknown word for `directions`; in training mode, a picture
            alone with a single row (or column) to look at, which leaves nothing to normalise over.
    """

    about = Description(
        title="Coordinate attention",
        paper="Hou, Zhou, Feng. Coordinate Attention for Efficient Mobile Network Design. CVPR 2021. arXiv:2103.02907",
        cite="hou2021coordinate",
        axes=("batch", "channel", "row", "column"),
        shape=SHAPES["both"],
        passes=3,  # one reading can give both means; then x is read for the product, and y is written
        looks="means of every row and column, one shared layer, sigmoids",
        acts="multiply each position by its row's and column's gate",
    )

    def __init__(
        self,
        channels: int,
        reduction: float = 32,
        *,
        least: int = 8,
        directions: Literal["both", "rows", "columns"] = "both",
    ) -> None:
        super().__init__(channels)
        for word, value in (("reduction", reduction), ("least", least)):
            if value < 1:
                raise ValueError(f"Coordinate's {word} is at least 1, not {value}")
        if directions not in SHAPES:
            raise ValueError(f"Coordinate's directions is one of {', '.join(SHAPES)}, not {directions!r}")
        self.directions = directions
        hidden = max(int(channels // reduction), least)
        self.reduce, self.norm = nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden)
        self.rows = nn.Conv2d(hidden, channels, 1) if directions != "columns" else None
        self.columns = nn.Conv2d(hidden, channels, 1) if directions != "rows" else None
        for layer in filter(None, (self.reduce, self.rows, self.columns)):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def describe(self) -> Description:
        return dataclasses.replace(super().describe(), shape=SHAPES[self.directions])

    def check(self, x: Tensor) -> None:
        super().check(x)
        looked_at = {"both": x.shape[2] + x.shape[3], "rows": x.shape[2], "columns": x.shape[3]}[self.directions]
        if self.training and len(x) * looked_at == 1:
            raise ValueError("Coordinate normalises over the batch and its rows or columns in training: "
                             "give it two pictures or more, or call eval()")

    def gates(self, x: Tensor) -> Gates:
        """The gates of the rows (B, C, H, 1) and of the columns (B, C, 1, W)."""
        height = x.shape[2] if self.rows is not None else 0
        line = strips(x, self.rows is not None, self.columns is not None)  # (B, C, H + W, 1)
        hidden = F.hardswish(self.norm(self.reduce(line)))  # (B, h, H + W, 1)
        rows = columns = None
        if self.rows is not None:
            rows = torch.sigmoid(self.rows(hidden[:, :, :height]))
        if self.columns is not None:
            columns = torch.sigmoid(self.columns(hidden[:, :, height:])).transpose(2, 3)
        return Gates(rows, columns)

    def attend(self, x: Tensor) -> Tensor:
        rows, columns = self.gates(x)
        if rows is None or columns is None:
            return columns if rows is None else rows
        return rows * columns  # (B, C, H, W)

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        return x * weights


@torch.fx.wrap
def strips(x: Tensor, rows: bool = True, columns: bool = True) -> Tensor:
    """The means of the rows, and behind them those of the columns, of `x` (B, C, H, W): (B, C, H + W, 1)."""
    # Where channels lie last in memory, the results must too, or the sums take ten times as long.
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    seen, along = (x.permute(0, 2, 3, 1), 1) if last else (x, 2)
    means = [_mean(seen, axis) for axis, wanted in ((along + 1, rows), (along, columns)) if wanted]
    line = torch.cat(means, along) if len(means) > 1 else means[0]
    return line.unsqueeze(2).permute(0, 3, 1, 2) if last else line.unsqueeze(3)


def _mean(x: Tensor, axis: int) -> Tensor:
    # The gradient of a sum is no tensor of its own, that of a mean is one as large as x. Sums may overflow float16.
    return x.mean(axis) if x.dtype == torch.float16 else x.sum(axis) / x.shape[axis]
