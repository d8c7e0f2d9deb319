"""Precomputed figures behind a control. The browser switches them by itself: no kernel, no network.

Every widget here is a control whose `index` is linked, in the browser, to the `selected_index` of a `Stack` of `HTML`
widgets. The links are in the saved state of the notebook, so they also work in the built site.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as ipw

from attnlib.plot import Figure, show

# All states of one widget together. More makes a page slow on a phone.
MOST_BYTES = 400_000

_LABEL = {"description_width": "initial"}
_WIDE = {"width": "100%"}


def toggle(states: Mapping[str, Any], *, label: str, start: str | None = None) -> Switched:
    """A row of buttons; each shows one figure. ::

        toggle({"off": figure_off, "on": figure_on}, label="attention", start="on")

    Args:
        states: the figure behind each button. A figure is what `plot.show` or `plot.diagram` give; or a matplotlib
            figure with its alt text, ``(figure, "alt")``; or HTML whose every picture has alt text.
        label: what is switched, written before the buttons.
        start: the button pressed at first; the first one by default.

    Raises:
        ValueError: fewer than two states, no alt text, an unknown `start`, or more than `MOST_BYTES` in all.
    """
    names, figures = _named(states)
    control = _buttons(label, names, start)
    return Switched([control], _stack(figures, control), label, names)


def slider(states: Mapping[str, Any] | Sequence[tuple[str, Any]], *, label: str, start: str | None = None) -> Switched:
    """A slider through figures, in their order: steps of training, a gate from 0 to 1.

    Args and errors as for `toggle`; `states` may also be pairs ``(name, figure)``. The name of the state is written
    beside the slider.
    """
    names, figures = _named(states)
    control = ipw.SelectionSlider(
        options=names, index=_place(names, start), description=label, style=_LABEL, layout={"width": "min(100%, 28rem)"}
    )
    return Switched([control], _stack(figures, control), label, names)


def play(states: Mapping[str, Any] | Sequence[tuple[str, Any]], *, label: str, start: str | None = None,
         interval: int = 600) -> Switched:
    """A `slider` with a play button that walks through the states, `interval` milliseconds each."""
    names, figures = _named(states)
    index = _place(names, start)
    steps = ipw.SelectionSlider(options=names, index=index, description=label, style=_LABEL)
    button = ipw.Play(value=index, min=0, max=len(names) - 1, interval=interval, description=f"Play {label}",
                      tooltip=f"Play {label}")
    ipw.jslink((button, "value"), (steps, "index"))
    row = ipw.HBox([button, steps], layout={"flex_flow": "row wrap"})
    return Switched([row], _stack(figures, steps), label, names)


def toggles(options: Mapping[str, Sequence[str]], figures: Mapping[tuple[str, ...], Any] | Callable[..., Any], *,
            start: Sequence[str] | None = None) -> Switched:
    """Several independent rows of buttons; each combination shows one figure. ::

        toggles({"attention": ("off", "on"), "picture": ("cat", "dog")}, lambda attention, picture: figure)

    Args:
        options: the names of each row's buttons, by the row's label.
        figures: the figure of every combination, by the tuple of its names; or a function of them.
        start: the buttons pressed at first; the first of each row by default.

    Raises:
        ValueError: as for `toggle`, or a combination without a figure.
    """
    start = start or [names[0] for names in options.values()]
    rows = zip(options.items(), start, strict=True)
    controls = [_buttons(label, list(names), first) for (label, names), first in rows]
    combinations = list(itertools.product(*options.values()))
    if callable(figures):
        figures = {combination: figures(*combination) for combination in combinations}
    if missing := [combination for combination in combinations if combination not in figures]:
        raise ValueError(f"no figure was given for {' + '.join(missing[0])}")

    def nested(chosen: tuple[str, ...]) -> ipw.DOMWidget:
        depth = len(chosen)
        if depth == len(controls):
            return _page(figures[chosen], " + ".join(chosen))
        names = list(options.values())[depth]
        return _stack([nested((*chosen, name)) for name in names], controls[depth])

    names = [" + ".join(combination) for combination in combinations]
    return Switched(controls, nested(()), ", ".join(options), names)


class Switched(ipw.VBox):
    """Controls above the figures they switch. Its text form is the same in every run.

    Attributes:
        states: the names of the states.
        bytes: what the saved state weighs, which is what a page carries.
    """

    def __init__(self, controls: list, stack: ipw.DOMWidget, label: str, states: Sequence[str]) -> None:
        self.label, self.states = label, list(states)
        super().__init__([*controls, stack])
        self.bytes = state_bytes(self)
        if self.bytes > MOST_BYTES:
            self.close()
            raise ValueError(
                f"the {len(states)} states of {label!r} weigh {self.bytes / 1000:.0f} kB, more than the "
                f"{MOST_BYTES / 1000:.0f} kB a page should carry; show fewer states, or smaller pictures"
            )

    def __repr__(self) -> str:
        return f"{self.label}: {' | '.join(self.states)}"


def state_bytes(widget: ipw.Widget) -> int:
    """Bytes that `widget` and everything in it adds to a saved notebook."""
    from ipywidgets.embed import dependency_state

    return len(json.dumps(dependency_state(widget, drop_defaults=False)).encode())


def as_html(figure: Any, name: str) -> str:
    """The HTML of a figure in any form `toggle` takes.

    Raises:
        ValueError: a picture without alt text.
        TypeError: something that cannot be shown.
    """
    if isinstance(figure, tuple) and len(figure) == 2:
        figure = show(*figure)
    if isinstance(figure, Figure):
        return figure._repr_html_()
    text = figure if isinstance(figure, str) else getattr(figure, "_repr_html_", lambda: None)()
    if text is None:
        raise TypeError(
            f"the state {name!r} is a {type(figure).__name__}; give what plot.show returns, or (figure, 'alt text')"
        )
    for picture in re.findall(r"<(?:img|svg)\b[^>]*>", text):
        named = re.search(r"""\b(?:alt|aria-label)=(["'])\s*[^"'\s]""", picture)
        if not named and "aria-hidden" not in picture:
            raise ValueError(f"the state {name!r} holds a picture without alt text; add alt='what it shows'")
    # The corner of a data frame heads nothing, and is read out as if it did.
    return re.sub(r"<th\b([^>]*)></th>", r"<td\1></td>", text)


def _named(states) -> tuple[list[str], list[ipw.HTML]]:
    pairs = list(states.items() if isinstance(states, Mapping) else states)
    names = [str(name) for name, _ in pairs]
    if len(pairs) < 2:
        raise ValueError(f"there is nothing to switch between {len(pairs)} states; give at least two")
    if len(set(names)) < len(names):
        raise ValueError(f"two states have the same name: {', '.join(names)}")
    return names, [_page(figure, name) for name, figure in zip(names, (figure for _, figure in pairs))]


def _place(names: list[str], start: str | None) -> int:
    if start is not None and str(start) not in names:
        raise ValueError(f"there is no state {start!r} to start with; there are: {', '.join(names)}")
    return 0 if start is None else names.index(str(start))


def _buttons(label: str, names: list[str], start: str | None) -> ipw.ToggleButtons:
    return ipw.ToggleButtons(options=names, index=_place(names, start), description=label, layout=_WIDE,
                             style=_LABEL | {"button_width": "auto"})


def _page(figure: Any, name: str) -> ipw.HTML:
    return ipw.HTML(as_html(figure, name), layout=_WIDE)


def _stack(children: list, control) -> ipw.Stack:
    stack = ipw.Stack(children, selected_index=control.index, layout=_WIDE)
    ipw.jslink((control, "index"), (stack, "selected_index"))
    return stack
