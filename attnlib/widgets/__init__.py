"""Figures that can be switched: `toggle`, `toggles`, `slider` and `play` need no kernel; `live` computes with one."""

from attnlib.widgets.live import Live, live
from attnlib.widgets.states import MOST_BYTES, Switched, play, slider, state_bytes, toggle, toggles

__all__ = ["MOST_BYTES", "Live", "Switched", "live", "play", "slider", "state_bytes", "toggle", "toggles"]
