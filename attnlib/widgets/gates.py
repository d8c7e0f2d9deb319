"""The gate viewer: one bar per gate, which can be compared, sorted, switched, and moved."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnlib.attention import attentions
from attnlib.observe import held, intervene, shuffled, switch_off
from attnlib.plot.svg import role_variable
from attnlib.train.session import evaluation
from attnlib.widgets.viewer import PIXELS_SHOWN, Viewer, pack, picture_uri

STATES = ("off", "learned", "shuffled")
ORDERS = ("as in the layer", "by learned size")
# Axes along which a gate of this viewer has nothing to vary.
_PLACES = ("row", "column", "query", "key")
# More bars than this no screen can show; those that differ most between pictures are kept.
_MOST_BARS = 256
# How far scores computed from the slopes may be from the network's own, in units of what the gates change at most.
_SAME = 1e-3


def gates(network: nn.Module, pictures: Any, *, classes: Sequence[str] | None = None, labels: Sequence[str] | None = None,
          groups: Mapping[str, Tensor] | None = None, only: str | Sequence[str] | None = None,
          layers: Sequence[str] | None = None, shown: Any = None, order: str = ORDERS[1],
          name: str = "Gates", alt: str | None = None, caption: str | None = None) -> Gates:
    """Bars of the gates a network computes, and what it answers with them.

    A reader chooses layer, picture and order, sets one picture's gates beside another's, and switches between the
    gates the network learned to compute, none (off), and those of another picture (shuffled). Where the answer depends
    on a layer's gates linearly before the softmax, as in the last layer of many networks, the bars can be moved and
    the browser computes the answer; for any other layer a kernel does, where there is one.

    Args:
        network: holds mechanisms whose weights are one number per channel (or head, or group) and picture.
        pictures: (N, C, H, W) with N of at least 2, or `attnlib.data.Pictures`. Each can be chosen, with the answer.
        classes: names of the network's outputs; those of `pictures`, or numbers, by default.
        labels: a name for each picture; its class by default.
        groups: further rows without an answer: the mean gates over these pictures, by the name of the row.
        only: the mechanisms shown, as for `attnlib.record`; all by default. The last one is shown first.
        layers: a name for each of these mechanisms; their qualified names by default.
        shown: pictures to draw instead of `pictures`, where those are normalised; otherwise they are cut off at 0 and 1.
        order: of the bars at first: ``"by learned size"`` or ``"as in the layer"``, where neighbours matter.
        name: the accessible name; it starts with a word for what is seen.
        alt: what is seen; told from the numbers by default.
        caption: printed below.

    Raises:
        ValueError: another order, no such mechanism, one whose weights have positions (see `attnlib.widgets.maps`), one picture only,
            names of another number, or more than `attnlib.widgets.viewer.MOST_BYTES`.
    """
    images = getattr(pictures, "images", pictures)
    if not isinstance(images, Tensor) or images.dim() != 4 or len(images) < 2:
        raise ValueError("the gate viewer takes at least two pictures (N, C, H, W): one is shuffled with the other")
    if order not in ORDERS:
        raise ValueError(f"the order of the bars is one of {', '.join(ORDERS)}, not {order!r}")
    parameter = next(network.parameters(), images)
    images = images.to(parameter.device, parameter.dtype)
    with evaluation(network):
        seen = _Layers(network, images, only)
        states, answers = seen.states(images)
        classes = _names(classes or getattr(pictures, "classes", None), answers.shape[-1], "outputs")
        if labels is None and hasattr(pictures, "labels"):
            labels = [f"{number + 1}: {pictures.classes[label]}" for number, label in enumerate(pictures.labels.tolist())]
        labels = _names(labels, len(images), "pictures")
        means = {row: seen.weights(some) for row, some in (groups or {}).items()}
        affine = [seen.affine(layer, images, states) for layer in seen.names]

    items = _items(labels, images if shown is None else getattr(shown, "images", shown))
    rows = [_rows(states, means, layer) for layer in seen.names]
    kept = [_most_different(row) for row in rows]
    low, high = seen.bounds(rows)
    layers = _names(layers or seen.names, len(rows), "layers")
    data = {
        "sort": ORDERS.index(order), "layers": layers, "layer": len(layers) - 1, "what": "picture", "states": list(STATES),
        "items": items + [{"name": row} for row in means], "classes": classes, "bounds": [low, high],
        "gates": [pack(row[..., keep], low, high) for row, keep in zip(rows, kept)],
        "channels": [keep.tolist() for keep in kept], "pixels": images.shape[-1] <= PIXELS_SHOWN,
        "answers": pack(torch.cat([answers, answers.new_zeros(len(STATES), len(means), len(classes))], 1), 0, 1),
        "affine": [part and {"slope": pack(part[0][..., keep], exact=True), "offset": pack(part[1], exact=True)}
                   for part, keep in zip(affine, kept)],
    }
    told = alt or _told(layers[-1], labels, classes, rows[-1], answers)
    return Gates(data, seen, images, kept, name=name, alt=told, caption=caption, still=_still(data, rows[-1][1, 0], told))


class Gates(Viewer):
    """What `gates` returns. With a kernel it answers for gates that a reader has moved."""

    script = "gates"

    def __init__(self, data: dict[str, Any], layers: _Layers, images: Tensor, kept: list[Tensor], **traits: Any) -> None:
        super().__init__(data, **traits)
        self._layers, self._images, self._kept = layers, images, kept

    def _asked(self, _, message: Any, buffers: Any) -> None:
        super()._asked(_, message, buffers)
        if isinstance(message, dict) and "gates" in message:
            try:
                self.send({"answer": self.answer(**message)})
            except Exception as error:  # what has become of a reader's network belongs where the answer would be
                self.send({"error": f"{type(error).__name__}: {error}"})

    def answer(self, layer: int, item: int, gates: Sequence[float]) -> list[float]:
        """What the network answers to picture `item` with these gates in `layer`: a probability per class."""
        name, image = self._layers.names[layer], self._images[item : item + 1]
        with evaluation(self._layers.network):
            values = self._layers.weights(image)[name][0]
            values[self._kept[layer]] = torch.as_tensor(gates, dtype=values.dtype, device=values.device)
            with intervene(self._layers.network, held(values.reshape(self._layers.shapes[name])), only=name):
                return self._layers.network(image).softmax(1)[0].tolist()


class _Layers:
    """The mechanisms shown, and what a network does with their gates."""

    def __init__(self, network: nn.Module, images: Tensor, only) -> None:
        self.network = network
        seen = _seen(network, images[:2], only)
        self.names = list(seen)
        self.about = {name: attentions(network)[name].describe() for name in seen}
        self.shapes = {name: (1, *weights.shape[1:]) for name, weights in seen.items()}
        for name, weights in seen.items():
            if self.about[name].kind != "gate":
                raise ValueError(f"the weights of {name!r} are no gates: one cannot be moved by itself; draw them with "
                                 "widgets.maps or widgets.training, or choose other mechanisms with only=")
            sizes = dict(zip(self.about[name].axes, weights.shape))
            if any(sizes.get(axis, 1) > 1 for axis in _PLACES):
                raise ValueError(f"the weights of {name!r} have positions, {tuple(weights.shape)}; draw them with "
                                 "widgets.maps, or choose other mechanisms with only=")

    def weights(self, images: Tensor) -> dict[str, Tensor]:
        """The gates by layer: (C,) each for every picture, (N, C)."""
        return {name: weights.flatten(1).float() for name, weights in _seen(self.network, images, self.names).items()}

    def states(self, images: Tensor) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Gates by layer, and probabilities (states, N, classes), off, learned, and shuffled."""
        edits = (switch_off(self.network, self.names), contextlib.nullcontext(),
                 intervene(self.network, shuffled(0), self.names))
        weights, answers = [], []
        for edit in edits:
            with edit:
                weights.append(self.weights(images))
                answers.append(self.network(images).softmax(1).float())
        return weights, torch.stack(answers)

    def affine(self, name: str, images: Tensor, states) -> tuple[Tensor, Tensor] | None:
        """Slopes (N, classes, C) and offsets (N, classes) of the scores in a layer's gates; None where they bend."""
        def scores(values: Tensor) -> Tensor:
            shape = (len(images), *self.shapes[name][1:])
            with intervene(self.network, lambda weights, x, attention: values.reshape(shape).to(weights), only=name):
                return self.network(images)

        learned = states[1][name]
        with torch.enable_grad():
            values = learned.clone().requires_grad_()
            given = scores(values)
            slopes = [torch.autograd.grad(given[:, k].sum(), values, retain_graph=True)[0] for k in range(given.shape[1])]
        slope = torch.stack(slopes, 1)  # (N, classes, C)
        offset = given.detach() - (slope @ learned[..., None])[..., 0]
        # Far from where the slopes were taken: all closed, all open, and another picture's.
        others = [torch.zeros_like(learned), torch.ones_like(learned), states[2][name]]
        theirs = [scores(other) for other in others]
        wrong = [scored - (slope @ other[..., None])[..., 0] - offset for other, scored in zip(others, theirs)]
        changed = max((scored - given).abs().max() for scored in theirs)
        noise = 1e-6 * given.detach().abs().max()
        return (slope, offset) if max(w.abs().max() for w in wrong) <= _SAME * changed + noise else None

    def bounds(self, rows: list[Tensor]) -> tuple[float, float]:
        """The ends of the scale: what a gate can be, where that is bounded, and else what was seen."""
        low, high = (f(row.amin() if f is min else row.amax() for row in rows).item() for f in (min, max))
        known = [about.bounds for about in self.about.values() if about.bounds]
        return (min([low, 0.0, *(b[0] for b in known if abs(b[0]) < float("inf"))]),
                max([high, 1.0, *(b[1] for b in known if abs(b[1]) < float("inf"))]))


def _seen(network: nn.Module, images: Tensor, only) -> dict[str, Tensor]:
    """The weights that the network uses for these pictures, by name."""
    from attnlib.observe import record

    with record(network, only) as recorded, torch.no_grad():
        network(images)
    return dict(recorded)


def _names(given, count: int, what: str) -> list[str]:
    names = [str(name) for name in given] if given is not None else [str(number + 1) for number in range(count)]
    if len(names) != count:
        raise ValueError(f"{count} {what}, but {len(names)} names")
    return names


def _items(labels: list[str], shown: Tensor) -> list[dict[str, str]]:
    return [{"name": label, "picture": picture_uri(image.detach().float().clamp(0, 1)), "alt": f"The picture “{label}” that the network answers"}
            for label, image in zip(labels, shown)]


def _rows(states, means: Mapping[str, Mapping[str, Tensor]], layer: str) -> Tensor:
    """Gates (states, pictures and groups, C) of a layer. A group's gates have no pictures to be shuffled among."""
    group = [mean[layer].mean(0) for mean in means.values()]
    off = states[0][layer]
    rows = [torch.cat([state[layer], *([off[:1].expand(len(group), -1) if n == 0 else torch.stack(group)] if group else [])])
            for n, state in enumerate(states)]
    return torch.stack(rows)


def _most_different(row: Tensor) -> Tensor:
    """Which bars are shown, in the layer's order."""
    if row.shape[-1] <= _MOST_BARS:
        return torch.arange(row.shape[-1])
    return row[1].std(0).topk(_MOST_BARS).indices.sort().values


def _still(data: dict[str, Any], values: Tensor, alt: str) -> str:
    """The first picture and its gates, as the viewer draws them first."""
    (low, high), heights = data["bounds"], values.sort(descending=True).values if data["sort"] else values
    step, tall = 320 / len(heights), 170
    bars = [(at * step, tall * (height - low) / (high - low)) for at, height in enumerate(heights.tolist())]
    path = "".join(f"M{x:.1f} {tall}v-{y:.1f}h{0.8 * step:.1f}v{y:.1f}z" for x, y in bars)
    return (f'<div style="display:flex;flex-wrap:wrap;gap:1.5rem;align-items:center"><img src="{data["items"][0]["picture"]}" '
            f'alt="{html.escape(data["items"][0]["alt"])}" style="image-rendering:pixelated;width:96px">'
            f'<svg viewBox="0 0 320 {tall}" role="img" aria-label="{html.escape(alt)}" style="flex:1 1 20rem;max-width:22rem">'
            f'<path d="{path}" style="fill:{role_variable("data")}"/></svg></div>')


def _told(layer: str, labels: list[str], classes: list[str], row: Tensor, answers: Tensor) -> str:
    first, said = row[1, 0], [classes[k] for k in answers[:, 0].argmax(-1).tolist()]
    return (f"{row.shape[-1]} gates of {layer or 'the mechanism'} for {len(labels)} pictures. For the first, {labels[0]}, they lie "
            f"between {first.min():.2f} and {first.max():.2f}; the network answers {said[1]} with them, {said[0]} with "
            f"all gates neutral, and {said[2]} with the gates of another picture.")
