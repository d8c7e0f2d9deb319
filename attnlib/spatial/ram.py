"""Recurrent attention: read a picture by a few glimpses, each of which says where to look next."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor, nn

from attnlib.arguments import number, positive, whole
from attnlib.attention import Attention, Description
from attnlib.registry import register
from attnlib.spatial.reinforce import Episode
from attnlib.spatial.retina import retina

POLICIES = ("learned", "random", "middle")


@register("ram")
class RecurrentAttention(Attention):
    """Look at one small part of the picture after another, remember what was seen, and say what it is.

    Mnih, Heess, Graves, Kavukcuoglu, "Recurrent Models of Visual Attention", NIPS 2014, arXiv:1406.6247. With ρ(l) what
    the retina sees at place l, from the state h_0 = 0 ::

        l_t = locator(h_{t−1}) + σ·noise                                  where to look        (B, 2)
        g_t = relu(A relu(what ρ(l_t)) + B relu(where l_t))               what is seen there   (B, hidden)
        h_t = relu(carry h_{t−1} + take g_t)                              what is known        (B, hidden)
        y   = classifier(h_T)                                             what it is           (B, classes)

    Each word is a linear layer with a bias. There is noise in training only; otherwise it looks at the mean. The first
    place depends on no picture, and is the middle before any training.

    The weights are the places l. `attend` runs all of it and says where it looked; `use` reads the picture at given
    places, however many, whoever chose them. Unwatched, both are done in one pass. Neutral is the middle throughout.

    Layers before a ReLU start from He's normal distribution (arXiv:1502.01852), ``carry`` from the identity, so that it
    remembers at first (Le, Jaitly, Hinton, arXiv:1504.00941). From PyTorch's own start, whose signal shrinks from layer
    to layer, the classifier learns so slowly that there is hardly a reward to follow.

    **Training.** In training mode the output is an `Episode`, in evaluation mode the logits; the loss `reinforce` and
    the accuracy `correct` take both::

        fit(network, train, test, loss=reinforce, accuracy=correct)

    Which whole pixels are seen has no derivative in the place, so the locator learns by REINFORCE: make the places
    drawn more probable as far as the answer was better than expected. As in the paper, cross-entropy trains the rest.
    Places are therefore *detached*: they pass on no gradient. `attached` shows what happens otherwise, which is easily
    overlooked, as nothing fails:

    - The density of l = m + σ·noise around its own mean m is the same wherever m is. Its gradient, and with it that
      of REINFORCE, is exactly 0.
    - The locator gets the gradient of cross-entropy instead, by way of ``where``: it learns to say places that are
      good numbers for the classifier, and nothing of what is to be seen there.

    What is expected before a glimpse, the baseline, is a linear layer on h_{t−1}, and its own loss does not change h:
    both are choices made here, as are σ and the start.

    Args:
        channels: C, channels of the input.
        classes: how many things it can say.
        glimpses: T; the paper's best on MNIST is 6 or 7.
        patch, scales, fill: of the `retina`; in the paper 8 and 1 for 28×28 pixels, 12 and 3 for 60×60.
        hidden: numbers in h and g.
        features: numbers in each of the two inner layers of g.
        locator_hidden: units of a hidden layer (with a ReLU) in the locator; the paper's has none.
        gain: the locator's output is multiplied by it. Optimizers such as Adam take steps of the same size for any
            scale of the loss; a gain below 1 keeps their first, random ones from driving the places out of the picture.
        squash: whether a tanh keeps the mean inside the picture, as in a well-known port.
        sigma: σ, standard deviation of the noise, in halves of the picture's sides.
        policy: ``"learned"``; or as a control places that are drawn evenly over the picture, also in evaluation
            (``"random"``), or always the middle (``"middle"``). A control has nothing for REINFORCE to learn.
        through: whether REINFORCE's gradient also changes h, and so all that made it, or the locator alone. The paper's
            derivation has it go on; of its classifiers it says that REINFORCE trains the location network.
        attached: let gradients through the places, the mistake above.
        samples: M, how many times each picture is played in training. An `Episode` then has M·B rows, all pictures
            once, then all again.

    Shapes:
        x (B, C, H, W) → weights (B, T, 2), x and y in −1 … 1 over the picture → y (B, classes).

    Raises:
        ValueError: a count below 1, a σ or gain that is not above 0, an unknown policy; when it runs, places that are
            not (B, T, 2).
    """

    about = Description(
        title="Recurrent attention model",
        paper="Mnih, Heess, Graves, Kavukcuoglu. Recurrent Models of Visual Attention. NIPS 2014. arXiv:1406.6247",
        cite="mnih2014ram",
        axes=("batch", "glimpse", "coordinate"),
        shape=("B", "T", 2),
        kind="transform",
        bounds=None,
        passes=1,  # an upper bound, where glimpses do not overlap: what is not looked at is not read
        place="last",
        drop_in=False,
        looks="what was seen so far says where to look next",
        acts="read small patches there into a recurrent state",
    )

    def __init__(
        self,
        channels: int,
        classes: int = 10,
        *,
        glimpses: int = 6,
        patch: int = 8,
        scales: int = 1,
        fill: float = 0.0,
        hidden: int = 256,
        features: int = 128,
        locator_hidden: int | None = None,
        gain: float = 1.0,
        squash: bool = False,
        sigma: float = 0.1,
        policy: Literal["learned", "random", "middle"] = "learned",
        through: bool = False,
        attached: bool = False,
        samples: int = 1,
    ) -> None:
        super().__init__(channels)
        counts = dict(
            classes=classes, glimpses=glimpses, patch=patch, scales=scales, hidden=hidden, features=features,
            locator_hidden=1 if locator_hidden is None else locator_hidden, samples=samples,
        )
        for word, value in counts.items():
            whole(f"RecurrentAttention's {word}", value)
        if policy not in POLICIES:
            raise ValueError(f"RecurrentAttention's policy is one of {', '.join(POLICIES)}, not {policy!r}")
        self.glimpses, self.patch, self.scales = glimpses, patch, scales
        self.fill = float(number("RecurrentAttention's fill", fill))
        self.gain = float(positive("RecurrentAttention's gain", gain))
        self.sigma = float(positive("RecurrentAttention's sigma", sigma))
        self.squash, self.policy = squash, policy
        self.through, self.attached, self.samples = through, attached, samples
        self.what = nn.Linear(scales * channels * patch**2, features)
        self.where = nn.Linear(2, features)
        self.from_what, self.from_where = nn.Linear(features, hidden), nn.Linear(features, hidden)
        self.carry, self.take = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.classifier, self.baseline = nn.Linear(hidden, classes), nn.Linear(hidden, 1)
        # Last, so that networks that differ in it start alike elsewhere.
        self.locator = _locator(hidden, locator_hidden)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the inner layers anew, so that what is seen reaches the classifier as strong as it came in."""
        for layer in (self.what, self.where, self.from_what, self.from_where, self.take):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.eye_(self.carry.weight)
        nn.init.zeros_(self.carry.bias)

    def describe(self) -> Description:
        return dataclasses.replace(super().describe(), shape=("B", self.glimpses, 2))

    @property
    def pixels(self) -> int:
        """How many pixels it is shown of a picture of whatever size: those of all patches, reduced as they are."""
        return self.glimpses * self.scales * self.patch**2

    def attend(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.attached and torch.is_grad_enabled()):
            return self._play(x)[0]

    def use(self, x: Tensor, weights: Tensor) -> Tensor | Episode:
        return self._answer(self.states(x, weights), weights)

    def neutral(self, x: Tensor, weights: Tensor) -> Tensor:
        return torch.zeros_like(weights)

    def fused(self, x: Tensor) -> Tensor | Episode:
        locations, states = self._play(x)
        return self._answer(states, locations)

    def forward(self, x: Tensor) -> Tensor | Episode:
        if self.training and self.samples > 1:
            self.check(x)
            x = x.repeat(self.samples, 1, 1, 1)
        return super().forward(x)

    def states(self, x: Tensor, locations: Tensor) -> Tensor:
        """What is known before and after each glimpse at these places: (B, T + 1, hidden), the first all 0.

        ``ram.classifier(ram.states(x, locations)[:, 1:])`` is what it would answer after each.
        """
        _check_locations(locations, len(x))
        seen = self.glimpse(x, locations)
        states = [x.new_zeros(len(x), self.carry.in_features)]
        for moment in seen.unbind(1):
            states.append(self._next(states[-1], moment))
        return torch.stack([state.to(states[-1].dtype) for state in states], 1)

    def glimpse(self, x: Tensor, locations: Tensor) -> Tensor:
        """What is seen at these places, and where that was: (B, T, hidden), g of the equations."""
        patches = retina(x, locations, self.patch, self.scales, self.fill).flatten(2)
        what, where = self.what(patches).relu(), self.where(locations.to(self.where.weight.dtype)).relu()
        return (self.from_what(what) + self.from_where(where)).relu()

    def means(self, states: Tensor) -> Tensor:
        """Where it would look, knowing `states` (…, hidden): (…, 2)."""
        # Not in half precision, also where the rest is: its steps are a good part of a pixel.
        states = states if self.through else states.detach()
        with torch.autocast(states.device.type, enabled=False):
            means = self.gain * self.locator(states.to(self.carry.weight.dtype))
            return means.tanh() if self.squash else means

    def _next(self, state: Tensor, glimpse: Tensor) -> Tensor:
        return (self.carry(state) + self.take(glimpse)).relu()

    def _play(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Look where the policy says: places (B, T, 2) and states (B, T + 1, hidden)."""
        noise = self._noise(x)
        locations, states = [], [x.new_zeros(len(x), self.carry.in_features)]
        for moment in noise.unbind(1):
            at = moment if self.policy != "learned" else self.means(states[-1]) + self.sigma * moment
            locations.append(at if self.attached else at.detach())
            states.append(self._next(states[-1], self.glimpse(x, locations[-1][:, None])[:, 0]))
        return torch.stack(locations, 1), torch.stack([state.to(states[-1].dtype) for state in states], 1)

    def _noise(self, x: Tensor) -> Tensor:
        """What chance adds to each place, or for a control the places themselves: (B, T, 2)."""
        empty = self.carry.weight.new_empty(len(x), self.glimpses, 2)
        if self.policy == "random":
            return empty.uniform_(-1, 1)
        return empty.normal_() if self.policy == "learned" and self.training else empty.zero_()

    def _answer(self, states: Tensor, locations: Tensor) -> Tensor | Episode:
        logits = self.classifier(states[:, -1])
        if not self.training:
            return logits
        before = states[:, :-1]
        return Episode(logits, self._log_probs(before, locations), self.baseline(before.detach()).squeeze(-1))

    def _log_probs(self, before: Tensor, locations: Tensor) -> Tensor:
        if self.policy != "learned":
            return locations.new_zeros(locations.shape[:2])
        away = (locations - self.means(before)) / self.sigma
        return -away.square().sum(-1) / 2 - math.log(2 * math.pi * self.sigma**2)


def _locator(inputs: int, hidden: int | None) -> nn.Module:
    last = nn.Linear(inputs if hidden is None else hidden, 2)
    nn.init.zeros_(last.bias)
    return last if hidden is None else nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), last)


@torch.fx.wrap
def _check_locations(locations: Tensor, pictures: int) -> None:
    if locations.dim() != 3 or len(locations) != pictures or locations.shape[2] != 2:
        raise ValueError(
            f"RecurrentAttention reads {pictures} pictures at places ({pictures}, T, 2), not {tuple(locations.shape)}"
        )
