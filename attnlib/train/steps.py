"""The parts of a training step: where a batch comes from, what is done with it, and how it is launched."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.attention import attentions
from attnlib.train.session import own_rng

Augment = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Below this many pixels a side, converting to bfloat16 costs a CPU more than computing in it saves.
SMALLEST_FOR_BFLOAT16 = 16


def one_cycle(done: float, warmup: float) -> float:
    """Share of the peak learning rate when `done` (0–1) of the training is over: up from 1/25, then down to 0.

    Two half cosines, after Smith and Topin, "Super-Convergence", 2019 (arXiv:1708.07120). A function of progress, not
    of steps, so that a budget in seconds also ends at 0. (`torch.optim.lr_scheduler.OneCycleLR` needs the steps.)
    """
    if done < warmup:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * done / warmup)) / 2
    return (1 + math.cos(math.pi * min(1.0, (done - warmup) / (1 - warmup)))) / 2


def shift(pixels: int) -> Augment:
    """Augmentation: move every picture by its own random number of whole pixels, up to `pixels` each way, over zeros."""
    if not isinstance(pixels, int) or pixels < 0:
        raise ValueError(f"shift takes a whole number of pixels, 0 or more, not {pixels!r}")

    def augment(images: Tensor) -> Tensor:
        count, _, height, width = images.shape
        rows, columns = torch.randint(2 * pixels + 1, (2, count), device=images.device)
        # Channels to the back, where they travel together with a row of pixels; one view per possible shift.
        padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, pixels, pixels, pixels, pixels))
        views = padded.unfold(1, height, 1).unfold(2, width, 1)
        return views[torch.arange(count, device=images.device), rows, columns]

    return augment


def flip() -> Augment:
    """Augmentation: mirror every other picture, at random, left to right."""

    def augment(images: Tensor) -> Tensor:
        coins = torch.rand(len(images), device=images.device) < 0.5
        return torch.where(coins[:, None, None, None], images.flip(3), images)

    return augment


class Batches:
    """Batches of a data set that lives on the device, shuffled anew in every epoch, by the number of the step.

    What a step gets depends on the seed and the step alone, not on the model nor on the steps before: two networks
    see the same batches, and training can start again anywhere. Batches are gathered and augmented several at a time.
    The remainder of an epoch that fills no batch is left out, as every step must have the same shapes; the next
    epoch shuffles others into it.

    Args:
        images: (N, …). Pictures (N, C, H, W) come out channels-last.
        labels: (N, …).
        batch: pictures a step; all N where there are fewer.
        augment: applied to several batches at once.
    """

    def __init__(self, images: Tensor, labels: Tensor, batch: int, augment: Augment | None, seed: int) -> None:
        self.pictures = images.dim() == 4
        # Rows of the permuted set are gathered with one copy each, and no batch needs a new layout.
        self.images = images.permute(0, 2, 3, 1).contiguous() if self.pictures else images
        self.labels = labels
        self.batch = min(batch, len(images))
        self.per_epoch = len(images) // self.batch
        self.augment, self.seed, self.device = augment, seed, images.device
        # As much as stays in a CPU's cache; on a GPU, enough to launch the augmentation rarely.
        wanted = (8 << 20) if self.device.type == "cpu" else (256 << 20)
        size = self.batch * images[0].numel() * images.element_size()
        self.per_block = max(1, min(self.per_epoch, wanted // max(size, 1)))
        self._epoch = self._block = None

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(step, self.per_epoch)
        block, place = divmod(place, self.per_block)
        if (epoch, block) != self._block:
            self._load(epoch, block)
        part = slice(place * self.batch, (place + 1) * self.batch)
        return self._images[part], self._labels[part]

    def _load(self, epoch: int, block: int) -> None:
        seed = (self.seed * 1_000_003 + epoch + 1) % 2**63
        if epoch != self._epoch:
            order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(seed))
            self._order = order[: self.per_epoch * self.batch].to(self.device)
            self._epoch = epoch
        chosen = self._order[block * self.per_block * self.batch : (block + 1) * self.per_block * self.batch]
        images = self.images.index_select(0, chosen)
        if self.pictures:
            images = images.permute(0, 3, 1, 2)
        if self.augment is not None:
            with own_rng(self.device, (seed * 1_000_003 + block) % 2**63):
                images = self.augment(images)
            if self.pictures:
                images = images.contiguous(memory_format=torch.channels_last)
        self._images, self._labels, self._block = images, self.labels.index_select(0, chosen), (epoch, block)


def pick_precision(precision: str, device: torch.device, images: Tensor) -> torch.dtype | None:
    """The type to compute in: None for that of the weights, or half precision where the hardware has it natively."""
    if precision != "auto":
        if precision not in PRECISIONS:
            raise ValueError(f"precision is 'auto' or one of {', '.join(PRECISIONS)}, not {precision!r}")
        return PRECISIONS[precision]
    if images.dtype != torch.float32 and images.is_floating_point():
        return None
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    big = images.dim() == 4 and min(images.shape[2:]) >= SMALLEST_FOR_BFLOAT16
    return torch.bfloat16 if device.type == "cpu" and big and _cpu_has_bfloat16() else None


def _cpu_has_bfloat16() -> bool:
    # Public since torch 2.12; older ones know the two instruction sets under private names.
    if known := getattr(torch.cpu, "get_capabilities", None):
        return any(known().get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def make_optimizer(model: nn.Module, lr: float, weight_decay: float, device: torch.device) -> torch.optim.AdamW:
    """AdamW, fused where there is such a kernel. Biases, norms and other vectors do not decay.

    On CUDA the learning rate is a tensor and the step counts live on the device, so that a graph can hold the update.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("the model has no parameter to train; call requires_grad_() on those that should learn")
    groups = [
        {"params": [p for p in trainable if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if device.type == "cuda":
        rate = torch.tensor(float(lr), device=device)
        return torch.optim.AdamW(groups, lr=rate, fused=True, capturable=True)
    try:
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    except RuntimeError:  # no fused kernel for this device or type
        return torch.optim.AdamW(groups, lr=lr)


class Step:
    """An ordinary step: forward, backward, update. ``step(images, labels, rate)`` returns nothing.

    What there is to report, the loss and the accuracy, is summed on the device in `sums`; reading it waits for the
    device, a step never does.

    Args:
        model: in training mode, on the device.
        loss: ``loss(outputs, labels)``, a scalar.
        accuracy: ``accuracy(outputs, labels)``, a scalar, or None.
        optimizer: one from `make_optimizer`.
        half: type for automatic mixed precision, or None.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, accuracy: Loss | None, optimizer: torch.optim.Optimizer,
        device: torch.device, half: torch.dtype | None,
    ) -> None:
        self.model, self.loss, self.accuracy, self.optimizer = model, loss, accuracy, optimizer
        self.device, self.half = device, half
        self.scaler = torch.amp.GradScaler(device.type, enabled=half == torch.float16)
        self.sums = torch.zeros(2, device=device)
        self.notes: list[str] = []
        optimizer.zero_grad()

    def __call__(self, images: Tensor, labels: Tensor, rate: float) -> None:
        self._set(rate)
        self._take(images, labels)

    def averages(self, steps: int) -> tuple[float, float]:
        """Mean loss and accuracy of the last `steps` steps, those since the last call."""
        loss, accuracy = (self.sums / max(steps, 1)).tolist()
        self.sums.zero_()
        return loss, accuracy

    def _set(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _take(self, images: Tensor, labels: Tensor) -> None:
        with cast(self.device, self.half):
            outputs = self.model(images)
            loss = self.loss(outputs, labels)
        if loss.dim():
            raise ValueError(f"a loss is one number for a batch, not {tuple(loss.shape)}; end it with .mean()")
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.sums[0].add_(loss)
            if self.accuracy is not None:
                self.sums[1].add_(self.accuracy(outputs, labels))


def cast(device: torch.device, half: torch.dtype | None):
    """Mixed precision in type `half`, or nothing. Casts are not cached, as a graph must hold its own."""
    return torch.autocast(device.type, half, cache_enabled=False) if half is not None else contextlib.nullcontext()


class GraphStep(Step):
    """The same step, recorded once as a CUDA graph and then replayed: one launch instead of hundreds.

    Small networks spend their time on a GPU waiting for the next launch. The first steps are taken on a side stream,
    where libraries choose their kernels and the optimizer makes its state; they count like any other. The last of
    them also looks for operations that wait for the device, which no graph can hold. Where there is one, or where
    recording fails, steps stay ordinary, and `notes` says why.
    """

    WARM_UP = 3

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self._warm = 0
        self._images = self._labels = self._graph = self._stream = None

    def __call__(self, images: Tensor, labels: Tensor, rate: float) -> None:
        if self.notes:
            return super().__call__(images, labels, rate)
        self._set(rate)
        if self._images is None:
            self._images, self._labels = images.clone(), labels.clone()
        self._images.copy_(images)
        self._labels.copy_(labels)
        if self._warm < self.WARM_UP:
            self._warm += 1
            with self._aside(), self._listening(self._warm == self.WARM_UP):
                self._take(self._images, self._labels)
            return
        if self._graph is None and not self._record():
            return self._take(self._images, self._labels)
        self._graph.replay()

    def _record(self) -> bool:
        """Record the step, which does not take it; whether that worked."""
        try:
            self._graph = self._capture()
        except RuntimeError as error:
            self._graph = None
            first = str(error).strip().splitlines()[0]
            self.notes.append(f"steps are launched one operation at a time: no CUDA graph could be made ({first})")
        return self._graph is not None

    def _capture(self):
        graph = torch.cuda.CUDAGraph()
        # On the stream of the warm-up: libraries keep workspaces by stream.
        with torch.cuda.graph(graph, stream=self._stream):
            self._take(self._images, self._labels)
        return graph

    @contextlib.contextmanager
    def _aside(self):
        """Work on a side stream, after what is under way and before what follows."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)
        here = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            yield
        here.wait_stream(self._stream)

    @contextlib.contextmanager
    def _listening(self, on: bool):
        """Note operations that wait for the device. A failed recording can leave CUDA unusable, so ask beforehand."""
        if not on:
            yield
            return
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode(before)
        if any("called a synchronizing" in str(warning.message) for warning in heard):
            self.notes.append("steps are launched one operation at a time: one of them waits for the device")


def make_step(*args, device: torch.device, half: torch.dtype | None, graphs: bool) -> Step:
    """A `GraphStep` on CUDA, else a `Step`. float16 stays without a graph: its loss scaling decides step by step."""
    kind = GraphStep if graphs and device.type == "cuda" and half != torch.float16 else Step
    return kind(*args, device=device, half=half)


@torch.no_grad()
def probe(model: nn.Module, images: Tensor):
    """What the model, in evaluation mode, makes of a few pictures; and the multiply-adds that its layers with weights
    spend on one of them (an estimate: what has no weights is not counted).
    """
    total = 0.0

    def count(layer: nn.Module, _, output) -> None:
        nonlocal total
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() > 1 and isinstance(output, Tensor):
            total += weight.numel() / len(weight) * output.numel()

    handles = [layer.register_forward_hook(count) for layer in model.modules()]
    try:
        outputs = model.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
    return outputs, total / len(images)


def fields(model: nn.Module, pictures: Tensor) -> dict[str, tuple[int, int]]:
    """Rows and columns of the feature map that each mechanism in `model` sees, by its name; found in one pass."""
    seen: dict[str, tuple[int, int]] = {}

    def note(name: str):
        def before(_, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor) and inputs[0].dim() == 4:
                seen[name] = tuple(inputs[0].shape[2:])

        return before

    with contextlib.ExitStack() as stack:
        # A compiled network would be compiled once more for these hooks.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for name, attention in attentions(model).items():
            stack.callback(attention.register_forward_pre_hook(note(name)).remove)
        model(pictures)
    return seen
