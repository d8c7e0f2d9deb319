"""The training viewer: its numbers are those of the runs, and it says what it shows."""

import base64
import dataclasses
import signal
import sys

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from attnlib import create, fit
from attnlib.attention import Attention, Description
from attnlib.channel.se import SE
from attnlib.train import Run
from attnlib.widgets.training import Training, training

torch.manual_seed(0)
IMAGES, LABELS = torch.rand(64, 3, 5, 7), torch.randint(0, 2, (64,))


def network(*attention):
    return nn.Sequential(nn.Conv2d(3, 4, 1), *attention, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


@pytest.fixture(scope="module")
def runs():
    def trained(model, **options):
        return fit(model, (IMAGES, LABELS), (IMAGES, LABELS), steps=30, batch=8, every=10, progress=False, **options)

    return {"without": trained(network()), "with SE": trained(network(create("se", 4, reduction=2)), record=IMAGES[:3])}


def run(rows, snapshots=(), **columns):
    """A run as `fit` would return it, with a row at each of these steps."""
    columns = columns or {"loss": np.linspace(2, 1, len(rows)), "accuracy": np.linspace(0.25, 0.5, len(rows))}
    history = pandas.DataFrame({"step": rows, **columns})
    state = {"step": max(rows, default=0), "seconds": 1.0}
    return Run(history, list(snapshots), [], False, {"device": "cpu"}, state)


def weights(steps, *shape, low=0.0, high=1.0):
    made = torch.Generator().manual_seed(0)
    return [(step, {"layer.attention": low + (high - low) * torch.rand(*shape, generator=made)}) for step in steps]


def unpacked(packed):
    """Independent of `pack` and of the script: bytes to numbers between low and high."""
    raw = np.frombuffer(base64.b64decode(packed["q"]), np.uint8).reshape(packed["shape"])
    return packed["low"] + raw / 255 * (packed["high"] - packed["low"])


def test_curves_are_those_of_the_test_set(runs):
    for told, history in zip(training(runs).data["runs"], (r.history for r in runs.values())):
        assert told["tested"] and told["steps"] == [10, 20, 30]
        assert told["loss"] == pytest.approx(history["test_loss"], rel=1e-3)
        assert told["accuracy"] == pytest.approx(history["test_accuracy"], rel=1e-3)


def test_curves_without_a_test_set_are_those_of_the_training():
    shown = training(run([5, 10]))
    assert shown.data["runs"][0]["loss"] == [2, 1] and shown.data["kind"] == "training "
    assert shown.alt == ("training: loss 2.00 at step 5, 1.00 at step 10, at best 1.00 at step 10; "
                         "accuracy 0.25 at step 5, 0.50 at step 10, at best 0.50 at step 10.")


def test_runs_of_both_kinds_say_which_they_are():
    shown = training({"a": run([5]), "b": run([5], loss=[3.0], test_loss=[1.0])})
    assert [told["title"] for told in shown.data["runs"]] == ["a (training)", "b (test)"] and shown.data["kind"] == ""
    assert "accuracy" not in shown.data["runs"][1] and shown.data["limits"]["accuracy"] == [0, 1]


def test_weights_are_those_recorded_within_a_step_of_quantisation(runs):
    shown = training(runs)
    (layer,) = shown.data["layers"]
    recorded = np.stack([value["1"].numpy() for _, value in runs["with SE"].snapshots])
    assert (layer["run"], layer["title"], layer["axis"], layer["map"], layer["size"]) == (1, "1", "channel", None, [4])
    assert layer["steps"] == [0, 10, 20, 30] and layer["choose"] == []
    seen = unpacked(layer["values"]).reshape(recorded.shape)
    assert np.abs(seen - recorded).max() <= (recorded.max() - recorded.min()) / 255 / 2 + 1e-7


def test_every_snapshot_but_the_first_stands_at_a_row(runs):
    data = training(runs).data
    assert data["steps"] == [0, 10, 20, 30] and data["start"] == 3 and data["last"] == 30
    assert set(data["layers"][0]["steps"]) - {0} <= set(data["runs"][1]["steps"])


def test_runs_with_other_steps_share_one_slider():
    data = training({"short": run([4, 8]), "long": run([5, 10, 15])}).data
    assert data["steps"] == [4, 5, 8, 10, 15] and data["runs"][0]["steps"] == [4, 8]


@pytest.mark.parametrize("start, place", [(None, 2), (0, 0), (7, 0), (10, 1), (99, 2)])
def test_start_is_the_nearest_step_before(start, place):
    assert training(run([5, 10, 15]), start=start).data["start"] == place


def test_interrupted_run_is_shown_as_far_as_it_went():
    def augment(images):
        augment.calls += 1
        if augment.calls == 2:
            signal.raise_signal(signal.SIGINT)
        return images

    augment.calls = 0
    stopped = fit(network(create("se", 4, reduction=2)), (IMAGES, LABELS), steps=30, batch=8, every=5,
                  record=IMAGES[:2], augment=augment, progress=False)
    assert stopped.interrupted
    data = training({"whole": run([10, 20, 30]), "stopped": stopped}).data
    assert data["last"] == 30 and data["runs"][1]["steps"][-1] == stopped.steps == data["layers"][0]["steps"][-1] < 30


def test_maps_have_a_control_for_every_other_axis():
    (layer,) = training(run([5], weights([0, 5], 2, 3, 4, 6))).data["layers"]
    assert (layer["map"], layer["size"], layer["choose"]) == ("map", [4, 6], [["channel", 3]])
    assert layer["values"]["shape"] == [2, 2, 3, 4, 6]
    recorded = torch.stack([value["layer.attention"] for _, value in weights([0, 5], 2, 3, 4, 6)]).numpy()
    assert np.abs(unpacked(layer["values"]) - recorded).max() < 1 / 255


@pytest.mark.parametrize("shape, is_map, size, choose", [
    ((2, 5), None, [5], []), ((2, 5, 1, 1), None, [5], []), ((2, 1, 4, 6), "map", [4, 6], []),
    ((2, 9, 9), None, [9], [["query", 9]]), ((2, 6, 6), None, [6], [["query", 6]]), ((2, 1, 1, 1), None, [1], []),
])
def test_shape_tells_what_is_drawn(shape, is_map, size, choose):
    (layer,) = training(run([5], weights([5], *shape))).data["layers"]
    assert (layer["map"], layer["size"], layer["choose"]) == (is_map, size, choose)


def over_keys(count, fields=()):
    """A run with maps of `count` keys for one query, as a mechanism of positions leaves them."""
    made = torch.linspace(0, 1, count).expand(1, count, count)
    recorded = run([5], [(5, {"first": made, "last": made})])
    recorded.fields.update(fields)
    return recorded


def test_keys_lie_as_they_did_when_fit_recorded_them():
    shown = training(over_keys(24, {"first": (4, 6), "last": (3, 8)}))
    assert [(layer["map"], layer["size"], layer["axis"]) for layer in shown.data["layers"]] == [
        ("map", [4, 6], "key"), ("map", [3, 8], "key")]
    assert "unknown" not in shown.alt


@pytest.mark.parametrize("fields", [{}, {"first": (5, 5)}, {"last": (4, 4)}])
def test_keys_of_an_unknown_grid_stand_in_a_row_and_this_is_said(fields):
    # 16 is a square, which says nothing: they could be 2 rows of 8.
    shown = training(over_keys(16, fields), only="first")
    (layer,) = shown.data["layers"]
    assert (layer["map"], layer["size"], layer["axis"]) == (None, [16], "key (grid unknown)")
    assert shown.alt.endswith("Its 16 positions stand in a row, as their grid is unknown.")


def test_a_grid_can_be_given():
    fields = {"first": (4, 4), "last": (4, 4)}
    assert [layer["size"] for layer in training(over_keys(16, fields), grid=(2, 8)).data["layers"]] == [[2, 8]] * 2
    with pytest.raises(ValueError, match="no weights were recorded of 15 positions, 3 rows of 5"):
        training(over_keys(16, fields), grid=(3, 5))


def test_what_fit_records_of_positions_is_drawn_as_they_lie():
    class Where(Attention):
        about = Description(title="w", paper="", cite="", axes=("batch", "key"), shape=("B", "N"), kind="softmax",
                            sums_over=("key",))

        def attend(self, x):
            return x.mean(1).flatten(1).softmax(1)

        def use(self, x, weights):
            return x * weights.view_as(x[:, :1])

    model = network(Where())
    run = fit(model, (IMAGES, LABELS), steps=2, batch=8, progress=False, record=IMAGES[:2])
    (layer,) = training(run, network=model).data["layers"]
    assert (layer["map"], layer["size"]) == ("map", [5, 7])
    recorded = run.snapshots[-1][1]["1"]
    assert np.abs(unpacked(layer["values"])[-1] - recorded.numpy()).max() <= np.ptp(recorded.numpy()) / 255 + 1e-6


def test_axes_are_asked_of_the_network():
    class Rows(SE):
        def describe(self):
            return dataclasses.replace(self.about, axes=("batch", "head", "channel"), bounds=(-1.0, 3.0))

    snapshots = [(5, {"1": torch.arange(30.0).reshape(1, 5, 6) / 30})]
    (guessed,) = training(run([5], snapshots)).data["layers"]
    (asked,) = training(run([5], snapshots), network=network(Rows(4, reduction=2))).data["layers"]
    assert (guessed["choose"], guessed["axis"]) == ([["query", 5]], "key (grid unknown)")
    assert (asked["choose"], asked["axis"], asked["limits"]) == ([["head", 5]], "channel", [-1.0, 3.0])


def test_axes_are_put_in_the_order_they_are_drawn(monkeypatch):
    # The function has the module's name, and hides it.
    monkeypatch.setitem(sys.modules["attnlib.widgets.training"]._GUESSES, 3, ("row", "column", "channel"))
    snapshots = [(5, {"a": torch.arange(24.0).reshape(1, 2, 3, 4)})]
    (layer,) = training(run([5], snapshots)).data["layers"]
    assert layer["values"]["shape"] == [1, 1, 4, 2, 3]
    assert np.abs(unpacked(layer["values"])[0, 0, 1].ravel() - [1, 5, 9, 13, 17, 21]).max() < 0.1


def test_signed_maps_are_even_around_zero():
    (layer,) = training(run([5], weights([5], 1, 1, 4, 4, low=-1, high=0.5))).data["layers"]
    low, high = layer["limits"]
    assert layer["map"] == "signed" and low == -high and high == pytest.approx(1, abs=0.1)


def test_only_chooses_layers():
    snapshots = [(5, {name: torch.rand(2, 4) for name in ("a.0", "a.1", "b")})]
    titles = [layer["title"] for layer in training(run([5], snapshots), only="a.*").data["layers"]]
    assert titles == ["a.0", "a.1"]
    with pytest.raises(ValueError, match="no weights are recorded of 'c'; there are: a.0, a.1, b"):
        training(run([5], snapshots), only="c")


def test_layers_of_two_runs_say_whose_they_are():
    shown = training({name: run([5], weights([5], 2, 4)) for name in ("one", "two")})
    assert [layer["title"] for layer in shown.data["layers"]] == ["one: layer.attention", "two: layer.attention"]


def test_pictures_have_names():
    recorded = run([5], weights([5], 2, 4))
    assert training(recorded).data["pictures"] == ["1", "2"]
    assert training(recorded, labels=["cat", "dog", "cow"]).data["pictures"] == ["cat", "dog"]
    with pytest.raises(ValueError, match="2 pictures were recorded, but there are 1 labels"):
        training(recorded, labels=["cat"])


@pytest.mark.parametrize("snapshots", [[], [(0, None), (5, None)], [(0, 1.5), (5, 2.5)]])
def test_without_weights_there_are_the_charts_alone(snapshots):
    shown = training({"plain": run([5], snapshots)})
    assert shown.data["layers"] == [] and shown.data["pictures"] == [] and "ramps" not in shown.data
    assert ("no attention weights: snapshots of plain." in shown.alt) == bool(snapshots)


def test_values_that_are_no_weights_are_named():
    snapshots = [(step, {"a": torch.rand(2, 4), "note": "x", "changing": torch.rand(1 + step, 3)}) for step in (0, 5)]
    shown = training(run([5], snapshots))
    assert [layer["title"] for layer in shown.data["layers"]] == ["a"]
    assert "snapshots of note, changing." in shown.alt


def test_alt_tells_first_last_and_best(runs):
    shown = training({"it": run([5, 10, 15], loss=[1.0, 0.25, 0.5], accuracy=[0.1, 0.9, 0.8])})
    assert "loss 1.00 at step 5, 0.50 at step 15, at best 0.25 at step 10" in shown.alt
    assert "accuracy 0.10 at step 5, 0.80 at step 15, at best 0.90 at step 10" in shown.alt
    first = runs["with SE"].snapshots[0][1]["1"]
    assert f"at step 0 between {first.min():.2f} and {first.max():.2f}" in training(runs).alt
    assert training(runs).name == "Training: without and with SE"
    assert training(runs, name="N", alt="A", caption="C").get_state(["name", "alt", "caption"]) == {
        "name": "N", "alt": "A", "caption": "C"}


def test_scale_of_the_loss_ends_at_a_round_number():
    for top, end in ((2.02, 2.5), (0.68, 0.8), (1.0, 1.0), (1.01, 1.5), (137.0, 150.0)):
        assert training(run([1, 2], loss=[top, 0.1])).data["limits"]["loss"] == [0, end]
    assert training(run([1, 2], loss=[0.4, -1.7])).data["limits"]["loss"] == [-2, 0.4]
    assert training(run([1], loss=[0.0])).data["limits"]["loss"] == [0, 1]


def test_long_histories_are_thinned_with_both_ends():
    told = training(run(list(range(1, 5001)))).data["runs"][0]
    assert len(told["steps"]) == 200 and told["steps"][0] == 1 and told["steps"][-1] == 5000
    assert told["loss"][100] == pytest.approx(2 - (told["steps"][100] - 1) / 4999, rel=1e-3)


def test_two_runs_weigh_little():
    steps = list(range(10, 210, 10))
    two = {"without": run(steps), "with": run(steps, weights([0, *steps], 8, 32, 1, 1))}
    assert len(two["with"].snapshots) == 21 and len(steps) == 20
    assert training(two).bytes < 40_000
    with pytest.raises(ValueError, match="more than the 200 kB"):
        training(run(steps, weights([0, *steps], 8, 12, 32, 32)))


def test_nothing_changes_between_two_times(runs):
    assert training(runs).data == training(runs).data and isinstance(training(runs), Training)
    assert repr(training(runs)) == "Training('Training: without and with SE')"


@pytest.mark.parametrize("bad, error, says", [
    ({}, ValueError, "there is no run to show"),
    (run([], loss=[]), ValueError, "the run has no history"),
    ({"a": run([], loss=[])}, ValueError, "the run 'a' has no history"),
    (pandas.DataFrame(), TypeError, "what fit returned, a Run, not a DataFrame"),
    ({"a": None}, TypeError, "not a NoneType"),
    ({"": run([1]), "b": run([1])}, ValueError, "has no name"),
    ({"a": run([1, 2], loss=[1, float("nan")])}, ValueError, "loss of the run 'a' holds values that are no finite"),
    (run([1], loss=[1.0], test_loss=[float("inf")]), ValueError, "test_loss of the run holds values"),
    (run([1], [(1, {"x": torch.tensor([[1.0, float("nan")]])})]), ValueError, "weights of 'x' hold values that are no"),
])
def test_bad_runs_are_refused_in_a_sentence(bad, error, says):
    with pytest.raises(error, match=says) as raised:
        training(bad)
    assert "\n" not in str(raised.value)
