"""Glimpses over a picture, step by step; `glimpses` makes the viewer from what a network saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attnlib.widgets.viewer import Viewer, pack, picture_uri


class GlimpsePath(NamedTuple):
    """Where a network looked in N pictures with T glimpses each, what it got there, and what it answered after each.

    Attributes:
        locations: (N, T, 2), x and y from −1 to 1 over the picture, edge to edge.
        patches: (N, T, S, p, p) in 0–1, of S scales, each twice as wide as the one before.
        scores: (N, T, K) logits.
    """

    locations: Tensor
    patches: Tensor
    scores: Tensor


class Glimpses(Viewer):
    """What `glimpses` returns.

    Attributes:
        data: ``names`` and ``uris`` of the pictures, their ``size`` and ``labels``, the ``classes``, the width of the
            smallest ``patch`` in pixels, the ``word`` for a step and whether they are ``joined``, and ``paths`` with their ``locations``, ``patches`` and ``scores``.
    """

    script = "glimpses"


def glimpses(
    paths: Mapping[str, GlimpsePath], pictures: Any, *, patch: int | None = None, classes: Sequence[str] | None = None,
    labels: Sequence[str] | None = None, word: str = "glimpse", joined: bool = True, name: str = "Glimpses",
    alt: str | None = None, caption: str | None = None,
) -> Glimpses:
    """A picture, the glimpses that were taken of it one after the other, and the answer after each.

    The reader chooses the picture, the step, and the path where there are several, such as learned and random ones.

    Args:
        paths: by name, a `GlimpsePath` or its three tensors.
        pictures: `attnlib.data.Pictures`, whose labels tell which answers are right, or (N, 1 or 3, H, W) in 0–1.
        patch: width in pixels of the picture that a patch of the first scale covers; p by default.
        classes: names of the K answers; those of the pictures, or numbers, by default.
        labels: names of the pictures.
        word: what a step is called.
        joined: whether each place was chosen after the one before was seen. If not, as where all are chosen at once and
            only sorted, no line joins them, and a path is called an order.
        name, alt, caption: the accessible name, what is seen in sentences, and what is printed below.

    Raises:
        ValueError: no path, tensors of other shapes or of another number than the pictures, paths of another length
            than the first, names of another number, or more than `attnlib.widgets.MOST_BYTES`.
    """
    images = getattr(pictures, "images", pictures).detach().float().cpu().clamp(0, 1)
    right = getattr(pictures, "labels", None)
    checked = {label: _checked(label, GlimpsePath(*path), len(images)) for label, path in paths.items()}
    if not checked:
        raise ValueError("there is no path to show")
    shapes = {tuple(tensor.shape for tensor in path) for path in checked.values()}
    if len(shapes) > 1:
        raise ValueError("the paths differ in their number of glimpses, scales, pixels or classes")
    first = next(iter(checked.values()))
    kinds, side = first.scores.shape[-1], first.patches.shape[-1]
    known = tuple(getattr(pictures, "classes", ()))
    classes = list(classes or (known if len(known) == kinds else map(str, range(kinds))))
    names = list(labels or (f"picture {number}" for number in range(1, len(images) + 1)))
    for what, given, wanted in (("labels", len(names), len(images)), ("classes", len(classes), kinds)):
        if given != wanted:
            raise ValueError(f"there are {given} names of {what} for {wanted}")
    data = {
        "names": names, "uris": [picture_uri(image) for image in images], "size": list(images.shape[2:]),
        "labels": None if right is None else right.tolist(), "classes": classes, "patch": patch or side,
        "word": word, "joined": joined,
        "paths": [{"name": label, "locations": pack(path.locations, exact=True), "patches": pack(path.patches, 0, 1),
                   "scores": pack(path.scores, exact=True)} for label, path in checked.items()],
    }
    alt = alt or (f"{len(images)} pictures, each with {first.locations.shape[1]} numbered squares that are looked at, "
                  f"the patches that are seen in the last one, and the answers after each ({', '.join(checked)}).")
    return Glimpses(data, name=name, alt=alt, caption=caption)


def _checked(label: str, path: GlimpsePath, count: int) -> GlimpsePath:
    locations, patches, scores = (torch.as_tensor(tensor).detach().float().cpu() for tensor in path)
    steps = locations.shape[:2]
    fits = (locations.dim() == 3 and locations.shape[2] == 2 and patches.dim() == 5 and scores.dim() == 3
            and patches.shape[3] == patches.shape[4] and patches.shape[:2] == scores.shape[:2] == steps)
    if not fits or steps[0] != count or 0 in patches.shape:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (locations, patches, scores))
        raise ValueError(f"the path {label!r} has locations (N, T, 2), patches (N, T, S, p, p) and scores (N, T, K) for "
                         f"the {count} pictures, not {shapes}")
    return GlimpsePath(locations, patches.clamp(0, 1), scores)
