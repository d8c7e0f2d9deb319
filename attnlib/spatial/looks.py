"""Where a network looked, whichever mechanism chose: what it read, what it glanced at, and the picture as it saw it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from attnlib.attention import Attention
from attnlib.spatial.dcn import DynamicCapacityNetwork
from attnlib.spatial.ram import RecurrentAttention
from attnlib.spatial.retina import boxes, corners, covered, retina
from attnlib.spatial.stn import SpatialTransformer
from attnlib.spatial.transforms import places as places_of_pixels


class Looks(NamedTuple):
    """Where a network looked in each of B pictures.

    ``seen`` (B, H, W): the pictures as it saw them, in grey, blurred where it saw coarsely and 0 where it saw nothing.
    ``read`` (B, H, W) bool: the pixels of the places that were chosen. ``glanced`` (B, H, W) bool: those of which it
    knows anything, the former among them. ``places`` (B, n, 2): middles of the places, x and y in pixels from the upper
    left corner, the first one first; NaN where a picture has fewer than others.
    """

    seen: Tensor
    read: Tensor
    glanced: Tensor
    places: Tensor


@torch.no_grad()
def looks(mechanism: Attention, x: Tensor, weights: Tensor | None = None) -> Looks:
    """Where one of this chapter's mechanisms looks.

    - A spatial transformer glances at everything, to place its window, and reads the pixels in which it samples.
    - A dynamic capacity network glances at everything and reads the patches of the positions it refines. First comes
      the one on which the doubt in the coarse answer hangs most.
    - Recurrent attention reads the smallest patch of each glimpse, and glances at the wider ones. Places are in the
      order of time.

    Args:
        mechanism: a `SpatialTransformer`, `DynamicCapacityNetwork` or `RecurrentAttention`, in evaluation mode.
        x: (B, C, H, W), the pictures as the mechanism gets them. Channels are averaged in what is seen.
        weights: the places chosen; what `attend` gives by default.

    Raises:
        ValueError: another mechanism.
    """
    for kind, found in _FOUND.items():
        if isinstance(mechanism, kind):
            return found(mechanism, x, mechanism.attend(x) if weights is None else weights)
    raise ValueError(f"where a {type(mechanism).__name__} looks is not known; it is for "
                     f"{', '.join(kind.__name__ for kind in _FOUND)}")


def _window(transformer: SpatialTransformer, x: Tensor, weights: Tensor) -> Looks:
    height, width = x.shape[2:]
    size = weights.new_tensor([width, height])
    lattice = places_of_pixels(*(transformer.size or (height, width)), weights)
    pixels = ((transformer.transform(weights, lattice) + 1) / 2 * size).floor()  # that hold the places sampled
    inside = ((pixels >= 0) & (pixels < size)).all(-1)
    column, row = pixels.clamp(min=0).minimum(size - 1).long().unbind(-1)
    hits = x.new_zeros(len(x), height * width).scatter_add_(1, row * width + column, inside.to(x.dtype))
    middle = (transformer.transform(weights, weights.new_zeros(1, 2)) + 1) / 2 * size
    read = hits.unflatten(1, (height, width)) > 0
    return Looks(x.mean(1), read, torch.ones_like(read), middle)


def _refined(network: DynamicCapacityNetwork, x: Tensor, weights: Tensor) -> Looks:
    (height, width), edge, chosen = x.shape[2:], network.padding, weights != 0
    patch = torch.ones(1, 1, network.patch, network.patch, device=x.device)
    squares = F.conv_transpose2d(chosen.float(), patch, stride=network.stride)
    squares = F.pad(squares, (0, network.stride) * 2)  # pixels at the end that no position has
    read = squares[:, 0, edge:edge + height, edge:edge + width] > 0
    doubt = network.saliency(network.coarse(x)).flatten(1).masked_fill(~chosen.flatten(1), -1)
    most = int(chosen.flatten(1).sum(1).max())
    value, order = doubt.sort(dim=1, descending=True, stable=True)
    columns = weights.shape[3]
    corner = torch.stack([order % columns, order // columns], -1) * network.stride - edge
    places = (corner + network.patch / 2).masked_fill(value[..., None] < 0, torch.nan)
    return Looks(x.mean(1), read, torch.ones_like(read), places[:, :most])


def _glimpsed(network: RecurrentAttention, x: Tensor, weights: Tensor) -> Looks:
    height, width = x.shape[2:]
    read, glanced = (covered(weights, height, width, network.patch * 2**scale) for scale in (0, network.scales - 1))
    middles = boxes(weights, height, width, network.patch)[..., :2] + network.patch / 2
    return Looks(_pasted(network, x.mean(1), weights), read, glanced, middles)


def _pasted(network: RecurrentAttention, grey: Tensor, weights: Tensor) -> Tensor:
    """What the retina saw of pictures (B, H, W), put back where it was seen, the sharper over the coarser."""
    (height, width), patch = grey.shape[1:], network.patch
    margin = patch * 2 ** (network.scales - 1)
    canvas = F.pad(torch.zeros_like(grey), (margin,) * 4)
    seen = retina(grey[:, None], weights, patch, network.scales, network.fill)[:, :, :, 0]  # (B, T, K, patch, patch)
    each = torch.arange(len(grey), device=grey.device)[:, None, None]
    for scale in reversed(range(network.scales)):
        side = patch * 2**scale
        line = torch.arange(side, device=grey.device) + margin
        enlarged = seen[:, :, scale].repeat_interleave(2**scale, 2).repeat_interleave(2**scale, 3)
        for glimpse, (left, top) in enumerate(zip(*(at.T for at in corners(weights, height, width, side)))):
            canvas[each, (top[:, None] + line)[:, :, None], (left[:, None] + line)[:, None]] = enlarged[:, glimpse]
    return canvas[:, margin:margin + height, margin:margin + width]


_FOUND = {SpatialTransformer: _window, DynamicCapacityNetwork: _refined, RecurrentAttention: _glimpsed}
