"""Put a mechanism into a network that knows nothing of it, and take it out again.

    >>> from attnlib import insert
    >>> insertion = insert(network, "se", "block")      # squeeze-and-excitation in every residual branch
    >>> insertion.remove()                              # bit for bit the network of before

The module that a mechanism follows gets, in place, a subclass of its own class that applies the mechanism to its
output. So no weight is renamed and no hook is left behind: pretrained weights still load, and copies, files, compiled
and exported networks hold the mechanism like any other layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from attnlib import registry
from attnlib.attention import Attention, Description
from attnlib.places import Places
from attnlib.probe import probe

Make = Callable[[int], Attention]


def insert(
    model: nn.Module,
    mechanism: str | type[Attention] | Callable[..., Attention],
    where: str | Sequence[str] | None = None,
    *,
    example: Tensor | None = None,
    **options: Any,
) -> Insertion:
    """Put a mechanism behind modules of `model`, in place; nothing else about the model changes.

    Args:
        model: any network that takes one picture tensor. Do what replaces its modules (SyncBatchNorm, say) before.
        mechanism: a registry name, a subclass of Attention, or a function ``channels -> Attention``.
        where: one word or several, by default where the mechanism's paper puts it:

            * ``"block"``: the end of each residual branch, after its last norm and before the sum;
            * ``"stage"``: the end of each stage, the layers that work at one size (a stem is no stage);
            * ``"transition"``: the end of each stage but the last;
            * ``"last"``: the end of the last stage;
            * else a pattern of module names, as in `fnmatch` (``"layer4.*.bn2"``; ``*`` also matches dots). A
              container's name stands for the module in it that makes its output.
        example: an input for the one pass that finds the places, (B, C, H, W), better not square; by default zeros
            (1, C, 64, 96).
        options: the mechanism's own, in the words of its paper (``reduction``, ``kernel_size`` …).

    Returns:
        A handle that switches the mechanisms off and on, and takes them out.

    Raises:
        ValueError: there is no such place, or a mechanism cannot stand there; the model does not run on the example;
            or the mechanism refuses its options. The model is then as before.
        TypeError: `mechanism` makes something else than an Attention, or has no such option.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"insert takes a torch.nn.Module, not {type(model).__name__}")
    if example is not None and not (isinstance(example, Tensor) and example.dim() == 4):
        raise TypeError("insert takes as example a picture tensor (B, C, H, W)")
    make, about = _maker(mechanism, options)
    if about is not None:
        _check_drop_in(about)
    if where is None:
        where = about.place if about else "block"
    model = getattr(model, "_orig_mod", model)  # what torch.compile returned notices the change by itself

    trace = probe(model, example)
    targets = {name: model.get_submodule(name) for name in Places(trace).find(where)}
    for name, target in targets.items():
        _check_target(target, name)
    made = {name: _build(make, trace.output(name), target, name) for name, target in targets.items()}
    if len(set(made.values())) < len(made):
        raise ValueError("every place needs a mechanism of its own, but the function returned the same one twice")
    for name, target in targets.items():
        _attend(target, made[name])
    return Insertion(targets, where)


class Insertion:
    """The mechanisms that one call of `insert` put into a network.

    As a context manager it takes them out at the end of the ``with`` block.

    Attributes:
        modules: each mechanism by the name of the module it follows; the mechanism's own name in the network is
            that name and ``.attention``.
    """

    def __init__(self, targets: Mapping[str, nn.Module], where: str | Sequence[str]) -> None:
        self.modules: Mapping[str, Attention] = MappingProxyType({n: target.attention for n, target in targets.items()})
        self._targets = dict(targets)
        self._where = where

    @property
    def enabled(self) -> bool:
        """Whether the mechanisms stand in the network and are switched on."""
        return bool(self._targets) and all(target.attends for target in self._targets.values())

    def disable(self) -> None:
        """Pass every mechanism by: the network computes bit for bit what it did without."""
        self._switch(False)

    def enable(self) -> None:
        """Undo `disable`.

        Raises:
            RuntimeError: the mechanisms were taken out.
        """
        if not self._targets:
            raise RuntimeError("these mechanisms were taken out of the network; insert them again")
        self._switch(True)

    def _switch(self, on: bool) -> None:
        for target in self._targets.values():
            target.attends = on

    def remove(self) -> None:
        """Take every mechanism out; the network is bit for bit what it was.

        Raises:
            RuntimeError: a module's class was changed meanwhile (by parametrize, say); that has to be undone before.
        """
        for name, target in self._targets.items():
            if "_own_class" not in vars(type(target)):
                raise RuntimeError(f"{name!r} became a {type(target).__name__} after the insertion; undo that first")
        for target in self._targets.values():
            target.__class__ = type(target)._own_class
            del target.attention, target.attends
        self._targets.clear()

    def __enter__(self) -> Insertion:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        state = "on" if self.enabled else "off" if self._targets else "removed"
        parameters = sum(p.numel() for attention in self.modules.values() for p in attention.parameters())
        places = f"{len(self.modules)} place" + "s" * (len(self.modules) != 1)
        lines = [f"Insertion({self._where!r}: {places}, {parameters:,} parameters, {state})"]
        width = max(map(len, self.modules))
        lines += [f"  {name:{width}}  {type(a).__name__}({a.channels})" for name, a in self.modules.items()]
        return "\n".join(lines)


class _Attended:
    """Mixed into the class of a module that a mechanism follows."""

    attention: Attention
    attends: bool  # a plain attribute: a compiled network notices when it changes

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        if self._is_leaf:
            y = _own_forward(self, *args, **kwargs)
        else:
            y = super().forward(*args, **kwargs)
        return self.attention(y) if self.attends else y

    def __reduce_ex__(self, protocol: int):
        # Copies and files name the class that can be imported, not the one that was made here.
        return _rebuild, (self._own_class,), self.__getstate__()


# Torch's own layers are one step to torch.fx, whose tracing could not follow their insides.
@torch.fx.wrap
def _own_forward(module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    return type(module)._own_class.forward(module, *args, **kwargs)


@functools.cache
def _attended_class(own: type[nn.Module]) -> type[nn.Module]:
    is_leaf = own.__module__.startswith("torch.nn")
    return type(f"Attended{own.__name__}", (_Attended, own), {"_own_class": own, "_is_leaf": is_leaf})


def _rebuild(own: type[nn.Module]) -> nn.Module:
    cls = _attended_class(own)
    return cls.__new__(cls)


def _attend(target: nn.Module, attention: Attention) -> None:
    target.attention = attention
    target.attends = True
    target.__class__ = _attended_class(type(target))


def _maker(mechanism: Any, options: dict[str, Any]) -> tuple[Make, Description | None]:
    """A function from channels to a mechanism, and the mechanism's description where it is known beforehand."""
    if isinstance(mechanism, str):
        about = registry.mechanism(mechanism).about
        return lambda channels: registry.create(mechanism, channels, **options), about
    if isinstance(mechanism, nn.Module) or not callable(mechanism):
        raise TypeError(
            f"insert makes one mechanism for each place: give a name, a class or a function of the channels, "
            f"not a {type(mechanism).__name__}"
        )
    return lambda channels: mechanism(channels, **options), getattr(mechanism, "about", None)


def _build(make: Make, output: Tensor, target: nn.Module, name: str) -> Attention:
    """A mechanism for the feature maps `output`, on their device, in their precision and the target's mode."""
    try:
        attention = make(output.shape[1])
    except Exception as error:
        error.add_note(f"(while making it for {output.shape[1]} channels behind {name!r}; the network is unchanged)")
        raise
    if not isinstance(attention, Attention):
        raise TypeError(f"insert needs an attnlib.Attention for each place, not a {type(attention).__name__}")
    _check_drop_in(attention.describe())
    return attention.to(device=output.device, dtype=output.dtype).train(target.training)


def _check_drop_in(about: Description) -> None:
    if not about.drop_in:
        raise ValueError(f"{about.title} does not return the shape it is given, so it cannot stand between layers")


def _check_target(target: nn.Module, name: str) -> None:
    if isinstance(target, _Attended):
        raise ValueError(f"{name!r} already has an attention; take that out first, or choose another place")
    if hasattr(target, "attention") or hasattr(target, "attends"):
        raise ValueError(f"{name!r} has something of its own called 'attention' or 'attends'; choose another place")
    if isinstance(target, torch.jit.ScriptModule) or "forward" in vars(target):
        raise ValueError(f"{name!r} does not run its class's forward, so nothing can be put behind it")
