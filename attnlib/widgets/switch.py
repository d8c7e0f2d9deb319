"""The one control of a page that switches attention off everywhere on it."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as ipw
import traitlets
from torch import nn

from attnlib.observe import switch_off
from attnlib.widgets.states import Switched, as_html
from attnlib.widgets.viewer import Scripted, Viewer

OFF, ON = 0, 1
NAMES = ("off", "on")


class Switch(Scripted):
    """A control with two states, off and on, that every figure of a page can follow. ::

        attention = widgets.Switch(network)
        attention.figure(lambda: plot.show(...))    drawn with the attention on, and with it off
        attention.over(widgets.gates(...))          a viewer that follows

    Without a kernel the figures show what was computed beforehand. With one, the switch switches the networks
    themselves (`attnlib.switch_off`), until it is switched on again: cells run meanwhile run without attention, and
    the figure is drawn anew, so that a network trained since is seen as it is.

    The control is shown above each figure that follows it; all of them are one. In the site a copy floats at the foot
    of the window while none is in sight.

    Args:
        networks: what it switches; `add` takes more.
        name: what is switched, written before the buttons.

    Attributes:
        index: 0 is off, 1 is on.
    """

    script = "switch"

    index = traitlets.Int(ON, min=OFF, max=ON).tag(sync=True)
    name = traitlets.Unicode("attention").tag(sync=True)

    def __init__(self, *networks: nn.Module, name: str = "attention") -> None:
        super().__init__(name=name)
        self.networks: list[nn.Module] = []
        self._off = contextlib.ExitStack()
        self._drawn: list[tuple[Callable[[], Any], ipw.Stack]] = []
        self.observe(self._switched, "index")
        self.add(*networks)

    def __repr__(self) -> str:
        return f"Switch({self.name!r}: {' | '.join(NAMES)})"

    @property
    def on(self) -> bool:
        """Whether attention is on."""
        return self.index == ON

    def add(self, *networks: nn.Module) -> None:
        """Switch these networks too.

        Raises:
            ValueError: a network that holds no attention.
        """
        for network in networks:
            with switch_off(network):  # raises where there is nothing to switch
                pass
        self.networks += networks
        if not self.on:
            self._apply()

    def figure(self, states: Callable[[], Any] | Mapping[str, Any]) -> Switched:
        """A figure with two states, under the switch.

        Args:
            states: a function that draws the figure with the networks as they are, called once with the attention off
                and once with it on; or the two figures, ``{"off": …, "on": …}``, in any form `toggle` takes.

        Raises:
            ValueError: other states than off and on, no alt text, or more than `MOST_BYTES`.
        """
        if not callable(states) and set(states) != set(NAMES):
            raise ValueError(f"a figure that follows the switch has the states off and on, not {', '.join(states)}")
        figures = self._both(states) if callable(states) else [states[name] for name in NAMES]
        pages = [ipw.HTML(as_html(figure, name), layout={"width": "100%"}) for figure, name in zip(figures, NAMES)]
        stack = ipw.Stack(pages, selected_index=self.index, layout={"width": "100%"})
        ipw.jsdlink((self, "index"), (stack, "selected_index"))
        if callable(states):
            self._drawn.append((states, stack))
        return Switched([self], stack, self.name, NAMES)

    def over(self, viewer: Viewer) -> ipw.VBox:
        """A viewer under the switch, whose state follows it."""
        return Followed(self, self.follow(viewer))

    def follow(self, viewer: Viewer) -> Viewer:
        """A viewer that follows the switch, and moves it where it has such a control itself."""
        viewer.state = self.index
        ipw.jslink((self, "index"), (viewer, "state"))
        return viewer

    def _both(self, draw: Callable[[], Any]) -> list[Any]:
        """What `draw` gives with the attention off, and with it on."""
        self._off.close()
        try:
            with self._networks_off():
                off = draw()
            return [off, draw()]
        finally:
            self._apply()

    @contextlib.contextmanager
    def _networks_off(self):
        with contextlib.ExitStack() as stack:
            for network in self.networks:
                stack.enter_context(switch_off(network))
            yield

    def _apply(self) -> None:
        self._off.close()
        if not self.on:
            self._off.enter_context(self._networks_off())

    def _switched(self, _) -> None:
        self._apply()
        for draw, stack in self._drawn:
            try:
                figure = as_html(draw(), NAMES[self.index])
            except Exception as error:  # what a reader's own network causes belongs where the figure would be
                figure = f'<p role="alert">{type(error).__name__}: {html.escape(str(error))}</p>'
            stack.children[self.index].value = figure


class Followed(ipw.VBox):
    """The switch and a viewer below it."""

    def __init__(self, switch: Switch, viewer: Viewer) -> None:
        self.viewer = viewer
        super().__init__([switch, viewer])

    def __repr__(self) -> str:
        return repr(self.viewer)
