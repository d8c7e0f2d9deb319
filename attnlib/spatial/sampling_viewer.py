"""Watch a spatial transformer learn where to look, and look elsewhere yourself, without a kernel."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from attnlib.attention import attentions
from attnlib.data.pictures import Pictures
from attnlib.spatial.stn import SpatialTransformer
from attnlib.spatial.transforms import Affine, places

if TYPE_CHECKING:
    from attnlib.train.run import Run
    from attnlib.widgets.sampling import SamplingViewer

# Places in a row and a column of the output whose samples are kept; between them the page interpolates, which is exact
# for maps that keep lines straight and parallel.
SIDE = 9


def sampling_viewer(
    network: torch.nn.Module, pictures: Pictures | Tensor, run: Run | None = None, *, only: str | None = None,
    truth: Tensor | None = None, originals: Tensor | None = None, labels: Sequence[str] | None = None,
    start: Literal["network", "identity"] = "network", name: str = "Where the transformer samples",
    alt: str | None = None, caption: str | None = None,
) -> SamplingViewer:
    """The grid a spatial transformer lays over its input, and the picture it reads off, at each recorded step.

    The reader chooses step and picture, plays the training, and moves the six numbers of an affine map.

    Args:
        network: holds a `SpatialTransformer` that sees the picture itself, or is one.
        pictures: `Pictures` or (N, C, H, W), a few.
        run: of the training, with their weights in it (``fit(..., record=pictures)``); without it, only the network as
            it is now is shown.
        only: name of the transformer, where there are several.
        truth: coefficients of the true maps (N, n) of the same family, drawn as a dashed frame.
        originals: (N, 1 or 3, H, W) in 0–1, the pictures as they are to be seen; by default `pictures`, cut at 0 and 1.
        labels: the pictures' names.
        start: what is shown at first: the map of the ``"network"`` at the last step, or the ``"identity"``, for readers
            who are to find a map themselves.
        name, alt, caption: the accessible name, what is seen in sentences, and what is printed below.

    Raises:
        ValueError: no transformer, or several and no `only`; an unknown `start`; a run without its weights, or with
            other pictures; `truth`, `originals` or `labels` of another number or form; or more than
            `attnlib.widgets.MOST_BYTES`.
    """
    from attnlib.widgets.sampling import SamplingViewer
    from attnlib.widgets.viewer import pack, picture_uri

    if start not in ("network", "identity"):
        raise ValueError(f"the viewer's start is 'network' or 'identity', not {start!r}")
    path, module = _transformer(network, only)
    images = pictures.images if isinstance(pictures, Pictures) else pictures
    shown = (images if originals is None else originals).detach().float().cpu().clamp(0, 1)
    count = len(images)
    steps, weights = _recorded(run, path, count) if run is not None else _now(network, path, images)
    names = list(labels or (f"picture {number}" for number in range(1, count + 1)))
    for what, found in (("originals", len(shown)), ("labels", len(names)), ("truth", count if truth is None else len(truth))):
        if found != count:
            raise ValueError(f"there are {found} {what} for {count} pictures")
    wanted = (count, module.transform.count)
    if truth is not None and tuple(truth.shape) != wanted:
        raise ValueError(f"the true maps have {wanted[1]} coefficients each, {wanted}, not {tuple(truth.shape)}")
    data = {
        "steps": steps, "names": names, "uris": [picture_uri(image) for image in shown],
        "lattices": pack(torch.stack([_lattice(module, each) for each in weights]), exact=True),
        "truth": None if truth is None else pack(_lattice(module, truth), exact=True),
        "values": pack(shown, 0, 1), "fill": min(max(module.fill, 0.0), 1.0),
        "size": list(module.size or images.shape[2:]), "own": list(Affine.identity) if start == "identity" else None,
    }
    steps_told = f" at {len(steps)} steps of the training" if len(steps) > 1 else ""
    alt = alt or (f"Each of {count} pictures with the grid of places that are sampled{steps_told}, and beside it what is "
                  "read there." + (" A dashed frame shows the true map." if truth is not None else ""))
    return SamplingViewer(data, name=name, alt=alt, caption=caption)


def _transformer(network: torch.nn.Module, only: str | None) -> tuple[str, SpatialTransformer]:
    found = {path: module for path, module in attentions(network).items() if isinstance(module, SpatialTransformer)}
    if only is not None:
        found = {path: module for path, module in found.items() if path == only}
    if len(found) != 1:
        there = f"{len(found)} spatial transformers" + (f" called {only!r}" if only else "")
        raise ValueError(f"there are {there} in the network; the viewer shows one: name it with only=")
    return next(iter(found.items()))


def _recorded(run: Run, path: str, count: int) -> tuple[list[int], list[Tensor]]:
    kept = [(step, value[path]) for step, value in run.snapshots if isinstance(value, dict) and path in value]
    if not kept:
        raise ValueError("the run holds no coefficients of the transformer; give fit the pictures as record=")
    if any(len(weights) != count for _, weights in kept):
        raise ValueError(f"the run holds coefficients for {len(kept[0][1])} pictures, not for {count}")
    return [step for step, _ in kept], [weights.float() for _, weights in kept]


def _now(network: torch.nn.Module, path: str, images: Tensor) -> tuple[list[int], list[Tensor]]:
    from attnlib.observe import record
    from attnlib.train.session import evaluation

    with evaluation(network), record(network) as weights, torch.no_grad():
        network(images)
    return [0], [weights[path].float().cpu()]


def _lattice(module: SpatialTransformer, weights: Tensor) -> Tensor:
    """Where a lattice of places of the output looks: (N, SIDE, SIDE, 2)."""
    weights, family = weights.detach().float().cpu(), copy.deepcopy(module.transform).float().cpu()
    return family(weights, places(SIDE, SIDE, weights, align_corners=True)).unflatten(1, (SIDE, SIDE))
