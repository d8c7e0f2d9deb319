"""See the weights of every mechanism in a network; switch them off; put others in their place.

All three are context managers that restore the network when they end, also after an exception, and can be nested:
edits apply in the order they were entered, and a recording sees the weights that were used in the end.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from attnlib.attention import Attention, Edit, attentions

Only = str | Sequence[str] | None


def _chosen(network: nn.Module, only: Only, *, wholes: bool = False) -> dict[str, Attention]:
    """The mechanisms of `network` whose qualified name matches one of the patterns in `only`.

    Without patterns it is all of them, or only the `wholes`: none that is a part of another.
    """
    found = attentions(network)
    if not found:
        raise ValueError(f"{type(network).__name__} holds no attention; put some in with attnlib.insert(network, ...)")
    if only is None:
        parts = {f"{name}.{part}".removeprefix(".") for name, attention in found.items() if attention.made_of_parts
                 for part in attentions(attention) if part}
        return {name: a for name, a in found.items() if not (wholes and name in parts)}
    patterns = [only] if isinstance(only, str) else list(only)
    chosen = {name: a for name, a in found.items() if any(fnmatch.fnmatchcase(name, p) for p in patterns)}
    if not chosen:
        raise ValueError(f"no attention is called {' or '.join(map(repr, patterns))}; there are: {', '.join(found)}")
    return chosen


class Recording(Mapping[str, Tensor]):
    """The recorded weights, by the qualified name of the mechanism: a read-only mapping.

    ``recording[name]`` is the newest weights; ``recording.all(name)`` the weights of every pass, oldest first.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._passes: dict[str, list[Tensor]] = {name: [] for name in names}

    def all(self, name: str) -> list[Tensor]:
        if name not in self._passes:
            raise KeyError(f"nothing called {name!r} was watched; there are: {', '.join(self._passes)}")
        return self._passes[name]

    def __getitem__(self, name: str) -> Tensor:
        passes = self.all(name)
        if not passes:
            raise KeyError(f"{name!r} has not run while it was recorded")
        return passes[-1]

    def __iter__(self) -> Iterator[str]:
        return (name for name, passes in self._passes.items() if passes)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def clear(self) -> None:
        """Forget what was recorded so far."""
        for passes in self._passes.values():
            passes.clear()


@contextlib.contextmanager
def record(network: nn.Module, only: Only = None, *, keep_graph: bool = False, every: bool = False):
    """Record the weights of every mechanism that runs inside the `with` block.

    ::

        with record(network) as weights:
            network(pictures)
        weights["layer4.2.bn3.attention"]        # (B, C, 1, 1)

    Args:
        network: any module that holds mechanisms, or is one (its name is then ``""``).
        only: a qualified name, a pattern (``"layer4.*"``), or several.
        keep_graph: keep the weights attached to autograd, for gradients with respect to them.
        every: keep the weights of every pass rather than of the newest only.

    Raises:
        ValueError: the network holds no mechanism, or none that matches `only`.
    """
    chosen = _chosen(network, only)
    recording = Recording(list(chosen))

    def watcher(name: str):
        passes = recording.all(name)

        def watch(weights: Tensor, x: Tensor, attention: Attention) -> None:
            if not every:
                passes.clear()
            # Cloned, because a mechanism or what follows may work in place.
            passes.append(weights if keep_graph else weights.detach().clone())

        return watch

    with contextlib.ExitStack() as stack:
        for name, attention in chosen.items():
            stack.enter_context(_added(attention, "watchers", watcher(name)))
        yield recording


@contextlib.contextmanager
def intervene(network: nn.Module, edit: Edit, only: Only = None):
    """Replace the weights of every mechanism inside the `with` block.

    Args:
        network: any module that holds mechanisms.
        edit: called as ``edit(weights, x, attention)``; returns the weights to use, of the same shape. `shuffled` and
            `held` make the common ones.
        only: a qualified name, a pattern, or several. Without it, every mechanism except the parts of one that is
            `made_of_parts`: their weights are in the whole's, and a permutation, for one, must not be applied to both.

    Raises:
        ValueError: no such mechanism; or, when the network runs, an edit that returns another shape.
    """

    def checked(weights: Tensor, x: Tensor, attention: Attention) -> Tensor:
        edited = edit(weights, x, attention)
        if edited.shape != weights.shape:
            raise ValueError(
                f"the weights of {attention.about.name} have shape {tuple(weights.shape)}, "
                f"but the edit returned {tuple(edited.shape)}"
            )
        return edited

    with contextlib.ExitStack() as stack:
        for attention in _chosen(network, only, wholes=True).values():
            stack.enter_context(_added(attention, "edits", checked))
        yield network


def switch_off(network: nn.Module, only: Only = None):
    """Context manager: every mechanism uses its neutral weights, those that express no preference.

    A gate is 1 everywhere, a softmax uniform. The parameters stay as they are.
    """
    return intervene(network, lambda weights, x, attention: attention.neutral(x, weights), only)


def shuffled(seed: int = 0) -> Edit:
    """An edit for `intervene`: each picture gets the weights of another picture of its batch.

    The weights keep their distribution and lose their relation to the picture. The permutation has no fixed point;
    a batch of one cannot be shuffled and raises ValueError.
    """

    def edit(weights: Tensor, x: Tensor, attention: Attention) -> Tensor:
        count = len(weights)
        if count < 2:
            raise ValueError("weights are shuffled across the batch: give it at least two pictures")
        # A random cycle: every picture takes the weights of its successor in a random order, never its own.
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(weights.device)
        source = torch.empty_like(order)
        source[order] = order.roll(1)
        return weights[source]

    return edit


def held(values: Tensor | float | Sequence[float]) -> Edit:
    """An edit for `intervene`: the weights are these values, whatever the picture.

    Args:
        values: a number, a tensor that broadcasts to the weights, or one value per channel (length C, put on the
            second axis).
    """

    def edit(weights: Tensor, x: Tensor, attention: Attention) -> Tensor:
        fixed = torch.as_tensor(values, dtype=weights.dtype, device=weights.device)
        if fixed.dim() == 1:
            fixed = fixed.reshape(-1, *[1] * (weights.dim() - 2))
        try:
            return fixed.expand_as(weights)
        except RuntimeError:
            raise ValueError(
                f"values of shape {tuple(fixed.shape)} do not fit weights of shape {tuple(weights.shape)}"
            ) from None

    return edit


@contextlib.contextmanager
def _added(attention: Attention, where: str, what):
    """Append `what` to a tuple of the tap, and take exactly it out again, whatever else came and went meanwhile."""
    tap = attention.weights
    setattr(tap, where, (*getattr(tap, where), what))
    try:
        yield
    finally:
        left = list(getattr(tap, where))
        left.reverse()
        left.remove(what)
        setattr(tap, where, tuple(reversed(left)))
