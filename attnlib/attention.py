"""The one contract of the package: every attention mechanism is the same two steps.

    weights = attention.attend(x)          how the mechanism looks
    y       = attention.use(x, weights)    what it does with what it saw

Between the two, the weights flow through `attention.weights`, the *tap*: the only place where they are watched or
replaced, for every mechanism alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Description:
    """What plots, widgets and tables need to know of a mechanism, so that none of them needs a special case.

    Attributes:
        name: registry name, as given to `attnlib.create`; filled in by `attnlib.registry.register`.
        title: the name the field uses.
        paper: authors, title, venue, year, arXiv number.
        cite: key of the paper in the book's bibliography.
        axes: what each axis of the weights means, e.g. ``("batch", "channel", "row", "column")``.
        shape: the size of each axis, in the letters of the input's shape (B, C, H, W) or a number.
        kind: ``"gate"`` (each weight on its own), ``"softmax"`` (weights share a sum of one), or ``"transform"``
            (coefficients of a mapping, neither of the two).
        sums_over: the axes over which a softmax's weights sum to one.
        bounds: the smallest and largest value a weight can take, or None where there is no bound.
        passes: the fewest times the forward pass must read or write the whole activation (the floor of its memory
            traffic, in units of the bytes of x).
        place: where the paper puts it in a residual network, one of `attnlib.insert`'s words.
        drop_in: whether the output has the shape of the input, so that `insert` can put it anywhere.
        looks: what `attend` does, in a few words, for the map of the book: at most 60 characters.
        acts: what `use` does, likewise.
    """

    title: str
    paper: str
    cite: str
    axes: tuple[str, ...]
    shape: tuple[str | int, ...]
    kind: Literal["gate", "softmax", "transform"] = "gate"
    sums_over: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = (0.0, 1.0)
    passes: int = 3
    place: str = "block"
    drop_in: bool = True
    looks: str = ""
    acts: str = ""
    name: str = ""


Edit = Callable[[Tensor, Tensor, "Attention"], Tensor]
Watcher = Callable[[Tensor, Tensor, "Attention"], None]


class Tap(nn.Module):
    """The identity on a mechanism's weights, and the one place where they can be seen or changed.

    It is a module so that forward hooks, captum's ``Layer*`` classes and feature extraction find the weights of every
    mechanism under the same name. `attnlib.observe` works through `edits` (applied in order) and `watchers` (called
    with the result). Attributes rather than hooks: a compiled network notices when they change.
    """

    def __init__(self) -> None:
        super().__init__()
        self.edits: tuple[Edit, ...] = ()
        self.watchers: tuple[Watcher, ...] = ()

    @property
    def watched(self) -> bool:
        """Whether anybody would notice if the weights were never formed."""
        return bool(
            self.edits or self.watchers or self._forward_hooks or self._forward_pre_hooks or self._backward_hooks
            or self._backward_pre_hooks
        )

    def forward(self, weights: Tensor, x: Tensor | None = None, attention: Attention | None = None) -> Tensor:
        for edit in self.edits:
            weights = edit(weights, x, attention)
        for watch in self.watchers:
            watch(weights, x, attention)
        return weights

    def __getstate__(self) -> dict[str, Any]:
        # What watches a network belongs to whoever watches, not to copies or files of the network.
        return {**self.__dict__, "edits": (), "watchers": ()}


class Attention(nn.Module):
    """Base of every mechanism. A subclass writes `attend` and `use`, and says what it is in `about`.

    A network that `torch.compile` takes in one graph may hold any number of mechanisms. Where they are compiled one by
    one, or the graph breaks between them, they share the code of `forward`, of which PyTorch keeps eight versions, and
    every class needs at least one: for more than eight, raise ``torch._dynamo.config.recompile_limit``.

    Args:
        channels: channel count C of the feature maps it will see; None where the mechanism does not care.
    """

    about: ClassVar[Description]
    # Whether the mechanisms inside are no more than parts, whose weights are in this one's. Edits of a whole network
    # then leave the parts alone: nothing is to be shuffled twice.
    made_of_parts: ClassVar[bool] = False

    def __init__(self, channels: int | None = None) -> None:
        super().__init__()
        if channels is not None and (not isinstance(channels, int) or channels < 1):
            raise ValueError(f"{type(self).__name__} needs a positive whole number of channels, not {channels!r}")
        self.channels = channels
        self.weights = Tap()

    def attend(self, x: Tensor, *context: Tensor) -> Tensor:
        """Weights for `x`: how this mechanism looks. `context` is for queries that come from another domain."""
        raise NotImplementedError(f"{type(self).__name__} must say how it looks: attend(x) -> weights")

    def use(self, x: Tensor, weights: Tensor) -> Tensor:
        """The output: what this mechanism does with `x` and what it saw."""
        raise NotImplementedError(f"{type(self).__name__} must say what it does: use(x, weights) -> y")

    def neutral(self, x: Tensor, weights: Tensor) -> Tensor:
        """Weights of the same shape that express no preference: 1 for a gate, uniform for a softmax."""
        if self.about.kind == "gate":
            return torch.ones_like(weights)
        if self.about.kind == "softmax":
            share = 1
            for axis in self.about.sums_over:
                share *= weights.shape[self.about.axes.index(axis)]
            return torch.full_like(weights, 1 / share)
        raise NotImplementedError(f"{type(self).__name__} must say which weights are neutral for it")

    def fused(self, x: Tensor, *context: Tensor) -> Tensor | None:
        """The output by a faster path that never forms the weights; None (the default) where there is none.

        Taken only while nobody watches the tap.
        """
        return None

    def check(self, x: Tensor) -> None:
        """Raise TypeError or ValueError, in one sentence, where `x` is not what this mechanism takes.

        The default accepts floating-point feature maps (B, C, H, W) with this mechanism's channel count and at least
        one pixel. An empty batch is fine: its output is empty too.
        """
        check_feature_map(x, self.channels, type(self).__name__)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        _check(self, x)
        if not self.weights.watched:
            y = self.fused(x, *context)
            if y is not None:
                return y
        return self.use(x, self.weights(self.attend(x, *context), x, self))

    def describe(self) -> Description:
        """What this mechanism is and what its weights' axes mean."""
        return self.about

    @classmethod
    def install(cls, network: nn.Module, where: str | None = None, **options: Any):
        """Put this mechanism into a residual network where its paper puts it; return the handle of `insert`.

        Mechanisms that replace a layer instead of following one override this.
        """
        from attnlib.insert import insert
        from attnlib.registry import is_registered

        # By name where there is one, for its clearer errors; a subclass has its parent's name and is not its parent.
        return insert(network, cls.about.name if is_registered(cls) else cls, where=where or cls.about.place, **options)


def check_feature_map(x: Tensor, channels: int | None, who: str) -> None:
    """Raise TypeError or ValueError where `x` is not a floating-point feature map (B, C, H, W) of `channels`."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{who} takes a torch.Tensor (B, C, H, W), not {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"{who} takes floating-point feature maps, not {x.dtype}; convert with x.float() / 255")
    if x.dim() != 4:
        raise ValueError(f"{who} takes feature maps (B, C, H, W), not a tensor of shape {tuple(x.shape)}")
    if channels is not None and x.shape[1] != channels:
        raise ValueError(f"{who} was made for {channels} channels, but the input has {x.shape[1]}: {tuple(x.shape)}")
    if x.shape[2] == 0 or x.shape[3] == 0:
        raise ValueError(f"{who} needs at least one pixel, but the input has shape {tuple(x.shape)}")


# torch.fx cannot follow the checks' `if`s; wrapped, they are one opaque step of the traced graph.
@torch.fx.wrap
def _check(attention: Attention, x: Tensor) -> None:
    attention.check(x)


def attentions(network: nn.Module) -> dict[str, Attention]:
    """Every mechanism in `network`, by qualified name, in the order of the network's modules."""
    return {name: module for name, module in network.named_modules() if isinstance(module, Attention)}
