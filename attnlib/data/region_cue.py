"""The planted task of two regions: in each, a cue of its own decides what counts there."""

from __future__ import annotations

import torch
from torch import Tensor

from attnlib.data.cue import STROKES, _stroke_kernels
from attnlib.data.pictures import Pictures, check_count

ROWS, REGION = 8, 16  # pixels; a picture is one region high and two regions wide
BAR = (2, 3)  # the columns of a region that its cue takes
STROKE = 9  # the first of the three columns of a region that hold its strokes

# Without the cues, or with a sum of them over the picture: the two directions stand there as often in red as in green.
# They are the same in a quarter of the pictures; otherwise one of the two is a coin toss.
UNLOCATED = 1 / 4 + 3 / 4 * 1 / 2


def region_cue_task(count: int, *, noise: float = 0.1, cue: float = 1.0, seed: int = 0) -> Pictures:
    """Two regions side by side; in each, a blue bar that is there or not says which colour counts there.

    Each region, 8 by 16 pixels, holds one red and one green 3×3 stroke in its columns 9–11, at random rows. In one of
    the two, drawn at random, a blue bar stands in columns 2–3, over all rows: there the red stroke counts. In the other
    the green one does. The strokes that count have the same direction in both regions, which is the label; the other
    two, of the other colour each, share a direction too, drawn at random.

    So every picture holds one bar, and each of the two directions stands there once in red and once in green. Moving
    the bar to the other region changes the answer and no sum over the picture: not of pixels, nor of what 3×3 units
    find, nor of that under gates that are the same everywhere. All these can only name one of two directions. The same
    is true of gates for smaller places, as long as those that reach a stroke see no bar: between the two lie five
    columns. A gate for each region, computed from it, settles the answer.

    Args:
        count: number of pictures N.
        noise: standard deviation of the Gaussian noise added to every pixel.
        cue: brightness of the bar, 0–1; 0 removes it.
        seed: the same seed gives the same pictures.

    Returns:
        Pictures with images (N, 3, 8, 32), labels 0–3, and in `truth`: ``cue`` (N,) the region with the bar, 0 or 1,
        ``other`` (N,) the direction that does not count, ``red`` and ``green`` (N, 2) the directions in the two
        regions, ``strokes`` (N, 2, 8, 32) where red and green strokes are, ``counts`` (N, 8, 32) where those are that
        count.

    Raises:
        ValueError: fewer than one picture.
    """
    check_count("region_cue_task", count)
    rng = torch.Generator().manual_seed(seed)
    label, other = torch.randint(4, (2, count), generator=rng)
    barred = torch.randint(2, (count,), generator=rng)
    has_bar = torch.stack([barred == 0, barred == 1], dim=1)  # (N, 2)
    red = torch.where(has_bar, label[:, None], other[:, None])
    green = torch.where(has_bar, other[:, None], label[:, None])

    def placed(directions: Tensor) -> Tensor:
        """A stroke in each region, at a random row: (N, 8, 32)."""
        canvas = torch.zeros(count, ROWS, 2 * REGION)
        here, three = torch.arange(count)[:, None, None], torch.arange(3)
        for region in range(2):
            row = torch.randint(0, ROWS - 2, (count,), generator=rng)[:, None, None] + three[:, None]
            canvas[here, row, region * REGION + STROKE + three] = _stroke_kernels()[directions[:, region]]
        return canvas

    bar = torch.zeros(REGION)
    bar[list(BAR)] = cue
    bars = (has_bar[:, :, None] * bar).flatten(1)[:, None].expand(-1, ROWS, -1)
    clean = torch.stack([placed(red), placed(green), bars], dim=1)
    in_bar = has_bar.repeat_interleave(REGION, dim=1)[:, None]
    return Pictures(
        images=clean + noise * torch.randn(clean.shape, generator=rng),
        labels=label,
        classes=STROKES,
        truth={
            "cue": barred, "other": other, "red": red, "green": green, "strokes": clean[:, :2].bool(),
            "counts": torch.where(in_bar, clean[:, 0], clean[:, 1]).bool(),
        },
        name="planted cue for each region",
        ceilings={"blind to the cues, or to where they are": UNLOCATED},
        source="procedural",
    )
