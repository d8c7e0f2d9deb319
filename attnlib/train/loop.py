"""The training loop: `fit`, and `evaluate`.

The whole data set goes to the device once; batches are gathered and augmented there, channels-last; nothing waits for
the device except every `CHECK_EVERY` steps, to see that the loss is a number.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.arguments import positive, share, whole
from attnlib.train.checks import Data, check_labels, check_resumed, to_device
from attnlib.train.run import DivergedError, Run, Scores
from attnlib.train.session import (
    WORTH_SHARING, Display, Interrupt, evaluation, generators, kept_memory, one_thread, own_rng, pick_device,
    tried_kernels,
)
from attnlib.train.steps import (
    Augment, Batches, Loss, Step, fields, make_optimizer, make_step, one_cycle, pick_precision, probe,
)

# A loss that is no number is noticed within this many steps, and the history has this many rows by default.
CHECK_EVERY = 10
ROWS = 20
# Pictures in one batch of an evaluation: on a CPU, more would leave the cache.
_TEST_BATCH = {"cpu": 256, "mps": 1024, "cuda": 4096}


def fit(
    model: nn.Module, train: Data, test: Data | None = None, *,
    epochs: float | None = None, steps: int | None = None, seconds: float | None = None,
    batch: int = 128, lr: float = 0.01, weight_decay: float = 0.01, warmup: float = 0.2, smoothing: float = 0.0,
    loss: Loss | None = None, accuracy: Loss | None = None, augment: Augment | Sequence[Augment] | None = None,
    seed: int = 0, every: int | None = None, record: Callable[[nn.Module], Any] | Tensor | None = None,
    resume: Run | None = None, progress: bool = True, live: bool = False,
    device: str | torch.device | None = None, precision: str = "auto", graphs: bool = True,
) -> Run:
    """Train `model` in place with AdamW and one cycle of the learning rate.

    The same seed gives the same weights, bit for bit, on the same CPU with the same number of threads (a budget in
    seconds excepted). The order of the data and its augmentation depend on the seed alone, not on the model, so that
    two networks can be compared in pairs. Random numbers outside are not disturbed. Ctrl-C, or a notebook's stop
    button, ends the training after the step under way; it returns what there is. The model comes back in evaluation
    mode, on the device where it was.

    Args:
        model: any module that takes a batch of images.
        train, test: `Pictures`, or a pair of tensors: images (N, C, H, W) in floating point (or any other input with
            N first), and labels (N,), class indices (or any other target with N first).
        epochs, steps, seconds: the budget; of several, the one that is used up first. The last test comes on top.
        batch: pictures a step.
        lr: the highest learning rate; it rises to it during the share `warmup` of the budget, then falls to 0.
        weight_decay: of AdamW, for weights with two or more axes.
        smoothing: label smoothing in the training loss, 0–1.
        loss: ``loss(outputs, labels)``, a scalar; cross-entropy by default.
        accuracy: ``accuracy(outputs, labels)``, a scalar in 0–1. By default, with the default loss, the share of
            ``outputs.argmax(1) == labels``.
        augment: ``augment(images)``, or several, one after the other, on whole batches on the device: `shift`, `flip`.
        seed: any whole number.
        every: steps from one row of the history to the next, with the whole test set tested at each. By default a
            twentieth of the budget, and before the last row only as many test pictures (always the same ones, drawn
            at random) as cost at most a sixth of the training.
        record: what to keep at each row, and before the first step, in `Run.snapshots`: pictures, whose attention
            weights are kept by the name of the mechanism; or a function of the model (in evaluation mode, on the
            training device).
        resume: a run to go on with, begun with the same arguments; its weights replace those of the model. Its budget
            may be extended.
        progress: show a bar.
        live: in a notebook, draw the curves while they form.
        device: where to train; the fastest there is by default.
        precision: ``"auto"`` is mixed precision where the hardware has it natively and it helps, else that of the
            weights; or ``"float32"``, ``"bfloat16"``, ``"float16"``.
        graphs: on CUDA, replay the step as a graph. False for a model whose Python code must run in every step.

    Raises:
        DivergedError: the loss is no longer a finite number.
        TypeError, ValueError: arguments or data that cannot be trained with; the message says what to do.
    """
    device = pick_device(device)
    images, labels = to_device(train, "training", device)
    tested = None if test is None else to_device(test, "test", device)
    settings = {
        "batch": min(whole("batch", batch), len(images)), "lr": positive("lr", lr), "weight_decay": weight_decay,
        "warmup": share("warmup", warmup), "smoothing": smoothing, "seed": seed, "pictures": len(images),
    }
    if every is not None:
        whole("every", every)
    if resume is not None:
        check_resumed(resume, settings)
    batches = Batches(images, labels, batch, _composed(augment), seed)
    budget = _Budget(epochs, steps, seconds, batches.per_epoch)
    half = pick_precision(precision, device, images)
    test_loss = loss or F.cross_entropy

    with contextlib.ExitStack() as surroundings:
        enter = surroundings.enter_context
        enter(_borrowed(model, device, seed))
        outputs, work = probe(model, images[:2])
        if loss is None:
            check_labels(outputs, labels, tested)
            loss, accuracy = functools.partial(F.cross_entropy, label_smoothing=smoothing), accuracy or _share_correct
        model.to(memory_format=torch.channels_last)
        model.train()
        optimizer = make_optimizer(model, lr, weight_decay, device)
        step = make_step(model, loss, accuracy, optimizer, device=device, half=half, graphs=graphs)
        settings |= {"device": device.type, "precision": str(half or images.dtype).removeprefix("torch.")}

        display = enter(contextlib.closing(Display(progress, live)))
        enter(one_thread(device.type == "cpu" and work * batches.batch < WORTH_SHARING))
        enter(kept_memory(device))
        enter(tried_kernels(device))
        interrupt = enter(Interrupt())
        training = _Training(model, batches, step, budget, settings, every, record, display, tested, test_loss)
        if resume is not None:
            training.resume(resume)
        try:
            training.run(interrupt)
        except KeyboardInterrupt:
            if not interrupt.ours:
                raise
            training.notes.append("stopped inside a step, so that resuming may differ from an uninterrupted training")
        return training.result()


@contextlib.contextmanager
def _borrowed(model: nn.Module, device: torch.device, seed: int):
    """The model on the device and random numbers from `seed`; afterwards the model is back, in evaluation mode."""
    first = next(model.parameters(), None)
    home = device if first is None else first.device
    try:
        with own_rng(device, seed):
            model.to(device)
            yield
    finally:
        model.to(home).eval()


def evaluate(
    model: nn.Module, data: Data, *, loss: Loss | None = None, accuracy: Loss | None = None,
    device: str | torch.device | None = None,
) -> Scores:
    """Loss and accuracy of `model` on `data`, in evaluation mode. The model comes back as it was.

    Args:
        data, loss, accuracy, device: as for `fit`.

    Returns:
        Scores(loss, accuracy).
    """
    device = pick_device(device)
    images, labels = to_device(data, "test", device)
    if loss is None:
        loss, accuracy = F.cross_entropy, accuracy or _share_correct
    # The modes are put back last: a model that was borrowed comes back in evaluation mode.
    with evaluation(model), _borrowed(model, device, 0), kept_memory(device):
        return _scores(model, images, labels, loss, accuracy)


def _scores(model, images: Tensor, labels: Tensor, loss: Loss, accuracy: Loss | None) -> Scores:
    """Means over all pictures, a batch at a time, in the precision of the weights."""
    size = _TEST_BATCH.get(images.device.type, 256)
    sums = torch.zeros(2, device=images.device)
    for some, their in zip(images.split(size), labels.split(size)):
        outputs = model(some)
        sums[0].add_(loss(outputs, their) * len(some))
        if accuracy is not None:
            sums[1].add_(accuracy(outputs, their) * len(some))
    mean_loss, mean_accuracy = (sums / len(images)).tolist()
    return Scores(mean_loss, mean_accuracy if accuracy is not None else math.nan)


class _Budget:
    """How much of a training is over, 0–1: by steps, by seconds, by whichever is further."""

    def __init__(self, epochs: float | None, steps: int | None, seconds: float | None, per_epoch: int) -> None:
        if epochs is None and steps is None and seconds is None:
            raise ValueError("fit needs a budget: give epochs, steps or seconds")
        limits = [math.inf]
        if steps is not None:
            limits.append(whole("steps", steps))
        if epochs is not None:
            limits.append(max(1, math.ceil(positive("epochs", epochs) * per_epoch)))
        self.steps = min(limits)
        self.seconds = math.inf if seconds is None else positive("seconds", seconds)
        self.spent = 0.0
        self.start()

    def start(self) -> None:
        """From now on, seconds count."""
        self._began = time.perf_counter()

    def elapsed(self) -> float:
        return self.spent + time.perf_counter() - self._began

    def done(self, step: int) -> float:
        return max(step / self.steps, self.elapsed() / self.seconds)


class _Training:
    """The loop of `fit`, and what it keeps: rows of the history, snapshots, and the last weights known to be good."""

    def __init__(
        self, model: nn.Module, batches: Batches, step: Step, budget: _Budget, settings: dict[str, Any],
        every: int | None, record, display: Display, test: tuple[Tensor, Tensor] | None, test_loss: Loss,
    ) -> None:
        self.model, self.batches, self.step, self.budget = model, batches, step, budget
        self.settings, self.every, self.record, self.display = settings, every, record, display
        self.test, self.test_loss, self.sample = test, test_loss, None
        self.device, self.done = batches.device, 0.0
        self.count = self.counted = 0  # steps taken; of these, in a row of the history
        self.rows: list[dict[str, float]] = []
        self.snapshots: list[tuple[int, Any]] = []
        self.fields: dict[str, tuple[int, int]] = {}
        self.notes: list[str] = []
        self.good = self._weights()

    def run(self, interrupt: Interrupt) -> None:
        """Train until the budget is used up or somebody asks for an end."""
        if self.count == 0:
            self._snapshot()
        self.budget.start()
        rate, next_row = 0.0, self._next_row()
        while not (self.over or interrupt.asked):
            rate = self.settings["lr"] * one_cycle(self.done, self.settings["warmup"])
            self.step(*self.batches[self.count], rate)
            self.count += 1
            self.done = self.budget.done(self.count)
            if self.count % CHECK_EVERY == 0:
                self._check(float(self.step.sums[0]))
                self.display.advance(self.done)
            if (self.count if self.every else self.done) >= next_row and not self.over:
                self._row(rate)
                next_row = self._next_row()
        if self.counted < self.count:
            self._row(rate, last=True)
        elif self.rows and self.test is not None:
            self.rows[-1] |= self._tested(last=True)
        self.display.advance(self.done)

    @property
    def over(self) -> bool:
        return self.done >= 1

    def _next_row(self) -> float:
        """The step, or without `every` the share of the budget, at which the next row is due."""
        if self.every:
            return (self.count // self.every + 1) * self.every
        return (math.floor(self.done * ROWS + 1e-9) + 1) / ROWS

    def result(self) -> Run:
        """Everything so far."""
        import pandas

        state = {
            "model": _moved(self.model.state_dict(), "cpu"),
            "optimizer": _moved(self.step.optimizer.state_dict()["state"], "cpu"),
            "random": [generator.get_state() for generator in generators(self.device)],
            "step": self.count, "seconds": self.budget.elapsed(),
        }
        notes = [*self.notes, *self.step.notes]
        return Run(pandas.DataFrame(self.rows), self.snapshots, notes, not self.over, self.settings, state, self.fields)

    def resume(self, run: Run) -> None:
        """Go on where `run` ended."""
        try:
            self.model.load_state_dict(run.state["model"])
        except RuntimeError as error:
            raise ValueError("the run to resume was made with another model; build the model as it was then") from error
        groups = self.step.optimizer.state_dict()["param_groups"]
        self.step.optimizer.load_state_dict({"state": copy.deepcopy(run.state["optimizer"]), "param_groups": groups})
        for generator, state in zip(generators(self.device), run.state["random"]):
            generator.set_state(state)
        self.count = self.counted = run.state["step"]
        self.budget.spent = run.state["seconds"]
        self.done = self.budget.done(self.count)
        self.rows, self.snapshots = run.history.to_dict("records"), list(run.snapshots)
        self.fields = dict(run.fields)
        self.good = self._weights()

    def _row(self, rate: float, last: bool = False) -> None:
        """One more row of the history; the weights are known to be good afterwards."""
        loss, accuracy = self.step.averages(self.count - self.counted)
        self._check(loss)
        self._check(float(torch.stack([weight.detach().float().sum() for weight in self.model.parameters()]).sum()))
        row = {"step": self.count, "epoch": self.count / self.batches.per_epoch, "seconds": 0.0, "loss": loss}
        if self.step.accuracy is not None:
            row["accuracy"] = accuracy
        if self.test is not None:
            row |= self._tested(last)
        self.rows.append(row | {"seconds": self.budget.elapsed(), "lr": rate})
        self.counted = self.count
        self.good = self._weights()
        self._snapshot()
        self.display.row(self.rows, last)

    def _tested(self, last: bool) -> dict[str, float]:
        """The columns of a row that the test set gives."""
        images, labels = self.test if last or self.every else self._sample()
        with self._looking():
            scores = _scores(self.model, images, labels, self.test_loss, self.step.accuracy)
        self._check(scores.loss)
        return {"test_loss": scores.loss} | ({} if self.step.accuracy is None else {"test_accuracy": scores.accuracy})

    def _sample(self) -> tuple[Tensor, Tensor]:
        """As much of the test set as may be tested at every row, chosen at the first."""
        if self.sample is None:
            # A forward pass costs a third of a step: half as many pictures as were trained on cost a sixth.
            count = max(1, self.count * self.batches.batch // (2 * (len(self.rows) + 1)))
            images, labels = self.test
            chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count].to(self.device)
            self.sample = self.test if count >= len(images) else (images[chosen], labels[chosen])
        return self.sample

    def _snapshot(self) -> None:
        if self.record is None:
            return
        with self._looking():
            if isinstance(self.record, Tensor):
                from attnlib.observe import record

                pictures = self.record.to(self.device)
                self.fields = self.fields if self.snapshots else fields(self.model, pictures)
                with record(self.model) as weights:
                    self.model(pictures)
                value = {name: tensor.cpu() for name, tensor in weights.items()}
            else:
                value = self.record(self.model)
        self.snapshots.append((self.count, value))

    @contextlib.contextmanager
    def _looking(self):
        """Evaluation mode, no gradients, and random numbers that the training does not miss."""
        with evaluation(self.model), own_rng(self.device, 0):
            yield

    def _weights(self) -> dict[str, Any]:
        return _moved(self.model.state_dict(), self.device)

    def _check(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        self.model.load_state_dict(self.good)
        raise DivergedError(
            f"the loss became {loss} by step {self.count}; lower the learning rate (lr={self.settings['lr']:g}), "
            "and see that the inputs are in 0–1 and that your own loss takes no logarithm or root of 0"
        )


def _share_correct(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.argmax(1) == labels).float().mean()


def _moved(value: Any, device) -> Any:
    """A copy of nested dicts and lists with every tensor on `device`."""
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, device) for item in value]
    return copy.deepcopy(value)


def _composed(augment: Augment | Sequence[Augment] | None) -> Augment | None:
    if augment is None or callable(augment):
        return augment
    return lambda images: functools.reduce(lambda made, change: change(made), augment, images)
