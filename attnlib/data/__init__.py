"""Data for the pages: embedded real data, procedural scenes whose truth is known, and torchvision's data sets."""

from __future__ import annotations

import importlib

from attnlib.data.pictures import Pictures
from attnlib.data.scenes import ANIMALS, KEYPOINTS, MARKS, PARTS, scenes  # now, as the function hides its module

# Where each name lives. Imported on first use: some need scikit-learn, scikit-image or Pillow.
_LATER = {
    "cue_task": "cue",
    "digits": "handwritten",
    "Fixations": "fixations", "osie_fixations": "osie", "osie_pictures": "osie",
    "SHIPPED": "photos", "from_file": "photos", "photograph": "photos", "photographs": "photos",
    "DataDamaged": "torchvision_sets", "DataMissing": "torchvision_sets", "cifar10": "torchvision_sets",
    "fashion_mnist": "torchvision_sets", "mnist": "torchvision_sets", "normalise": "torchvision_sets",
    "WARPS": "warped", "warped_digits": "warped",
}

__all__ = ["ANIMALS", "KEYPOINTS", "MARKS", "PARTS", "Pictures", "scenes", *_LATER]


def __getattr__(name: str):
    if name in _LATER:
        return getattr(importlib.import_module(f"attnlib.data.{_LATER[name]}"), name)
    raise AttributeError(f"module 'attnlib.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
