"""The base of the viewers: figures that answer the pointer, in JupyterLab as in a page with neither kernel nor network.

A viewer is an anywidget with everything it can show inside it, quantised. Its script is plain JavaScript, the shared
part first; it asks nothing of any other place.
"""

from __future__ import annotations

import base64
import functools
import io
import re
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import numpy as np
import traitlets

from attnlib.plot.colours import COLOURS, DARK
from attnlib.plot.figure import check_alt
from attnlib.widgets.states import state_bytes

# What one viewer may add to a page.
MOST_BYTES = 200_000

_HERE = Path(__file__).parent
# The page's own roles under short names, and two greys that figures do not have.
_ROLES = {"quiet": "neutral", **{role: role for role in COLOURS if role != "neutral"}}
_LIGHT_ONLY = {"surface": "#F6F5F2", "focus": "#3B4A7A"}
_DARK_ONLY = {"surface": "#1C1C1D", "focus": "#AFC0F2"}
# The line by which a script asks for a shared part that only some need.
_ALSO = re.compile(r"^//= (\w+)$", re.MULTILINE)
# What may hold spaces that count, and what needs none around it.
_QUOTES = set("\"'`/")
_SPACES = re.compile(" ?(=>|[=,{}]) ?")
# Pictures up to this wide are shown as the pixels they are; wider ones are photographs, and lossy.
PIXELS_SHOWN = 64


@functools.cache
def style() -> str:
    """The CSS of all viewers: the colours of the page where it has them, the book's own elsewhere, light or dark."""
    def rules(colours: dict[str, str]) -> str:
        roles = {short: (role, colours[role]) for short, role in _ROLES.items()}
        extra = _DARK_ONLY if colours is not COLOURS else _LIGHT_ONLY
        roles |= {short: ("link" if short == "focus" else short, colour) for short, colour in extra.items()}
        return ";".join(f"--{short}:var(--attn-{role},{colour})" for short, (role, colour) in roles.items())

    # A dark notebook says so; the site sets its colours itself.
    dark = ':is([data-jp-theme-light="false"],.vscode-dark) .attn-viewer'
    css = (_HERE / "viewer.css").read_text(encoding="utf-8")
    return f".attn-viewer{{{rules(COLOURS)}}}{dark}{{{rules(COLOURS | DARK)}}}\n{css}"


@functools.cache
def script(name: str) -> str:
    """The script of one viewer, with what all share before it, in few bytes: every viewer of a page carries its own.

    A script that begins with ``//= player`` also gets js/shared/player.js. Comments, indentation and spaces go; these
    only where a line holds no string that could lose one.
    """
    own = (_HERE / "js" / f"{name}.js").read_text(encoding="utf-8")
    shared = ["common", *_ALSO.findall(own)]
    whole = [(_HERE / "js" / "shared" / f"{part}.js").read_text(encoding="utf-8") for part in shared] + [own]
    lines = (line.strip() for line in "\n".join(whole).splitlines())
    return "\n".join(line if _QUOTES & set(line) else _SPACES.sub(r"\1", line)
                     for line in lines if line and not line.startswith("//"))


class Scripted(anywidget.AnyWidget):
    """A widget drawn by one of our scripts, which tells its views whether a kernel is there."""

    script: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "script" in vars(cls):
            cls._esm, cls._css = script(cls.script), style()
        super().__init_subclass__(**kwargs)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.on_msg(self._asked)

    def _asked(self, _, message: Any, buffers: Any) -> None:
        if isinstance(message, dict) and message.get("ask") == "alive":
            self.send({"alive": True})


class Viewer(Scripted):
    """A figure that answers the pointer and the keyboard. Its text form is the same in every run.

    Attributes:
        data: all it can show; fixed once it is made.
        state: which of its precomputed states is shown, where it has several: 0 is off, 1 is on.
        name: its accessible name.
        alt: what is seen, in sentences, for readers who do not see it.
        caption: printed below.
        still: HTML of its first view, for the time before the script runs, and where none does; may be empty.
        bytes: what it adds to a saved notebook.

    Raises:
        ValueError: no name or alt text, or more than `MOST_BYTES` to carry.
    """

    data = traitlets.Dict().tag(sync=True)
    state = traitlets.Int(1).tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)
    still = traitlets.Unicode().tag(sync=True)

    def __init__(self, data: dict[str, Any], *, name: str, alt: str, caption: str | None = None, **traits: Any) -> None:
        super().__init__(data=data, name=check_alt(name), alt=check_alt(alt), caption=caption or "", **traits)
        self.bytes = state_bytes(self)
        if self.bytes > MOST_BYTES:
            self.close()
            raise ValueError(f"this viewer would weigh {self.bytes / 1000:.0f} kB, more than the {MOST_BYTES / 1000:.0f} "
                             "kB a figure should carry; show fewer pictures, layers or heads, or smaller maps")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


def pack(values: Any, low: float | None = None, high: float | None = None, *, exact: bool = False) -> dict[str, Any]:
    """Numbers for the browser: a byte each, between the smallest and the largest; or with `exact` as float32.

    Args:
        values: an array or tensor of any shape.
        low, high: the values that 0 and 255 stand for; the smallest and largest of `values` by default.

    Raises:
        ValueError: values that are not finite.
    """
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float32)
    if not np.isfinite(array).all():
        raise ValueError("there are values that are no finite numbers, which a viewer cannot show")
    shape = list(array.shape)
    if exact:
        return {"f": base64.b64encode(array.astype("<f4").tobytes()).decode(), "shape": shape}
    low = float(array.min(initial=np.inf)) if low is None else float(low)
    high = float(array.max(initial=-np.inf)) if high is None else float(high)
    scaled = (array - low) / (high - low) if high > low else np.zeros_like(array)
    quantised = np.rint(scaled.clip(0, 1) * 255).astype(np.uint8)
    return {"q": base64.b64encode(quantised.tobytes()).decode(), "shape": shape, "low": low, "high": high}


def picture_uri(image: Any, lossy: bool | None = None) -> str:
    """A picture, in any form `plot.pictures` takes one, as a data address; by default lossy where it is a photograph."""
    from PIL import Image

    from attnlib.plot.images import as_picture

    picture = as_picture(image)
    array = (picture.expand(3, -1, -1).permute(1, 2, 0) * 255).round().byte().numpy()
    buffer = io.BytesIO()
    small = array.shape[1] <= PIXELS_SHOWN if lossy is None else not lossy
    Image.fromarray(array).save(buffer, *(["PNG"] if small else ["WEBP"]), **({"optimize": True} if small else {"quality": 80}))
    return f"data:image/{'png' if small else 'webp'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def ramps(steps: int = 48) -> dict[str, str]:
    """The book's two colour ramps as hex digits, six a colour."""
    import matplotlib

    from attnlib.plot import figure  # noqa: F401  registers the ramps

    def hexed(name: str) -> str:
        colours = matplotlib.colormaps[name](np.linspace(0, 1, steps), bytes=True)[:, :3]
        return colours.tobytes().hex()

    return {"map": hexed("attn_map"), "signed": hexed("attn_signed")}
