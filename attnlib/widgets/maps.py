"""Weights over pictures, to be explored: `maps` shows one network, `side_by_side` several variants of one thing.

Both know a mechanism by what `describe().axes` says, and by nothing else. The words of the axes:

    batch           one entry for each picture, or one for all
    row, column     the map; one of them alone, or of size 1, is stretched over the picture
    key             the map, flattened row by row: the positions looked at
    query           the positions that look, flattened row by row; there is one map for each. Beside `key`, `row` and
                    `column` say the same unflattened; `query` with no map beside it is the map itself
    anything else   *choices* (channel, head, group …), flattened in their order into one list: "head 3", or
                    "group 1, head 3". Numbers in names, rows and columns count from 1.

Weights without a map of their own, such as one gate a channel, are shown by what they do to the feature map.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attnlib.attention import Attention, Description, attentions
from attnlib.observe import Only, intervene
from attnlib.train.session import evaluation
from attnlib.widgets.viewer import PIXELS_SHOWN, Viewer, pack, picture_uri, ramps

Shown = Literal["auto", "weights", "features"]
Grid = tuple[int, int]
SCALES = ("same for all", "this map alone", "all of this choice")  # the last one for any picture, with and without
# Noise reaches a little beyond 0–1 and is cut off; beyond this, pictures were normalised and are rescaled.
_NEARLY = (-0.75, 1.75)


class Maps(Viewer):
    """What `maps` and `side_by_side` return. `state` 0 shows neutral weights, or the map before them; 1 the computed.

    Attributes:
        data: ``pictures``, ``panels`` with their ``layers``, and where to ``start``. A layer holds ``states``; the
            numbers of a state are (pictures, choices, queries, positions), a byte each between the two ``ends`` of
            their map, compressed (``z``), with size 1 for an axis along which nothing changes; or it is the first
            state ``times`` a factor for each picture and choice.
    """

    script = "maps"


def maps(network: nn.Module, pictures, *, only: Only = None, labels: Sequence[str] | None = None,
         shown: Shown = "auto", grid: Grid | None = None, originals: Tensor | None = None, name: str | None = None,
         alt: str | None = None, caption: str | None = None, start: Mapping[str, Any] | None = None) -> Maps:
    """A picture with the weights of a mechanism over it, for every mechanism of a network. ::

        maps(network, test[:4], labels=["bird", "cup", "sea", "face"], start={"picture": "cup", "at": (3, 5)})

    The network runs once, in eval mode and without gradients; its mode is restored.

    Args:
        network: holds mechanisms, or is one.
        pictures: `attnlib.data.Pictures` or (N, C, H, W): what `network` takes, so a feature map for a mechanism.
        only: a qualified name, a pattern, or several; all mechanisms by default.
        labels: the names of the pictures.
        shown: ``"weights"``, as a map; ``"features"``, the feature map before and after them, channel by channel;
            ``"auto"``, the weights where they have a map.
        grid: rows and columns of the positions, where these are not those of the mechanism's input.
        originals: (N, 1 or 3, H, W) in 0–1, the pictures as they are to be seen; by default `pictures`, rescaled
            where they reach far beyond 0–1, and the mean of the channels where these are no colours.
        name, alt, caption: the accessible name, what is seen in sentences, and what is printed below.
        start: what is chosen first: ``layer``, ``picture`` and ``choice`` by name, ``at`` (row, column), ``blend`` from
            0, the picture alone, to 1, and ``scale``, one of `SCALES`: by default the second where there are queries,
            as each of them has a map of its own, and the third for feature maps, whose channels differ in their
            units: before and after, and all pictures, then share one.

    Raises:
        ValueError: no mechanism, or none that ran; pictures of another shape; positions that fit no grid; weights
            without a map where one is asked for; values that are not finite; labels of another number; an unknown
            start; more than `viewer.MOST_BYTES`.
    """
    images = _images(pictures)
    names = _names(labels, len(images))
    layers = [_layer(seen, len(images), shown, grid) for seen in _seen(network, images, only)]
    titles = list(dict.fromkeys(layer.title for layer in layers))
    own = 1 if any(layer.queries for layer in layers) else 2 * any(layer.features for layer in layers)
    data = {
        "pictures": _shown(images, originals, names),
        "panels": [{"name": "", "layers": [layer.packed() for layer in layers]}],
        "start": _start(start, layers, names, layers, SCALES[own]),
        "ramps": ramps(),
    }
    sentences = [f"{_many(len(images), 'picture')} with weights over {'it' if len(images) == 1 else 'them'}.",
                 *(layer.sentence(names) for layer in layers)]
    return Maps(data, name=name or f"Weights of {', '.join(titles)}", alt=alt or " ".join(sentences), caption=caption)


def side_by_side(variants: Mapping[str, Any], pictures, *, only: Only = None, labels: Sequence[str] | None = None,
                 said: Mapping[str, Sequence[str]] | None = None, shown: Shown = "auto", grid: Grid | None = None,
                 originals: Tensor | None = None, name: str | None = None, alt: str | None = None,
                 caption: str | None = None, start: Mapping[str, Any] | None = None) -> Maps:
    """The same pictures through several variants, a panel each, with one pointer and one choice for all. ::

        side_by_side({"SE": se, "CBAM": cbam, "Grad-CAM": (N, h, w) maps}, test[:4], said={"SE": ["rising 97 %", …]})

    Args:
        variants: by name, a network or mechanism, of which the mechanism that `only` names is shown, otherwise the
            last; or maps (N, h, w); or a pair of such maps, off and on.
        said: by name, a line under the panel for each picture.
        start: as for `maps`; ``scale`` is ``"this map alone"`` by default also where maps were given, as their units
            may differ.

    Other args and errors as for `maps`, and ValueError for fewer than two variants, for maps or lines of another number
    than the pictures, and for lines of an unknown variant.
    """
    if len(variants) < 2:
        raise ValueError(f"{_many(len(variants), 'variant')} cannot stand side by side; give at least two")
    images = _images(pictures)
    names = _names(labels, len(images))
    said = _said(said or {}, variants, len(images))
    layers = [_variant(variant, what, images, only, shown, grid) for variant, what in variants.items()]
    given = any(not isinstance(what, nn.Module) for what in variants.values())
    data = {
        "pictures": _shown(images, originals, names),
        "panels": [{"name": layer.name, "layers": [layer.packed()], "said": said.get(layer.name)} for layer in layers],
        "start": _start(start, layers[:1], names, layers, SCALES[given or any(layer.queries for layer in layers)]),
        "ramps": ramps(),
    }
    listed = f"{', '.join(list(variants)[:-1])} and {list(variants)[-1]}"
    sentences = [f"{_many(len(images), 'picture')} and maps of {listed} over {'it' if len(images) == 1 else 'them'}.",
                 *(layer.sentence(names) for layer in layers)]
    return Maps(data, name=name or f"{listed} side by side", alt=alt or " ".join(sentences), caption=caption)


@dataclasses.dataclass(frozen=True)
class _Seen:
    """A mechanism in one pass: its qualified name, its input, its weights."""

    name: str
    attention: Attention
    x: Tensor
    weights: Tensor

    @property
    def field(self) -> Grid | None:
        """Rows and columns of the input, where it has them."""
        return tuple(self.x.shape[2:]) if self.x.dim() == 4 else None

    def neutral(self) -> Tensor | None:
        try:
            return self.attention.neutral(self.x, self.weights)
        except NotImplementedError:  # coefficients of a mapping need not have neutral values
            return None


@dataclasses.dataclass(frozen=True)
class _Layer:
    """What one panel shows: maps (N, choices, queries, positions) for each state, and how to name them."""

    name: str
    title: str
    states: list[Tensor]
    grid: Grid
    choices: list[str] = dataclasses.field(default_factory=list)
    axis: str = ""
    queries: Grid | None = None
    gates: Tensor | None = None  # (N, choices), where the maps are a feature map
    features: bool = False

    @property
    def limits(self) -> tuple[float, float]:
        """The ends of a scale for all maps: from 0, or the same on both sides of it where there are both signs."""
        low = min(float(values.min()) for values in self.states)
        high = max(float(values.max()) for values in self.states)
        most = max(-low, high)
        return (-most, most) if low < 0 else (0.0, high)

    def packed(self) -> dict[str, Any]:
        low, high = self.limits
        first, last = self.states[0], self.states[-1]
        scaled = self.gates is not None and torch.allclose(last, first * self.gates[..., None, None], atol=1e-6)
        # The factors are enough, and exact.
        states = [_packed(first), {"times": pack(self.gates, exact=True)}] if scaled else [*map(_packed, self.states)]
        return {
            "name": self.name, "states": states, "low": low, "high": high, "grid": list(self.grid),
            "queries": self.queries and list(self.queries), "choices": self.choices, "axis": self.axis,
            "features": self.features, "gates": None if self.gates is None else pack(self.gates, exact=True),
        }

    def sentence(self, pictures: Sequence[str]) -> str:
        """What there is to see, in words."""
        sizes = [_many(len(self.choices), "choice" if "," in self.axis else self.axis)] if self.choices else []
        sizes += [f"from each of {_size(self.queries)} positions" if self.queries else "", f"{_size(self.grid)} cells"]
        what = f"{'Feature map at ' if self.features else ''}{self.title}"
        what += f" ({self.name})" if self.name not in ("", self.title) else ""
        sizes += ["before and after the weights"] if self.features and len(self.states) > 1 else []
        told = f"{what}: {', '.join(filter(None, sizes))}."
        if self.gates is not None:
            n, k = divmod(int(self.gates.argmax()), self.gates.shape[1])
            which = f"{self.choices[k]} of {pictures[n]!r}" if self.choices else repr(pictures[n])
            ends = f"from {self.gates.min():.2g} to {self.gates.max():.2g}"
            return f"{told} The gates go {ends}, the largest for {which}."
        values = self.states[-1]
        n, k, q, cell = (int(at) for at in torch.unravel_index(values.argmax(), values.shape))
        where = [f"{_cell(cell, self.grid)} of {pictures[n]!r}", *self.choices[k : k + 1]]
        seen_from = f", seen from {_cell(q, self.queries)}" if self.queries else ""
        return f"{told} The largest value, {values.max():.2g}, is at {', '.join(where)}{seen_from}."


def _seen(network: nn.Module, images: Tensor, only: Only) -> list[_Seen]:
    """Every chosen mechanism as it was in one pass over `images`, in the order of the network."""
    names = {attention: name for name, attention in attentions(network).items()}
    passes: dict[str, _Seen] = {}

    def keep(weights: Tensor, x: Tensor, attention: Attention) -> Tensor:
        passes[names[attention]] = _Seen(names[attention], attention, x.clone(), weights.clone())
        return weights

    parameter = next(network.parameters(), images)
    with evaluation(network), intervene(network, keep, only):
        network(images.to(parameter.device, parameter.dtype))
    if not passes:
        raise ValueError(f"none of the mechanisms of {type(network).__name__} ran; choose another with only=")
    return [passes[name] for name in names.values() if name in passes]


@torch.no_grad()
def _layer(seen: _Seen, count: int, shown: Shown, grid: Grid | None) -> _Layer:
    """The layer that shows `seen`, as weights or as a feature map."""
    if shown not in (known := ("auto", "weights", "features")):
        raise ValueError(f"shown is one of {', '.join(known)}, not {shown!r}")
    about, neutral = seen.attention.describe(), seen.neutral()
    who = seen.name or about.title
    values = [_finite(w, f"the weights of {who}") for w in (neutral, seen.weights) if w is not None]
    arranged = [_arranged(weights, about, count) for weights in values]
    pointless = arranged[-1].shape[-1] == 1 and seen.field != (1, 1)
    if shown == "weights" and pointless:
        raise ValueError(f"the weights of {who} have no map; show what they do with shown='features'")
    if shown == "features" or pointless:
        return _features(seen, neutral, arranged[-1], count)
    axis, choices = _choices(seen.weights, about)
    queries, cells = _sizes(seen.weights, about, seen.field, grid)
    return _Layer(who, about.title, arranged, cells, choices, axis, queries)


def _features(seen: _Seen, neutral: Tensor | None, gates: Tensor, count: int) -> _Layer:
    """The feature map after neutral and after computed weights; with the gates, if there is one for each channel."""
    title = seen.attention.describe().title
    after = _finite(seen.attention.use(seen.x, seen.weights), f"the output of {seen.name or title}")
    if after.dim() != 4 or len(after) != count:
        raise ValueError(f"{seen.name or title} gives {tuple(after.shape)}, not a feature map (N, C, H, W) for each of "
                         f"{_many(count, 'picture')}, so there is none to show")
    channels, grid = after.shape[1], tuple(after.shape[2:])
    before = [] if neutral is None else [_finite(seen.attention.use(seen.x, neutral), f"the output of {title}")]
    states = [values.reshape(count, channels, 1, -1) for values in (*before, after)]
    one_each = gates.shape[2:] == (1, 1) and gates.shape[1] in (1, channels) and before
    gates = gates[..., 0, 0].expand(count, channels) if one_each else None
    names = [f"channel {at + 1}" for at in range(channels)] if channels > 1 else []
    return _Layer(seen.name or title, title, states, grid, names, "channel", None, gates, features=True)


def _variant(name: str, what: Any, images: Tensor, only: Only, shown: Shown, grid: Grid | None) -> _Layer:
    """The layer of one variant of `side_by_side`."""
    if isinstance(what, nn.Module):
        return dataclasses.replace(_layer(_seen(what, images, only)[-1], len(images), shown, grid), name=name)
    states = []
    for given in what if isinstance(what, tuple | list) else (what,):
        given = _finite(torch.as_tensor(given), f"the maps of {name!r}")
        values = given[:, 0] if given.dim() == 4 and given.shape[1] == 1 else given
        if values.dim() != 3 or len(values) != len(images) or 0 in values.shape:
            raise ValueError(f"the maps of {name!r} have shape {tuple(given.shape)}, not (N, h, w) with one for each "
                             f"of {_many(len(images), 'picture')}")
        states.append(values)
    if len({values.shape for values in states}) != 1 or len(states) > 2:
        raise ValueError(f"{name!r} has maps or a pair of maps of one shape, off and on")
    flat = [values.flatten(1)[:, None, None] for values in states]
    return _Layer(name, name, flat, tuple(states[0].shape[1:]))


# -- axes

def _parts(about: Description) -> dict[str, list[int]]:
    """Which axes of the weights are the batch, the choices, the queries and the map."""
    axes = about.axes
    at = {axis: [place for place, found in enumerate(axes) if found == axis] for axis in (*axes, "row", "column")}
    spatial = at["row"] + at["column"]
    keys, queries = at.get("key", []), at.get("query", [])
    if keys:
        queries, cells = queries or spatial, keys
    else:
        queries, cells = (queries, spatial) if spatial else ([], queries)
    batch = at.get("batch", [])
    choices = [place for place in range(len(axes)) if place not in {*batch, *queries, *cells}]
    return {"batch": batch, "choices": choices, "queries": queries, "cells": cells}


def _arranged(weights: Tensor, about: Description, count: int) -> Tensor:
    """Weights as (N, choices, queries, positions), whatever the order of their axes."""
    if weights.dim() != len(about.axes):
        raise ValueError(f"{about.title} describes the axes {', '.join(about.axes)}, but its weights have shape "
                         f"{tuple(weights.shape)}")
    parts = _parts(about).values()
    moved = weights.permute([place for part in parts for place in part])
    values = moved.reshape([math.prod(weights.shape[place] for place in part) for part in parts])
    if len(values) not in (1, count):
        raise ValueError(f"{about.title} has weights {tuple(weights.shape)} for {_many(count, 'picture')}: their batch "
                         "must be one entry for each picture, or one for all")
    return values.expand(count, -1, -1, -1)


def _choices(weights: Tensor, about: Description) -> tuple[str, list[str]]:
    """The word for the choices, and their names; no names where there is nothing to choose."""
    places = [place for place in _parts(about)["choices"] if weights.shape[place] > 1]
    numbered = [[f"{about.axes[place]} {at + 1}" for at in range(weights.shape[place])] for place in places]
    names = [", ".join(chosen) for chosen in itertools.product(*numbered)] if places else []
    return ", ".join(about.axes[place] for place in places), names


def _sizes(weights: Tensor, about: Description, field: Grid | None, grid: Grid | None) -> tuple[Grid | None, Grid]:
    """Rows and columns of the queries (None without queries) and of the map."""

    def unflattened(places: list[int]) -> Grid:
        words = [about.axes[place] for place in places]
        if "key" not in words and "query" not in words:
            sizes = dict(zip(words, (weights.shape[place] for place in places)))
            return sizes.get("row", 1), sizes.get("column", 1)
        count = weights.shape[places[0]]
        for size in (grid, field):
            if size is not None and size[0] * size[1] == count:
                return tuple(size)
        known = f"{_size(grid or field)} positions" if grid or field else "an input without rows and columns"
        raise ValueError(f"{about.title} has {_many(count, words[0])} for {known}; say how they lie with "
                         "grid=(rows, columns)")

    parts = _parts(about)
    return unflattened(parts["queries"]) if parts["queries"] else None, unflattened(parts["cells"])


# -- numbers and names

def _packed(values: Tensor) -> dict[str, Any]:
    """Maps as bytes, each between its own two ends, so that faint ones keep their shades."""
    for axis, size in enumerate(values.shape):
        first = values.narrow(axis, 0, 1)
        values = first if size > 1 and bool((values == first).all()) else values
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    share = (values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny)
    packed = pack(share, 0, 1)
    # Most of a softmax is nearly nothing, so that squeezing halves it.
    squeezed = base64.b64encode(zlib.compress(base64.b64decode(packed.pop("q")), 9)).decode()
    return {**packed, "z": squeezed, "ends": pack(torch.cat([low, high], -1), exact=True)}


def _finite(values: Tensor, what: str) -> Tensor:
    values = values.detach().cpu().float()
    if not values.isfinite().all():
        raise ValueError(f"{what} hold NaN or infinite values, which no colour can show")
    return values


def _images(pictures) -> Tensor:
    images = getattr(pictures, "images", pictures)
    if not isinstance(images, Tensor) or images.dim() != 4 or 0 in images.shape:
        found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"pictures are Pictures or a tensor (N, C, H, W) with at least one picture, not {found}")
    if not images.is_floating_point():
        raise ValueError(f"pictures are floating-point, not {images.dtype}; convert with pictures.float() / 255")
    _finite(images, "the pictures")
    return images


def _shown(images: Tensor, originals: Tensor | None, names: Sequence[str]) -> dict[str, Any]:
    """The pictures as the page shows them."""
    seen = _images(images if originals is None else originals).detach().cpu().float()
    if len(seen) != len(names) or (originals is not None and seen.shape[1] not in (1, 3)):
        raise ValueError(f"originals are (N, 1 or 3, H, W) for {_many(len(names), 'picture')}, not {tuple(seen.shape)}")
    colours = seen.shape[1] in (1, 3)
    seen = seen if colours else seen.mean(1, keepdim=True)
    low, high = float(seen.min()), float(seen.max())
    if high > low and (not colours or low < _NEARLY[0] or high > _NEARLY[1]):
        seen = (seen - low) / (high - low)
    rows, columns = seen.shape[2:]
    return {"names": list(names), "uris": [picture_uri(image.clamp(0, 1)) for image in seen],
            "size": [rows, columns], "hard": columns <= PIXELS_SHOWN}


def _names(labels: Sequence[str] | None, count: int) -> list[str]:
    if labels is None:
        return [f"picture {at + 1}" for at in range(count)]
    if len(labels) != count:
        raise ValueError(f"{_many(count, 'picture')}, but {_many(len(labels), 'label')}")
    return [str(label) for label in labels]


def _said(said: Mapping[str, Sequence[str]], variants: Mapping[str, Any], count: int) -> dict[str, list[str]]:
    for name, lines in said.items():
        if name not in variants:
            raise ValueError(f"there are lines for {name!r}, which is no variant; there are: {', '.join(variants)}")
        if len(lines) != count:
            raise ValueError(f"{name!r} has {_many(len(lines), 'line')} for {_many(count, 'picture')}")
    return {name: [str(line) for line in lines] for name, lines in said.items()}


def _start(start: Mapping[str, Any] | None, layers: Sequence[_Layer], pictures: Sequence[str], panels: Sequence[_Layer],
           scale: str) -> dict[str, Any]:
    """What is chosen first, by number; the place as shares of the width and the height."""
    wanted = {"layer": None, "picture": None, "choice": None, "at": None, "blend": 0.5, "scale": scale}
    for what in start or {}:
        if what not in wanted:
            raise ValueError(f"a viewer cannot start with {what!r}; there are: {', '.join(wanted)}")
    wanted |= start or {}

    def number(what: str, names: Sequence[str]) -> int:
        if wanted[what] is None:
            return 0
        if wanted[what] not in names:
            known = ", ".join(names) or "none"
            raise ValueError(f"there is no {what} {wanted[what]!r} to start with; there are: {known}")
        return list(names).index(wanted[what])

    layer = number("layer", [layer.name for layer in layers])
    # As in the script: the one with most choices names them, and the finest grid gives the places.
    together = layers[layer : layer + 1] if len(layers) > 1 else panels
    choices = max((shown.choices for shown in together), key=len)
    queries = [shown.queries for shown in together if shown.queries]
    rows, columns = max(queries or [shown.grid for shown in together], key=math.prod)
    row, column = wanted["at"] or ((rows + 1) // 2, (columns + 1) // 2)
    if not (1 <= row <= rows and 1 <= column <= columns):
        raise ValueError(f"there is no row {row}, column {column} to start at in {rows} × {columns} positions")
    return {"layer": layer, "picture": number("picture", pictures), "choice": number("choice", choices),
            "at": [(column - 0.5) / columns, (row - 0.5) / rows], "blend": float(wanted["blend"]),
            "scale": number("scale", SCALES)}


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _size(grid: Grid) -> str:
    return f"{grid[0]} × {grid[1]}"


def _cell(at: int, grid: Grid) -> str:
    row, column = divmod(at, grid[1])
    return f"row {row + 1}, column {column + 1}"
