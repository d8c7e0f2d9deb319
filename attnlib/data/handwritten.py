"""Real pictures that need no download: scikit-learn's handwritten digits."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from attnlib.data.pictures import Pictures

SOURCE = (
    "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998 (its test "
    "part, as shipped with scikit-learn); CC BY 4.0"
)


def digits(size: int | None = None, seed: int = 0, test: float = 0.25) -> tuple[Pictures, Pictures]:
    """1,797 handwritten digits of 8×8 pixels, split into (train, test).

    Every class has the same share of both parts. The same seed gives the same split.

    Args:
        size: enlarge (or shrink) to this height and width by bilinear interpolation; None leaves 8×8.
        seed: decides which pictures are for testing.
        test: their share, between 0 and 1.

    Returns:
        two `Pictures` with images (N, 1, size, size) float32 in 0–1.

    Raises:
        ValueError: a share that leaves one part without some digit, or a size below one.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if not 0.01 <= test <= 0.99:
        raise ValueError(f"the share for testing lies between 0.01 and 0.99, not {test}")
    if size is not None and size < 1:
        raise ValueError(f"the pictures' size is at least 1 pixel, not {size}")
    raw = load_digits()
    images = torch.from_numpy(raw.images).float()[:, None] / 16
    if size is not None and size != 8:
        images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=size < 8)
    labels = torch.from_numpy(raw.target).long()
    parts = train_test_split(torch.arange(len(labels)).numpy(), test_size=test, stratify=raw.target, random_state=seed)
    whole = Pictures(images, labels, tuple("0123456789"), name="digits", source=SOURCE)
    # Sorted, so that only membership depends on the seed.
    train, held_out = (whole[torch.from_numpy(part).sort().values] for part in parts)
    return train, held_out
