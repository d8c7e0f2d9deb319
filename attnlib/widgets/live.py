"""Controls that compute: with a kernel they redraw, without one the page shows what the default values gave."""

from __future__ import annotations

import html
import inspect
from collections.abc import Callable
from typing import Any

import ipywidgets as ipw

from attnlib.plot.svg import role_variable
from attnlib.widgets.states import MOST_BYTES, as_html, state_bytes

# Every view of a widget carries this class while no kernel answers it, in the built site as in JupyterLab.
_NOTE = (
    "<style>.attn-needs-kernel{{display:none}}.jupyter-widgets-disconnected .attn-needs-kernel{{display:block}}</style>"
    '<p class="attn-needs-kernel" style="font-size:.9em;line-height:1.4;margin:.2em 0;color:{colour}">'
    "These controls compute, so they need a running kernel: open this page as a notebook and run it. "
    "What is shown here is the result for the values above.</p>"
)


def live(function: Callable[..., Any], *, run: str | None = None, **controls: Any) -> Live:
    """Controls for the arguments of `function`, and its figure below, redrawn when a control changes. ::

        live(lambda gate: plot.show(plot.pictures(scaled(gate)), alt=f"gate {gate}"), gate=(0.0, 1.0, 0.1))
        live(train_and_draw, run="Train", rate=[0.01, 0.1], epochs=(1, 5))

    The function is called once when the widget is made, so its default result is in the page, also without a kernel.

    Args:
        function: returns a figure, in any form `toggle` takes; or yields one after another, each replacing the one
            before, to show a training as it goes.
        run: text of a button that starts it, for what takes long; without it every change does.
        controls: for an argument each, an ipywidgets abbreviation (a range ``(low, high, step)``, a list of options, a
            bool, a number, a text) or a widget. Other arguments keep the function's defaults.

    Raises:
        TypeError: no control, or one for an argument the function does not have.
        ValueError: a figure without alt text, or above `MOST_BYTES`.
        Exception: what the function raises for the first values; what it raises later is shown instead of the figure.
    """
    return Live(function, run, controls)


class Live(ipw.VBox):
    """Controls, a button if there is one, a note for pages without a kernel, and the figure.

    Its text form names the controls and is the same in every run.

    Attributes:
        controls: the widgets, by the name of the argument.
        button: what starts it, or None.
        picture: the `HTML` widget that holds the newest figure.
    """

    def __init__(self, function: Callable[..., Any], run: str | None, controls: dict[str, Any]) -> None:
        self.function = function
        self.controls = _made(function, controls)
        self.button = ipw.Button(description=run) if run else None
        self.picture = ipw.HTML(layout={"width": "100%"})
        self._draw()
        if (size := state_bytes(self.picture)) > MOST_BYTES:
            raise ValueError(f"the figure weighs {size / 1000:.0f} kB, more than the {MOST_BYTES / 1000:.0f} kB a page "
                             "should carry; draw smaller pictures")
        note = ipw.HTML(_NOTE.format(colour=role_variable("neutral")))
        super().__init__([*self.controls.values(), *([self.button] if run else []), note, self.picture])
        if self.button:
            self.button.on_click(self._redraw)
        else:
            for control in self.controls.values():
                control.observe(self._redraw, "value")

    def __repr__(self) -> str:
        return f"live: {', '.join(self.controls)}"

    def _draw(self) -> None:
        result = self.function(**{name: control.value for name, control in self.controls.items()})
        for figure in result if inspect.isgenerator(result) else (result,):
            self.picture.value = as_html(figure, "live")

    def _redraw(self, _) -> None:
        if self.button:
            self.button.disabled = True
        try:
            self._draw()
        except Exception as error:  # whatever a reader's values cause belongs where the figure would be
            self.picture.value = f'<p role="alert">{type(error).__name__}: {html.escape(str(error))}</p>'
        finally:
            if self.button:
                self.button.disabled = False


def _made(function: Callable[..., Any], controls: dict[str, Any]) -> dict[str, ipw.Widget]:
    """A widget for each control, which waits for the end of a movement before it reports."""
    if not controls:
        raise TypeError("a live figure needs at least one control, e.g. live(draw, gate=(0.0, 1.0))")
    takes = inspect.signature(function).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    made = {}
    for name, abbreviation in controls.items():
        if name not in takes and not anything:
            raise TypeError(f"the function has no argument {name!r}; it has: {', '.join(takes) or 'none'}")
        default = takes[name].default if name in takes else inspect.Parameter.empty
        widget = ipw.interactive.widget_from_abbrev(abbreviation, default)
        if widget is None:
            raise TypeError(f"no control can be made of {abbreviation!r} for {name!r}; try a range, a list or a widget")
        widget.description = widget.description or name
        widget.style.description_width = "initial"
        if hasattr(widget, "continuous_update"):
            widget.continuous_update = False
        made[name] = widget
    return made
