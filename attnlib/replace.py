"""Put mechanisms in the place of convolutions, and the convolutions back: for those that are layers themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import nn

from attnlib.attention import Attention
from attnlib.places import Places
from attnlib.probe import Trace


def convolutions(trace: Trace, where: str | Sequence[str], *, who: str) -> list[str]:
    """The 3×3 convolutions to replace: at each place the first to run, in the innermost module around it that has one.

    Args:
        trace: one pass of the network, from `attnlib.probe.probe`.
        where: places, as for `attnlib.insert`.
        who: the mechanism that an error speaks of.

    Raises:
        ValueError: no such place, or one without a 3×3 convolution of dilation 1, padded by one zero.
    """
    return list(dict.fromkeys(_convolution(trace, end, who) for end in Places(trace).find(where)))


def _convolution(trace: Trace, end: str, who: str) -> str:
    around = end
    while around:
        for name, (call, *_) in trace.calls.items():
            if f"{name}.".startswith(f"{around}.") and _replaceable(call.module):
                return name
        around = around.rpartition(".")[0]
    raise ValueError(f"{who} replaces 3×3 convolutions (dilation 1, one zero of padding), and there is none at {end!r}")


def _replaceable(module: nn.Module) -> bool:
    return (isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and module.dilation == (1, 1)
            and module.padding == (1, 1) and module.padding_mode == "zeros" and module.stride[0] == module.stride[1])


class Replacement:
    """Mechanisms that were put in the place of layers, and the layers.

    Attributes:
        modules: each mechanism by its name in the network, which was the convolution's.
    """

    def __init__(self, network: nn.Module, layers: Mapping[str, Sequence[nn.Module]]) -> None:
        self.modules: Mapping[str, Attention] = MappingProxyType(
            {name: new for name, (_, new) in layers.items() if isinstance(new, Attention)})
        self._network, self._layers = network, dict(layers)
        self.enabled = False
        self.enable()

    def enable(self) -> None:
        """Put the mechanisms in the place of the convolutions.

        Raises:
            RuntimeError: `remove` was called.
        """
        if not self._layers:
            raise RuntimeError("these mechanisms were taken out of the network; install them again")
        self._put(1)

    def disable(self) -> None:
        """Put the convolutions back: the network computes bit for bit what it did before."""
        self._put(0)

    def remove(self) -> None:
        """As `disable`, for good."""
        self._put(0)
        self._layers.clear()

    def _put(self, which: int) -> None:
        for name, layers in self._layers.items():
            layers[which].train(layers[1 - which].training)
            self._network.set_submodule(name, layers[which])
        self.enabled = bool(which)

    def __enter__(self) -> Replacement:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
