"""The planted cue task: a small picture in which one spot decides what counts."""

from __future__ import annotations

import torch
from torch import Tensor

from attnlib.data.pictures import Pictures, check_count

STROKES = ("horizontal", "vertical", "falling", "rising")

# Without the cue: the two strokes agree in a quarter of the pictures, otherwise one of the two is a coin toss.
BLIND = 1 / 4 + 3 / 4 * 1 / 2
# A network that ends in a sum over positions can add the cue to what it knows, but not gate by it. Adding favours one
# of two directions whatever their colours, so of the pairs (a, b) and (b, a) it can settle one and must toss the other.
ADDITIVE = 1 / 4 + 3 / 4 * (1 / 2 * 1 + 1 / 2 * 1 / 2)


def _stroke_kernels() -> Tensor:
    """The four 3×3 strokes, (4, 3, 3)."""
    kernels = torch.zeros(4, 3, 3)
    for i in range(3):
        kernels[0, 1, i] = kernels[1, i, 1] = kernels[2, i, i] = kernels[3, 2 - i, i] = 1.0
    return kernels


def cue_task(count: int, size: int = 14, *, noise: float = 0.1, cue: float = 1.0, seed: int = 0) -> Pictures:
    """Red strokes, green strokes, and a blue spot that says which of the two colours counts.

    Every picture holds one red and one green 3×3 stroke, each in one of four directions, in its last four rows. Where
    a 3×3 blue spot stands in the first three rows, the label is the direction of the red stroke; where none does, of
    the green one. No unit that sees ``size - 6`` rows or fewer sees pixels of both: only something that looks at the
    whole picture can let the one decide about the other.

    Args:
        count: number of pictures N.
        size: height and width in pixels, at least 12.
        noise: standard deviation of the Gaussian noise added to every pixel.
        cue: brightness of the blue spot, 0–1; 0 removes it.
        seed: the same seed gives the same pictures.

    Returns:
        Pictures with images (N, 3, size, size), labels 0–3, and in `truth`: ``cue`` (N,) 1 where red counts,
        ``red`` and ``green`` (N,) the directions of the two strokes, ``strokes`` (N, 2, size, size) where they are.

    Raises:
        ValueError: fewer than one picture, or a size below 12.
    """
    check_count("cue_task", count)
    if size < 12:
        raise ValueError(f"cue_task needs at least 12 pixels to keep the spot away from the strokes, not {size}")
    rng = torch.Generator().manual_seed(seed)
    red, green = torch.randint(4, (2, count), generator=rng)
    is_red = torch.randint(2, (count,), generator=rng).bool()
    spot = cue * is_red[:, None, None] * torch.ones(3, 3)
    strokes = _stroke_kernels()
    low, high = (size - 4, size), (0, 3)
    shown = ((strokes[red], low), (strokes[green], low), (spot, high))
    clean = torch.stack([_placed(patches, size, rows, rng) for patches, rows in shown], dim=1)
    images = clean + noise * torch.randn(clean.shape, generator=rng)
    return Pictures(
        images=images,
        labels=torch.where(is_red, red, green),
        classes=STROKES,
        truth={
            "cue": is_red.long(), "red": red, "green": green, "strokes": clean[:, :2].bool(),
        },
        name="planted cue",
        ceilings={"blind to the cue": BLIND, "can add the cue, cannot gate by it": ADDITIVE},
        source="procedural",
    )


def _placed(patches: Tensor, size: int, rows: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Each (3, 3) patch at its own random place within these rows, from the first up to the last: (N, size, size)."""
    count, within = len(patches), torch.arange(3)
    row = torch.randint(rows[0], rows[1] - 2, (count,), generator=rng)
    column = torch.randint(0, size - 2, (count,), generator=rng)
    canvas = torch.zeros(count, size, size)
    here = torch.arange(count)[:, None, None]
    canvas[here, row[:, None, None] + within[:, None], column[:, None, None] + within] = patches
    return canvas
