"""The planted task of the odd one out: several figures, all of one colour, or of one shape, but one."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from attnlib.data._painting import coverage
from attnlib.data.pictures import Pictures, check_count
from attnlib.data.scenes import _pair

COLOURS = ("orange", "blue", "green", "pink")
SHAPES = ("disc", "square", "diamond", "cross")
FEATURES = {"colour": COLOURS, "shape": SHAPES}
# Okabe and Ito's, which the colour-blind can tell apart, too; and a dark ground.
RGB = torch.tensor([[0.90, 0.62, 0.00], [0.34, 0.71, 0.91], [0.00, 0.62, 0.45], [0.80, 0.47, 0.65]])
_GROUND = 0.12
# Pixels: the cell of a grid in which a figure stands at random, and the least and the greatest radius of a figure.
CELL, _RADIUS = 8, (2.2, 3.2)


def odd_one_out(
    count: int, figures: int | tuple[int, int] = (4, 6), by: Literal["colour", "shape"] = "colour", size: int = 32, *,
    swap: bool = False, noise: float = 0.05, seed: int = 0,
) -> Pictures:
    """Small figures on a dark ground, all of one colour but one: that one is the salient object.

    Figures stand in different cells of a grid, each at random within its cell. Two colours are drawn for every picture,
    in any order, one for the odd figure and one for all the others; the shape of each figure is drawn by itself. With
    ``by="shape"`` it is the other way round. A figure by itself, or its surroundings without another figure, says
    nothing about whether it is the odd one: to know, something has to compare figures that lie apart. People see the
    odd one at once however many others there are (Treisman, Gelade, "A feature-integration theory of attention",
    Cognitive Psychology 12, 1980).

    Args:
        count: number of pictures N.
        figures: how many, or the least and the greatest number of them, drawn at random; 3 or more, as of two none is
            odd. K is the greatest.
        by: what the odd figure differs in.
        size: height and width in pixels, at least 16; there are as many cells as 8×8 squares in the middle of it: 16
            in 32.
        swap: the same pictures with the parts exchanged: the first two figures stay as they are, pixel for pixel, all
            others take the feature of the first, and so the second becomes the odd one.
        noise: standard deviation of the Gaussian noise in the brightness of every pixel.
        seed: the same seed gives the same pictures. With another `by`, figures stay in their cells.

    Returns:
        Pictures with images (N, 3, size, size) in 0–1; labels 0–3, the colour or the shape of the odd figure; and in
        `truth`: ``mask`` (N, size, size) bool, where the odd figure is; ``instances`` which figure, 1–K, or 0, uint8:
        the odd one is 1, or 2 with `swap`; ``figures`` (N,) how many there are; ``colours`` and ``shapes`` (N, K), −1
        for a figure that is not there; ``common`` (N,) the colour or shape of the others.

    Raises:
        ValueError: fewer than one picture or three figures, more figures than cells, a size below 16, a noise below 0,
            or another feature.
    """
    least, most = _pair("figures", figures)
    side = size // CELL
    _check(count, least, most, by, size, noise, side)
    rng = torch.Generator().manual_seed(seed)
    number = torch.randint(least, most + 1, (count,), generator=rng)
    there = torch.arange(most) < number[:, None]
    common, step = torch.randint(4, (count,), generator=rng), torch.randint(1, 4, (count,), generator=rng)
    odd, number_of_odd = (common + step) % 4, 0
    if swap:
        odd, common, number_of_odd = common, odd, 1
    asked = torch.where(torch.arange(most) == number_of_odd, odd[:, None], common[:, None])
    free = torch.randint(4, (count, most), generator=rng)
    colours, shapes = (asked, free) if by == "colour" else (free, asked)

    inside = _figures(shapes, there, rng)  # (N, K, CELL, CELL)
    cells = torch.rand(count, side * side, generator=rng).argsort(1)[:, :most]
    paint = inside[:, :, None] * (RGB[colours] - _GROUND)[..., None, None]
    images = _GROUND + _in_cells(paint, cells, size)
    images += noise * torch.randn(count, 1, size, size, generator=rng)
    which = (inside > 0.5) * torch.arange(1, most + 1)[:, None, None]
    instances = _in_cells(which[:, :, None], cells, size)[:, 0].to(torch.uint8)
    return Pictures(
        images=images.clamp_(0, 1),
        labels=odd,
        classes=FEATURES[by],
        truth={
            "mask": instances == number_of_odd + 1, "instances": instances, "figures": number, "common": common,
            "colours": colours.masked_fill(~there, -1), "shapes": shapes.masked_fill(~there, -1),
        },
        name=f"odd one out, by {by}",
        source="procedural",
    )


def through_window(pictures: Pictures, side: int) -> Tensor:
    """The probability that each pixel belongs to the odd figure, told as well as a square window around it allows.

    Who sees a figure and another of its colour knows that it is not the odd one; who sees two or more, all of another
    colour, knows that it is; with one of another colour it may be either, and by itself it is the odd one of K with a
    probability of 1/K. A figure counts as seen where a pixel of it lies in the window. What a network can tell that
    sees no further is no more than this.

    Args:
        pictures: of `odd_one_out`, odd by either feature.
        side: of the window in pixels, odd; the pixel is in its middle.

    Returns:
        (N, H, W), float32; 0 on the ground.

    Raises:
        ValueError: a side that is even or below 1.
    """
    if side < 1 or side % 2 == 0:
        raise ValueError(f"the window around a pixel has an odd side, not {side}")
    truth, figures = pictures.truth, pictures.truth["figures"][:, None, None]
    feature = truth["colours" if pictures.classes == COLOURS else "shapes"]
    own = truth["instances"][:, None] == torch.arange(1, feature.shape[1] + 1)[:, None, None]  # (N, K, H, W)
    rows = F.max_pool2d(own.float(), (side, 1), 1, (side // 2, 0))
    others = F.max_pool2d(rows, (1, side), 1, (0, side // 2)).bool() & ~own
    here = (own * feature[..., None, None]).sum(1, keepdim=True)
    alike = feature[..., None, None] == here
    same, different = (others & alike).sum(1), (others & ~alike).sum(1)
    told = torch.where(different == 1, 0.5, torch.where(different > 1, 1.0, 1 / figures))
    return torch.where(own.any(1) & (same == 0), told, 0.0)


def _figures(shapes: Tensor, there: Tensor, rng: torch.Generator) -> Tensor:
    """How much of each pixel of its cell every figure covers: (N, K, CELL, CELL)."""
    size, right, down = torch.rand(3, *shapes.shape, 1, 1, generator=rng)
    radius = _RADIUS[0] + (_RADIUS[1] - _RADIUS[0]) * size
    room = CELL / 2 - radius
    pixels = torch.arange(CELL) + 0.5 - CELL / 2
    x, y = (pixels - room * (2 * right - 1)).abs(), (pixels[:, None] - room * (2 * down - 1)).abs()
    far, near = torch.maximum(x, y), torch.minimum(x, y)
    distances = torch.stack([
        torch.hypot(x, y) - radius, far - 0.89 * radius, (x + y - 1.25 * radius) / 2**0.5,
        torch.maximum(far - radius, near - 0.45 * radius),
    ], 2)
    index = shapes[:, :, None, None, None].expand(-1, -1, 1, CELL, CELL)
    return coverage(distances.gather(2, index)[:, :, 0]) * there[..., None, None]


def _in_cells(patches: Tensor, cells: Tensor, size: int) -> Tensor:
    """Pictures (N, C, size, size) with patches (N, K, C, CELL, CELL) in the cells (N, K) of the grid in the middle."""
    count, _, channels = patches.shape[:3]
    side = size // CELL
    grid = patches.new_zeros(count, side * side, channels, CELL, CELL)
    grid[torch.arange(count)[:, None], cells] = patches
    middle = grid.view(count, side, side, channels, CELL, CELL).permute(0, 3, 1, 4, 2, 5)
    first = (size - side * CELL) // 2
    canvas = patches.new_zeros(count, channels, size, size)
    span = slice(first, first + side * CELL)
    canvas[:, :, span, span] = middle.reshape(count, channels, side * CELL, side * CELL)
    return canvas


def _check(count: int, least: int, most: int, by: str, size: int, noise: float, side: int) -> None:
    check_count("odd_one_out", count)
    if by not in FEATURES:
        raise ValueError(f"the odd one differs by one of {', '.join(FEATURES)}, not {by!r}")
    if size < 2 * CELL:
        raise ValueError(f"odd_one_out needs at least {2 * CELL} pixels for its figures, not {size}")
    if not 3 <= least <= most <= side * side:
        raise ValueError(f"{size} pixels have room for 3 to {side * side} figures, not {least} to {most}")
    if not noise >= 0:
        raise ValueError(f"the noise is a standard deviation, 0 or more, not {noise}")
