"""OSIE: photographs with many objects, and the eye movements of fifteen people who looked at them for three seconds.

Xu, Jiang, Wang, Kankanhalli, Zhao, "Predicting human gaze beyond pixels", Journal of Vision 14(1):28, 2014. The package
is under the MIT licence; the photographs were gathered from the web, so show fixations, not photographs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from attnlib.data.fixations import Fixations
from attnlib.data.pictures import Pictures
from attnlib.data.torchvision_sets import DataDamaged, DataMissing, _folder

SIZE = (600, 800)
SOURCE = "Xu, Jiang, Wang, Kankanhalli, Zhao, Journal of Vision 14(1):28, 2014; photographs from the web"
_REPOSITORY = "https://github.com/NUS-VIP/predicting-human-gaze-beyond-pixels"


def osie_pictures(
    root: str | Path | None = None, *, size: tuple[int, int] = (150, 200), names: Sequence[str] | None = None,
) -> tuple[Pictures, Fixations]:
    """The photographs of OSIE that are on this machine, and the fixations on them.

    Args:
        root: folder that holds ``OSIE/data/stimuli`` and ``OSIE/data/eye/fixations.mat``; ``ATTNLIB_DATA`` by default.
        size: height and width in pixels to reduce pictures and fixations to; (600, 800) keeps them as they are, at
            5.8 MB each in memory.
        names: which, e.g. ``["1001", "1007"]``; all that are there by default, in the order of their names.

    Returns:
        `Pictures` with images (N, 3, H, W) in 0–1, labels that count them, `classes` their names; and `Fixations` of
        15 observers, with durations.

    Raises:
        DataMissing: the set or a photograph is not there.
        DataDamaged: a file cannot be read, or is not what its authors published.
        ValueError: an empty list of names, or one that OSIE does not have.
    """
    top = _folder(root)
    known, fixations = osie_fixations(root)
    folder = top / "OSIE" / "data" / "stimuli"
    if names is None:
        names = [name for name in known if (folder / f"{name}.jpg").is_file()]
        if not names:
            raise _missing(top, folder, "there is no photograph")
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"OSIE's pictures are {known[0]} to {known[-1]}, not {', '.join(unknown) or 'none'}")
    images = torch.cat([_photograph(top, folder / f"{name}.jpg", size) for name in names])
    pictures = Pictures(images, torch.arange(len(names)), tuple(names), name="OSIE", source=SOURCE)
    return pictures, fixations.on([known.index(name) for name in names]).resized(size)


def osie_fixations(root: str | Path | None = None) -> tuple[tuple[str, ...], Fixations]:
    """The names of all pictures of OSIE, and all fixations on them, at 600×800 pixels; the photographs are not needed.

    The file counts pixels from 1, as MATLAB does, with a pixel's centre at a whole number: half a pixel is subtracted,
    so that the same pixels are hit as in the authors' code.

    Raises:
        DataMissing: the file is not there.
        DataDamaged: it cannot be read, or is not what its authors published.
    """
    top = _folder(root)
    path = top / "OSIE" / "data" / "eye" / "fixations.mat"
    if not path.is_file():
        raise _missing(top, path.parent, f"{path.name} is absent")
    records = _records(path)
    try:
        paths = [[_scanpath(subject) for subject in record.subjects] for record in records]
        names = tuple(Path(str(record.img)).stem for record in records)
        if len(set(names)) < len(names):
            raise ValueError("a picture occurs twice")
        return names, _gathered(paths)
    except (AttributeError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise _damaged(path, error) from None


def _records(path: Path) -> list:
    """The file's records, one for each picture."""
    import numpy as np
    import scipy.io

    try:
        found = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)["fixations"]
    except Exception as error:  # whatever a parser runs into on damaged bytes
        raise _damaged(path, error) from None
    records = list(np.atleast_1d(found))
    for record in records:
        if hasattr(record, "subjects"):
            record.subjects = list(np.atleast_1d(record.subjects))
    return records


def _scanpath(subject) -> torch.Tensor:
    """One observer's fixations on one picture: (n, 3), x and y from the picture's edge, and the duration."""
    import numpy as np

    columns = [np.atleast_1d(np.asarray(getattr(subject, field), dtype=np.float64))
               for field in ("fix_x", "fix_y", "fix_duration")]
    path = torch.from_numpy(np.stack(columns, 1))  # ValueError where lengths differ
    return path - torch.tensor([0.5, 0.5, 0])


def _gathered(paths: list[list[torch.Tensor]]) -> Fixations:
    """The fixations of all pictures; ValueError where pictures differ in their observers, or a place is outside."""
    places = [[path[:, :2] for path in picture] for picture in paths]
    fixations = Fixations.of(places, SIZE)
    durations = torch.cat([path[:, 2] for picture in paths for path in picture])
    return Fixations(fixations.x, fixations.y, fixations.picture, fixations.observer, SIZE, fixations.pictures,
                     fixations.observers, durations)


def _photograph(top: Path, path: Path, size: tuple[int, int]) -> torch.Tensor:
    from attnlib.data.photos import from_file

    try:
        image = from_file(path).images
    except FileNotFoundError:
        raise _missing(top, path.parent, f"{path.name} is absent") from None
    except ValueError as error:
        raise _damaged(path, error) from None
    if tuple(image.shape[-2:]) != SIZE:
        raise _damaged(path, ValueError(f"it has {image.shape[3]}×{image.shape[2]} pixels instead of 800×600"))
    if tuple(size) == SIZE:
        return image
    return F.interpolate(image, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)


def _missing(top: Path, folder: Path, what: str) -> DataMissing:
    return DataMissing(f"OSIE is not in {folder} ({what}); get it with: git clone {_REPOSITORY} {top / 'OSIE'} "
                       f"and set ATTNLIB_DATA={top}")


def _damaged(path: Path, error: Exception) -> DataDamaged:
    why = " ".join(f"{type(error).__name__} {error}".split())
    return DataDamaged(f"{path} is damaged or not the published file ({why}); fetch it again from {_REPOSITORY}")
