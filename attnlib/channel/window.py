"""The region of interest in a feature map: the window with the highest mean, found by sliding.

Not a mechanism: nothing is learned or re-weighted here. It reads what a channel mechanism has left in a feature map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def window_means(maps: Tensor, size: int | tuple[int, int]) -> Tensor:
    """The mean of every window, at every place where it fits.

    In float64, and every window by itself: equal windows have equal means, and large values elsewhere do not disturb
    them. (An integral image needs four look-ups for a window of any size, but it rounds.)

    Args:
        maps: (N, h, w), or (N, C, h, w): the mean over the channels is taken first.
        size: rows and columns of the window in cells, or one number for both.

    Returns:
        (N, h − rows + 1, w − columns + 1), float64.

    Raises:
        TypeError: maps that are no floating-point tensor.
        ValueError: another number of axes, or a window that is empty or larger than the maps.
    """
    if not isinstance(maps, Tensor) or not maps.is_floating_point():
        kind = maps.dtype if isinstance(maps, Tensor) else type(maps).__name__
        raise TypeError(f"window_means takes a floating-point tensor of maps (N, h, w), not {kind}")
    if maps.dim() not in (3, 4):
        raise ValueError(f"window_means takes maps (N, h, w) or (N, C, h, w), not shape {tuple(maps.shape)}")
    window = _size(size, maps.shape[-2:])
    maps = maps.double().mean(1) if maps.dim() == 4 else maps.double()
    return F.avg_pool2d(maps[:, None], window, stride=1)[:, 0]


def best_window(maps: Tensor, size: int | tuple[int, int], picture: tuple[int, int] | None = None) -> Tensor:
    """The window with the highest mean in every map, as a box in the picture.

    Every cell of a map stands for a rectangle of pixels, and all of these are equal. Where several windows share the
    highest mean, the first from the top counts, and of these the first from the left.

    Args:
        maps: (N, h, w), or (N, C, h, w): the mean over the channels is taken first.
        size: rows and columns of the window in cells, or one number for both.
        picture: height and width of the picture in pixels; those of the maps by default.

    Returns:
        boxes (N, 4), float32: left, top, right, bottom in pixels, where 0 is the picture's edge and right and bottom
        are the edges behind the last pixel.

    Raises:
        TypeError, ValueError: as for `window_means`; or maps that are not finite, which have no highest mean.
    """
    means = window_means(maps, size)
    if not means.isfinite().all():
        raise ValueError("the maps hold NaN or infinite values, so there is no window with the highest mean")
    cells = maps.shape[-2:]
    rows, columns = _size(size, cells)
    # argmax may name any of several equal means.
    first = (means == means.amax((1, 2), keepdim=True)).flatten(1).int().argmax(1)
    top, left = first // means.shape[2], first % means.shape[2]
    boxes = torch.stack([left, top, left + columns, top + rows], 1).float()
    height, width = picture or cells
    return boxes * boxes.new_tensor([width / cells[1], height / cells[0]] * 2)


def overlap(boxes: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of every box with the true one beside it: 1 where they are equal, 0 where they are apart.

    Args:
        boxes, truth: (..., 4) of the same shape: left, top, right, bottom.

    Returns:
        (...), 0–1; 0 for two boxes without area.

    Raises:
        ValueError: other shapes, or a box whose right or bottom edge comes before its left or top one.
    """
    if boxes.shape != truth.shape or boxes.shape[-1:] != (4,):
        shapes = f"{tuple(boxes.shape)} and {tuple(truth.shape)}"
        raise ValueError(f"overlap takes two tensors of boxes (..., 4) of the same shape, not {shapes}")
    if any((some[..., 2:] < some[..., :2]).any() for some in (boxes, truth)):
        raise ValueError("a box is left, top, right, bottom, in this order; one of these ends before it begins")
    sides = torch.minimum(boxes[..., 2:], truth[..., 2:]) - torch.maximum(boxes[..., :2], truth[..., :2])
    both = sides.clamp(min=0).prod(-1)
    either = sum((some[..., 2:] - some[..., :2]).prod(-1) for some in (boxes, truth)) - both
    return torch.where(either > 0, both / either.clamp(min=torch.finfo(both.dtype).tiny), torch.zeros_like(both))


def _size(size: int | tuple[int, int], cells: tuple[int, int]) -> tuple[int, int]:
    rows, columns = (size, size) if isinstance(size, int) else size
    if not (1 <= rows <= cells[0] and 1 <= columns <= cells[1]):
        raise ValueError(f"a window of {rows} × {columns} cells does not fit into maps of {cells[0]} × {cells[1]}")
    return rows, columns
