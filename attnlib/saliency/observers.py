"""Observers: simulated ones, and how well real or simulated ones predict each other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attnlib.data.fixations import Fixations
from attnlib.saliency.fixations import blur, centre_bias, density

# A measure of the map (N, H, W) against fixations on N pictures: (N,), NaN for a picture without any.
Measure = Callable[[Tensor, Fixations], Tensor]


def simulated_observers(
    maps: Tensor, observers: int = 15, fixations: int = 9, *, centre: float = 0.2, lapse: float = 0.05,
    seed: int = 0,
) -> tuple[Fixations, Tensor]:
    """Observers who look where `maps` are high. They are no eye movements, and stand in where none were recorded.

    Every fixation is drawn by itself from one probability: `maps` (as a density), mixed with a centre bias and with
    glances at any place. So there is no order, no distance between successive fixations, and nothing by which one
    observer differs from another: what people do beyond that is not in here.

    Args:
        maps: (N, H, W), not negative; a map of zeros says nothing, and these observers look anywhere.
        observers: K.
        fixations: of each observer on each picture. (OSIE's made nine on average, in three seconds.)
        centre: share of the fixations that follow the centre bias.
        lapse: share of the fixations that go anywhere.
        seed: the same seed gives the same fixations, on any device (but for rounding at a pixel's edge).

    Returns:
        the fixations, and the probability they were drawn from, (N, H, W) float64: no map can predict them better.

    Raises:
        ValueError: maps that are no (N, H, W) or hold negative or missing values; no observer, a negative number of
            fixations, or shares that are negative or above 1 together.
    """
    if maps.dim() != 3:
        raise ValueError(f"maps are (N, H, W), not {tuple(maps.shape)}")
    if observers < 1 or fixations < 0 or min(centre, lapse) < 0 or centre + lapse > 1:
        raise ValueError("simulated observers are one or more, with 0 or more fixations each, and shares for `centre` "
                         "and `lapse` from 0 to 1 together")
    count, height, width = maps.shape
    middle = density(centre_bias((height, width), device=maps.device))
    truth = (1 - centre - lapse) * density(maps) + centre * middle + lapse / (height * width)
    rng = torch.Generator().manual_seed(seed)
    each = observers * fixations
    drawn = torch.rand(count, each, dtype=torch.float64, generator=rng).to(maps.device)
    line = truth.flatten(1).cumsum(1)
    pixel = torch.searchsorted(line, drawn * line[:, -1:], right=True).clamp(max=height * width - 1).flatten()
    # Anywhere within the pixel.
    y, x = torch.rand(2, count * each, dtype=torch.float64, generator=rng).to(maps.device)
    number = torch.arange(count * each, device=maps.device)
    return Fixations(
        x=pixel % width + x, y=pixel // width + y, picture=number // max(each, 1),
        observer=number % max(each, 1) // max(fixations, 1), size=(height, width), pictures=count, observers=observers,
    ), truth


def one_against_the_others(fixations: Fixations, sigma: float, measure: Measure, *, predict: str = "one") -> Tensor:
    """How well observers predict each other: the ceiling for a map that does not know who looks.

    Args:
        fixations: of K ≥ 2 observers on N pictures.
        sigma: standard deviation in pixels of the blur that makes a map of fixations.
        measure: of a map (N, H, W) against fixations, e.g. `attnlib.saliency.metrics.nss`.
        predict: ``"one"``: the map of all the others predicts each observer, which is what a perfect model of these
            observers could reach, and a little less, as they are few; ``"others"``: the map of a single observer
            predicts all the others, which is what one person is worth as a model.

    Returns:
        (N, K): NaN where the observer, or everybody else, has no fixation on the picture.

    Raises:
        ValueError: a single observer, or another word for `predict`.
    """
    if predict not in ("one", "others"):
        raise ValueError(f"predict is 'one' or 'others', not {predict!r}")
    if fixations.observers < 2:
        raise ValueError("observers predict each other: there must be at least two")
    scores = []
    for k in range(fixations.observers):
        one, others = fixations.by(k), fixations.where(fixations.observer != k)
        source, target = (others, one) if predict == "one" else (one, others)
        scores.append(_predicted(source, target, sigma, measure))
    return torch.stack(scores, 1)


def some_against_the_rest(
    fixations: Fixations, count: int, sigma: float, measure: Measure, *, rest: int = 1, seed: int = 0,
) -> Tensor:
    """How well the map of `count` observers predicts `rest` others; all are chosen at random. How many are enough?

    With the same seed and `rest`, every `count` predicts the same observers, and a greater one has the smaller one's
    observers among its own: the curve over `count` shows nothing but what the added observers bring.

    Returns:
        (N,): NaN for a picture without fixations of either.

    Raises:
        ValueError: fewer than one on a side, or more than there are.
    """
    if count < 1 or rest < 1 or count + rest > fixations.observers:
        raise ValueError(f"{count} observers cannot predict {rest} others: there are {fixations.observers} in all")
    order = torch.randperm(fixations.observers, generator=torch.Generator().manual_seed(seed)).tolist()
    source, target = fixations.by(*order[rest : rest + count]), fixations.by(*order[:rest])
    return _predicted(source, target, sigma, measure)


def _predicted(source: Fixations, target: Fixations, sigma: float, measure: Measure) -> Tensor:
    """The measure of the map of `source` against `target`; NaN for pictures without fixations in `source`."""
    counts = source.counts()
    scores = measure(blur(counts, sigma), target)
    return torch.where(counts.sum((1, 2)) > 0, scores, torch.nan)
