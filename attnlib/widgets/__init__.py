"""Figures that answer the reader. All but `live` work with no kernel; those that compute do so where one is there.

`toggle`, `toggles`, `slider` and `play` switch between figures; `maps`, `side_by_side`, `gates`, `glimpses` and `training` are
viewers of weights; a `Switch` turns attention off in every figure of a page that follows it; `live` computes with a kernel.
"""

from attnlib.widgets.fovea import FoveaViewer
from attnlib.widgets.gates import Gates, gates
from attnlib.widgets.glimpses import GlimpsePath, Glimpses, glimpses
from attnlib.widgets.live import Live, live
from attnlib.widgets.maps import Maps, maps, side_by_side
from attnlib.widgets.sampling import SamplingViewer
from attnlib.widgets.states import MOST_BYTES, Switched, play, slider, state_bytes, toggle, toggles
from attnlib.widgets.switch import Switch
from attnlib.widgets.training import Training, training
from attnlib.widgets.viewer import Viewer

__all__ = [
    "MOST_BYTES", "FoveaViewer", "Gates", "GlimpsePath", "Glimpses", "Live", "Maps", "SamplingViewer", "Switch", "Switched",
    "Training", "Viewer", "gates", "glimpses", "live", "maps", "play", "side_by_side", "slider", "state_bytes", "toggle",
    "toggles", "training",
]
