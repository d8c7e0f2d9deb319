"""Shapes drawn in batches: signed distances to tapered capsules, and the animals that are made of them.

Lengths are in any unit; x runs to the right and y downwards. A capsule is what two discs and their common tangents
enclose: (..., 6) with the two centres and the two radii, ax, ay, bx, by, ra, rb. One with negative radii is not there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# An animal is ten capsules: four limbs, tail, body, head and three for its mark.
CAPSULES = {
    "limbs": slice(0, 4), "tail": slice(4, 5), "body": slice(5, 6), "head": slice(6, 7), "mark": slice(7, 10),
}
PARTS = tuple(CAPSULES)
KEYPOINTS = ("head", "shoulders", "hips", "tail", "left hand", "right hand", "left foot", "right foot")


class Limb(NamedTuple):
    """A tail, or one of a pair of limbs. Without length there is none."""

    length: float = 0.0
    root: float = 0.0  # radius where it leaves the body
    tip: float = 0.0  # radius at its end
    angle: float = 0.0  # degrees from straight ahead


class Plan(NamedTuple):
    """What makes a kind of animal, seen from above. Its body reaches from −length/2 to length/2."""

    length: float
    hips: float  # radius of the body behind
    shoulders: float  # radius of the body in front
    head: float  # radius
    neck: float  # from the shoulders' centre to the head's
    tail: Limb = Limb()
    front: Limb = Limb()
    hind: Limb = Limb()


ANIMALS = {
    "lizard": Plan(0.70, 0.12, 0.16, 0.24, 0.30, Limb(0.85, 0.11, 0.02), Limb(0.42, 0.06, 0.07, 65),
                   Limb(0.44, 0.06, 0.07, 125)),
    "turtle": Plan(0.16, 0.46, 0.44, 0.26, 0.60, Limb(0.62, 0.10, 0.02), Limb(0.38, 0.14, 0.11, 50),
                   Limb(0.30, 0.13, 0.10, 135)),
    "bird": Plan(0.45, 0.14, 0.20, 0.24, 0.32, Limb(0.42, 0.08, 0.24), Limb(0.85, 0.17, 0.07, 105)),
    "fish": Plan(0.60, 0.12, 0.27, 0.25, 0.18, Limb(0.34, 0.06, 0.26), Limb(0.30, 0.09, 0.04, 125)),
    "beetle": Plan(0.30, 0.30, 0.27, 0.24, 0.42, Limb(), Limb(0.48, 0.05, 0.04, 50), Limb(0.52, 0.05, 0.04, 135)),
    "mouse": Plan(0.40, 0.32, 0.22, 0.25, 0.28, Limb(0.95, 0.07, 0.04), Limb(0.24, 0.08, 0.06, 60),
                  Limb(0.30, 0.10, 0.08, 120)),
}
# What lies about: no head, no limbs.
THINGS = {
    "stone": Plan(0.40, 0.50, 0.40, 0, 0), "twig": Plan(1.60, 0.14, 0.09, 0, 0), "leaf": Plan(1.10, 0.40, 0.06, 0, 0),
}

# Marks in units of the head's radius, y to the animal's right: the ends of their strokes. All have the same area.
_STROKES = {
    "spot": [(0, 0, 0, 0)],
    "bar": [(0, -0.45, 0, 0.45)],
    "stripe": [(-0.45, 0, 0.45, 0)],
    "eyes": [(0, -0.45, 0, -0.45), (0, 0.45, 0, 0.45)],
    "triple": [(0.45, 0, 0.45, 0), (-0.25, -0.42, -0.25, -0.42), (-0.25, 0.42, -0.25, 0.42)],
}
MARKS = tuple(_STROKES)
_MARK_AREA = 0.65

# By how many degrees joints turn either way: neck, tail, hands, feet.
_TURNS = torch.tensor([35.0, 40.0, 25.0, 25.0, 25.0, 25.0]).deg2rad()


def distances(capsules: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance of every point of a grid to every capsule: negative inside, 0 on the edge.

    Args:
        capsules: (..., 6). Where one disc lies within the other, the capsule is the second disc's, roughly.
        x: (..., W) the columns of the grid.
        y: (..., H) its rows.

    Returns:
        (..., H, W), exact.
    """
    ax, ay, bx, by, first, second = capsules[..., None].unbind(-2)  # (..., 1)
    length = torch.hypot(bx - ax, by - ay)
    there = length > 0
    cos = torch.where(there, (bx - ax) / length, 1.0)
    sin = torch.where(there, (by - ay) / length, 0.0)
    slope = torch.where(there, (first - second) / length, 0.0).clamp(-0.999, 0.999)
    right, down = x - ax, y - ay
    along = (right * cos)[..., None, :] + (down * sin)[..., None]
    across = ((down * cos)[..., None] - (right * sin)[..., None, :]).abs()
    length, slope, first = length[..., None], slope[..., None], first[..., None]
    # The nearest point of the surface belongs to the disc whose centre is seen at a right angle to the tangent.
    centre = along.addcmul(across, -slope / (1 - slope.square()).sqrt()).clamp_(min=0).minimum(length)
    distance = (along - centre).square_().addcmul_(across, across).sqrt_()
    return distance.addcmul_(centre, slope).sub_(first)


def boxes(capsules: Tensor) -> Tensor:
    """The smallest box around the capsules (..., J, 6) that are there: left, top, right, bottom (..., 4).

    All zeros where there is none.
    """
    radius = capsules[..., 4:, None]  # (..., J, 2, 1)
    centres = capsules[..., :4].unflatten(-1, (2, 2))
    there = radius >= 0
    low = torch.where(there, centres - radius, math.inf).amin((-3, -2))
    high = torch.where(there, centres + radius, -math.inf).amax((-3, -2))
    box = torch.cat([low, high], -1)
    return torch.where(box.isfinite(), box, 0.0)


def longer_sides(box: Tensor) -> Tensor:
    """The longer sides of boxes (..., 4): (...)."""
    return (box[..., 2:] - box[..., :2]).amax(-1)


def keypoints(capsules: Tensor) -> Tensor:
    """The joints and tips of animals (..., 10, 6), in the order of `KEYPOINTS`: (..., 8, 3).

    x, y, and 1; or three zeros where the animal has none.
    """
    starts, ends, radii = capsules[..., :2], capsules[..., 2:4], capsules[..., 4]
    order = [6, 5, 5, 4, 0, 1, 2, 3]
    points = torch.stack([starts[..., j, :] if what in ("head", "hips") else ends[..., j, :]
                          for what, j in zip(KEYPOINTS, order)], -2)
    there = (radii[..., order, None] >= 0).to(points)
    return torch.cat([points * there, there], -1)


def posed(plans: Tensor, marks: Tensor, turns: Tensor) -> Tensor:
    """Animals that look to the right.

    Args:
        plans: (..., 17) rows of `table`.
        marks: (...) indices into `MARKS`.
        turns: (..., 6) in −1–1: how far neck, tail, hands and feet are turned.

    Returns:
        capsules (..., 10, 6).
    """
    length, hips, shoulders, head, neck = plans[..., :5].unbind(-1)
    tail, front, hind = plans[..., 5:].unflatten(-1, (3, 4)).unbind(-2)
    turns = turns * _TURNS.to(turns)
    before, behind, middle = length / 2, -length / 2, torch.zeros_like(length)
    limbs = [
        _limb(limb, start, side * radius, side * limb[..., 3].deg2rad() + turns[..., 2 + j])
        for j, (limb, start, radius, side) in enumerate([
            (front, before, shoulders, -1), (front, before, shoulders, 1),
            (hind, behind, hips, -1), (hind, behind, hips, 1),
        ])
    ]
    tail = _limb(tail, behind, middle, math.pi + turns[..., 1])
    body = torch.stack([behind, middle, before, middle, hips, shoulders], -1)
    face = before + neck * turns[..., 0].cos(), neck * turns[..., 0].sin()
    disc = torch.stack([*face, *face, *[torch.where(head > 0, head, -1.0)] * 2], -1)
    strokes = _strokes().to(plans)[marks]  # (..., 3, 6)
    mark = moved(strokes, turns[..., 0, None], head[..., None], torch.stack(face, -1)[..., None, :])
    mark[..., 4:] = torch.where(head[..., None, None] > 0, mark[..., 4:], -1.0)
    return torch.cat([torch.stack([*limbs, tail, body, disc], -2), mark], -2)


def moved(capsules: Tensor, angle: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Capsules (..., 6), turned by an angle in radians, then scaled, then shifted by (..., 2) in x and y."""
    cos, sin = (angle.cos() * scale)[..., None], (angle.sin() * scale)[..., None]
    x, y = capsules[..., 0:4:2], capsules[..., 1:4:2]
    x, y = x * cos - y * sin + shift[..., :1], x * sin + y * cos + shift[..., 1:]
    return torch.cat([torch.stack([x, y], -1).flatten(-2), capsules[..., 4:] * scale[..., None]], -1)


def table(*plans: Plan) -> Tensor:
    """Plans as numbers: (number of plans, 17)."""
    return torch.tensor([[*plan[:5], *plan.tail, *plan.front, *plan.hind] for plan in plans])


def _limb(limb: Tensor, x: Tensor, y: Tensor, angle: Tensor) -> Tensor:
    """A capsule (..., 6) from (x, y) in a direction; with negative radii where the limb has no length."""
    length, root, tip, _ = limb.unbind(-1)
    radii = [torch.where(length > 0, radius, -1.0) for radius in (root, tip)]
    return torch.stack([x, y, x + length * angle.cos(), y + length * angle.sin(), *radii], -1)


def _strokes() -> Tensor:
    """The marks in units of the head's radius, as thick as gives them their area: (marks, 3, 6)."""
    rows = []
    for strokes in _STROKES.values():
        length = math.dist(strokes[0][:2], strokes[0][2:])
        # n strokes of length l and radius r cover n (2 l r + π r²).
        radius = (math.sqrt(length**2 + math.pi * _MARK_AREA / len(strokes)) - length) / math.pi
        drawn = [(*ends, radius, radius) for ends in strokes]
        rows.append(drawn + [(*strokes[0], -1, -1)] * (3 - len(drawn)))
    return torch.tensor(rows)
