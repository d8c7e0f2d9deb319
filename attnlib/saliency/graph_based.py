"""Graph-based visual saliency: a random walker stays longest where a place differs from those around it."""

from __future__ import annotations

import torch
from torch import Tensor

from attnlib.saliency.features import checked, intensity, opponents, orientations, pyramid, resized, visible
from attnlib.saliency.fixations import blur, stretched

LEVELS = (2, 3, 4)


def graph_based(images: Tensor, *, side: int = 32, activate: float = 0.15, concentrate: float = 0.06,
                smooth: float = 0.02) -> Tensor:
    """Saliency by two random walks over the places of each feature map.

    Harel, Koch, Perona, "Graph-based visual saliency", NIPS 2006. Features as in `itti_koch`, at three scales. The
    first walker moves from p to q with a probability in proportion to ``|M(p) − M(q)|`` · F(p, q), where F is a Gaussian of
    the distance; how often it is at a place is the activation A. The second moves in proportion to A(q) · F(p, q) and
    gathers what is spread. Both walks look the same forwards and backwards, so their equilibrium needs no iteration:
    see `activation` and `concentration`.

    The paper's first form of the difference is ``|log M(p)/M(q)|``, which has no value where a feature is zero; this is its
    second form, that of the authors' released code, whose widths are the defaults here, too.

    Args:
        images: (N, 3, H, W) or (N, 1, H, W) in 0–1, floating point.
        side: the longer side of the maps in places; the graph has side² nodes or fewer.
        activate, concentrate: standard deviation of F in the two walks, in mean sides of the map.
        smooth: of the blur at the end, in widths of the map.

    Returns:
        (N, H, W) in 0–1; 0 everywhere for a constant picture, as one of a single pixel is.

    Raises:
        TypeError, ValueError: as for `attnlib.saliency.features.checked`; fewer than one place, a width of 0 or less.
    """
    if side < 1 or min(activate, concentrate) <= 0:
        raise ValueError("the maps have a side of at least 1 place, and both walks a positive width, not "
                         f"{side}, {activate} and {concentrate}")
    images = checked(images)
    size = _places(images.shape[-2:], side)
    mean = sum(size) / 2
    near, nearer = (neighbourhood(size, share * mean).to(images) for share in (activate, concentrate))
    total = images.new_zeros(len(images), *size)
    for channel in _features(images, size):  # (N, maps, h, w); all channels weigh alike
        nodes = visible(channel).flatten(2)
        walked = concentration(activation(nodes, near), nearer)
        total += walked.mean(1).view_as(total)
    return stretched(resized(blur(total, smooth * size[1])[:, None], images.shape[-2:]))[:, 0]


def neighbourhood(size: tuple[int, int], sigma: float) -> Tensor:
    """F: exp(−distance² / 2σ²) between all places of a map, (P, P) float64 with P = rows · columns."""
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in size)
    at = torch.cartesian_prod(rows, columns).view(-1, 2)
    apart = (at[:, None] - at).square().sum(-1)
    return torch.exp(-apart / (2 * sigma**2))


def activation(maps: Tensor, near: Tensor) -> Tensor:
    """Where the first walker is, (N, C, P): the share of the weight of all edges that ends at each node.

    The weights w(p, q) = ``|M(p) − M(q)|`` · F(p, q) are symmetric. A walk that takes edges in proportion to symmetric
    weights spends its time in proportion to each node's sum of them, Σ_q w(p, q). A constant map has no edges and
    gives 0.
    """
    found = torch.zeros_like(maps)
    for n in range(maps.shape[0]):  # P² differences at a time
        for c in range(maps.shape[1]):
            values = maps[n, c]
            found[n, c] = ((values[:, None] - values).abs() * near).sum(1)
    return _shares(found)


def concentration(active: Tensor, near: Tensor) -> Tensor:
    """Where the second walker is, (N, C, P): in proportion to A(p) · Σ_q F(p, q) A(q).

    From p to q with the probability A(q) F(p, q) / Σ_k A(k) F(p, k): times that share, both directions are equal, which
    is what an equilibrium of this kind asks for.
    """
    return _shares(active * (active @ near))


def _shares(maps: Tensor) -> Tensor:
    total = maps.sum(-1, keepdim=True)
    return maps / torch.where(total > 0, total, 1)


def _features(images: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """For brightness, colour and direction, the maps of all scales at one size, (N, maps, h, w) each."""
    levels = max(LEVELS) + 1
    bright, colours = pyramid(intensity(images), levels), pyramid(opponents(images), levels)
    striped = [orientations(level) for level in bright]
    return [torch.cat([resized(scales[level], size) for level in LEVELS], 1) for scales in (bright, colours, striped)]


def _places(size: tuple[int, int], side: int) -> tuple[int, int]:
    longer = max(size)
    if longer <= side:
        return tuple(size)
    return tuple(max(1, round(one * side / longer)) for one in size)
