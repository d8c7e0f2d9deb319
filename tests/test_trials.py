"""Comparisons: statistics against scipy's own, verdicts by construction, pairing, and what happens when runs fail."""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import time

import numpy
import pandas
import pytest
import scipy.stats
import torch
from torch import nn

import attnlib
from attnlib.trials import (
    CONTRADICTED, HOLDS, NO_DIFFERENCE, UNKNOWN, ArmError, Comparison, Effect, compare, describe_machine,
)


def comparison(delta=0.05, baseline="none", **arms) -> Comparison:
    """A comparison with these results, one per seed."""
    rows = [
        {"arm": arm, "seed": seed, "accuracy": value}
        for arm, values in arms.items() for seed, value in enumerate(values)
    ]
    return Comparison(pandas.DataFrame(rows), delta, baseline)


def quick(arms, seeds=3, **options) -> Comparison:
    return compare(arms, seeds, **({"delta": 0.1, "workers": 1, "progress": False} | options))


# --- statistics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 8, 40])
def test_effect_equals_scipys_paired_test(n):
    rng = numpy.random.default_rng(n)
    one, other = rng.normal(0.8, 0.1, n), rng.normal(0.7, 0.1, n)
    effect = comparison(se=one, none=other).effect("se")
    expected = scipy.stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert effect.mean == pytest.approx(numpy.mean(one - other)) and effect.n == n
    assert effect.sd == pytest.approx(numpy.std(one - other, ddof=1))
    assert effect.differences == pytest.approx(one - other)


def test_table_gives_the_interval_of_each_mean():
    values = [0.5, 0.7, 0.9, 0.6]
    table = comparison(none=values, se=[0.9] * 4).table()
    low, high = scipy.stats.t.interval(0.95, 3, numpy.mean(values), scipy.stats.sem(values))
    assert table.loc["none", ["mean", "low", "high"]].tolist() == pytest.approx([numpy.mean(values), low, high])
    assert list(table.columns) == ["mean", "low", "high", "effect", "effect_low", "effect_high", "verdict"]
    assert table.loc["none", "verdict"] == "" and math.isnan(table.loc["none", "effect"])
    assert table.loc["se", "effect"] == pytest.approx(0.9 - numpy.mean(values))


@pytest.mark.parametrize("n", [5, 8, 10, 20])
def test_detectable_effect_has_eighty_percent_power(n):
    effect = Effect.of(numpy.random.default_rng(0).normal(0, 0.02, n), 0.01)
    far = effect.detectable * math.sqrt(n) / effect.sd
    critical = scipy.stats.t.ppf(0.975, n - 1)
    assert scipy.stats.nct.sf(critical, n - 1, far) == pytest.approx(0.8, abs=1e-6)


def test_detectable_effects_known_from_tables():
    for n, expected in ((5, 1.7), (10, 1.0), (20, 0.66)):
        effect = Effect.of(numpy.random.default_rng(0).normal(0, 1, n), 0.01)
        assert effect.detectable / effect.sd == pytest.approx(expected, abs=0.05)
    assert Effect.of([0.1], 0.01).detectable == math.inf
    assert Effect.of([0.1, 0.1], 0.01).detectable == 0


# Differences with mean m and a 95 % interval of m ± 1, from three seeds.
UNIT = 1 / (scipy.stats.t.ppf(0.975, 2) / math.sqrt(3))


@pytest.mark.parametrize("mean, half, delta, verdict", [
    (3.0, 1.0, 2.0, HOLDS),
    (3.0, 1.0, 3.0, HOLDS),                # a mean of just delta
    (3.0, 1.0, 3.5, UNKNOWN),              # above 0, but smaller than what matters, and perhaps not
    (0.5, 0.1, 1.0, NO_DIFFERENCE),        # above 0, but surely too small to matter
    (3.0, 3.5, 2.0, UNKNOWN),              # large, but perhaps nothing
    (0.0, 1.0, 2.0, NO_DIFFERENCE),
    (0.0, 1.0, 0.9, UNKNOWN),
    (-3.0, 1.0, 2.0, CONTRADICTED),
    (-0.5, 0.1, 1.0, NO_DIFFERENCE),       # surely below 0, and surely too little to matter
    (-0.5, 0.6, 2.0, NO_DIFFERENCE),
    (-3.0, 3.5, 2.0, UNKNOWN),             # below delta, but perhaps far below 0
])
def test_verdicts(mean, half, delta, verdict):
    differences = [mean - half * UNIT, mean, mean + half * UNIT]
    effect = Effect.of(differences, delta)
    assert (effect.low, effect.high) == pytest.approx((mean - half, mean + half))
    assert effect.verdict == verdict


def test_degenerate_verdicts():
    one = Effect.of([0.5], 0.1)
    assert (one.low, one.high, one.verdict) == (-math.inf, math.inf, UNKNOWN) and math.isnan(one.sd)
    for value, verdict in ((0.0, NO_DIFFERENCE), (0.5, HOLDS), (-0.5, CONTRADICTED), (0.05, NO_DIFFERENCE)):
        same = Effect.of([value] * 6, 0.1)
        assert same.sd == 0 and same.low == same.high == value and same.verdict == verdict


def test_effects_between_any_two_arms_and_metrics():
    runs = pandas.DataFrame({"arm": ["a", "b", "c"] * 2, "seed": [0] * 3 + [1] * 3,
                             "accuracy": [0.1, 0.2, 0.4, 0.1, 0.3, 0.6], "seconds": [1.0, 2.0, 3.0, 1.0, 2.0, 4.0]})
    trial = Comparison(runs, 0.05, "a")
    assert trial.effect("c").mean == pytest.approx(0.4)
    assert trial.effect("c", against="b").mean == pytest.approx(0.25)
    assert trial.effect("c", metric="seconds").mean == pytest.approx(2.5)
    assert trial.effect("a").mean == 0
    with pytest.raises(KeyError, match="no arm 'd'; there are: a, b, c"):
        trial.effect("d")
    with pytest.raises(KeyError, match="no metric 'loss'; there are: accuracy, seconds"):
        trial.effect("b", metric="loss")


def test_pairs_by_seed_whatever_the_order_of_the_rows():
    trial = comparison(none=[0.1, 0.2, 0.3], se=[0.2, 0.4, 0.6])
    trial.runs = pandas.concat([trial.runs.iloc[:3], trial.runs.iloc[3:].iloc[::-1]])
    assert trial.effect("se").differences == pytest.approx([0.1, 0.2, 0.3])


# --- running ---------------------------------------------------------------------------------------------------------


def test_every_arm_gets_every_seed():
    calls = []

    def arm(name):
        return lambda seed: calls.append((name, seed)) or seed / 10

    trial = quick({"none": arm("none"), "se": arm("se")}, seeds=[3, 1])
    assert calls == [("none", 3), ("se", 3), ("none", 1), ("se", 1)]  # seed by seed
    assert trial.seeds == [3, 1] and trial.arms == ["none", "se"] and trial.baseline == "none"
    assert trial.runs["accuracy"].tolist() == [0.3, 0.3, 0.1, 0.1]


def test_results_do_not_depend_on_the_number_of_workers():
    """Closures over data, networks trained by `fit`, and every global source of random numbers."""
    images = torch.rand(48, 1, 6, 7)
    labels = (images.mean((1, 2, 3)) > 0.5).long()

    def arm(width):
        def run(seed):
            first = torch.rand(()).item()
            model = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 20, 2))
            accuracy = attnlib.fit(model, (images, labels), steps=6, batch=16, seed=seed, device="cpu").accuracy
            return {"accuracy": accuracy, "weight": model[0].weight.sum().item(), "first": first,
                    "torch": torch.rand(()).item(), "numpy": numpy.random.rand(), "python": random.random(), "threads": torch.get_num_threads()}

        return run

    arms = {"narrow": arm(2), "wide": arm(4)}
    state, threads = (torch.get_rng_state(), random.getstate()), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        here = quick(arms, workers=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state[0]) and random.getstate() == state[1]
    there = quick(arms, workers=2)
    pandas.testing.assert_frame_equal(here.runs, there.runs, check_exact=True)
    assert set(here.runs["threads"]) == {1}
    assert here.runs["first"][0] == here.runs["first"][1] != here.runs["first"][2]  # paired by seed


def test_workers_run_at_the_same_time():
    def arm(seed):
        time.sleep(0.4)
        return os.getpid()

    quick({"a": lambda seed: 0.0}, workers=2)  # start the processes
    began = time.perf_counter()
    trial = quick({"a": arm, "b": arm}, seeds=2, workers=2)
    assert time.perf_counter() - began < 1.5
    assert len(set(trial.runs["accuracy"])) == 2 and os.getpid() not in trial.runs["accuracy"].tolist()


def test_runs_of_an_arm_do_not_share_what_it_holds_between_processes():
    kept = []
    trial = quick({"a": lambda seed: kept.append(seed) or len(kept)}, seeds=4, workers=2)
    assert trial.runs["accuracy"].tolist() == [1, 1, 1, 1] and kept == []


def test_bar_is_shown_once_and_runs_are_silent(capsys):
    data = torch.rand(20, 1, 4, 4), torch.randint(2, (20,))
    network = lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 2))  # noqa: E731
    quick({"a": lambda seed: attnlib.fit(network(), data, steps=3, device="cpu").accuracy}, progress=True)
    captured = capsys.readouterr()
    assert "3/3" in captured.err and captured.err.count("100%") <= 2 and captured.out == ""


def test_machine_is_described():
    known = quick({"a": lambda seed: 1.0}).machine
    assert {"cpu", "cores", "threads", "python", "torch", "workers", "seconds"} <= known.keys()
    assert known["workers"] == 1 and describe_machine()["cores"] >= 1


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_failure_names_arm_seed_and_cause(workers):
    def broken(seed):
        return 1 / (seed - 2)

    message = "arm 'broken' failed with seed 2: ZeroDivisionError: division by zero"
    with pytest.raises(ArmError, match=message) as caught:
        quick({"fine": lambda seed: 1.0, "broken": broken}, seeds=4, workers=workers)
    assert "return 1 / (seed - 2)" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("result, message", [
    (math.nan, "accuracy = nan"),
    (math.inf, "accuracy = inf"),
    ("good", "a number or a dict of numbers, not str"),
    (None, "a number or a dict of numbers, not NoneType"),
    ({"loss": 1.0}, "returned loss, but not the metric 'accuracy'"),
    ({}, "returned nothing, but not the metric"),
])
def test_results_that_are_none(result, message):
    with pytest.raises(ArmError, match=f"arm 'se' failed with seed 0: .*{message}"):
        quick({"none": lambda seed: 0.5, "se": lambda seed: result})


def test_numbers_of_all_kinds_are_taken():
    kinds = {"a": lambda s: torch.tensor(0.5), "b": lambda s: numpy.float32(0.5), "c": lambda s: 1, "d": lambda s: True}
    assert quick(kinds, seeds=1).runs["accuracy"].tolist() == [0.5, 0.5, 1, 1]


def test_arms_with_different_metrics_are_refused():
    arms = {"a": lambda seed: 0.5, "b": lambda seed: {"accuracy": 0.5, "loss": 1.0}}
    with pytest.raises(ValueError, match="arm 'b' returned accuracy, loss, but 'a' accuracy"):
        quick(arms)


def test_what_cannot_be_sent_is_said():
    import threading

    lock = threading.Lock()
    with pytest.raises(ArmError, match="arm 'a' holds something that cannot be sent.*workers=1"):
        quick({"a": lambda seed: float(lock.locked())}, workers=2)
    assert quick({"a": lambda seed: float(lock.locked())}).seeds == [0, 1, 2]


@pytest.mark.parametrize("options, kind, message", [
    ({"arms": {}}, TypeError, "arms is a dict of functions"),
    ({"arms": {"a": 3}}, TypeError, "arms is a dict of functions"),
    ({"baseline": "b"}, ValueError, "baseline 'b' is none of the arms: a"),
    ({"seeds": 0}, ValueError, "seeds is how many"),
    ({"seeds": [1, 1]}, ValueError, "seeds is how many"),
    ({"seeds": [0.5]}, ValueError, "seeds is how many"),
    ({"delta": 0}, ValueError, "delta is the smallest difference"),
    ({"delta": -1}, ValueError, "delta is the smallest difference"),
    ({"delta": math.nan}, ValueError, "delta is the smallest difference"),
    ({"workers": 0}, ValueError, "workers is a number of processes"),
])
def test_bad_arguments(options, kind, message):
    with pytest.raises(kind, match=message):
        quick(**({"arms": {"a": lambda seed: 1.0}} | options))


def test_delta_must_be_given():
    with pytest.raises(TypeError, match="delta"):
        compare({"a": lambda seed: 1.0})


# --- interruption ----------------------------------------------------------------------------------------------------


def ctrl_c_at(seed_of_press, process):
    def arm(seed):
        if seed == seed_of_press:
            time.sleep(1)  # until the runs before have arrived
            os.kill(process, signal.SIGINT)
            time.sleep(5)
        return float(seed)

    return arm


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_keeps_the_complete_seeds(workers):
    arms = {"none": lambda seed: 0.5, "se": ctrl_c_at(2, os.getpid())}
    began = time.perf_counter()
    trial = quick(arms, seeds=6, workers=workers)
    assert trial.interrupted and trial.seeds[:2] == [0, 1] and 2 not in trial.seeds
    assert trial.effect("se").n == len(trial.seeds)
    assert "interrupted" in repr(trial)
    assert time.perf_counter() - began < 15
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not quick(arms, seeds=2, workers=workers).interrupted  # and the next comparison works


def test_ctrl_c_with_nothing_complete_is_raised():
    with pytest.raises(KeyboardInterrupt):
        quick({"none": lambda seed: 0.5, "se": ctrl_c_at(0, os.getpid())})


def test_a_half_trained_network_is_no_result():
    """`fit` returns what it has on Ctrl-C; inside a comparison that must not count."""
    data = torch.rand(40, 1, 4, 4), torch.randint(2, (40,))

    def arm(seed):
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))

        def press(model):
            if seed == 1:
                os.kill(os.getpid(), signal.SIGINT)

        return attnlib.fit(model, data, steps=20, batch=8, record=press, device="cpu").accuracy

    trial = quick({"a": arm})
    assert trial.interrupted and trial.seeds == [0]


# --- files and pictures ----------------------------------------------------------------------------------------------


def test_save_and_load(tmp_path):
    trial = quick({"none": lambda seed: {"accuracy": 0.1 * seed, "loss": 1 / 3}, "größer": lambda seed: {
        "accuracy": 0.2 * seed, "loss": 2 / 3}}, delta=0.02)
    trial.save(tmp_path / "deep" / "se.json")
    back = Comparison.load(tmp_path / "deep" / "se.json")
    pandas.testing.assert_frame_equal(back.runs, trial.runs, check_exact=True)
    assert (back.delta, back.baseline, back.metric, back.machine, back.interrupted) == (
        trial.delta, trial.baseline, trial.metric, trial.machine, trial.interrupted
    )
    assert repr(back) == repr(trial)
    assert json.loads((tmp_path / "deep" / "se.json").read_text())["seeds"] == [0, 1, 2]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["se.json"]


def test_absent_and_damaged_files_say_which_command_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"make results ONLY=.*se\.py"):
        Comparison.load(tmp_path / "se.json")
    quick({"a": lambda seed: 0.5}).save(tmp_path / "se.json")
    content = (tmp_path / "se.json").read_text()
    broken = json.loads(content)
    del broken["runs"][0]["accuracy"]
    other_version = content.replace('"attnlib_comparison": 1', '"attnlib_comparison": 9')
    other_baseline = content.replace('"baseline": "a"', '"baseline": "b"')
    for damaged in (content[:-30], "", "[]", "{}", other_version, other_baseline, json.dumps(broken),
                    json.dumps(broken | {"runs": []}), json.dumps(broken | {"runs": broken["runs"][1:] * 2})):
        (tmp_path / "se.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"damaged or no comparison.*make results ONLY"):
            Comparison.load(tmp_path / "se.json")


def test_text_and_html_name_what_was_found():
    trial = comparison(none=[0.5, 0.51, 0.52], se=[0.9, 0.92, 0.91])
    assert "holds" in repr(trial) and "3 seeds" in repr(trial) and "nan" not in repr(trial)
    assert "<table" in trial._repr_html_() and "delta 0.05" in trial._repr_html_()
    assert str(trial.effect("se")) == "se − none: +0.4 (95 % interval +0.375 to +0.425, 3 seeds): holds"


LONG = "a static gate with as many parameters as the other one has, and a name that is far too long"


@pytest.mark.parametrize("names", [
    ["se"], ["se", "eca", LONG], ["x" * 90], [f"arm {number}" for number in range(10)],
    [f"{LONG} {number}" for number in range(10)],
])
@pytest.mark.parametrize("seeds", [1, 8])
def test_forest_plot_shows_every_seed_and_no_text_overlaps(names, seeds):
    rng = numpy.random.default_rng(0)
    arms = {name: rng.normal(0.5 + 0.1 * number, 0.02, seeds) for number, name in enumerate(["none", *names])}
    trial = comparison(**arms)
    figure = trial.plot()
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert figure.get_figwidth() == 4.8
    points = [line for line in axes.lines if line.get_marker() == "o"]
    for line, name in zip(points, names, strict=True):
        assert sorted(line.get_xdata()) == pytest.approx(sorted(trial.effect(name).differences))
    bars = [line for line in axes.lines if line.get_marker() == "|"]
    assert len(bars) == (len(names) if seeds > 1 else 0)
    for line, name in zip(bars, names):
        assert tuple(line.get_xdata()) == (trial.effect(name).low, trial.effect(name).high)
    for text, name in zip(axes.texts, names, strict=True):
        told = re.sub(r"\s", "", text.get_text())
        assert told.startswith(re.sub(r"\s", "", f"{name} — "))
        assert told.rstrip(")").endswith(re.sub(r"\s", "", trial.effect(name).verdict))

    low, high = axes.get_xlim()
    numbers = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    labels = [*axes.texts, *numbers, axes.xaxis.label]
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    marks = [line for line in axes.lines if line.get_marker() in ("o", "D", "|")]
    boxes += [points.get_window_extent() for points in marks if points.get_marker() == "o"]
    for text, points in zip(axes.texts, [line for line in marks if line.get_marker() == "o"], strict=True):
        assert text.get_window_extent().y0 > points.get_window_extent().y1 and text.get_window_extent().x0 < 10
    assert not any(mark.get_window_extent().overlaps(text.get_window_extent()) for mark in marks for text in axes.texts)
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 and box.y1 <= figure.bbox.height


def test_forest_plot_says_better_and_worse_and_leaves_the_verdicts_as_they_are():
    trial = comparison(none=[0.5, 0.51, 0.52], se=[0.9, 0.92, 0.91], static=[0.1, 0.12, 0.1], same=[0.51, 0.5, 0.52])
    told = [text.get_text().replace("\N{NO-BREAK SPACE}", " ") for text in trial.plot().axes[0].texts]
    assert told == ["se — better (holds)", "static — worse (contradicted)", "same — no difference"]
    assert [trial.effect(arm).verdict for arm in trial.arms[1:]] == ["holds", "contradicted", "no difference"]


def test_forest_plot_says_by_little_where_a_sure_difference_is_smaller_than_delta():
    trial = comparison(delta=0.01, none=[0.0] * 4, up=[0.002, 0.007, 0.009, 0.014], down=[-0.002, -0.007, -0.009, -0.014],
                       either=[-0.02, 0.02, -0.01, 0.03])
    told = [text.get_text().replace("\N{NO-BREAK SPACE}", " ").replace("\n", " ") for text in trial.plot().axes[0].texts]
    unknown = "cannot be told at this size"
    assert told == [f"up — better, but by little ({unknown})", "down — worse, but by little (contradicted)", f"either — {unknown}"]
    assert "less than 0.01" in trial.plot().axes[0].get_xlabel()


def test_forest_plot_into_given_axes_and_of_nothing():
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    assert comparison(none=[0.1, 0.2], se=[0.3, 0.4]).plot(axes) is figure
    with pytest.raises(ValueError, match="second arm"):
        comparison(none=[0.1, 0.2]).plot()
