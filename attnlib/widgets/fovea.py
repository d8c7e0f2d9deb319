"""A picture under a moving gaze; `attnlib.saliency.fovea_viewer.fovea_viewer` makes one from photographs."""

from attnlib.widgets.viewer import Viewer


class FoveaViewer(Viewer):
    """Copies of a picture, each with more blur, seen through holes round the pointer that let each be seen where its
    blur is right. `attnlib.saliency.fovea_viewer.fovea_viewer` makes one. `state` 1 shows the picture as the eye
    resolves it, 0 as it is.

    Attributes:
        data: ``pictures``, each with a copy for each of the ``variances`` (square pixels); their ``size``; how many
            ``degrees`` the width may span; the ``half`` acuity in degrees and the blur of a ``pixel``, of the model in
            `attnlib.saliency.fovea`; and where to ``start``.
    """

    script = "fovea"
