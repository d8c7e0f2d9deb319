"""Spatial transformers in front of convolutional networks that keep places: flattened instead of a global maximum.

*Flat*: the convolutions of the CNN of stn.py, whose answers at all places go into one fully connected layer, the last
one. So only the end differs from that CNN. (Of its CNN the paper says that it has two max-pooling layers and three
layers with weights.) It has 40,000 parameters for pictures of 36×36, the CNN 14,000, the fully connected network
84,000. *Hidden*: half as many channels, so that as many numbers are left as the picture has pixels, and on them the
fully connected network of stn.py, with its hidden layer: 87,000 parameters, about as many as that network has. *Wider*
is the flat one with as many parameters more as the transformer has, to within a channel.

Warps, pictures, steps, rate and seeds are those of stn.py, unchanged. In pilots, with seeds 900 and 901, the flat one
gained on some warps, the hidden one lost in two trainings of three; both are measured. Of interest is a difference of
0.02.
"""

import runpy
from pathlib import Path

from torch import nn

from attnlib import compare

shared = runpy.run_path(str(Path(__file__).with_name("stn.py")))
arm, connected, convolutional = (shared[name] for name in ("arm", "connected", "convolutional"))
_POOLED = 4  # two poolings by 2: a picture of 36×36 has 9×9 places left


def kept(width: int) -> list[nn.Module]:
    """The layers of the CNN as far as its global maximum."""
    layers = list(convolutional(width))
    return layers[:next(n for n, layer in enumerate(layers) if isinstance(layer, nn.AdaptiveMaxPool2d))]


def flat(size: int, width: int = 16) -> nn.Sequential:
    return nn.Sequential(*kept(width), nn.Flatten(), nn.Linear(2 * width * (size // _POOLED)**2, 10))


def hidden(size: int, width: int = 8) -> nn.Sequential:
    """With 8, 16 channels of a sixteenth of the places: as many numbers as pixels, and the network that reads these."""
    return nn.Sequential(*kept(width), *connected(size))


shared["FAMILIES"].update(flat=flat, hidden=hidden)  # where stn.py finds a network by its name
ARMS = ["flat", "flat, wider", "flat, STN", "hidden", "hidden, STN"]


def measure():
    return compare({name: arm(name) for name in ARMS}, seeds=6, baseline="flat", metric="rotation", delta=0.02)
