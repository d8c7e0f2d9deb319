"""Whether a window with the highest mean finds the stroke that counts, with the gates on and off, and by chance.

Seeds that nothing was chosen with.
"""

import torch

from attnlib import backbones, compare, fit, switch_off
from attnlib.channel.window import best_window, overlap
from attnlib.data.two_cues import two_cues

# The first row that is searched: of the whole picture, or of the lower half, where no band is.
AREAS = {"IoU, whole picture": 0, "IoU, lower half": 8}
BLOCK = dict(attention="avgmax", where="stages.0", reduction=4, normalize=True)


def by_window(pictures, top: int, network) -> torch.Tensor:
    with torch.no_grad():
        maps = network.stages[0](pictures.images)[:, :, top:]
    return best_window(maps, 3) + torch.tensor([0.0, top, 0, top])


def by_chance(pictures, top: int, network) -> torch.Tensor:
    places = torch.rand(len(pictures), 2) * torch.tensor([14, 14 - top])
    corner = places.long() + torch.tensor([0, top])
    return torch.cat([corner, corner + 3], 1).float()


def arm(find, off: bool = False, **block):
    def measured(seed: int) -> dict[str, float]:
        torch.manual_seed(seed)
        network, pictures = backbones.small(3, 4, widths=(16, 32), **block), two_cues(1_000, seed=1_000 + seed)
        if find is by_window:
            fit(network, two_cues(6_400, seed=seed), steps=200, batch=48, lr=0.02, seed=seed, progress=False)
        with switch_off(network) if off else torch.no_grad():
            found = {area: find(pictures, top, network) for area, top in AREAS.items()}
        return {area: float(overlap(boxes, pictures.truth["box"]).mean()) for area, boxes in found.items()}

    return measured


def measure():
    arms = {"gates off": arm(by_window, off=True, **BLOCK), "gates on": arm(by_window, **BLOCK),
            "trained without": arm(by_window), "random window": arm(by_chance)}
    return compare(arms, seeds=range(40, 48), delta=0.05, metric="IoU, lower half")
