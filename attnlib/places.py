"""Find the places in a network where a mechanism can stand.

Nothing here knows the name of a network or of a layer. Two questions to one forward pass give all the places that
have a word:

* Which tensors does everything flow through? They are the *spine*; a stage ends at the last of them of one size.
* Which sums close what a tensor before them opened? They are residual, and the longer way to them is the branch.
"""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import math
from collections.abc import Sequence

from torch import nn

from attnlib.attention import Attention
from attnlib.probe import Call, Trace, outside_attentions

WORDS = ("block", "stage", "transition", "last")

# These run whatever child they hold: a mechanism added to one would run as a layer of its own.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Places:
    """Where in a network, of which one pass was watched, a mechanism could stand. Places are names of modules."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.values = trace.values
        self.calls = trace.calls

    def refusal(self, name: str) -> str | None:
        """Why no mechanism can stand behind the module called `name`; None where one can."""
        calls = self.calls.get(name, [])
        if not calls:
            return "does not run in a forward pass"
        call = calls[0]
        if isinstance(call.module, CONTAINERS):
            return f"is a {type(call.module).__name__} and would run the mechanism as a layer of its own"
        if isinstance(call.module, Attention):
            return "is an attention itself"
        if len(calls) > 1:
            return f"runs {len(calls)} times in a forward pass, where one mechanism can only stand in one place"
        if call.returns is None:
            return f"returns a {type(call.output).__name__}, not a feature map (B, C, H, W)"
        if not self.trace.is_map(call.returns):
            return f"returns a tensor of shape {self.trace.shape(call.returns)}, not a feature map (B, C, H, W)"
        return None

    def target(self, number: int, inside: str = "") -> str | None:
        """The module to follow in order to stand right behind a value; None where there is none.

        It is the outermost module, inside the one called `inside`, that has this value as its output.
        """
        returned_by = self.values[number].returned_by
        fitting = [call.name for call in returned_by if self.refusal(call.name) is None and _within(call.name, inside)]
        # Not one that comes after the module that made the value, and merely passed it on (a dropout at rest, say).
        around = [name for name in fitting if name and _within(returned_by[0].name, name)]
        return next(iter(around[::-1] + fitting), None)

    def blocks(self) -> list[str]:
        """The end of every residual branch, before the sum; without branches in which no module makes the output."""
        ends = (self._end_of_branch(number) for number in range(len(self.values)) if self._is_residual(number))
        return [name for name in ends if name is not None]

    def _is_residual(self, number: int) -> bool:
        """Whether a value is the sum of a branch and a shortcut, and all that left their fork has come back in it."""
        value = self.values[number]
        if value.operation not in ("add", "add_") or len(set(value.parents)) != 2 or not self.trace.is_map(number):
            return False
        shortcut, branch = self._by_length(value.parents)
        if self.trace.shape(shortcut) != self.trace.shape(branch):
            return False
        # Two equally long ways are no branch and shortcut, unless the shortcut is the fork itself.
        if shortcut != value.gate and self.values[shortcut].convs == self.values[branch].convs:
            return False
        between: set[int] = set()
        left = [shortcut, branch]
        while left:
            step = left.pop()
            if step != value.gate and step not in between:
                between.add(step)
                left += self.values[step].parents
        return all(user == number or user in between for step in between for user in self.values[step].users)

    def _end_of_branch(self, number: int) -> str | None:
        """The last module of the branch that a sum ends; operations such as a factor may come after that module."""
        fork = self.values[number].gate
        step = self._by_length(self.values[number].parents)[-1]
        while (name := self.target(step)) is None:
            shape, parents = self.trace.shape(step), self.values[step].parents
            if len(parents) != 1 or parents[0] == fork or self.trace.shape(parents[0]) != shape:
                return None
            (step,) = parents
        return name

    def _by_length(self, numbers: list[int]) -> list[int]:
        return sorted(numbers, key=lambda number: (self.values[number].convs, self.values[number].steps))

    def stages(self) -> list[str]:
        """The end of every stage, a stage being what works at one size and holds convolutions."""
        spine = self._spine()
        maps = filter(self.trace.size, spine)
        runs = [list(run) for _, run in itertools.groupby(maps, key=self.trace.size)]
        ends: list[int] = []
        for before, run, after in zip([[0], *runs], runs, [*runs[1:], [None]]):
            end = self._end(run, self.values[before[-1]].convs, self.trace.size(after[0]))
            if end is None or (not ends and self._is_stem(end, spine)):
                continue
            # A stage that goes on in another layout (tokens, channels last) does not end in a feature map.
            rest = [number for number in spine if end < number < (after[0] or math.inf)]
            if not any(self._adds_elsewhere(number, self.trace.size(end)) for number in rest):
                ends.append(end)
        return [self.target(end) for end in ends]

    def _spine(self) -> list[int]:
        """The values that lie on every way from the input to the output (the deepest, if there are several)."""
        outputs = self.trace.known(self.calls[""][0].output)
        if not outputs:
            return []
        spine = self._by_length(outputs)[-1:]
        while spine[-1] > 0:
            spine.append(self.values[spine[-1]].gate)
        return spine[::-1]

    def _end(self, run: list[int], before: int, after: tuple[int, ...] | None) -> int | None:
        """The last value of a run that belongs to it, and lies behind a convolution of its own.

        `before` counts the convolutions up to the run, `after` is the size of the next one. What is inside a module
        that leads on to the next size, as in the first block of a stage, is the beginning of that stage; unless most
        of this one is in there too, as where one module holds all stages.
        """

        def leads_on(call: Call) -> bool:
            taken, returned = self.trace.size(call.takes), self.trace.size(call.returns)
            if call.name == "" or taken != self.trace.size(run[0]) or returned != after:
                return False
            entered, left = self.values[call.takes].convs, self.values[run[-1]].convs
            return left - entered <= entered - before

        leading_on = [call for calls in self.calls.values() for call in calls if leads_on(call)]

        def rank(number: int) -> tuple[int, int]:
            return sum(number in call.makes for call in leading_on), -number

        own = [number for number in run if self.values[number].convs > before and self.target(number) is not None]
        return min(own, key=rank, default=None)

    def _is_stem(self, end: int, spine: list[int]) -> bool:
        """Whether all up to `end` only shrinks the picture: one convolution, or a plain chain that ends in no block.

        A network that is a plain chain as a whole has no stem.
        """
        if self.trace.size(end) == self.trace.size(0) or _is_chain(spine, spine[-1]):
            return False
        convs = [
            self.values[end].convs - self.values[call.takes or 0].convs
            for call in self.values[end].returned_by if call.name and not isinstance(call.module, CONTAINERS)
        ]
        in_block = max(convs, default=0) > 1
        return not in_block and (self.values[end].convs == 1 or _is_chain(spine, end))

    def _adds_elsewhere(self, number: int, size: tuple[int, int]) -> bool:
        """Whether a value is a sum at this size in another layout: (B, H, W, C), or with H·W as one axis."""
        shape = self.trace.shape(number)
        laid_out = shape[1:3] == size or math.prod(size) in shape
        return self.values[number].operation in ("add", "add_") and laid_out and not self.trace.is_map(number)

    def find(self, where: str | Sequence[str]) -> list[str]:
        """Names of the modules to follow, for words and module-name patterns, each once.

        Raises:
            ValueError: nothing is there, or no mechanism can stand there.
        """
        found = [name for one in ([where] if isinstance(where, str) else where) for name in self._find(one)]
        if not found:
            raise ValueError(f"say where: {', '.join(map(repr, WORDS))}, or names of modules")
        return list(dict.fromkeys(found))

    def _find(self, where: str) -> list[str]:
        if where in WORDS:
            return self._find_word(where)
        names = [name for name, _ in outside_attentions(self.trace.model)]
        matching = [name for name in names if fnmatch.fnmatchcase(name, where) and (name or not where)]
        if not matching:
            near = difflib.get_close_matches(where, [*WORDS, *names], n=3, cutoff=0.4) or self._candidates()
            raise ValueError(
                f"no module of {self._who} is called {where!r}, and it is none of the words {', '.join(WORDS)}; "
                f"near it are: {', '.join(near)}"
            )
        return [self._fitting(name) for name in matching]

    def _find_word(self, word: str) -> list[str]:
        stages = self.stages()
        found = self.blocks() if word == "block" else stages[{"stage": slice(None), "transition": slice(-1),
                                                              "last": slice(-1, None)}[word]]
        if found:
            return found
        if word == "block":
            instead = f"'stage' ({', '.join(stages)}), 'last' or " if stages else ""
            raise ValueError(f"{self._who} has no residual sums of feature maps, and so no 'block'; "
                             f"use {instead}names of modules")
        if stages:
            raise ValueError(f"{self._who} has one stage ({stages[0]}), and so no 'transition' between two; use 'last'")
        raise ValueError(f"no stage of {self._who} ends in a feature map (B, C, H, W), so {word!r} names nothing; "
                         f"use names of modules, such as: {', '.join(self._candidates()) or 'none that return one'}")

    def _fitting(self, name: str) -> str:
        """`name`, or the module inside the container of that name that returns its output."""
        reason = self.refusal(name)
        if reason is None:
            return name
        calls = self.calls.get(name, [])
        if len(calls) == 1 and isinstance(calls[0].module, CONTAINERS) and calls[0].returns is not None:
            inner = self.target(calls[0].returns, inside=name)
            if inner is not None:
                return inner
        raise ValueError(f"{name!r} {reason}; feature maps come from: {', '.join(self._candidates(name))}")

    def _candidates(self, name: str = "") -> list[str]:
        """A few modules that a mechanism can follow, those with a name like `name` first."""
        names = [candidate for candidate in self.calls if candidate and self.refusal(candidate) is None]
        return difflib.get_close_matches(name, names, n=3, cutoff=0.0) if name else names[-3:]

    @property
    def _who(self) -> str:
        return f"this {type(self.trace.model).__name__}"


def _is_chain(spine: list[int], number: int) -> bool:
    """Whether every value up to `number` lies on the spine."""
    return number < len(spine) and spine[number] == number


def _within(name: str, outer: str) -> bool:
    return not outer or f"{name}.".startswith(f"{outer}.")
