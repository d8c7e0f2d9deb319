"""Where a spatial transformer samples; `attnlib.spatial.sampling_viewer.sampling_viewer` makes one from a training."""

from attnlib.widgets.viewer import Viewer


class SamplingViewer(Viewer):
    """A picture with the grid of places that are sampled, and what is sampled there, at each recorded step of a
    training. `attnlib.spatial.sampling_viewer.sampling_viewer` makes one. `state` 1 shows the map that was computed,
    0 the identity.

    Attributes:
        data: the ``steps`` and ``names`` of the pictures; ``lattices`` (steps, pictures, side, side, 2), where evenly
            spread places of the output look; the same for the ``truth``, without steps, or None; the ``values`` of the
            pictures (N, 1 or 3, H, W) in 0–1 and their ``uris``; the ``fill`` outside, the ``size`` of the output, and
            the reader's ``own`` map at the start, or None.
    """

    script = "sampling"
