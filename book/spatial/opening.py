"""The picture at the opening of chapter 2: one cluttered digit, and how each mechanism would look at it.

Drawn, not measured: the places are given by hand. `python tools/openings.py spatial` makes opening.html of it.
"""

import runpy
from pathlib import Path

import torch

from attnlib import create
from attnlib.plot.looks import Panel, sheet
from attnlib.spatial.looks import Looks, looks
from attnlib.spatial.transforms import Window

RESULTS = Path(__file__).resolve().parents[2] / "results" / "spatial"
WINDOW = [[-0.36, 0.17]]  # the middle of the transformer's window, from -1 to 1
POSITIONS = [(4, 4), (6, 5), (8, 3), (1, 7)]  # row and column of what is computed anew
PATH = [[[0.0, 0.0], [-0.38, -0.2], [-0.46, 0.32]]]  # the middles of three glimpses


def picture() -> torch.Tensor:
    """A digit among fragments, as on the chapter's last page: (1, 1, 40, 40)."""
    some = runpy.run_path(str(RESULTS / "overview.py"))["digits"](24, "test", 7)
    return some.images[16:17]


def drawn(x: torch.Tensor) -> dict[str, Looks]:
    """How each mechanism looks at the picture, and "glance": all of it, and nothing closely."""
    chosen = torch.zeros(1, 1, 10, 10)
    for row, column in POSITIONS:
        chosen[0, 0, row, column] = 1
    path, none = torch.tensor(PATH), torch.zeros(1, 40, 40, dtype=torch.bool)
    ram = create("ram", 1, patch=8, scales=3)
    return {
        "glance": Looks(x[:, 0], none, ~none, torch.zeros(1, 0, 2)),
        "window": looks(create("stn", 1, transform=Window(0.5), size=20).eval(), x, torch.tensor(WINDOW)),
        "positions": looks(create("dcn", 1, k=len(POSITIONS)).eval(), x, chosen),
        **{f"glimpse {t}": looks(ram, x, path[:, :t]) for t in range(1, path.shape[1] + 1)},
    }


def draw():
    """The figure of the opening."""
    seen = drawn(picture())
    panels = [
        Panel(seen["window"], title="Spatial transformer", words="one window, read anew"),
        Panel(seen["positions"], title="Dynamic capacity", words="a glance, then some places"),
        Panel(seen["glimpse 3"], title="Recurrent attention", words="one glimpse after another", marks="path"),
    ]
    return sheet(
        panels, columns=3, narrow=1,
        alt="The same handwritten 2 among fragments of other digits, three times. A spatial transformer reads one "
            "window around the digit and has only glanced at the rest. A dynamic capacity network has glanced at "
            "everything and reads a few patches on strokes. Recurrent attention reads three small patches one after "
            "the other, the first in the middle; around them it sees coarsely, and the rest not at all.",
        caption="Three ways to choose where to look, drawn on one picture. Lit: read closely. Dim: glanced at. "
                "Hatched: not seen. A fragment of another digit can be looked at as well, if the answer depends on "
                "it. The places are given by hand; where trained networks look is on the chapter's last page.",
    )
