"""The planted task of distractors: many framed strokes, one of which counts, and two ways to say which."""

from __future__ import annotations

import functools
import math
from typing import Literal

import torch
from torch import Tensor

from attnlib.data.cue import STROKES, _stroke_kernels
from attnlib.data.pictures import Pictures, check_count

TASKS = ("colour", "shape")
# Pixels: a framed stroke, the cell of a grid in which it stands at random, and what stays free at the edge.
PATCH, CELL, EDGE = 5, 7, 2


def distractor_task(
    count: int, distractors: int = 3, task: Literal["colour", "shape", "either"] = "colour", size: int = 32, *,
    noise: float = 0.1, cue: float = 1.0, seed: int = 0,
) -> Pictures:
    """Blue strokes in frames; the label is the direction of the one stroke whose frame is marked.

    ``distractors + 1`` patches of 5×5 pixels stand in different cells of a grid: a blue 3×3 stroke in one of four
    directions, drawn for each patch by itself, in a frame one pixel wide. All frames are green and square but for two:
    one is red, and another one round (without its corners). The task *colour* asks for the stroke in the red frame,
    *shape* for the one in the round frame; with the same seed the scenes are the same. Without distractors the one
    frame is both red and round.

    What is asked for and what marks it lie in different colours and have to be bound together, for which people need
    attention (Treisman, Gelade, "A feature-integration theory of attention", Cognitive Psychology 12, 1980). Something
    that looks at each colour by itself and then sums over the picture knows how many strokes of each direction there
    are, and that one frame is marked, but not which stroke is in it: the most frequent direction is the best answer,
    and a worse one the more distractors there are. The maximum over the picture knows only which directions there are;
    with noise a little more, since of many strokes one stands out more than of few. Weights that are computed from one
    colour and applied to the other settle the answer. So does a network whose units see a frame and its stroke at once,
    in all colours: two 3×3 convolutions are enough, and then any pooling will do. ``groups=3`` keeps the colours apart.

    Args:
        count: number of pictures N.
        distractors: number of patches that do not count.
        task: ``"colour"``, ``"shape"``, or ``"either"``: one of the two for each picture, drawn at random. What it is
            is then told in a fourth channel, 0 everywhere for colour and 1 for shape.
        size: height and width in pixels, at least 11; there are as many cells as 7×7 squares in the middle of it,
            leaving two pixels at each edge: 16 in 32.
        noise: standard deviation of the Gaussian noise added to every pixel of the first three channels.
        cue: how clearly a frame is marked, 0–1: how much of its green is red instead, how dark its corners are. With
            0 nothing is marked, and no network exceeds the first ceiling.
        seed: the same seed gives the same pictures.

    Returns:
        Pictures with images (N, 3, size, size), or 4 channels for ``"either"``; labels 0–3; and in `truth`, with
        K = distractors + 1: ``task`` (N,) 0 for colour and 1 for shape, ``directions`` (N, K) of the strokes and
        ``boxes`` (N, K, 4) of the patches (left, top, right, bottom in pixels), the one in red first and the round
        second; ``counts`` (N,) which of the K counts, ``box`` (N, 4) and ``mask`` (N, size, size) of that patch.

    Raises:
        ValueError: fewer than one picture, distractors below 0 or more patches than cells, a size below 11, a cue
            outside 0–1, or another task.
    """
    side = max(0, (size - 2 * EDGE) // CELL)
    _check(count, distractors, task, size, cue, side)
    rng = torch.Generator().manual_seed(seed)
    patches = distractors + 1
    directions = torch.randint(4, (count, patches), generator=rng)
    boxes = _boxes(count, patches, side, size, rng)
    grain = noise * torch.randn(count, 3, size, size, generator=rng)
    # Drawn last and always, so that the scenes do not depend on the task.
    asked = torch.randint(2, (count,), generator=rng)
    if task != "either":
        asked = torch.full_like(asked, TASKS.index(task))
    counts = asked.clamp(max=patches - 1)

    images = grain + _painted(directions, boxes, cue, size)
    if task == "either":
        told = asked.to(images.dtype)[:, None, None, None].expand(-1, 1, size, size)
        images = torch.cat([images, told], 1)
    each = torch.arange(count)
    return Pictures(
        images=images,
        labels=directions[each, counts],
        classes=STROKES,
        truth={
            "task": asked, "directions": directions, "boxes": boxes.float(), "counts": counts,
            "box": boxes[each, counts].float(), "mask": _inside(boxes[each, counts], size),
        },
        name=f"{distractors} distractors, by {task}",
        ceilings=ceilings(patches) | ({"does not know the task": 5 / 8} if task == "either" and distractors else {}),
        source="procedural",
    )


@functools.cache
def ceilings(patches: int) -> dict[str, float]:
    """What can be told of one of `patches` strokes, in four directions at random, without knowing which one it is.

    Who knows how often each direction is there answers with the most frequent; who knows only which are there, with
    one of them.
    """
    frequent = one_of = 0.0
    for first in range(patches + 1):
        for second in range(patches + 1 - first):
            for third in range(patches + 1 - first - second):
                counts = (first, second, third, patches - first - second - third)
                ways = math.factorial(patches) // math.prod(math.factorial(n) for n in counts)
                probability = ways / 4**patches
                frequent += probability * max(counts) / patches
                one_of += probability / sum(n > 0 for n in counts)
    return {"counts the directions, does not know which is marked": frequent,
            "knows which directions there are, not how many": one_of}


def _boxes(count: int, patches: int, side: int, size: int, rng: torch.Generator) -> Tensor:
    """Places for the patches, in different cells: (N, K, 4)."""
    cells = torch.rand(count, side * side, generator=rng).argsort(1)[:, :patches]
    # At most one pixel less than would fit, so that two neighbours never touch.
    shift = torch.randint(CELL - PATCH, (2, count, patches), generator=rng)
    corner = (size - side * CELL) // 2
    top, left = (corner + CELL * place + moved for place, moved in zip((cells // side, cells % side), shift))
    return torch.stack([left, top, left + PATCH, top + PATCH], -1)


def _painted(directions: Tensor, boxes: Tensor, cue: float, size: int) -> Tensor:
    """The scenes without noise, (N, 3, size, size)."""
    count, patches = directions.shape
    frame = torch.ones(PATCH, PATCH)
    frame[1:-1, 1:-1] = 0
    painted = torch.zeros(count, patches, 3, PATCH, PATCH)
    painted[:, :, 1] = frame
    painted[:, 0, :2] = torch.stack([cue * frame, (1 - cue) * frame])
    painted[:, min(1, patches - 1), :, :: PATCH - 1, :: PATCH - 1] *= 1 - cue
    painted[:, :, 2, 1:-1, 1:-1] = _stroke_kernels()[directions]

    canvas, steps = torch.zeros(count, 3, size, size), torch.arange(PATCH)
    picture = torch.arange(count)[:, None, None, None, None]
    colour = torch.arange(3)[:, None, None]
    left, top = (boxes[..., side, None, None, None] for side in (0, 1))
    canvas[picture, colour, top + steps[:, None], left + steps] = painted
    return canvas


def _inside(box: Tensor, size: int) -> Tensor:
    """Which pixels lie in the boxes (N, 4): (N, size, size)."""
    pixels = torch.arange(size)
    left, top, right, bottom = box.T[..., None]
    columns, rows = (pixels >= left) & (pixels < right), (pixels >= top) & (pixels < bottom)
    return rows[:, :, None] & columns[:, None]


def _check(count: int, distractors: int, task: str, size: int, cue: float, side: int) -> None:
    check_count("distractor_task", count)
    if task not in (*TASKS, "either"):
        raise ValueError(f"the task is one of {', '.join(TASKS)}, either, not {task!r}")
    if side < 1:
        raise ValueError(f"distractor_task needs at least {CELL + 2 * EDGE} pixels for a patch, not {size}")
    if not 0 <= distractors < side * side:
        raise ValueError(f"{size} pixels have room for 0 to {side * side - 1} distractors, not {distractors}")
    if not 0 <= cue <= 1:
        raise ValueError(f"the cue is between 0 and 1, not {cue}")
