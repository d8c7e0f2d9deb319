"""Colours that mean one thing in the whole book: warm = computed from data, cool = learned, grey = neutral or off."""

from __future__ import annotations

import numpy as np

# Every role but `ground` and `line` reads at 4.5 : 1 or better on white (light) and on #121212 (dark).
COLOURS = {
    "data": "#B8432A", "learned": "#2A6496", "neutral": "#666E7A",
    "query": "#7347A1", "key": "#00707F", "value": "#8A6400",
    "text": "#1D2129", "ground": "#FFFFFF", "line": "#D9D7D1",
}
DARK = {
    "data": "#F2916E", "learned": "#7FB5DE", "neutral": "#A3ABB6",
    "query": "#C2A2E8", "key": "#56C2CF", "value": "#E0B64A",
    "text": "#E6E4DF", "ground": "#121212", "line": "#3A3A3C",
}

# Anchors of the two ramps in OKLab's cylinder: lightness 0–1, chroma, hue in degrees.
_MAP = ((0.22, 0.045, 22), (0.38, 0.11, 28), (0.54, 0.16, 36), (0.70, 0.15, 52), (0.84, 0.12, 75), (0.96, 0.05, 95))
_SIGNED = ((0.42, 0.11, 250), (0.62, 0.09, 248), (0.85, 0.0, 248), (0.85, 0.0, 36), (0.64, 0.13, 36), (0.44, 0.15, 34))


def from_oklab(lab: np.ndarray) -> np.ndarray:
    """sRGB in 0–1 of OKLab colours (…, 3), after Ottosson, "A perceptual color space for image processing", 2020."""
    to_cones = np.array([[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728],
                         [1, -0.0894841775, -1.2914855480]])
    to_linear = np.array([[4.0767416621, -3.3077115913, 0.2309699292], [-1.2684380046, 2.6097574011, -0.3413193965],
                          [-0.0041960863, -0.7034186147, 1.7076147010]])
    linear = ((lab @ to_cones.T) ** 3 @ to_linear.T).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def ramp(anchors, steps: int = 256) -> np.ndarray:
    """Colours (steps, 3) along the anchors, equally far apart in OKLab, so that equal steps of data look equal."""
    lightness, chroma, hue = np.array(anchors, dtype=float).T
    lab = np.stack([lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], axis=1)
    fine = np.linspace(0, len(lab) - 1, 4001)
    path = np.stack([np.interp(fine, np.arange(len(lab)), component) for component in lab.T], axis=1)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    even = np.linspace(0, length[-1], steps)
    return from_oklab(np.stack([np.interp(even, length, component) for component in path.T], axis=1))


def _signed() -> np.ndarray:
    # Each half is even by itself and both have as many steps, so the grey is exactly the middle.
    return np.concatenate([ramp(_SIGNED[:3], 128), ramp(_SIGNED[3:], 128)])


def register_ramps() -> None:
    """Make the ramps known to matplotlib as ``attn_map`` (0 dark, 1 bright) and ``attn_signed`` (grey is zero)."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    for name, colours in {"attn_map": ramp(_MAP), "attn_signed": _signed()}.items():
        matplotlib.colormaps.register(ListedColormap(colours, name=name), force=True)
