"""Training: reproducible, resumable, honest about what it refuses, and out of the way of everything else."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import threading
import time
import warnings

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attnlib
from attnlib.attention import Attention, Description
from attnlib.data.pictures import Pictures
from attnlib.train import DivergedError, Run, evaluate, fit, flip, shift
from attnlib.train import loop, session, steps

CPU = torch.device("cpu")


def pictures(count=96, size=(6, 8), classes=3, seed=0, channels=2) -> Pictures:
    """Pictures whose class is the column band that is bright: learnt in a few steps."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=rng)
    images = 0.3 * torch.rand(count, channels, *size, generator=rng)
    for number, label in enumerate(labels.tolist()):
        images[number, :, :, 2 * label : 2 * label + 2] += 0.6
    return Pictures(images, labels)


def network(seed=0, classes=3, dropout=0.0, channels=2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout),
        nn.Flatten(), nn.Linear(8 * 48, classes),
    )


def quick(model, train=None, test=None, **options) -> Run:
    options = {"steps": 20, "batch": 16, "progress": False, "device": "cpu"} | options
    return fit(model, train or pictures(), test, **options)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def press_ctrl_c_at(step: int):
    """A `record` that presses Ctrl-C when it is called at `step`."""
    count = [0]

    def record(model):
        if count[0] == step:
            os.kill(os.getpid(), signal.SIGINT)
        count[0] += 1

    return record


# --- it learns, and reports what it did ------------------------------------------------------------------------------


def test_learns_and_reports():
    model, test = network(), pictures(64, seed=1)
    run = quick(model, test=test, steps=60)
    assert run.accuracy > 0.95
    assert list(run.history.columns) == [
        "step", "epoch", "seconds", "loss", "accuracy", "test_loss", "test_accuracy", "lr"
    ]
    assert run.history["step"].tolist() == list(range(3, 61, 3))  # a row each twentieth
    assert run.history["epoch"].iloc[-1] == 10.0
    assert run.history["seconds"].is_monotonic_increasing
    assert run.steps == 60 and not run.interrupted and run.notes == []
    model.eval()
    with torch.no_grad():
        outputs = model(test.images)
    assert run.accuracy == pytest.approx((outputs.argmax(1) == test.labels).float().mean().item())
    assert run.history["test_loss"].iloc[-1] == pytest.approx(F.cross_entropy(outputs, test.labels).item(), rel=1e-5)
    assert evaluate(model, test, device="cpu").accuracy == pytest.approx(run.accuracy)


def test_equals_a_plain_loop():
    """The same batches through the textbook loop give the same weights, to rounding."""
    data = pictures()
    model, plain = network(), network()
    run = quick(model, data, steps=12, batch=16, lr=0.01, weight_decay=0.1, smoothing=0.1, every=12)
    decays = [{"params": [p for p in plain.parameters() if p.dim() > 1], "weight_decay": 0.1},
              {"params": [p for p in plain.parameters() if p.dim() == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decays)
    total = 0.0
    batches = steps.Batches(data.images, data.labels, 16, None, seed=0)
    for number in range(12):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * steps.one_cycle(number / 12, 0.2)
        images, labels = batches[number]
        loss = F.cross_entropy(plain(images.contiguous()), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    for one, other in zip(model.parameters(), plain.parameters()):
        assert torch.allclose(one, other, atol=1e-5)
    assert run.history["loss"].iloc[-1] == pytest.approx(total / 12, rel=1e-4)


def test_cycle_rises_to_one_and_falls_to_zero():
    values = [steps.one_cycle(number / 1000, 0.2) for number in range(1001)]
    assert values[0] == pytest.approx(1 / 25) and values[200] == 1.0 and values[-1] == pytest.approx(0, abs=1e-9)
    assert values[:201] == sorted(values[:201]) and values[200:] == sorted(values[200:], reverse=True)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        torch.optim.SGD([torch.zeros(1)], lr=1), 1.0, total_steps=1001, pct_start=0.2, final_div_factor=1e9,
    )
    for number in range(0, 1001):
        # PyTorch's peak is one step early, as it counts its warm-up from 0 to pct_start * total - 1.
        assert values[number] == pytest.approx(reference.get_last_lr()[0], abs=0.01)
        if number < 1000:
            reference.optimizer.step()
            reference.step()


def test_model_comes_back_ready_and_channels_last():
    model = network()
    quick(model)
    assert not model.training
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(p.grad is None for p in model.parameters())


def test_pair_of_tensors_targets_of_other_shapes_and_own_loss():
    images, targets = torch.rand(40, 2, 5, 7), torch.rand(40, 1, 5, 7)
    model = nn.Conv2d(2, 1, 1)
    run = quick(model, (images, targets), (images, targets), loss=F.mse_loss, steps=30)
    assert math.isnan(run.accuracy) and "accuracy" not in run.history
    assert run.history["test_loss"].iloc[-1] < run.history["test_loss"].iloc[0]
    classes = torch.randint(3, (40, 5, 7))
    run = quick(nn.Conv2d(2, 3, 1), (images, classes), steps=4)  # dense labels
    assert 0 <= run.accuracy <= 1
    tokens = torch.randint(9, (40, 6))
    run = quick(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 3)), (tokens, tokens[:, 0] % 3), steps=4)
    assert run.steps == 4


def test_float64_stays_float64():
    data = pictures()
    model = network().double()
    run = quick(model, (data.images.double(), data.labels), steps=3)
    assert model[0].weight.dtype == torch.float64 and run.settings["precision"] == "float64"


def test_frozen_weights_stay():
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    quick(model)
    assert torch.equal(model[0].weight, before)


def test_lazy_layers_are_made():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3))
    assert quick(model, steps=2).steps == 2


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_same_seed_same_weights_bit_for_bit():
    models = [network(dropout=0.3) for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6)):
        torch.rand(seed)  # what happened before must not matter
        quick(model, seed=seed, augment=[shift(1), flip()])
    assert same(models[0], models[1]) and not same(models[0], models[2])


def test_data_and_augmentation_do_not_depend_on_the_model():
    seen = {}

    class Spy(nn.Module):
        def __init__(self, name, dropout):
            super().__init__()
            self.name, self.net = name, network(dropout=dropout)

        def forward(self, x):
            if self.training:
                seen.setdefault(self.name, []).append(x.clone())
            return self.net(x)

    for name, dropout in (("plain", 0.0), ("random", 0.5)):
        quick(Spy(name, dropout), test=pictures(8), augment=shift(2), steps=14)
    assert all(torch.equal(a, b) for a, b in zip(seen["plain"], seen["random"], strict=True))


def test_evaluation_does_not_change_the_training():
    models = [network(dropout=0.5) for _ in range(2)]
    quick(models[0], every=20)
    quick(models[1], test=pictures(30, seed=3), every=1, record=lambda model: torch.rand(3))
    assert same(*models)


def test_random_numbers_outside_are_not_disturbed():
    model = network(dropout=0.5)
    torch.manual_seed(7), random.seed(7), numpy.random.seed(7)
    expected = torch.rand(3), random.random(), numpy.random.rand()
    torch.manual_seed(7), random.seed(7), numpy.random.seed(7)
    quick(model, test=pictures(8), augment=shift(1))
    assert torch.equal(torch.rand(3), expected[0])
    assert (random.random(), numpy.random.rand()) == expected[1:]


def test_threads_and_signal_handler_are_put_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        quick(network())
        assert torch.get_num_threads() == 2
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        torch.set_num_threads(before)


def test_small_steps_use_one_thread():
    seen = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        quick(network(), record=lambda model: seen.append(torch.get_num_threads()), steps=1)
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


# --- batches and augmentation ----------------------------------------------------------------------------------------


def test_batches_visit_every_picture_once_an_epoch():
    images = torch.arange(23).float().reshape(23, 1, 1, 1).expand(23, 2, 3, 4).clone()
    batches = steps.Batches(images, torch.arange(23), 5, None, seed=0)
    assert batches.per_epoch == 4
    orders = []
    for epoch in range(2):
        labels = torch.cat([batches[4 * epoch + place][1] for place in range(4)])
        assert len(labels.unique()) == 20  # the remainder of three is left out
        orders.append(labels.tolist())
    assert orders[0] != orders[1]
    for step in (6, 0, 3):  # any order of asking gives the same
        some, labels = batches[step]
        assert some.shape == (5, 2, 3, 4) and some.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(some[:, 0, 0, 0].long(), labels)
        assert labels.tolist() == orders[step // 4][5 * (step % 4) :][:5]


def test_batches_in_blocks_equal_batches_one_by_one():
    data = pictures(64)
    whole, single = (steps.Batches(data.images, data.labels, 8, flip(), seed=3) for _ in range(2))
    single.per_block = 1
    for step in range(12):
        assert torch.equal(whole[step][1], single[step][1])
    assert whole.per_block == 8


def test_batch_larger_than_data_is_the_data():
    run = quick(network(), pictures(10), batch=64, epochs=3, steps=None)
    assert run.steps == 3 and run.settings["batch"] == 10


def test_shift_moves_over_zeros():
    torch.manual_seed(0)
    images = torch.rand(200, 2, 5, 7) + 1
    for layout in (torch.contiguous_format, torch.channels_last):
        moved = shift(2)(images.contiguous(memory_format=layout))
        assert moved.shape == images.shape
        padded = F.pad(images, (2, 2, 2, 2))
        used = set()
        for picture, original in zip(moved, padded):
            places = [(r, c) for r in range(5) for c in range(5) if picture.equal(original[:, r : r + 5, c : c + 7])]
            assert len(places) == 1
            used.add(places[0])
        assert len(used) == 25
    assert torch.equal(shift(0)(images), images)
    with pytest.raises(ValueError, match="whole number of pixels"):
        shift(-1)


def test_flip_mirrors_about_half():
    torch.manual_seed(0)
    images = torch.rand(400, 1, 3, 4)
    made = flip()(images)
    mirrored = (made == images.flip(3)).flatten(1).all(1)
    assert ((made == images).flatten(1).all(1) ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


# --- budgets ---------------------------------------------------------------------------------------------------------


def test_budget_in_epochs_and_the_smaller_of_two():
    assert quick(network(), steps=None, epochs=2).steps == 12
    assert quick(network(), steps=None, epochs=0.5).steps == 3
    assert quick(network(), steps=5, epochs=2).steps == 5


def test_budget_in_seconds_is_kept_and_anneals_fully():
    quick(network(), steps=2)  # what the first training loads
    began = time.perf_counter()
    run = quick(network(), steps=None, seconds=0.6)
    took = time.perf_counter() - began
    assert 0.55 < took < 2.5
    assert not run.interrupted and run.steps > 5
    rates = run.history["lr"]
    assert rates.iloc[-1] < 0.05 * rates.max()
    assert len(run.history) <= loop.ROWS + 1


def test_rows_every_so_many_steps():
    assert quick(network(), every=6).history["step"].tolist() == [6, 12, 18, 20]


def test_rows_before_the_last_test_only_a_sample():
    tested = []

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            if not self.training:
                tested.append(len(x))
            return self.net(x)

    quick(Counting(), test=pictures(200, seed=1), steps=40)
    # 2 pictures look at the shapes; each row of 2 steps with 16 pictures affords 16 tests; the last row tests all.
    assert tested == [2] + [16] * 19 + [200]
    tested.clear()
    quick(Counting(), test=pictures(200, seed=1), steps=4, every=2)
    assert tested == [2, 200, 200]


# --- snapshots -------------------------------------------------------------------------------------------------------


class Gate(Attention):
    about = Description(title="g", paper="", cite="", axes=("batch", "channel"), shape=("B", "C"), name="g")

    def __init__(self, channels):
        super().__init__(channels)
        self.score = nn.Linear(channels, channels)

    def attend(self, x):
        return self.score(x.mean((2, 3))).sigmoid()

    def use(self, x, weights):
        return x * weights[:, :, None, None]


def test_snapshots_keep_weights_as_they_form():
    model = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), Gate(8), nn.Flatten(), nn.Linear(8 * 48, 3))
    probe = pictures(4, seed=2).images
    run = quick(model, every=10, record=probe)
    assert [step for step, _ in run.snapshots] == [0, 10, 20]
    first, last = run.snapshots[0][1]["1"], run.snapshots[-1][1]["1"]
    assert first.shape == (4, 8) and not torch.equal(first, last)
    with attnlib.record(model) as weights, torch.no_grad():
        model(probe)
    assert torch.equal(weights["1"], last)


def test_a_run_says_where_the_positions_of_its_weights_lie(tmp_path):
    layers = nn.Conv2d(2, 8, 3, padding=1), Gate(8), nn.MaxPool2d(2), Gate(8), nn.Flatten(), nn.Linear(8 * 12, 3)
    model = nn.Sequential(*layers)
    seen = pictures(4, seed=2).images
    run = quick(model, record=seen)
    assert run.fields == {"1": (6, 8), "3": (3, 4)} and not any(part._forward_pre_hooks for part in model.modules())
    run.save(tmp_path / "run.pt")
    back = Run.load(tmp_path / "run.pt")
    assert back.fields == run.fields == quick(model, steps=30, record=seen, resume=back).fields
    assert quick(network()).fields == quick(network(), record=lambda model: 1.0).fields == {}


def test_a_run_that_was_saved_before_runs_said_so_is_read(tmp_path):
    quick(network()).save(tmp_path / "run.pt")
    content = torch.load(tmp_path / "run.pt", weights_only=True)
    del content["fields"]
    torch.save(content, tmp_path / "old.pt")
    assert Run.load(tmp_path / "old.pt").fields == {}


def test_looking_at_a_compiled_network_compiles_nothing_for_the_fields():
    torch.compiler.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), Gate(8), nn.Flatten(), nn.Linear(8 * 48, 3)).eval()
    compiled = torch.compile(model, backend=backend)
    assert steps.fields(compiled, torch.rand(2, 2, 6, 8)) == {"_orig_mod.1": (6, 8)} and graphs == []


def test_snapshots_by_a_function_that_sees_the_model_in_evaluation_mode():
    run = quick(network(), every=10, record=lambda model: (model.training, torch.is_grad_enabled()))
    assert run.snapshots == [(0, (False, False)), (10, (False, False)), (20, (False, False))]


# --- interruption and resumption -------------------------------------------------------------------------------------


def test_ctrl_c_ends_cleanly_and_resuming_equals_never_stopping(tmp_path):
    options = {"test": pictures(30, seed=1), "steps": 40, "every": 5, "augment": shift(1)}
    whole, stopped, fresh = (network(dropout=0.4) for _ in range(3))
    expected = quick(whole, **options)
    run = quick(stopped, **options, record=press_ctrl_c_at(3))
    assert run.interrupted and run.steps == 15 and run.notes == []
    assert run.history["step"].tolist() == [5, 10, 15] and 0 <= run.accuracy <= 1
    run.save(tmp_path / "run.pt")

    resumed = quick(stopped, **options, resume=run)
    assert not resumed.interrupted and resumed.steps == 40 and same(stopped, whole)
    quick(fresh, **options, resume=Run.load(tmp_path / "run.pt"))  # by way of a file, into another model
    assert same(fresh, whole)
    columns = ["step", "epoch", "loss", "accuracy", "test_loss", "test_accuracy", "lr"]
    assert resumed.history[columns].equals(expected.history[columns])
    assert resumed.seconds > run.seconds


def test_resuming_between_two_rows_also_gives_the_same_weights():
    whole, stopped = network(dropout=0.4), network(dropout=0.4)
    quick(whole, steps=40, every=11)

    def augment(images):  # called once a block, so press in the first epoch's only one, inside the first step
        if not pressed:
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return images

    pressed = []
    run = quick(stopped, steps=40, every=11, augment=augment)
    assert run.steps == 1 and run.history["step"].tolist() == [1]
    quick(stopped, steps=40, every=11, resume=run)
    assert same(whole, stopped)


def test_ctrl_c_at_once_gives_an_empty_run_that_can_be_resumed():
    model, whole = network(), network()
    run = quick(model, record=press_ctrl_c_at(0))
    assert run.interrupted and run.steps == 0 and len(run.history) == 0 and math.isnan(run.accuracy)
    quick(model, resume=run)
    quick(whole)
    assert same(model, whole)


def test_an_interrupt_inside_a_step_also_returns_what_there_is():
    def loss(outputs, labels):
        raise KeyboardInterrupt

    run = quick(network(), loss=loss)
    assert run.interrupted and run.steps == 0 and "inside a step" in run.notes[0]


def test_an_interrupt_belongs_to_whoever_handles_it():
    """Where somebody else has a handler, as `compare` does, a half-trained network must not be taken for a result."""

    def stop(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            quick(network(), record=press_ctrl_c_at(1))
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_trains_in_another_thread():
    runs = []
    thread = threading.Thread(target=lambda: runs.append(quick(network())))
    thread.start()
    thread.join()
    assert runs[0].steps == 20


def test_budget_can_be_extended():
    model = network()
    run = quick(model, steps=10)
    longer = quick(model, steps=30, resume=run)
    assert longer.steps == 30 and len(longer.history) > len(run.history)
    assert quick(model, steps=30, resume=longer).steps == 30


def test_resuming_with_other_arguments_or_another_model_is_refused():
    run = quick(network())
    with pytest.raises(ValueError, match="begun with lr=0.01"):
        quick(network(), steps=30, lr=0.1, resume=run)
    with pytest.raises(ValueError, match="begun with pictures=96"):
        quick(network(), pictures(50), steps=30, resume=run)
    with pytest.raises(ValueError, match="another model"):
        quick(network(classes=4), steps=30, resume=run)


def test_save_and_load(tmp_path):
    run = quick(network(), test=pictures(20), record=lambda model: {"bias": model[-1].bias.clone(), "note": ["x", 1]})
    run.save(tmp_path / "deep" / "run.pt")
    back = Run.load(tmp_path / "deep" / "run.pt")
    assert back.history.equals(run.history) and repr(back) == repr(run)
    assert back.settings == run.settings and back.notes == run.notes and back.seconds == run.seconds
    assert torch.equal(back.snapshots[-1][1]["bias"], run.snapshots[-1][1]["bias"])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run.pt"]  # nothing partial is left


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_damaged_absent_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no run at"):
        Run.load(tmp_path / "none.pt")
    run = quick(network(), steps=2)
    run.save(tmp_path / "run.pt")
    content = (tmp_path / "run.pt").read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"hello"):
        (tmp_path / "bad.pt").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged or no run"):
            Run.load(tmp_path / "bad.pt")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="damaged or no run"):
        Run.load(tmp_path / "other.pt")
    torch.save({"attnlib_run": 1, "history": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="damaged or no run"):
        Run.load(tmp_path / "trap.pt")  # what a file asks to be run is not run
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(TypeError, match="snapshots are saved where"):
        quick(network(), steps=2, record=lambda model: object()).save(tmp_path / "run.pt")
    assert (tmp_path / "run.pt").read_bytes() == content  # a failed save leaves the old file


# --- refusals --------------------------------------------------------------------------------------------------------


def test_divergence_is_refused_promptly_with_the_last_good_weights():
    calls = []

    def loss(outputs, labels):
        calls.append(1)
        value = F.cross_entropy(outputs, labels)
        return value * math.nan if len(calls) > 25 else value

    model, good = network(), network()
    with pytest.raises(DivergedError, match="lower the learning rate") as caught:
        quick(model, loss=loss, steps=1000, every=20)
    assert isinstance(caught.value, FloatingPointError)
    assert len(calls) == 30  # the next look after step 25
    assert all(p.isfinite().all() for p in model.parameters())
    assert not same(model, good)  # those of step 20, not those of the beginning
    assert not model.training


def test_weights_that_are_no_numbers_are_noticed_before_the_loss_is():
    calls = []

    def loss(outputs, labels):
        calls.append(1)
        value = F.cross_entropy(outputs, labels)
        if len(calls) == 5:  # finite, but its gradient is 0 / 0
            value = value + (outputs - outputs.detach()).square().sum().sqrt()
        return value

    model = network()
    with pytest.raises(DivergedError):
        quick(model, loss=loss, steps=5)
    assert len(calls) == 5 and all(p.isfinite().all() for p in model.parameters())


def test_too_high_a_learning_rate_diverges_by_name():
    model = nn.Sequential(nn.Flatten(), nn.Linear(96, 3))
    with pytest.raises(DivergedError, match="lr=1e\\+30"):
        quick(model, lr=1e30, loss=lambda outputs, labels: (outputs**4).mean(), steps=200)
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("options, message", [
    ({"steps": None}, "give epochs, steps or seconds"),
    ({"steps": 0}, "steps is a whole number from 1 up, not 0"),
    ({"steps": 2.5}, "steps is a whole number"),
    ({"steps": None, "epochs": -1}, "epochs is above 0"),
    ({"steps": None, "seconds": 0}, "seconds is above 0"),
    ({"batch": 0}, "batch is a whole number"),
    ({"lr": 0}, "lr is above 0"),
    ({"lr": math.nan}, "lr is above 0"),
    ({"warmup": 1.0}, "warmup is a share between 0 and 1"),
    ({"every": 0}, "every is a whole number"),
    ({"precision": "half"}, "precision is 'auto' or one of float32"),
])
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        quick(network(), **options)


def test_bad_data():
    good = pictures()
    holes = good.images.clone()
    holes[3, 0, 0, 0], holes[5, 1, 2, 2] = math.nan, math.inf
    cases = [
        ((good.images.byte(), good.labels), TypeError, r"images.float\(\) / 255"),
        ((good.images, good.labels[:-1]), ValueError, "but labels"),
        ((good.images[:0], good.labels[:0]), ValueError, "empty"),
        ((holes, good.labels), ValueError, "2 of the 96 training images hold NaN or infinite"),
        ((good.images, good.labels + 1), ValueError, "run from 1 to 3, but the model has 3 outputs: 0 to 2"),
        ((good.images, good.labels - 1), ValueError, "run from -1"),
        ((good.images, good.labels.int()), TypeError, r"labels.long\(\)"),
        ((good.images, torch.zeros(96, 2)), ValueError, "does not fit labels"),
        ("pictures", TypeError, "pair of tensors"),
        ((good.images.numpy(), good.labels.numpy()), TypeError, "pair of tensors"),
    ]
    for data, kind, message in cases:
        model, untouched = network(), network()
        with pytest.raises(kind, match=message):
            quick(model, data)
        assert same(model, untouched)
    with pytest.raises(ValueError, match="the test images hold|test images"):
        quick(network(), good, (holes, good.labels))
    with pytest.raises(ValueError, match="the test labels run"):
        quick(network(), good, (good.images, good.labels + 5))
    large = torch.full((96, 2, 6, 8), 3e38)  # finite, though the sum is not
    assert quick(nn.Sequential(nn.Flatten(), nn.Sigmoid(), nn.Linear(96, 3)), (large, good.labels), steps=1).steps == 1


def test_nothing_to_train_and_a_loss_of_many_numbers():
    with pytest.raises(ValueError, match="no parameter to train"):
        quick(network().requires_grad_(False))
    with pytest.raises(ValueError, match="one number for a batch"):
        quick(network(), loss=lambda outputs, labels: F.cross_entropy(outputs, labels, reduction="none"))


def test_no_cuda_is_said():
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="there is no CUDA device here"):
            quick(network(), device="cuda")


# --- mixed precision -------------------------------------------------------------------------------------------------


def test_precision_is_mixed_only_where_the_hardware_has_it(monkeypatch):
    big, small = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 15, 40)
    for native in (True, False):
        monkeypatch.setattr(steps, "_cpu_has_bfloat16", lambda: native)
        assert steps.pick_precision("auto", CPU, big) == (torch.bfloat16 if native else None)
        assert steps.pick_precision("auto", CPU, small) is None
        assert steps.pick_precision("auto", CPU, big.double()) is None
    assert steps.pick_precision("float32", CPU, big) is None
    cuda = torch.device("cuda", 0)
    for native, half in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native)
        assert steps.pick_precision("auto", cuda, small) == half


def test_evaluate_leaves_the_model_as_it_was():
    model = network(dropout=0.5).train()
    model[1].eval()
    state, random_state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    scores = [evaluate(model, pictures(), device="cpu") for _ in range(2)]
    assert scores[0] == scores[1] and 0 <= scores[0].accuracy <= 1
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert math.isnan(evaluate(model, pictures(), loss=lambda o, y: o.mean(), device="cpu").accuracy)


def test_bfloat16_keeps_the_weights_in_float32():
    model = network()
    run = quick(model, precision="bfloat16", steps=40)
    assert model[0].weight.dtype == torch.float32 and run.settings["precision"] == "bfloat16"
    assert run.accuracy > 0.8


# --- the graph, as far as it can be tried without CUDA ---------------------------------------------------------------


class PretendGraph(steps.GraphStep):
    """A graph step whose graph is the Python code it stands for: same inputs, same order, no CUDA."""

    captured = replayed = 0

    def _aside(self):
        return contextlib.nullcontext()

    def _listening(self, on):
        return contextlib.nullcontext()

    def _capture(self):
        self.captured += 1
        return self

    def replay(self):
        self.replayed += 1
        self._take(self._images, self._labels)


class FailingGraph(PretendGraph):
    def _capture(self):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore lines")


@pytest.mark.parametrize("kind", [PretendGraph, FailingGraph])
def test_graph_steps_equal_ordinary_ones(kind, monkeypatch):
    made = []

    def make(*args, device, half, graphs):
        made.append(kind(*args, device=device, half=half))
        return made[0]

    plain, graphed = network(dropout=0.3), network(dropout=0.3)
    quick(plain, augment=shift(1), test=pictures(8))
    monkeypatch.setattr(loop, "make_step", make)
    run = quick(graphed, augment=shift(1), test=pictures(8))
    assert same(plain, graphed)
    if kind is PretendGraph:
        assert (made[0].captured, made[0].replayed) == (1, 17) and run.notes == []
    else:
        assert len(run.notes) == 1 and "operation not permitted when stream is capturing)" in run.notes[0]


def test_steps_that_wait_for_the_device_are_not_recorded(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    step = steps.GraphStep(
        network(), F.cross_entropy, None, steps.make_optimizer(network(), 0.1, 0, CPU), device=CPU, half=None
    )
    with step._listening(True):
        warnings.warn("called a synchronizing CUDA operation")
    assert modes == ["warn", 0] and "waits for the device" in step.notes[0]


def test_without_cuda_steps_are_ordinary():
    args = (network(), F.cross_entropy, None, steps.make_optimizer(network(), 0.1, 0, CPU))
    assert type(steps.make_step(*args, device=CPU, half=None, graphs=True)) is steps.Step


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("graphs", [True, False])
def test_on_a_gpu(graphs):
    model = network(dropout=0.1)
    options = {"steps": 60, "batch": 16, "progress": False, "augment": shift(0)}
    run = fit(model, pictures(), pictures(64, seed=1), graphs=graphs, **options)
    assert run.accuracy > 0.9 and run.notes == []
    assert model[0].weight.device == CPU and run.settings["precision"] in ("bfloat16", "float16")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_step_that_waits_is_taken_without_a_graph():
    class Waits(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            return self.net(x) * (1.0 if x.sum().item() > 0 else 0.5)

    run = fit(Waits(), pictures(), steps=30, batch=16, progress=False)
    assert run.steps == 30 and "waits for the device" in run.notes[0]


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_bar_is_shown_and_can_be_off_or_silenced(capsys):
    quick(network(), progress=True)
    assert "100%" in capsys.readouterr().err
    quick(network(), progress=False, live=True)  # outside a notebook, live draws nothing and breaks nothing
    with session.quiet():
        quick(network(), progress=True)
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out == ""


def test_live_curves_are_updated_in_place_and_seldom(monkeypatch):
    shown, updates = [], []

    class Handle:
        def update(self, figure):
            updates.append(figure)

    def display(figure, display_id):
        shown.append(figure)
        return Handle()

    import IPython.display

    monkeypatch.setattr(session, "in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", display)
    began = time.perf_counter()
    run = quick(network(), test=pictures(16), live=True, every=1)
    took = time.perf_counter() - began
    assert len(shown) == 1 and 1 <= len(updates) <= 1 + 2 * took
    assert f"after {run.steps} steps" in updates[-1].alt and "test accuracy" in updates[-1].alt


def test_in_notebook_is_false_here():
    assert session.in_notebook() is False


def test_repr_says_what_happened():
    run = quick(network(), test=pictures(20))
    assert repr(run) == f"Run(20 steps on cpu, test accuracy {run.accuracy:.4f})"


def test_fit_is_reached_from_the_package():
    assert attnlib.fit is fit
