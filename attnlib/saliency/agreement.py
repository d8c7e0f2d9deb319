"""Does a map point at the true cause? Measures for attribution maps where the truth is known, and a sanity check."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.train.session import own_rng


def pointing_game(maps: Tensor, masks: Tensor, tolerance: float = 0.0) -> Tensor:
    """Whether the highest value of each map lies on the object: 1 for a hit, 0 for a miss. The mean is the hit rate.

    Zhang, Bargal, Lin, Brandt, Shen, Sclaroff, "Top-Down Neural Attention by Excitation Backprop", IJCV 2018,
    arXiv:1608.00507. The highest value counts, not the highest magnitude: for signed maps, decide before.

    Where several pixels share the highest value, one of them is drawn, so to say, and what is returned is the
    probability of a hit: for a constant map, the share of the picture that is a hit, which is chance. (An argmax names
    one of them, often the first, and then a constant map points at a corner.)

    Args:
        maps: (N, H, W) or (N, 1, H, W), floating point and finite.
        masks: (N, H, W) or (N, 1, H, W), bool: where the object is.
        tolerance: a point this far from the object, in pixels between the middles, still hits it. The paper allows 15
            on photographs; public code counts less than 15, here it is 15 or less, so that 0 is no tolerance.

    Returns:
        (N,), float64, 0–1; NaN where the mask is empty, as there is nothing to point at: average with ``nanmean``.

    Raises:
        TypeError: maps that are no floating-point tensor, or masks that are not bool.
        ValueError: maps and masks of other or different shapes, maps that are not finite, or a negative tolerance.
    """
    maps, masks = _checked(maps, masks)
    if not tolerance >= 0:
        raise ValueError(f"the tolerance is a number of pixels from 0 up, not {tolerance!r}")
    highest = (maps == maps.amax((1, 2), keepdim=True)).double()
    hits = (highest * _grown(masks, tolerance)).sum((1, 2)) / highest.sum((1, 2))
    return hits.where(masks.any(2).any(1), torch.nan)


def auc(maps: Tensor, masks: Tensor) -> Tensor:
    """Area under the ROC curve of each map as a classifier of its pixels.

    The probability that a pixel of the object, drawn at random, has a higher value than one of the background, equal
    values counting one half (Mann and Whitney). So it is exact, whatever the ties, 1/2 for a constant map, and the same
    for every map with the same order of values.

    Args:
        maps: (N, H, W) or (N, 1, H, W), floating point and finite.
        masks: (N, H, W) or (N, 1, H, W), bool: where the object is.

    Returns:
        (N,), float64, 0–1; NaN where the mask is empty, or full: average with ``nanmean``.

    Raises:
        TypeError, ValueError: as for `pointing_game`.
    """
    maps, masks = (tensor.flatten(1) for tensor in _checked(maps, masks))
    below, up_to = _below(maps)
    inside = masks.double()
    objects = inside.sum(1)
    # Pairs of an object's pixel with any pixel; among themselves, the object's pixels win half of theirs.
    won = (inside * (below + up_to)).sum(1) / 2 - objects.square() / 2
    return won / (objects * (maps.shape[1] - objects))


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's rank correlation of each map with its counterpart: how alike the orders of their pixels are.

    Pixels that share a value share the mean of their ranks. Adebayo et al. (see `randomised`) compare the maps of a
    trained network and of one with random layers in this way, as they are and as magnitudes: give ``maps.abs()`` then.

    Args:
        maps, others: (N, H, W) or (N, 1, H, W), floating point and finite.

    Returns:
        (N,), float64: 1 for the same order, −1 for the opposite one; NaN where a map is constant, as it has none.

    Raises:
        TypeError, ValueError: as for `pointing_game`.
    """
    ranks = []
    for tensor, like in ((maps, others), (others, maps)):
        # The same demands as beside a mask, with a mask of the other one's shape.
        checked, _ = _checked(tensor, torch.ones_like(torch.as_tensor(like), dtype=torch.bool))
        below, up_to = _below(checked.flatten(1))
        rank = (below + up_to) / 2
        rank = rank - rank.mean(1, keepdim=True)
        ranks.append(rank / rank.norm(dim=1, keepdim=True))
    return (ranks[0] * ranks[1]).sum(1).clamp(-1, 1)


def layers_from_top(network: nn.Module) -> list[str]:
    """Names of the modules of `network` that have parameters of their own, the last one first.

    In the opposite order of their definition, which in most networks is that of the computation.
    """
    return [name for name, module in network.named_modules() if list(module.parameters(recurse=False))][::-1]


@contextlib.contextmanager
def randomised(network: nn.Module, layers: int | str | Sequence[str] | None = None, *, seed: int = 0
               ) -> Iterator[nn.Module]:
    """Inside the `with` block, layers of the network are as if it had never been trained.

    The sanity check of Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, "Sanity Checks for Saliency Maps", NeurIPS
    2018, arXiv:1810.03292: a map that hardly changes does not show what the network has learned. Their *cascading*
    randomisation goes from the output down, ``for depth in range(len(layers_from_top(network)) + 1)``; their
    *independent* one takes one layer by name.

    A layer is drawn anew by its own ``reset_parameters()``, which also resets what a batch normalisation has counted;
    one that has none gets normal numbers with the mean and the spread of its parameters. Afterwards, also after an
    exception, all parameters and buffers are what they were, bit for bit.

    Args:
        network: any module.
        layers: how many, from the top; or names, or patterns of names (``"stages.1.*"``), of `layers_from_top`; None
            is all of them.
        seed: the same seed draws the same weights. Random numbers outside are not disturbed.

    Yields:
        the network itself.

    Raises:
        ValueError: the network has no parameters, not as many layers, or none of that name.
    """
    chosen = [network.get_submodule(name) for name in _chosen(layers_from_top(network), layers)]
    before = [(tensor, tensor.detach().clone()) for tensor in (*network.parameters(), *network.buffers())]
    try:
        with own_rng(next(network.parameters()).device, seed), torch.no_grad():
            for layer in chosen:
                _draw_anew(layer)
        yield network
    finally:
        with torch.no_grad():
            for tensor, values in before:
                tensor.copy_(values)


def _draw_anew(layer: nn.Module) -> None:
    if callable(getattr(layer, "reset_parameters", None)):
        layer.reset_parameters()
        return
    for parameter in layer.parameters(recurse=False):
        parameter.normal_(float(parameter.mean()), float(parameter.std(correction=0)))


def _chosen(known: list[str], layers: int | str | Sequence[str] | None) -> list[str]:
    if not known:
        raise ValueError("the network has no parameters that could be randomised")
    if layers is None:
        return known
    if isinstance(layers, int):
        if not 0 <= layers <= len(known):
            raise ValueError(f"the network has {len(known)} layers with parameters: 0 to {len(known)} can be "
                             f"randomised, not {layers}")
        return known[:layers]
    patterns = [layers] if isinstance(layers, str) else list(layers)
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            raise ValueError(f"no layer with parameters is called {pattern!r}; there are: {', '.join(known)}")
    return [name for name in known if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _below(maps: Tensor) -> tuple[Tensor, Tensor]:
    """For each pixel of the flat maps (N, P), how many of its map are below it, and how many are not above it."""
    maps = maps.contiguous()  # channels of a larger tensor may lie apart, which the search would complain of
    in_order = maps.sort(1).values
    below, up_to = (torch.searchsorted(in_order, maps, right=right).double() for right in (False, True))
    return below, up_to


def _grown(masks: Tensor, radius: float) -> Tensor:
    """Pixels at most `radius` away from one of the mask, (N, H, W) float64."""
    reach = int(min(radius, max(masks.shape[1:])))
    steps = torch.arange(-reach, reach + 1, device=masks.device)
    disc = (steps[:, None].square() + steps.square() <= radius**2).double()
    return (F.conv2d(masks[:, None].double(), disc[None, None], padding=reach)[:, 0] > 0.5).double()


def _checked(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (N, H, W)."""
    if not isinstance(maps, Tensor) or not maps.is_floating_point():
        kind = maps.dtype if isinstance(maps, Tensor) else type(maps).__name__
        raise TypeError(f"maps are a floating-point tensor (N, H, W), not {kind}")
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool:
        kind = masks.dtype if isinstance(masks, Tensor) else type(masks).__name__
        raise TypeError(f"masks are a bool tensor (N, H, W), not {kind}; compare with a number, as in masks > 0.5")
    maps, masks = (tensor[:, 0] if tensor.dim() == 4 and tensor.shape[1] == 1 else tensor for tensor in (maps, masks))
    if maps.dim() != 3 or maps.shape != masks.shape or 0 in maps.shape[1:]:
        shapes = f"{tuple(maps.shape)} and {tuple(masks.shape)}"
        raise ValueError(f"maps and masks have the same shape (N, H, W) with at least one pixel, not {shapes}; "
                         "a map of another size is resized first")
    if not bool(maps.isfinite().all()):
        raise ValueError("the maps hold NaN or infinite values, which have no place in an order")
    return maps.detach(), masks
