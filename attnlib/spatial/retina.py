"""A retina: sharp in the middle, coarse around it, put anywhere on a picture.

Places run from −1 to 1 over the picture, edge to edge, as in `attnlib.spatial.stn`: (0, 0) is its middle, (−1, −1) its
upper left corner.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attnlib.arguments import whole


def retina(x: Tensor, locations: Tensor, patch: int = 8, scales: int = 1, fill: float = 0.0) -> Tensor:
    """Cut square patches of growing size around each place, all reduced to the same number of pixels.

    Mnih, Heess, Graves, Kavukcuoglu, "Recurrent Models of Visual Attention", NIPS 2014, arXiv:1406.6247. The smallest
    patch has `patch` pixels a side, each further one twice as many as the one before. The paper does not say how they
    are reduced: here by the mean of each 2×2, 4×4 … pixels.

    Patches consist of whole pixels. A place between two pixels is moved to the nearest one that suits the patch (its
    middle is a pixel's middle if `patch` is odd, else a pixel's edge), right or down from halfway. So the place itself
    gets no gradient; the pixels do.

    Args:
        x: (B, C, H, W).
        locations: (B, …, 2), x and y of the patches' middles; they may lie outside the picture.
        patch: pixels a side of each patch that comes out.
        scales: K, how many patches for each place.
        fill: what is seen outside the picture.

    Returns:
        (B, …, K, C, patch, patch), smallest patch first, of the type of x.

    Raises:
        ValueError: no pixel or scale, or places that are not (B, …, 2).
    """
    _check(x, locations, patch, scales)
    at = locations[:, None].flatten(1, -2)  # (B, N, 2)
    seen = []
    for times in (2**scale for scale in range(scales)):
        pixels = _cut(x, at, patch * times, fill)  # (B, C, N, side, side)
        pixels = pixels.unflatten(4, (patch, times)).unflatten(3, (patch, times))
        seen.append(pixels.mean((4, 6)) if times > 1 else pixels[:, :, :, :, 0, :, 0])
    patches = torch.stack(seen, 1).permute(0, 3, 1, 2, 4, 5)  # (B, N, K, C, patch, patch)
    return patches.reshape(*locations.shape[:-1], *patches.shape[2:])


def corners(locations: Tensor, height: int, width: int, side: int) -> tuple[Tensor, Tensor]:
    """First column and first row of the square of `side` pixels around each place.

    Squares that do not touch the picture are moved to its edge, outside: their numbers stay small.

    Args:
        locations: (…, 2), x and y.
        height, width: of the picture, in pixels.
        side: of the square, in pixels.

    Returns:
        columns and rows, (…) int64 each; below 0 where the square begins outside.
    """
    x, y = locations.to(torch.promote_types(locations.dtype, torch.float32)).unbind(-1)
    return _first(x, width, side), _first(y, height, side)


def boxes(locations: Tensor, height: int, width: int, side: int) -> Tensor:
    """The squares around each place, (…, 4) int64: left, top, right and bottom, in pixels from the picture's corner."""
    left, top = corners(locations, height, width, side)
    return torch.stack([left, top, left + side, top + side], -1)


def covered(locations: Tensor, height: int, width: int, side: int) -> Tensor:
    """The pixels of each picture that lie in at least one square of `side` pixels around its places.

    Args:
        locations: (B, T, 2).
        height, width, side: as for `corners`. With ``side=patch`` these are the pixels seen sharp, with
            ``side=patch * 2 ** (scales - 1)`` all that were seen.

    Returns:
        (B, H, W) bool. ``covered(...).sum((1, 2))`` counts them, each once.
    """
    left, top = corners(locations, height, width, side)
    columns = _within(left, width, side).float()  # (B, T, W)
    rows = _within(top, height, side).float()
    return (rows.mT @ columns) > 0  # a product over T: in the rows and the columns of the same square


def _first(place: Tensor, size: int, side: int) -> Tensor:
    # Up from halfway, not to the even number: squares must move by one pixel where places do.
    first = (((place + 1) * size - side) / 2 + 0.5).floor()
    return first.clamp(-side, size).long()


def _within(first: Tensor, size: int, side: int) -> Tensor:
    """Whether each of `size` pixels is one of the `side` from `first` on: (…, size)."""
    steps = torch.arange(size, device=first.device) - first[..., None]
    return (steps >= 0) & (steps < side)


def _cut(x: Tensor, at: Tensor, side: int, fill: float) -> Tensor:
    """Whole squares of `side` pixels around places (B, N, 2): (B, C, N, side, side)."""
    height, width = x.shape[2:]
    left, top = corners(at, height, width, side)
    line = torch.arange(side, device=x.device)
    columns, rows = left[..., None, None] + line, (top[..., None] + line)[..., None]  # (B, N, 1, s), (B, N, s, 1)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)  # (B, N, s, s)
    pixels = x.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, x.shape[1], -1))
    return pixels.unflatten(2, index.shape[1:]).masked_fill(~inside[:, None], fill)


@torch.fx.wrap
def _check(x: Tensor, locations: Tensor, patch: int, scales: int) -> None:
    for word, value in (("patch", patch), ("scales", scales)):
        whole(f"a retina's {word}", value)
    if locations.dim() < 2 or len(locations) != len(x) or locations.shape[-1] != 2:
        raise ValueError(
            f"a retina takes places (B, …, 2) for pictures {tuple(x.shape)}, not {tuple(locations.shape)}"
        )
