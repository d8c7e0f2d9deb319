"""A training, replayed step by step: its curves, and the attention weights as they formed."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from attnlib.attention import Description, attentions
from attnlib.train import Run
from attnlib.widgets.viewer import Viewer, pack, ramps

Grid = tuple[int, int]
# Rows of a history that are shown; of more, as many, evenly chosen.
MOST_ROWS = 200
# Axes that hold the positions of a map, flattened row by row.
_POSITIONS = ("key", "query", "position")
_UNKNOWN = " (grid unknown)"
# What the axes of weights after the first most likely are, where no mechanism says.
_GUESSES = {
    1: ("channel",), 2: ("query", "key"), 3: ("channel", "row", "column"), 4: ("head", "query", "row", "column"),
}


def training(
    runs: Run | Mapping[str, Run], *, labels: Sequence[str] | None = None, only: str | Sequence[str] | None = None,
    start: int | None = None, network: nn.Module | None = None, grid: Grid | None = None, name: str | None = None,
    alt: str | None = None, caption: str | None = None,
) -> Training:
    """Curves of loss and accuracy that can be walked through, and beneath them the weights at the chosen step. ::

        runs = {"without": fit(plain, train, test, steps=300), "with SE": fit(se, train, test, steps=300, record=some)}
        training(runs, network=se)

    Test values are shown where a run has them, training values otherwise. The first of several runs is the baseline:
    grey, and emphasised in state 0; the last one is emphasised in state 1. Weights come from `Run.snapshots`, where
    `record=pictures` kept them: weights per channel are drawn as bars, weights with positions as maps on one scale for
    all steps, with a control for every other axis.

    Args:
        runs: what `fit` returned, or several by name.
        labels: names of the recorded pictures; "1", "2", ... by default.
        only: names of the mechanisms whose weights are shown, or patterns (``"layer4.*"``).
        start: the step shown at first, or the nearest before it; the last by default.
        network: where the recorded mechanisms are looked up, to learn what the axes of their weights mean. Without it
            (B, C) and (B, C, 1, 1) are taken as channels, (B, C, H, W) as maps, (B, N, N) as a query's map of keys.
        grid: rows and columns of positions that lie on one axis, row by row. By default those of the feature map that
            the mechanism saw, which `fit` notes in `Run.fields`; where these do not fit, the positions are drawn as
            bars in a row, and the figure says that their grid is unknown.
        name, alt, caption: as for every viewer; name and alt are made from the data by default.

    Raises:
        TypeError: something that is no `Run`.
        ValueError: no run, a run without history, values that are not finite, fewer labels than pictures, nothing that
            matches `only`, a grid that no weights fit, or more than a viewer may weigh.
    """
    named = dict(runs) if isinstance(runs, Mapping) else {"": runs}
    if not named:
        raise ValueError("there is no run to show; give what fit returned")
    if len(named) > 1 and "" in named:
        raise ValueError("one of the runs has no name; give each a short one")
    told = [_curves(str(label), run) for label, run in named.items()]
    layers, ignored = _all_layers(named, only)
    about = {} if network is None else {path: module.describe() for path, module in attentions(network).items()}
    shown = [_layer(layer, about.get(layer.name), grid) for layer in layers]
    if grid is not None and not any(layer["map"] and layer["size"] == list(grid) for layer in shown):
        raise ValueError(f"no weights were recorded of {math.prod(grid)} positions, {grid[0]} rows of {grid[1]}")
    _title(told, shown)
    pictures = min((layer.values.shape[1] for layer in layers), default=0)
    steps = sorted({step for curve in told for step in curve["steps"]} | {s for layer in layers for s in layer.steps})
    data = {
        "kind": _kind(told), "runs": told, "limits": _ends(told), "steps": steps, "last": steps[-1],
        "start": _at(steps, steps[-1] if start is None else start),
        "layers": shown, "pictures": _picture_names(labels, pictures),
    }
    if any(layer["map"] for layer in shown):
        data["ramps"] = ramps()
    name = name or "Training: " + (" and ".join(named) if any(named) else "loss and accuracy step by step")
    return Training(data, name=name, alt=alt or _in_words(told, layers, shown, pictures, ignored), caption=caption)


class Training(Viewer):
    """What `training` returns. State 0 emphasises the first run, 1 the last."""

    script = "training"


class _Layer(NamedTuple):
    """Recorded weights of one mechanism: which run, its name, the steps, values (steps, pictures, ...), and its input's
    rows and columns where they are known.
    """

    run: int
    name: str
    steps: list[int]
    values: Tensor
    field: Grid | None


def _curves(name: str, run: Run) -> dict[str, Any]:
    """The rows of a run as short numbers: steps, loss and, where known, accuracy; of the test where there is one."""
    if not isinstance(run, Run):
        raise TypeError(f"training shows what fit returned, a Run, not a {type(run).__name__}")
    history = run.history
    if not len(history):
        raise ValueError(f"the run{name and f' {name!r}'} has no history: it ended before its first row")
    tested = "test_loss" in history
    rows = np.unique(np.linspace(0, len(history) - 1, min(len(history), MOST_ROWS)).round().astype(int))
    told = {"name": name, "tested": tested, "steps": [int(step) for step in history["step"].iloc[rows]]}
    for what in ("loss", "accuracy"):
        column = f"test_{what}" if tested else what
        if column in history:
            told[what] = [_short(value) for value in history[column].iloc[rows]]
            if not all(map(math.isfinite, told[what])):
                raise ValueError(f"{column} of the run{name and f' {name!r}'} holds values that are no finite numbers")
    return told


def _kind(runs: list[dict[str, Any]]) -> str:
    """Which values are drawn, where it is the same for all runs."""
    tested = {run["tested"] for run in runs}
    return "" if len(tested) == 2 else "test " if True in tested else "training "


def _title(runs: list[dict[str, Any]], layers: list[dict[str, Any]]) -> None:
    """What legend and menus say: the kind of values where it differs, whose weights where several runs have some."""
    for run in runs:
        run["title"] = run["name"] + ("" if _kind(runs) else " (test)" if run["tested"] else " (training)")
    if len({layer["run"] for layer in layers}) > 1:
        for layer in layers:
            layer["title"] = f"{runs[layer['run']]['name']}: {layer['title']}"


def _ends(runs: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The ends of the scales of what was measured: 0 to 1 for accuracy, 0 and round numbers for loss."""
    losses = [loss for run in runs for loss in run["loss"]]
    high, low = _round_up(max(0.0, *losses)), -_round_up(max(0.0, *(-loss for loss in losses)))
    ends = {"loss": [low, high if high > low else 1.0]}
    return ends | ({"accuracy": [0, 1]} if any("accuracy" in run for run in runs) else {})


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    digits = (0, 1, 1.5, 2, 2.5, 3, 4, 6, 8, 10)
    return next(_short(digit * power) for digit in digits if digit * power >= 0.999 * value)


def _short(value: float) -> float:
    """Four significant digits: finer than a pixel."""
    return float(f"{float(value):.4g}")


def _at(steps: Sequence[int], step: int) -> int:
    """Index of the last of `steps` that is not after `step`, at least 0."""
    return max(0, int(np.searchsorted(steps, step, side="right")) - 1)


def _all_layers(runs: Mapping[str, Run], only: str | Sequence[str] | None) -> tuple[list[_Layer], list[str]]:
    """Recorded weights of all runs, and the names of runs and values whose snapshots are something else."""
    layers, ignored = [], []
    for number, (owner, run) in enumerate(runs.items()):
        found, left_out = _layers(number, str(owner), run)
        layers += found
        ignored += left_out
    if only is not None:
        patterns = [only] if isinstance(only, str) else list(only)
        chosen = [layer for layer in layers if any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in patterns)]
        if not chosen:
            there = ", ".join(dict.fromkeys(layer.name for layer in layers)) or "none"
            raise ValueError(f"no weights are recorded of {' or '.join(map(repr, patterns))}; there are: {there}")
        layers = chosen
    return layers, ignored


def _layers(number: int, owner: str, run: Run) -> tuple[list[_Layer], list[str]]:
    if not run.snapshots:
        return [], []
    values = [value for _, value in run.snapshots]
    if not all(isinstance(value, Mapping) for value in values):
        return [], [owner or "the run"]
    steps = [int(step) for step, _ in run.snapshots]
    found, ignored = [], []
    for name in values[0]:
        series = [value.get(name) for value in values]
        if _same_shape(series):
            stacked = torch.stack([item.detach().cpu().float() for item in series])
            found.append(_Layer(number, str(name), steps, stacked, run.fields.get(name)))
        else:
            ignored.append(str(name))
    return found, ignored


def _same_shape(series: Sequence[Any]) -> bool:
    """Whether these are weights of the same pictures at every step."""
    if not all(isinstance(item, Tensor) and item.dim() > 1 and item.is_floating_point() for item in series):
        return False
    return series[0].numel() > 0 and all(item.shape == series[0].shape for item in series)


def _layer(layer: _Layer, about: Description | None, grid: Grid | None) -> dict[str, Any]:
    """The weights for the browser: (steps, pictures, what is chosen ..., what is drawn), a byte each."""
    if not layer.values.isfinite().all():
        raise ValueError(f"the weights of {layer.name!r} hold values that are no finite numbers")
    sizes = layer.values.shape[2:]
    fits = about is not None and len(about.axes) == len(sizes) + 1
    names = about.axes[1:] if fits else _GUESSES.get(len(sizes), tuple(f"axis {n}" for n in range(1, len(sizes) + 1)))
    drawn = _drawn(names, sizes)
    choosers = [place for place in range(len(sizes)) if place not in drawn and sizes[place] > 1]
    order = [0, 1, *(2 + place for place in range(len(sizes)) if place not in (*drawn, *choosers))]
    values = layer.values.permute(*order, *(2 + place for place in (*choosers, *drawn)))
    axis, shape = names[drawn[0]], [sizes[place] for place in drawn]
    if len(shape) == 1 and axis in _POSITIONS and shape[0] > 1:
        known = next((lie for lie in (grid, layer.field) if lie is not None and math.prod(lie) == shape[0]), None)
        axis, shape = (axis, list(known)) if known else (f"{axis}{_UNKNOWN}", shape)
    is_map = len(shape) == 2
    return {
        "run": layer.run, "title": layer.name, "steps": layer.steps, "size": shape,
        "map": ("signed" if layer.values.min() < 0 else "map") if is_map else None,
        "axis": axis, "choose": [[names[place], sizes[place]] for place in choosers],
        "limits": _limits(values, about if fits else None, is_map), "values": pack(values.numpy()),
    }


def _drawn(names: Sequence[str], sizes: Sequence[int]) -> tuple[int, ...]:
    """Which axes are drawn: rows and columns where there are several positions, else channels, else the last."""
    if {"row", "column"} <= set(names):
        row, column = names.index("row"), names.index("column")
        if sizes[row] * sizes[column] > 1:
            return row, column
    long = [place for place, size in enumerate(sizes) if size > 1]
    if "channel" in names and (names.index("channel") in long or not long):
        return (names.index("channel"),)
    return (long[-1] if long else 0,)


def _limits(values: Tensor, about: Description | None, is_map: bool) -> list[float]:
    """The ends of the scale: for maps what occurs, for bars also zero and what the weights can be at most."""
    low, high = float(values.min()), float(values.max())
    if is_map:
        far = max(-low, high)
        return [-far, far] if low < 0 else [low, high]
    bounds = about.bounds if about is not None and about.bounds else (0.0, 1.0 if high <= 1 else high)
    return [min(low, bounds[0], 0.0), max(high, bounds[1] if math.isfinite(bounds[1]) else high) or 1.0]


def _picture_names(labels: Sequence[str] | None, pictures: int) -> list[str]:
    if labels is None:
        return [str(number + 1) for number in range(pictures)]
    if len(labels) < pictures:
        raise ValueError(f"weights of {pictures} pictures were recorded, but there are {len(labels)} labels")
    return [str(label) for label in labels[:pictures]]


def _in_words(runs: list[dict[str, Any]], layers: list[_Layer], shown: list[dict[str, Any]], pictures: int,
              ignored: list[str]) -> str:
    """What the curves and the weights show: first, last and best."""
    sentences = []
    for run in runs:
        which = "test" if run["tested"] else "training"
        sentences.append(f"{run['name'] + ', ' if run['name'] else ''}{which}: {_course(run, 'loss', min)}"
                         + (f"; {_course(run, 'accuracy', max)}" if "accuracy" in run else "") + ".")
    for layer, drawn in zip(layers, shown):
        first, last = (f"between {ends.min():.2f} and {ends.max():.2f}" for ends in (layer.values[0], layer.values[-1]))
        sentences.append(f"Weights of {layer.name} for {pictures} picture{'s'[:pictures != 1]}: "
                         f"at step {layer.steps[0]} {first}, at step {layer.steps[-1]} {last}.")
        if drawn["axis"].endswith(_UNKNOWN):
            sentences.append(f"Its {drawn['size'][0]} positions stand in a row, as their grid is unknown.")
    if ignored:
        sentences.append(f"Not shown, because they are no attention weights: snapshots of {', '.join(ignored)}.")
    return " ".join(sentences)


def _course(run: dict[str, Any], what: str, best: Any) -> str:
    values, steps = run[what], run["steps"]
    if len(values) == 1:
        return f"{what} {values[0]:.2f} at step {steps[0]}"
    top = best(values)
    return (f"{what} {values[0]:.2f} at step {steps[0]}, {values[-1]:.2f} at step {steps[-1]}, "
            f"at best {top:.2f} at step {steps[values.index(top)]}")
