"""Procedural scenes, of which all is known: animals seen from above, on textured ground, among things that are none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from attnlib.data._painting import drawn, hues, random_ground
from attnlib.data._shapes import (
    ANIMALS, CAPSULES, KEYPOINTS, MARKS, PARTS, THINGS, boxes, keypoints, longer_sides, moved, posed, table,
)
from attnlib.data.pictures import Pictures, check_count

__all__ = ["ANIMALS", "KEYPOINTS", "MARKS", "PARTS", "scenes"]

SHARES = ("nothing", "shape", "mark", "both")
# The longer side of a single animal's box, in shorter sides of the picture; and a distractor's, in animals.
_SCALE, _SMALLER = (0.55, 0.85), 0.6
_PLACES = 16  # random places that are tried for every figure
# The radius of the head that a distractor has not, for its mark.
_HEAD = 0.24


def scenes(
    count: int, size: int | tuple[int, int] = 32, *, objects: int | tuple[int, int] = 1, clutter: float = 0.3,
    contrast: float = 0.4, scale: tuple[float, float] | None = None, turn: float = 180.0, distractors: int = 0,
    share: Literal["nothing", "shape", "mark", "both"] = "nothing", classes: Sequence[str] = tuple(ANIMALS),
    marks: Sequence[str] = MARKS, fine: bool = False, noise: float = 0.03, seed: int = 0,
    device: torch.device | str | None = None,
) -> Pictures:
    """Animals on textured ground, with their masks, boxes, parts, keypoints and classes.

    The kinds of animal differ in shape. Each has a head, and each head one of several marks, which cover the same
    area: a species is a kind with a mark. Colours, places, directions and poses are drawn apart from both. Where there
    is room, nothing overlaps; otherwise objects lie on top of distractors, and the first object on top.

    Each part of a scene has random numbers of its own. With one seed, another `clutter`, `contrast`, `noise` or `fine`
    changes nothing else, other `distractors` leave the objects as they are, and another `size` of the same ratio shows
    the same scene, except for the noise of its pixels.

    Args:
        count: number of pictures N.
        size: height and width in pixels, or one number for both; 16 or more.
        objects: how many animals, or the least and the greatest number of them, drawn at random. K is the greatest.
        clutter: share of the places for strokes in the ground that have one, 0–1.
        contrast: largest difference, in red, green or blue, of a body's colour from the mean of its ground, 0–1.
            From about 0.3 on, some colours reach 0 or 1 before.
        scale: least and greatest longer side of an object's box, in shorter sides of the picture. By default 0.55 and
            0.85, divided by the square root of K.
        turn: how many degrees animals may look away from the right, either way. 180 is any direction.
        distractors: D: stones, twigs and leaves, coloured as animals are, 0.6 times as large.
        share: what distractors share with animals: ``"nothing"``; ``"shape"``: they are bodies of animals of any of
            the classes, without heads; ``"mark"``: they carry any of the marks, in their middle; or ``"both"``. It is
            drawn apart from the objects' own.
        classes: kinds of animal, of `ANIMALS`.
        marks: what heads show, of `MARKS`.
        fine: whether the label is the species rather than the kind.
        noise: standard deviation of the Gaussian noise in the brightness of every pixel.
        seed: the same seed gives the same pictures; on another device, up to rounding.
        device: where they are drawn, and stay.

    Returns:
        Pictures with images (N, 3, H, W) in 0–1. Labels are (N,) for one object, and (N, K) for several, −1 where
        there are fewer: an index into `classes`, or with ``fine=True`` the kind's times the number of marks, plus the
        mark's. Places are in pixels from the picture's upper left corner; boxes are left, top, right, bottom and hold
        all of a figure, also what another one covers. In `truth`:

        - ``mask`` (N, H, W) bool, where an object is; ``instances`` which one, 1–K, or 0; ``semantic`` 1 + its kind,
          or 0; ``parts`` 1 + its index into `PARTS`, or 0; ``distractors`` which distractor, 1–D, or 0: uint8.
        - ``boxes`` (N, K, 4); ``part_boxes`` (N, K, 5, 4), in the order of `PARTS`; ``distractor_boxes`` (N, D, 4):
          0 for what is not there.
        - ``keypoints`` (N, K, 8, 3), in the order of `KEYPOINTS`: x, y, and 2 where it is seen, 1 where another object
          covers it, 0 where the animal has none.
        - ``object_class`` and ``mark`` (N, K), −1 for no object; ``side`` (N, K), the longer side of the box;
          ``colour`` (N, K, 3) and ``ground`` (N, 3), the bodies' colours and the ground's mean one, without noise.

    Raises:
        ValueError: a number that is too small or too large, an unknown name or none, or more than 255 figures.
    """
    (height, width), (least, most) = _pair("size", size), _pair("objects", objects)
    scale = tuple(scale or (side / math.sqrt(max(most, 1)) for side in _SCALE))
    _check(count, height, width, least, most, clutter, contrast, scale, turn, distractors, noise)
    _check_names(classes, marks, share)

    from attnlib.train.session import one_thread  # not above: training knows the data already

    workers = torch.get_num_threads()
    # Threads that share batches meet once. Those that share an operation meet after each, and wait for each other.
    with one_thread():
        own_seeds = torch.randint(2**62, (5,), generator=torch.Generator().manual_seed(seed)).tolist()
        for_objects, for_others, for_ground, for_clutter, for_noise = map(_generator, own_seeds)
        ground = random_ground(count, height, width, clutter, for_ground, for_clutter)
        kinds, shown, animals = _animals(count, (least, most), classes, marks, scale, turn, for_objects)
        others = _others(count, distractors, classes, marks, share, scale, for_others)
        tones = torch.cat([_tones(count, most, for_objects), _tones(count, distractors, for_others)], 1)
        colours = (ground.colour[:, None, None] + contrast * tones).clamp(0, 1)
        tries = [torch.rand(count, n, _PLACES, 2, generator=rng)
                 for n, rng in ((most, for_objects), (distractors, for_others))]
        short = min(height, width)
        capsules = short * _placed(torch.cat([animals, others], 1), torch.cat(tries, 1), height / short, width / short)
        device = torch.device(device or "cpu")
        images, owner, parts = drawn(ground, capsules, colours, most, height, width, device, workers)
        images += (noise * torch.randn(count, 1, height, width, generator=for_noise)).to(device)
        images.clamp_(0, 1)
        truth = {
            "object_class": kinds, "mark": shown, "colour": colours[:, :most, 1] * (kinds >= 0)[..., None],
            "ground": ground.colour,
        }
        truth = {what: tensor.to(device) for what, tensor in truth.items()}
        truth |= _maps(owner, parts, truth["object_class"]) | _places(capsules.to(device), owner, most)
    return Pictures(
        images=images,
        labels=_labels(truth, len(marks), fine),
        classes=tuple(f"{kind}, {mark}" for kind in classes for mark in marks) if fine else tuple(classes),
        truth=truth,
        name="species" if fine else "scenes",
        ceilings=_ceilings(len(classes), len(marks), fine) if most == 1 else {},
        source="procedural",
    )


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _animals(count: int, numbers: tuple[int, int], classes: Sequence[str], marks: Sequence[str],
             scale: tuple[float, float], turn: float, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Kinds and marks (N, K), −1 for no animal, and capsules (N, K, 10, 6), not in their places yet."""
    shape = count, numbers[1]
    kinds = torch.randint(len(classes), shape, generator=rng)
    shown = torch.randint(len(marks), shape, generator=rng)
    plans = table(*(ANIMALS[kind] for kind in classes))[kinds]
    capsules = posed(plans, _known(marks)[shown], 2 * torch.rand(*shape, 6, generator=rng) - 1)
    capsules = _sized(capsules, turn, scale, rng)
    there = torch.arange(numbers[1]) < torch.randint(numbers[0], numbers[1] + 1, (count, 1), generator=rng)
    capsules[..., 4:].masked_fill_(~there[..., None, None], -1)
    return kinds.masked_fill(~there, -1), shown.masked_fill(~there, -1), capsules


def _others(count: int, distractors: int, classes: Sequence[str], marks: Sequence[str], share: str,
            scale: tuple[float, float], rng: torch.Generator) -> Tensor:
    """The capsules (N, D, 10, 6) of distractors, not in their places yet."""
    shape = count, distractors
    plans = [ANIMALS[kind] for kind in classes] if share in ("shape", "both") else list(THINGS.values())
    # A neck that leads back to the middle of the body, so that the mark lies there.
    rows = table(*(plan._replace(head=_HEAD, neck=-plan.length / 2) for plan in plans))
    shown = _known(marks)[torch.randint(len(marks), shape, generator=rng)]
    turns = 2 * torch.rand(*shape, 6, generator=rng) - 1
    turns[..., 0] = 0
    capsules = posed(rows[torch.randint(len(rows), shape, generator=rng)], shown, turns)
    for what in ("head",) if share in ("mark", "both") else ("head", "mark"):
        capsules[..., CAPSULES[what], 4:] = -1
    return _sized(capsules, 180, (scale[0] * _SMALLER, scale[1] * _SMALLER), rng)


def _known(marks: Sequence[str]) -> Tensor:
    return torch.tensor([MARKS.index(mark) for mark in marks])


def _sized(capsules: Tensor, turn: float, scale: tuple[float, float], rng: torch.Generator) -> Tensor:
    """Turned at random, and as large as it takes for the longer sides of the boxes to lie within `scale`."""
    angle, side = torch.rand(2, *capsules.shape[:2], 1, generator=rng)
    still = torch.zeros_like(angle)
    capsules = moved(capsules, math.radians(turn) * (2 * angle - 1), still + 1, still[..., None].expand(-1, -1, 1, 2))
    side = scale[0] + (scale[1] - scale[0]) * side
    return capsules * (side / longer_sides(boxes(capsules))[..., None])[..., None]


def _tones(count: int, figures: int, rng: torch.Generator) -> Tensor:
    """Differences from the ground, for outline, body, head and mark: (N, M, 4, 3), as often c as −c."""
    angle, light = torch.rand(2, count, figures, generator=rng)
    side = torch.where(light < 0.5, -1.0, 1.0)
    body = hues(2 * math.pi * angle, side * (0.3 + 1.2 * (light - 0.5).abs()))
    side = side[..., None].expand_as(body)
    return torch.stack([-0.6 * side, body, body + 0.5 * side, -1.2 * side], 2)


def _placed(capsules: Tensor, tries: Tensor, height: float, width: float) -> Tensor:
    """Every figure (N, M, 10, 6) where it overlaps least with those before it; the first such of the places tried.

    `tries` (N, M, T, 2) in 0–1 says where they are, between the leftmost and the rightmost place, the uppermost and
    the lowest that keep the box in the picture.
    """
    own = boxes(capsules)
    room = own.new_tensor([width, height]) - (own[..., 2:] - own[..., :2])
    shifts = tries * room[:, :, None] - own[:, :, None, :2]  # (N, M, T, 2)
    taken, chosen = own.new_zeros(len(own), 0, 4), []
    for m in range(own.shape[1]):
        places = own[:, m, None] + shifts[:, m].repeat(1, 1, 2)  # (N, T, 4)
        corner = torch.minimum(places[:, :, None, 2:], taken[:, None, :, 2:])
        sides = corner - torch.maximum(places[:, :, None, :2], taken[:, None, :, :2])
        overlap = sides.clamp(min=0).prod(-1).sum(-1) + 1e-6 * torch.arange(tries.shape[2])
        best = overlap.argmin(1)
        here = torch.arange(len(best))
        taken = torch.cat([taken, places[here, best][:, None]], 1)
        chosen.append(shifts[here, m, best])
    shift = torch.stack(chosen, 1)[:, :, None].repeat(1, 1, 1, 2)
    return torch.cat([capsules[..., :4] + shift, capsules[..., 4:]], -1)


def _maps(owner: Tensor, parts: Tensor, kinds: Tensor) -> dict[str, Tensor]:
    """What is known of every pixel (N, H, W)."""
    objects = kinds.shape[1]
    instances = torch.where(owner <= objects, owner, 0)
    of = torch.cat([kinds.new_zeros(len(kinds), 1), kinds + 1], 1).to(torch.uint8)
    return {
        "mask": instances > 0, "instances": instances, "parts": parts,
        "semantic": of.gather(1, instances.flatten(1).long()).view_as(instances),
        "distractors": torch.where(owner > objects, owner - objects, 0),
    }


def _places(capsules: Tensor, owner: Tensor, objects: int) -> dict[str, Tensor]:
    """Boxes and keypoints, in pixels."""
    box = boxes(capsules)
    animals = capsules[:, :objects]
    points = keypoints(animals)
    x, y = (points[..., axis].long().clamp(0, owner.shape[2 - axis] - 1) for axis in (0, 1))
    there = owner.flatten(1).gather(1, (y * owner.shape[2] + x).flatten(1)).view_as(x)
    number = torch.arange(1, objects + 1, device=owner.device)[:, None]
    points[..., 2] *= 2 - ((there > 0) & (there < number)).to(points)
    return {
        "boxes": box[:, :objects], "distractor_boxes": box[:, objects:], "side": longer_sides(box[:, :objects]),
        "part_boxes": torch.stack([boxes(animals[:, :, CAPSULES[part]]) for part in PARTS], 2), "keypoints": points,
    }


def _labels(truth: dict[str, Tensor], marks: int, fine: bool) -> Tensor:
    kinds, shown = truth["object_class"], truth["mark"]
    labels = torch.where(kinds < 0, kinds, kinds * marks + shown) if fine else kinds.clone()
    return labels[:, 0] if labels.shape[1] == 1 else labels


def _ceilings(classes: int, marks: int, fine: bool) -> dict[str, float]:
    """What can be reached at most on average without a part of what makes the class."""
    if not fine:
        return {"blind to the shape": 1 / classes}
    return {"blind to the mark": 1 / marks, "blind to the shape": 1 / classes}


def _pair(what: str, value: int | Sequence[int]) -> tuple[int, int]:
    """Two whole numbers, from one or two."""
    pair = (value, value) if isinstance(value, int) else value
    if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(one, int) for one in pair):
        raise ValueError(f"{what} is a whole number, or two of them, not {value!r}")
    return tuple(pair)


def _check(count: int, height: int, width: int, least: int, most: int, clutter: float, contrast: float,
           scale: tuple[float, ...], turn: float, distractors: int, noise: float) -> None:
    """Refuse numbers that make no scenes."""
    check_count("scenes", count)
    if min(height, width) < 16:
        raise ValueError(f"scenes needs 16 pixels or more to show an animal, not {height} × {width}")
    if not 1 <= least <= most:
        raise ValueError(f"objects is how many animals, or the least and the most, 1 or more; not {least} to {most}")
    if not isinstance(distractors, int) or distractors < 0 or most + distractors > 255:
        raise ValueError(f"a scene holds up to 255 figures, not {most} objects and {distractors} distractors")
    for what, value, end in (("clutter", clutter, 1), ("contrast", contrast, 1), ("turn", turn, 180)):
        if not 0 <= value <= end:
            raise ValueError(f"{what} lies between 0 and {end}, not {value}")
    if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale is the least and the greatest size, between 0 and 1, not {scale}")
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise is a standard deviation, 0 or more, not {noise}")


def _check_names(classes: Sequence[str], marks: Sequence[str], share: str) -> None:
    """Refuse unknown names."""
    for what, names, known in (("classes", classes, ANIMALS), ("marks", marks, MARKS)):
        if isinstance(names, str) or not names or len(set(names)) < len(names) or not set(names) <= set(known):
            raise ValueError(f"{what} are one or more different ones of {', '.join(known)}, not {names!r}")
    if share not in SHARES:
        raise ValueError(f"distractors share one of {', '.join(SHARES)}, not {share!r}")
