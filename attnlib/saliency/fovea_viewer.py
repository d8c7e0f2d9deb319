"""A picture that is sharp where the pointer is: `foveate`, by the browser alone."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attnlib.arguments import positive
from attnlib.data.pictures import Pictures
from attnlib.saliency.fovea import HALF_ACUITY, PIXEL_BLUR, blur_width, blurred, foveate, variances_up_to

if TYPE_CHECKING:
    from attnlib.widgets.fovea import FoveaViewer


def fovea_viewer(
    pictures: Pictures | Tensor, *, degrees: Sequence[float] = (15, 30, 60), labels: Sequence[str] | None = None,
    at: tuple[float, float] = (0.5, 0.5), half_acuity: float = HALF_ACUITY, name: str = "A picture under a moving gaze",
    alt: str | None = None, caption: str | None = None,
) -> FoveaViewer:
    """Photographs under a gaze that follows the pointer, a finger or the arrow keys, without a kernel.

    What is shown is what `foveate` computes with its default `foveal`: the picture is as sharp as it is at the gaze,
    and its blur grows with the distance from it. The browser lays the same blurred copies over each other and lets each
    be seen where its blur is right; those with much blur are stored small.

    Args:
        pictures: `Pictures` or (N, 1 or 3, H, W) in 0–1, of a few hundred pixels.
        degrees: visual angles that the width of a picture may span, for the reader to choose; the middle one first.
        labels: the pictures' names; those of `Pictures` by default.
        at: where the gaze starts, as shares of width and height.
        half_acuity: the eccentricity in degrees at which details must be twice as large.
        name, alt, caption: the accessible name, what is seen in sentences, and what is printed below.

    Raises:
        ValueError: no picture or no angle, an angle or `half_acuity` not above 0, a start outside the picture, labels
            of another number than the pictures, or more than `attnlib.widgets.MOST_BYTES`.
    """
    from attnlib.widgets.fovea import FoveaViewer
    from attnlib.widgets.viewer import picture_uri

    images, names = _checked(pictures, labels, degrees, at)
    height, width = images.shape[-2:]
    corner = torch.tensor((width**2 + height**2) ** 0.5 * max(degrees) / width)  # the gaze in the opposite one
    variances = variances_up_to(float(blur_width(corner, max(degrees) / width, half_acuity=half_acuity)) ** 2)
    stored = [_stored(copy, variance) for copy, variance in zip(blurred(images, variances), variances)]
    start = {"picture": 0, "degrees": len(degrees) // 2, "at": list(at)}
    data: dict[str, Any] = {
        "pictures": [{"name": label, "uris": [picture_uri(copy, lossy=True) for copy in copies]}
                     for label, *copies in zip(names, *stored)],
        "size": [height, width], "variances": variances, "degrees": list(degrees), "start": start,
        "half": half_acuity, "pixel": PIXEL_BLUR**2,
    }
    alt = alt or (f"A photograph ({', '.join(names)}) that is sharp where one looks and blurred the more the farther "
                  "from there.")
    first = foveate(images[:1], [min(share * side, side - 1) for share, side in zip(at, (width, height))],
                    degrees[start["degrees"]] / width, half_acuity=half_acuity)
    still = (f'<img src="{picture_uri(first[0], lossy=True)}" alt="{html.escape(alt)}" '
             'style="width:100%;max-width:30rem">')
    return FoveaViewer(data, name=name, alt=alt, caption=caption, still=still)


def _stored(copies: Tensor, variance: float) -> Tensor:
    """Pictures (N, 3, H, W), made smaller where their blur leaves nothing to see between two pixels."""
    apart = max(1, int(variance**0.5 / 2))
    if apart > 1:
        size = [max(2, round(side / apart)) for side in copies.shape[-2:]]
        copies = F.interpolate(copies, size, mode="bilinear", antialias=True, align_corners=False)
    return copies


def _checked(pictures: Any, labels: Sequence[str] | None, degrees: Sequence[float],
             at: tuple[float, float]) -> tuple[Tensor, list[str]]:
    from attnlib.plot.images import as_picture

    images = pictures.images if isinstance(pictures, Pictures) else torch.as_tensor(pictures)
    if images.dim() != 4 or len(images) == 0:
        raise ValueError(f"fovea_viewer takes pictures (N, 1 or 3, H, W), at least one, not {tuple(images.shape)}")
    images = torch.stack([as_picture(image).expand(3, -1, -1) for image in images]).float()
    if labels is None:
        known = isinstance(pictures, Pictures) and len(pictures.classes) > 1
        labels = ([pictures.classes[k] for k in pictures.labels] if known
                  else [f"picture {number}" for number in range(1, len(images) + 1)])
    if len(labels) != len(images):
        raise ValueError(f"there are {len(labels)} labels for {len(images)} pictures")
    if not degrees:
        raise ValueError("a picture spans one or more angles in degrees, and there is none")
    for angle in degrees:
        positive("an angle that a picture spans, in degrees,", angle)
    if not all(0 <= share <= 1 for share in at):
        raise ValueError(f"the gaze starts inside the picture, at shares of its width and height in 0–1, not {at}")
    return images, list(labels)
