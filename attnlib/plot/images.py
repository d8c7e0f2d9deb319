"""Pictures, and weights drawn over pictures."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from torch import Tensor

from attnlib.plot.figure import colour_bar, style, subplots

# A picture is embedded no larger than this on its longer side: enough for a figure, small enough for a page.
_LONGEST = 288
# Inches across, at most: the width of a page's text.
_WIDEST = 7.0


@style()
def pictures(images, titles: Sequence[str] | None = None, *, columns: int | None = None, size: float = 1.2):
    """A grid of pictures.

    Args:
        images: (N, C, H, W) or a sequence of (C, H, W) or (H, W), grey (C = 1) or RGB (C = 3), in 0–1 or uint8; or
            `attnlib.data.Pictures`.
        titles: one for each picture.
        columns: pictures in a row; all in one row of at most eight by default.
        size: height of a picture in inches; less where the page is too narrow for it.

    Returns:
        the matplotlib figure.

    Raises:
        ValueError: no picture, another shape, values outside 0–1, or another number of titles.
    """
    shown = [_shrunk(as_picture(image)) for image in getattr(images, "images", images)]
    if not shown:
        raise ValueError("there is no picture to draw")
    if titles is not None and len(titles) != len(shown):
        raise ValueError(f"{len(shown)} pictures, but {len(titles)} titles")
    figure, axes = _grid(len(shown), columns, size, shown[0].shape[2] / shown[0].shape[1], titled=titles is not None)
    for place, picture in zip(axes, shown):
        _draw(place, picture)
    for place, title in zip(axes, titles or ()):
        place.set_title(title, fontsize=9, fontweight="normal", loc="center", pad=3)
    return figure


def answers(data, said, *, columns: int | None = None, size: float = 1.2):
    """Pictures with a network's answer above each, marked ✓ or ✗.

    Args:
        data: `attnlib.data.Pictures`, images outside 0–1 (noise) cut off there.
        said: (N,) the class indices answered, or (N, classes) the network's scores.
        columns, size: as for `pictures`.

    Returns:
        the matplotlib figure.

    Raises:
        ValueError: no picture, or another number of answers.
    """
    said = said.argmax(1) if said.dim() == 2 else said
    if len(said) != len(data):
        raise ValueError(f"{len(data)} pictures, but {len(said)} answers")
    marks = ["✓" if right else "✗" for right in (said == data.labels).tolist()]
    titles = [f"{data.classes[answer]} {mark}" for answer, mark in zip(said.tolist(), marks)]
    return pictures(data.images.clamp(0, 1), titles, columns=columns, size=size)


@style()
def overlay(picture, weights, titles: Sequence[str] | None = None, *, strength: float = 0.6, smooth: bool = True,
            limits: tuple[float, float] | None = None, label: str = "weight", columns: int | None = None,
            size: float = 2.0):
    """Maps of weights over pictures: the picture in grey, the weights as light of the ramp ``attn_map``.

    Args:
        picture: (C, H, W) or (H, W), or several (N, C, H, W); grey or RGB, in 0–1 or uint8.
        weights: a map (h, w) of any size, axes of size one before it ignored; or one for each picture (N, …, h, w).
        titles: one for each picture.
        strength: 0 shows the picture alone, 1 the weights alone.
        smooth: interpolate between the cells of the map; False shows them as the cells they are.
        limits: the weights at the two ends of the ramp; the smallest and the largest one by default.
        label: what the weights are, beside the colour bar.
        columns, size: as for `pictures`.

    Returns:
        the matplotlib figure.

    Raises:
        ValueError: shapes that do not belong together, or weights that are not finite.
    """
    several = getattr(picture, "ndim", 0) == 4
    shown = [as_picture(one) for one in picture] if several else [as_picture(picture)]
    maps = _maps(weights, len(shown) if several else None)
    low, high = limits or (float(maps.min()), float(maps.max()))
    figure, axes = _grid(len(shown), columns, size, shown[0].shape[2] / shown[0].shape[1], titles is not None, bar=0.9)
    for place, one, weight in zip(axes, shown, maps):
        _draw(place, _shrunk(_lit(one, weight, low, high, strength, smooth)))
    for place, title in zip(axes, titles or ()):
        place.set_title(title, fontsize=9, fontweight="normal", loc="center", pad=3)
    scale = ScalarMappable(Normalize(low, high if high > low else low + 1e-6), "attn_map")
    bar = colour_bar(figure, axes, scale, label)
    bar.set_ticks([low, high], labels=[f"{low:.2g}", f"{high:.2g}"])
    return figure


def as_picture(image) -> Tensor:
    """One picture as a float tensor (C, H, W) in 0–1 with C of 1 or 3, whatever it came as.

    Raises:
        ValueError: another shape, or values outside 0–1.
    """
    picture = torch.as_tensor(np.asarray(image) if not isinstance(image, Tensor) else image).detach().cpu()
    if picture.dim() == 2:
        picture = picture[None]
    if picture.dim() == 3 and picture.shape[0] not in (1, 3) and picture.shape[2] in (1, 3):
        picture = picture.permute(2, 0, 1)  # as image files come: (H, W, C)
    if picture.dim() != 3 or picture.shape[0] not in (1, 3) or 0 in picture.shape:
        raise ValueError(f"a picture is (C, H, W) with 1 or 3 channels, or (H, W), not {tuple(picture.shape)}")
    picture = picture.float() / 255 if picture.dtype == torch.uint8 else picture.float()
    if not (picture.min() >= -1e-3 and picture.max() <= 1 + 1e-3):
        raise ValueError(
            f"a picture's values lie in 0–1, not {float(picture.min()):.3g} to {float(picture.max()):.3g}; "
            "undo the normalisation, or rescale"
        )
    return picture.clamp(0, 1)


def _maps(weights, count: int | None) -> Tensor:
    """Weights as (N, h, w), one map for each of `count` pictures; None is the single picture without a batch axis."""
    maps = torch.as_tensor(weights).detach().cpu().float()
    shape, wanted = tuple(maps.shape), count or 1
    one_each = len(shape) >= 2 and 0 not in shape and maps.numel() == wanted * shape[-2] * shape[-1]
    if not one_each or (wanted > 1 and shape[0] != wanted):
        whom = "the picture" if wanted == 1 else f"each of {wanted} pictures"
        raise ValueError(
            f"weights of shape {shape} are not one map (h, w) for {whom}; choose a head, channel or query first"
        )
    if not maps.isfinite().all():
        raise ValueError("the weights hold NaN or infinite values, which no colour can show")
    return maps.reshape(wanted, *shape[-2:])


def _lit(picture: Tensor, weight: Tensor, low: float, high: float, strength: float, smooth: bool) -> Tensor:
    """The picture in grey, lit by the weights: (3, H, W)."""
    # A picture of a few pixels is enlarged first, so that the map over it can be finer than the pixels.
    times = max(1, 160 // min(picture.shape[1:]))
    grey = picture.mean(0).repeat_interleave(times, 0).repeat_interleave(times, 1)
    how = {"mode": "bilinear", "align_corners": False} if smooth else {"mode": "nearest"}
    weight = F.interpolate(weight[None, None], size=grey.shape, **how)[0, 0]
    share = ((weight - low) / (high - low) if high > low else torch.full_like(weight, 0.5)).clamp(0, 1)
    colour = torch.from_numpy(matplotlib.colormaps["attn_map"](share.numpy())[..., :3]).float()
    # The picture's own light and shade stay visible inside the colour.
    mixed = (1 - strength) * grey[..., None] + strength * colour * (0.55 + 0.45 * grey[..., None])
    return mixed.permute(2, 0, 1).clamp(0, 1)


def _shrunk(picture: Tensor) -> Tensor:
    longest = max(picture.shape[1:])
    if longest <= _LONGEST:
        return picture
    size = [max(1, round(side * _LONGEST / longest)) for side in picture.shape[1:]]
    return F.interpolate(picture[None], size=size, mode="area")[0]


def _grid(count: int, columns: int | None, size: float, aspect: float, titled: bool, bar: float = 0):
    """Axes for `count` pictures, without frames, and their figure."""
    if columns is not None and columns < 1:
        raise ValueError(f"a grid has at least one column, not {columns}")
    columns = min(columns or 8, count)
    rows = -(-count // columns)
    size = min(size, (_WIDEST - bar) / columns / aspect)
    width, height = columns * size * aspect + 0.1 * columns + bar, rows * (size + 0.1 + 0.22 * titled)
    figure, axes = subplots(rows, columns, width=width, height=height, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)
    for place in axes.flat:
        place.axis("off")
    return figure, list(axes.flat[:count])


def _draw(place, picture: Tensor) -> None:
    pixels = (picture.permute(1, 2, 0).expand(-1, -1, 3).numpy() * 255).round().astype(np.uint8)
    place.imshow(pixels, interpolation="none")  # the page scales it: matplotlib would resample to 72 dpi
