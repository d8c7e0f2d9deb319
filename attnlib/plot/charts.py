"""Charts of weights and of training, for every mechanism alike: what an axis means is read from its `Description`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from attnlib.attention import Description
from attnlib.plot.colours import COLOURS
from attnlib.plot.figure import colour_bar, style, subplots

# What the weights of a kind are called on an axis.
_WORDS = {"gate": "gate", "softmax": "share"}
# Up to this many weights are drawn as separate bars; more as one filled outline.
_BARS = 32
_RUNS = (
    (COLOURS["neutral"], "-"), (COLOURS["data"], "-"), (COLOURS["learned"], "--"), (COLOURS["query"], "-."),
    (COLOURS["key"], ":"), (COLOURS["value"], (0, (5, 1, 1, 1, 1, 1))),
)


@style()
def gates(weights, about: Description | None = None, *, axis: str | None = None, sort: bool = False,
          neutral: float | None = None):
    """Bars of weights along one axis, with a grey line where they would express no preference.

    Channels are counted from 1, as the viewers count them. With one or two panels, the figure fits a phone.

    Args:
        weights: a tensor, or several by name, drawn side by side on one scale. Every axis but the one drawn is
            averaged over; over a batch, a thin line shows the middle half of its pictures.
        about: the mechanism's description. Without it, weights are taken as (channel,) or (batch, channel, …).
        axis: which of `about.axes` to draw; ``"channel"`` where there is one, else the first after the batch.
        sort: draw the largest first.
        neutral: height of the grey line; 1 for a gate and an equal share for a softmax by default.

    Returns:
        the matplotlib figure.

    Raises:
        ValueError: no weights, NaN or infinity among them, or an axis they do not have.
    """
    groups = _groups(weights)
    profiles = {name: _along(group, about, axis) for name, group in groups.items()}
    length = max(profile.shape[1] for profile in profiles.values())
    widest = 4.8 if len(groups) <= 2 else 7.0
    width = min(widest, max(3.6, len(groups) * (1.2 + 0.06 * min(length, 24))) + 0.5)
    figure, axes = subplots(1, len(groups), width=width, height=2.6, sharey=True, squeeze=False)
    told = {}
    for place, (name, profile) in zip(axes.flat, profiles.items()):
        told |= _bars(place, profile, sort)
        level = _neutral(about, profile.shape[1]) if neutral is None else neutral
        if level is not None:
            line = place.axhline(level, color=COLOURS["neutral"], linewidth=1, linestyle=(0, (4, 2)))
            told[f"no preference ({level:.2g})"] = line
        place.set_title(name)
        place.set_xlabel(_axis_name(about, axis) + (", largest first" if sort else ""))
    axes.flat[0].set_ylabel(_WORDS.get(about.kind if about else None, "weight"))
    _limit(axes.flat[0], about, profiles.values())
    if told:
        figure.legend(told.values(), told, loc="outside upper right", ncols=len(told), fontsize=9)
    return figure


@style()
def gates_by_class(weights, labels, classes: Sequence[str], about: Description | None = None, *,
                   axis: str | None = None, centre: bool = True):
    """Heat map of the mean weight per class (rows) and per channel (columns): whether the weights know the class.

    Args:
        weights: for N pictures, batch first; or several by name, one panel each.
        labels: (N,) class indices.
        classes: names of the classes, in the order of the indices.
        about, axis: as for `gates`.
        centre: subtract each channel's mean over the classes, so that only what depends on the class is left
            (``attn_signed``, grey is zero); False draws the means themselves (``attn_map``).

    Returns:
        the matplotlib figure.

    Raises:
        ValueError: numbers of weights, labels and classes that do not belong together.
    """
    labels = torch.as_tensor(labels).cpu()
    profiles = {name: _along(group, about, axis) for name, group in _groups(weights).items()}
    means = {name: _class_means(profile, labels, classes) for name, profile in profiles.items()}
    if centre:
        means = {name: table - table.nanmean(0, keepdim=True) for name, table in means.items()}
    values = torch.cat([table.flatten() for table in means.values()])
    values = values[values.isfinite()]
    far = float(values.abs().max()) or 1e-6
    low, high, ramp = (-far, far, "attn_signed") if centre else (float(values.min()), float(values.max()), "attn_map")
    height = 0.7 + 0.2 * len(classes)
    figure, axes = subplots(1, len(means), width=min(7.0, 1.8 + 2.4 * len(means)), height=height, sharey=True,
                            squeeze=False)
    for place, (name, table) in zip(axes.flat, means.items()):
        drawn = place.imshow(table.numpy(), cmap=ramp, vmin=low, vmax=high, aspect="auto", interpolation="none",
                             extent=(0.5, table.shape[1] + 0.5, len(classes) - 0.5, -0.5))  # channels count from 1
        place.set_title(name)
        place.set_xlabel(_axis_name(about, axis))
        place.set_yticks(range(len(classes)), classes)
        place.spines[:].set_visible(False)
        place.tick_params(length=0)
    bar = colour_bar(figure, axes, drawn, "mean weight" + (",\nless the channel's" if centre else ""))
    bar.ax.locator_params(nbins=3)
    return figure


@style()
def curves(histories, *, against: str = "step"):
    """Loss and accuracy of several runs while they trained.

    The first run is the baseline and drawn in grey. Where a run has both, test accuracy is the full line and training
    accuracy the faint one.

    Args:
        histories: what `attnlib.fit` gave, or its `history`, by the name of the run (or a single one): tables with a
            column `loss` and, where known, `accuracy` and `test_accuracy`, along `step` or `seconds`.
        against: ``"step"`` or ``"seconds"``.

    Returns:
        the matplotlib figure.

    Raises:
        ValueError: no run, or a table without the columns.
    """
    runs = dict(histories) if isinstance(histories, Mapping) else {"": histories}
    runs = {name: getattr(run, "history", run) for name, run in runs.items()}
    if not runs:
        raise ValueError("there is no run to draw")
    for name, table in runs.items():
        if absent := {against, "loss"} - set(table.columns):
            raise ValueError(f"the history {name!r} has no column {' or '.join(sorted(absent))}: {list(table.columns)}")
    tested = any({"accuracy", "test_accuracy"} & set(table.columns) for table in runs.values())
    figure, axes = subplots(1, 1 + tested, width=6.6 if tested else 4.8, height=2.7, squeeze=False)
    looks = _RUNS if len(runs) > 1 else _RUNS[1:]
    for number, (name, table) in enumerate(runs.items()):
        colour, dashes = looks[number % len(looks)]
        _curve(axes[0, 0], table, against, "loss", color=colour, linestyle=dashes, label=name)
        if tested:
            both = "test_accuracy" in table.columns
            _curve(axes[0, 1], table, against, "accuracy", color=colour, linestyle=dashes, alpha=0.35 if both else 1,
                   linewidth=1.2 if both else 1.6)
            _curve(axes[0, 1], table, against, "test_accuracy", color=colour, linestyle=dashes)
    both = any({"accuracy", "test_accuracy"} <= set(table.columns) for table in runs.values())
    for place, what in zip(axes.flat, ("loss", "test accuracy (faint: training)" if both else "accuracy")):
        place.set_title(what)
        place.set_xlabel("training step" if against == "step" else "seconds")
    axes[0, 0].set_ylim(bottom=0)
    if len(runs) > 1:
        axes[0, 0].legend(handlelength=2.6)
    return figure


@style()
def scatter_cost(points, *, cost: str = "cost", accuracy: str = "accuracy", log: bool = False):
    """Accuracy against cost, every point labelled, no two labels on top of each other.

    Args:
        points: ``{name: (cost, accuracy)}``, or a DataFrame whose index holds the names.
        cost, accuracy: names of the axes, and of the DataFrame's columns.
        log: logarithmic cost axis.

    Returns:
        the matplotlib figure.
    """
    if hasattr(points, "columns"):
        points = {str(name): (row[cost], row[accuracy]) for name, row in points.iterrows()}
    if not points:
        raise ValueError("there is no point to draw")
    figure, place = subplots()
    x, y = np.array(list(points.values()), dtype=float).T
    place.scatter(x, y, s=28, color=COLOURS["data"], zorder=3)
    place.set(xlabel=cost, ylabel=accuracy, xscale="log" if log else "linear")
    place.margins(0.18, 0.15)
    place.grid(True, axis="y")
    _label_apart(figure, place, list(points), np.stack([x, y], axis=1))
    return figure


def _groups(weights) -> dict[str, Tensor]:
    groups = dict(weights) if isinstance(weights, Mapping) else {"": weights}
    groups = {str(name): torch.as_tensor(group).detach().cpu().float() for name, group in groups.items()}
    if not groups or any(group.numel() == 0 for group in groups.values()):
        raise ValueError("there are no weights to draw")
    if not all(group.isfinite().all() for group in groups.values()):
        raise ValueError("the weights hold NaN or infinite values, which cannot be drawn")
    return groups


def _axis_name(about: Description | None, axis: str | None) -> str:
    if axis is not None:
        return axis
    return "channel" if about is None or "channel" in about.axes else about.axes[1]


def _along(weights: Tensor, about: Description | None, axis: str | None) -> Tensor:
    """Weights as (batch, along the axis): the mean over every other axis."""
    if weights.dim() == 1:
        return weights[None]
    axes = about.axes if about is not None else ("batch", "channel", *("other",) * (weights.dim() - 2))
    if weights.dim() != len(axes):
        raise ValueError(f"weights of shape {tuple(weights.shape)} do not have the axes {', '.join(axes)}")
    name = _axis_name(about, axis)
    if name not in axes:
        raise ValueError(f"the weights have no axis {name!r}; they have: {', '.join(axes)}")
    kept = axes.index(name)
    others = [place for place in range(1, len(axes)) if place != kept]
    return weights.mean(others) if others else weights


def _neutral(about: Description | None, length: int) -> float | None:
    if about is None or about.kind == "transform":
        return None
    if about.kind == "gate":
        return 1.0
    return 1 / length if len(about.sums_over) == 1 else None


def _bars(place, profile: Tensor, sort: bool) -> dict:
    """Draw them, and the spread over the pictures where there are enough; what a legend should tell of it."""
    mean = profile.mean(0)
    order = mean.argsort(descending=True) if sort else torch.arange(len(mean))
    numbers = np.arange(1, len(mean) + 1)
    if len(mean) > _BARS:
        edges = np.arange(len(mean) + 1) + 0.5
        place.stairs(mean[order].numpy(), edges, fill=True, color=COLOURS["data"])
    else:
        place.bar(numbers, mean[order].numpy(), color=COLOURS["data"], width=0.75)
    told = {}
    if len(profile) > 3 and len(mean) <= _BARS:
        low, high = profile[:, order].quantile(torch.tensor([0.25, 0.75]), dim=0).numpy()
        told["middle half of the pictures"] = place.vlines(numbers, low, high, color=COLOURS["text"], linewidth=1.3)
    place.set_xlim(0.3, len(mean) + 0.7)
    locator = place.xaxis.get_major_locator()
    locator.set_params(integer=True)
    step = max(1, round(float(np.diff(locator()[:2]).sum())))
    # The first bar has its number, so that nobody has to guess where the count starts.
    place.set_xticks(numbers[::step] if step <= 2 else [1, *numbers[step - 1 :: step]])
    return told


def _limit(place, about: Description | None, profiles) -> None:
    """Show the whole range a weight can take, where that is a small one, so that two figures compare."""
    low, high = about.bounds if about is not None and about.bounds else (0.0, math.inf)
    largest = max(float(profile.max()) for profile in profiles)
    if about is not None and about.kind == "gate" and math.isfinite(high) and math.isfinite(low):
        place.set_ylim(low, max(high, largest) + 0.05 * (high - low))
    elif low >= 0:
        place.set_ylim(bottom=0)


def _class_means(profile: Tensor, labels: Tensor, classes: Sequence[str]) -> Tensor:
    """(classes, channels): the mean over the pictures of a class; NaN where a class has none."""
    if len(profile) != len(labels):
        raise ValueError(f"weights of {len(profile)} pictures, but {len(labels)} labels")
    if len(labels) and int(labels.max()) >= len(classes):
        raise ValueError(f"labels go up to {int(labels.max())}, but there are names for {len(classes)} classes")
    return torch.stack([profile[labels == number].mean(0) for number in range(len(classes))])


def _curve(place, table, against: str, what: str, **look) -> None:
    if what not in table.columns:
        return
    known = table[[against, what]].dropna()
    place.plot(*_thinned(known[against].to_numpy(float), known[what].to_numpy(float)), **look)


def _thinned(x: np.ndarray, y: np.ndarray, points: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Means of consecutive values where there are more than `points`: the same line in a tenth of the bytes."""
    block = -(-len(x) // points)
    if block < 2:
        return x, y
    starts = np.arange(0, len(x), block)
    counts = np.diff([*starts, len(x)])
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def _label_apart(figure, place, names: Sequence[str], points: np.ndarray) -> None:
    """Label each point at the first of eight places around it where nothing has been drawn yet."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # settles the layout, without which there are no pixel positions
    inside = figure.bbox
    dots = place.transData.transform(points)
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in dots]
    spots = [(7, 0, "left", "center"), (-7, 0, "right", "center"), (0, 6, "center", "bottom"), (0, -6, "center", "top"),
             (6, 5, "left", "bottom"), (6, -5, "left", "top"), (-6, 5, "right", "bottom"), (-6, -5, "right", "top")]
    spots += [(x * 2.5, y * 2.5, ha, va) for x, y, ha, va in spots] + spots[:1]  # nowhere free: the first, regardless
    for name, point in zip(names, points):
        for number, (right, up, ha, va) in enumerate(spots):
            label = place.annotate(name, point, (right, up), textcoords="offset points", ha=ha, va=va, fontsize=9)
            label.set_in_layout(False)  # or it would move the points it was placed by
            box = label.get_window_extent()
            fits = inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1)
            if number == len(spots) - 1 or fits and not any(box.overlaps(other) for other in taken):
                break
            label.remove()
        taken.append(box)
