"""Photographs that need no download: those inside scikit-image and scikit-learn, and the reader's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from attnlib.data.pictures import Pictures


@dataclasses.dataclass(frozen=True)
class Shipped:
    """A photograph inside an installed package: what it shows, where it lies, and whose it is."""

    shows: str
    package: str
    function: str
    credit: str


SHIPPED = {
    "astronaut": Shipped("an astronaut in front of a flag and a model of a shuttle", "skimage", "astronaut",
                         "NASA, portrait of Eileen Collins, public domain"),
    "camera": Shipped("a photographer with a camera on a tripod, in grey", "skimage", "camera", "Lav Varshney, CC0"),
    "cat": Shipped("the face of a tabby cat", "skimage", "chelsea", "Stéfan van der Walt, CC0"),
    "china": Shipped("a Chinese palace behind a stone balustrade", "sklearn", "china.jpg",
                     "danielbuechele on Flickr, CC BY 2.0"),
    "coffee": Shipped("a cup of coffee with a spoon on a wooden table", "skimage", "coffee",
                      "Rachel Michetti, Pikolo Espresso Bar, CC0"),
    "flower": Shipped("an orange flower in front of leaves", "sklearn", "flower.jpg", "vultilion on Flickr, CC BY 2.0"),
    "rocket": Shipped("a rocket lifting off beside its tower", "skimage", "rocket", "SpaceX, public domain"),
}


def photographs(*names: str, size: int = 224, grey: bool = False) -> Pictures:
    """Photographs of one size: by name, or all that are shipped (`SHIPPED`).

    Args:
        names: one or more of ``astronaut camera cat china coffee flower rocket``.
        size: height and width in pixels, of the largest square in the middle.
        grey: one channel instead of three.

    Returns:
        `Pictures` with images (N, 3, size, size) in 0–1, labels that count them, `classes` their names, and `source`
        the credits.

    Raises:
        ValueError: an unknown name; the message lists those there are.
    """
    names = names or tuple(SHIPPED)
    single = [photograph(name, size, grey=grey) for name in names]
    return Pictures(
        torch.cat([pictures.images for pictures in single]), torch.arange(len(single)), names, name="photographs",
        source="; ".join(f"{name}: {SHIPPED[name].credit}" for name in names),
    )


def photograph(name: str, size: int | None = None, *, grey: bool = False) -> Pictures:
    """One photograph, as `Pictures` that hold just it: ``photograph("cat").images[0]`` is (3, 300, 451).

    Args:
        name: one of `SHIPPED`.
        size: height and width of the largest square in the middle; None keeps the whole photograph.
        grey: one channel instead of three.

    Raises:
        ValueError: an unknown name; the message lists those there are.
    """
    if name not in SHIPPED:
        raise ValueError(f"there is no photograph called {name!r}; there are: {', '.join(SHIPPED)}")
    shipped = SHIPPED[name]
    if shipped.package == "skimage":
        import skimage.data

        pixels = getattr(skimage.data, shipped.function)()
    else:
        from sklearn.datasets import load_sample_image

        pixels = load_sample_image(shipped.function)
    image = torch.tensor(pixels, dtype=torch.float32) / 255
    image = image.permute(2, 0, 1) if image.dim() == 3 else image.expand(3, -1, -1)
    return _single(image, size, grey, name, f"{name}: {shipped.credit}")


def from_file(path: str | Path, size: int | None = None, *, grey: bool = False) -> Pictures:
    """The reader's own picture: any format Pillow reads, upright as the camera says, transparency on white.

    Args:
        path: of the file.
        size: height and width of the largest square in the middle; None keeps the whole picture.
        grey: one channel instead of three.

    Returns:
        `Pictures` that hold just it: images (1, 3, H, W) in 0–1.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no picture, or a damaged one.
    """
    import numpy as np
    from PIL import Image, ImageOps

    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give the path of a picture")
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            image = _on_white(upright)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture, it may be damaged or of another kind: {error}") from None
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)
    return _single(pixels, size, grey, path.stem, f"{path.name}, the reader's own")


def _on_white(picture):
    """An RGB copy; what shines through a transparent picture is white, and 16-bit grey keeps its range."""
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":
        low, high = picture.getextrema()
        most = 65535 if high > 255 else 255
        picture = picture.convert("F").point(lambda value: value * 255 / most).convert("L")
    if "A" in picture.mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _single(image: Tensor, size: int | None, grey: bool, name: str, source: str) -> Pictures:
    """`Pictures` of the one image (3, H, W)."""
    if grey:
        # The luma of ITU-R BT.601, what "grey" means in most image libraries.
        image = (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)
    if size is not None:
        image = _square(image, size)
    return Pictures(image[None].clamp(0, 1).contiguous(), torch.zeros(1, dtype=torch.long), (name,), name=name,
                    source=source)


def _square(image: Tensor, size: int) -> Tensor:
    if size < 1:
        raise ValueError(f"the picture's size is at least 1 pixel, not {size}")
    height, width = image.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = image[None, :, top : top + side, left : left + side]
    return F.interpolate(middle, size=(size, size), mode="bilinear", align_corners=False, antialias=True)[0]
