"""What arguments have to be: each function gives the value back, or says in one sentence what it should have been."""

from __future__ import annotations

import math
import numbers
from typing import Any


def whole(name: str, value: Any, least: int = 1) -> int:
    """An integer from `least` on; ``name`` is what the sentence calls it, such as ``"SK's branches"``."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is a whole number from {least} up, not {value!r}")
    return int(value)


def number(name: str, value: Any) -> float:
    """Any finite number."""
    if not _is_number(value) or not math.isfinite(value):
        raise ValueError(f"{name} is a finite number, not {value!r}")
    return value


def positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    if not _is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} is above 0 and finite, not {value!r}")
    return value


def not_negative(name: str, value: Any) -> float:
    """0, or a finite number above it."""
    if not _is_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"{name} is 0 or more, and finite, not {value!r}")
    return value


def share(name: str, value: Any) -> float:
    """A number strictly between 0 and 1."""
    if not _is_number(value) or not 0 < value < 1:
        raise ValueError(f"{name} is a share between 0 and 1, not {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
