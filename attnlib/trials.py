"""The same experiment over several seeds: paired effects with an interval, and a verdict in words.

    >>> trial = compare({"none": lambda seed: ..., "se": lambda seed: ...}, seeds=8, delta=0.01)
    >>> trial.effect("se")
    se − none: +0.372 (95 % interval +0.369 to +0.375, 8 seeds): holds

Each arm is a function of the seed. Every arm gets the same seeds, so that what the data and the initialisation do to
the result cancels in the difference. The smallest difference of interest, delta, is fixed before the first run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import html
import json
import math
import os
import platform
import random
import signal
import statistics
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from attnlib.train.session import one_thread, own_rng, pick_device, quiet

Arm = Callable[[int], "float | Mapping[str, float]"]

HOLDS, CONTRADICTED, NO_DIFFERENCE, UNKNOWN = "holds", "contradicted", "no difference", "cannot be told at this size"
CONFIDENCE, POWER = 0.95, 0.8
_FORMAT = 1


class ArmError(RuntimeError):
    """An arm raised an exception or returned what is no result. The message names arm and seed."""


def compare(
    arms: Mapping[str, Arm], seeds: int | Sequence[int] = 8, *, delta: float, baseline: str | None = None,
    metric: str = "accuracy", workers: int | None = None, progress: bool = True,
) -> Comparison:
    """Run every arm with every seed and compare them in pairs.

    Random numbers (torch's, NumPy's, Python's) start from the seed before each run, so that an arm may build its
    network without further ado: draw the weights that the arms share before those of the mechanism. A run must not depend on
    what another one left behind; it should build its own network. Runs use one thread, in parallel processes; the
    results do not depend on how many. Where there is a GPU, runs go one after the other.

    Args:
        arms: by name, functions of the seed that return the metric, or several by name. They may be lambdas and
            closures from a notebook.
        seeds: how many (0, 1, …), or which.
        delta: the smallest difference in the metric that is of interest, fixed beforehand.
        baseline: the arm that the others are compared with; the first by default.
        metric: the name of a single number, or the one of several that `delta` is about. Larger is better.
        workers: processes; by default one for each core, and none of its own on a GPU. 1 runs here, in this process.
        progress: show a bar.

    Returns:
        Comparison. After Ctrl-C, of the seeds with which every arm had finished, marked `interrupted`.

    Raises:
        ArmError: an arm failed, or returned NaN.
        KeyboardInterrupt: interrupted before every arm had finished with at least one seed.
        TypeError, ValueError: arguments that make no experiment.
    """
    baseline = _check_arms(arms, baseline)
    seeds = _check_seeds(seeds)
    if not isinstance(delta, (int, float)) or not 0 < delta < math.inf:
        raise ValueError(f"delta is the smallest difference of interest, a positive number, not {delta!r}")
    # Seed by seed, so that an interruption leaves complete ones.
    jobs = [(arm, seed) for seed in seeds for arm in arms]
    workers = _pick_workers(workers, len(jobs))
    began = time.perf_counter()
    results, interrupted = {}, False
    try:
        runs = _here(arms, jobs, metric) if workers == 1 else _in_processes(arms, jobs, metric, workers)
        with _raised_interrupts(), _bar(len(jobs), progress) as advance, contextlib.closing(runs):
            for arm, seed, result in runs:
                if isinstance(result, _Failure):
                    raise result.error(arm, seed)
                results[arm, seed] = result
                advance()
    except KeyboardInterrupt:
        interrupted = True
        seeds = [seed for seed in seeds if all((arm, seed) in results for arm in arms)]
        if not seeds:
            raise
    rows = [{"arm": arm, "seed": seed, **results[arm, seed]} for seed in seeds for arm in arms]
    machine = describe_machine() | {"workers": workers, "seconds": round(time.perf_counter() - began, 1)}
    return Comparison(_table_of(rows, metric), delta, baseline, metric, machine, interrupted)


@dataclasses.dataclass(frozen=True)
class Effect:
    """The paired difference between two arms: `arm` minus `against`, seed by seed.

    Attributes:
        mean: of the differences.
        low, high: the 95 % paired t interval of the mean; infinite with a single seed.
        n: number of seeds.
        sd: standard deviation of the differences (n − 1 below the line); NaN with a single seed.
        delta: the smallest difference of interest.
        verdict: ``"no difference"`` (interval inside ±delta), else ``"holds"`` (interval above 0, mean at least delta),
            else ``"contradicted"`` (interval below 0), else ``"cannot be told at this size"``.
        differences: one per seed.
    """

    arm: str
    against: str
    metric: str
    mean: float
    low: float
    high: float
    n: int
    sd: float
    delta: float
    verdict: str
    differences: tuple[float, ...] = dataclasses.field(repr=False)

    @classmethod
    def of(cls, differences: Iterable[float], delta: float, arm="", against="", metric="") -> Effect:
        """The effect that these paired differences show."""
        differences = tuple(float(value) for value in differences)
        mean, low, high, sd = _interval(differences)
        verdict = _verdict(mean, low, high, delta)
        return cls(arm, against, metric, mean, low, high, len(differences), sd, delta, verdict, differences)

    @property
    def detectable(self) -> float:
        """The smallest true difference that as many seeds with this spread would find with a probability of 80 %.

        That is: for which the 95 % interval would exclude 0. Infinite with a single seed.
        """
        if self.n < 2:
            return math.inf
        from scipy.special import nctdtrinc

        # The non-centrality at which Student's t exceeds its critical value four times in five.
        far = float(nctdtrinc(self.n - 1, 1 - POWER, _critical(self.n)))
        return far * self.sd / math.sqrt(self.n)

    def __str__(self) -> str:
        interval = f"{self.low:+.3g} to {self.high:+.3g}"
        count = f"{self.n} seed" + "s" * (self.n != 1)
        return f"{self.arm} − {self.against}: {self.mean:+.3g} (95 % interval {interval}, {count}): {self.verdict}"

    __repr__ = __str__


class Comparison:
    """Results of `compare`.

    Attributes:
        runs: a DataFrame with a row per run: ``arm``, ``seed``, and a column per metric.
        delta, baseline, metric: as given to `compare`.
        machine: what it ran on, how long, and the versions used.
        interrupted: whether it was stopped early; `runs` then has fewer seeds than asked for.
    """

    def __init__(
        self, runs, delta: float, baseline: str, metric: str = "accuracy", machine: dict[str, Any] | None = None,
        interrupted: bool = False,
    ) -> None:
        self.runs, self.delta, self.baseline, self.metric = runs, delta, baseline, metric
        self.machine, self.interrupted = machine or {}, interrupted

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(self.runs["arm"]))

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(self.runs["seed"]))

    def values(self, arm: str, metric: str | None = None) -> list[float]:
        """The metric of one arm, in the order of the seeds."""
        if arm not in self.arms:
            raise KeyError(f"there is no arm {arm!r}; there are: {', '.join(self.arms)}")
        metric = metric or self.metric
        if metric not in self.runs or metric in ("arm", "seed"):
            known = [name for name in self.runs if name not in ("arm", "seed")]
            raise KeyError(f"there is no metric {metric!r}; there are: {', '.join(known)}")
        return self.runs[self.runs["arm"] == arm].set_index("seed").loc[self.seeds, metric].tolist()

    def effect(self, arm: str, against: str | None = None, metric: str | None = None) -> Effect:
        """The paired effect of `arm`, against the baseline or another arm."""
        against = against or self.baseline
        pairs = zip(self.values(arm, metric), self.values(against, metric))
        return Effect.of((a - b for a, b in pairs), self.delta, arm, against, metric or self.metric)

    def table(self, metric: str | None = None):
        """A DataFrame with a row per arm: the mean and its interval, and the paired effect on the baseline.

        Columns: ``mean``, ``low``, ``high``; ``effect``, ``effect_low``, ``effect_high``, ``verdict`` (empty for the
        baseline).
        """
        import pandas

        rows = {}
        for arm in self.arms:
            mean, low, high, _ = _interval(self.values(arm, metric))
            rows[arm] = {"mean": mean, "low": low, "high": high}
            if arm != self.baseline:
                effect = self.effect(arm, metric=metric)
                rows[arm] |= {"effect": effect.mean, "effect_low": effect.low, "effect_high": effect.high,
                              "verdict": effect.verdict}
        columns = ["mean", "low", "high", "effect", "effect_low", "effect_high", "verdict"]
        table = pandas.DataFrame.from_dict(rows, orient="index", columns=columns)
        return table.fillna({"verdict": ""}).rename_axis("arm")

    def plot(self, ax=None, metric: str | None = None):
        """Forest plot: per arm its name and verdict, below them all differences and the interval; grey is ±delta.

        Where the interval excludes 0, *better* or *worse* stands before the verdict, with *by little* where the mean is
        smaller than delta.

        Args:
            ax: matplotlib axes to draw into, at least as wide and high as the default: a new figure that fits a phone,
                as high as the arms need.
            metric: another metric than `compare` was told.

        Returns:
            the matplotlib figure.
        """
        return _forest([self.effect(arm, metric=metric) for arm in self.arms if arm != self.baseline], ax)

    def save(self, path: str | Path) -> None:
        """Write a JSON file. It appears complete or not at all."""
        content = {
            "attnlib_comparison": _FORMAT, "metric": self.metric, "delta": self.delta, "baseline": self.baseline,
            "seeds": self.seeds, "interrupted": self.interrupted, "machine": self.machine,
            "runs": self.runs.to_dict("records"),
        }
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            partial.write_text(text + "\n", encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read a file written by `save`.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged, or something else.
        """
        import pandas

        path = Path(path)
        again = f"make it again with `make results ONLY={path.with_suffix('.py')}`"
        if not path.is_file():
            raise FileNotFoundError(f"there are no results at {path}; {again}")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["attnlib_comparison"] != _FORMAT:
                raise ValueError("another version")
            runs = pandas.DataFrame(content["runs"])
            loaded = cls(*(runs, *(content[key] for key in ("delta", "baseline", "metric", "machine", "interrupted"))))
            if runs.isna().any(axis=None) or len(runs) != len(loaded.arms) * len(loaded.seeds):
                raise ValueError("runs are missing")
            loaded.table()
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged or no comparison; {again} ({error})") from error
        return loaded

    def _caption(self) -> str:
        count = f"{len(self.seeds)} seed" + "s" * (len(self.seeds) != 1)
        early = ", interrupted" if self.interrupted else ""
        effects = f"effects against {self.baseline}, 95 % intervals, delta {self.delta:g}"
        return f"{self.metric} over {count}{early}; {effects}"

    def __repr__(self) -> str:
        return f"{self._rounded().to_string()}\n{self._caption()}"

    def _repr_html_(self) -> str:
        return f"{self._rounded().to_html(border=0)}<p>{html.escape(self._caption())}</p>"

    def _rounded(self):
        table = self.table()
        numbers = table.columns.drop("verdict")
        table[numbers] = table[numbers].map(lambda value: "" if math.isnan(value) else f"{value:.4g}").astype(str)
        return table


def describe_machine() -> dict[str, Any]:
    """What a measurement depends on: processor, cores, GPU, threads, and versions."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    known = {"cpu": model, "cores": _cores(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        known["gpu"] = torch.cuda.get_device_name()
    known["python"] = platform.python_version()
    for name in ("torch", "attnlib"):
        with contextlib.suppress(PackageNotFoundError):
            known[name] = version(name)
    return known


# --- running ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Failure:
    """An exception of an arm, in words: as an object it might not survive the way between two processes."""

    cause: str
    trace: str

    def error(self, arm: str, seed: int) -> ArmError:
        error = ArmError(f"arm {arm!r} failed with seed {seed}: {self.cause}")
        error.add_note(self.trace)
        return error


def _run(function: Arm, seed: int, metric: str) -> dict[str, float] | _Failure:
    """One run: the metrics by name, or what went wrong."""
    try:
        with quiet(), one_thread(), _seeded(seed):
            return _metrics(function(seed), metric)
    except Exception as error:
        return _Failure(f"{type(error).__name__}: {error}", traceback.format_exc())


def _metrics(result: Any, metric: str) -> dict[str, float]:
    named = result if isinstance(result, Mapping) else {metric: result}
    try:
        numbers = {str(name): float(value) for name, value in named.items()}
    except (TypeError, ValueError):
        raise TypeError(f"an arm returns a number or a dict of numbers, not {type(result).__name__}") from None
    if metric not in numbers:
        raise ValueError(f"it returned {', '.join(numbers) or 'nothing'}, but not the metric {metric!r}")
    if bad := [f"{name} = {value}" for name, value in numbers.items() if not math.isfinite(value)]:
        raise ValueError(f"it returned {', '.join(bad)}; an average over that would mean nothing")
    return numbers


def _here(arms: Mapping[str, Arm], jobs: list[tuple[str, int]], metric: str) -> Iterator[tuple]:
    for arm, seed in jobs:
        yield arm, seed, _run(arms[arm], seed, metric)


def _in_processes(arms: Mapping[str, Arm], jobs: list[tuple[str, int]], metric: str, workers: int) -> Iterator[tuple]:
    """Results as they come, from `workers` processes that stay for the next comparison."""
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    # An arm may hold its data: written once and read by each run, instead of sent with each.
    with tempfile.TemporaryDirectory(prefix="attnlib-") as folder:
        files = {arm: os.path.join(folder, f"{number}.pickle") for number, arm in enumerate(arms)}
        for arm, path in files.items():
            Path(path).write_bytes(_pickled(arm, arms[arm]))
        with parallel_config("loky", inner_max_num_threads=1):
            pool = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
            runs = pool(delayed(_run_file)(files[arm], arm, seed, metric) for arm, seed in jobs)
            try:
                yield from runs
            except TerminatedWorkerError as error:
                raise ArmError("a worker process died, perhaps for lack of memory; try fewer workers") from error
            finally:
                runs.close()


def _run_file(path: str, arm: str, seed: int, metric: str) -> tuple:
    """What a worker does. Ctrl-C reaches it too, but is the parent's business."""
    import pickle

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        function = pickle.loads(Path(path).read_bytes())
    except Exception as error:
        return arm, seed, _Failure(f"it could not be sent to a worker process ({error})", traceback.format_exc())
    return arm, seed, _run(function, seed, metric)


def _pickled(arm: str, function: Arm) -> bytes:
    try:
        import cloudpickle
    except ImportError:  # joblib before 1.6 brought its own
        from joblib.externals import cloudpickle
    try:
        return cloudpickle.dumps(function)
    except Exception as error:
        why = f"arm {arm!r} holds something that cannot be sent to a process ({error}); use workers=1"
        raise ArmError(why) from error


@contextlib.contextmanager
def _bar(total: int, progress: bool) -> Iterator[Callable[[], Any]]:
    """A progress bar, as the function that moves it on by one."""
    if not progress:
        yield lambda: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, unit="run") as bar:
        yield bar.update


@contextlib.contextmanager
def _raised_interrupts() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt here, also in the middle of a `fit`, which would else return what it has:
    the accuracy of a half-trained network must not be taken for a result."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Every global source of random numbers starts from `seed`, and is put back afterwards."""
    import numpy

    python, numbers = random.getstate(), numpy.random.get_state()
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    try:
        with own_rng(pick_device(), seed):
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(numbers)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pick_workers(workers: int | None, jobs: int) -> int:
    if workers is None:
        if pick_device().type != "cpu":
            return 1
        from joblib import cpu_count

        workers = cpu_count()
    if not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers is a number of processes from 1 up, not {workers!r}")
    return min(workers, jobs)


def _check_arms(arms: Mapping[str, Arm], baseline: str | None) -> str:
    if not isinstance(arms, Mapping) or not arms or not all(callable(function) for function in arms.values()):
        raise TypeError("arms is a dict of functions of the seed, by name: {'none': lambda seed: ..., ...}")
    baseline = next(iter(arms)) if baseline is None else baseline
    if baseline not in arms:
        raise ValueError(f"the baseline {baseline!r} is none of the arms: {', '.join(arms)}")
    return baseline


def _check_seeds(seeds: int | Sequence[int]) -> list[int]:
    chosen = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not chosen or len(set(chosen)) < len(chosen) or not all(isinstance(seed, int) for seed in chosen):
        raise ValueError(f"seeds is how many (1 or more), or different whole numbers, not {seeds!r}")
    return chosen


def _table_of(rows: list[dict[str, Any]], metric: str):
    """The DataFrame of all runs, or ValueError where they did not return the same metrics."""
    import pandas

    for row in rows:
        if row.keys() != rows[0].keys():
            raise ValueError(
                f"arm {row['arm']!r} returned {', '.join(list(row)[2:])}, but {rows[0]['arm']!r} "
                f"{', '.join(list(rows[0])[2:])}; every run must return the same metrics"
            )
    return pandas.DataFrame(rows)


# --- statistics ------------------------------------------------------------------------------------------------------


def _critical(n: int) -> float:
    """Student's t that n − 1 degrees of freedom exceed, either way, one time in twenty."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))


def _interval(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Mean, 95 % t interval of the mean (infinite for a single value), and standard deviation."""
    # The exact arithmetic of `statistics`: equal values have a spread of 0, not of a rounding error.
    n, mean = len(values), statistics.mean(values)
    if n < 2:
        return mean, -math.inf, math.inf, math.nan
    sd = statistics.stdev(values)
    half = _critical(n) * sd / math.sqrt(n)
    return mean, mean - half, mean + half, sd


def _verdict(mean: float, low: float, high: float, delta: float) -> str:
    # First, because a difference can be surely below 0 and surely too small to matter.
    if -delta < low and high < delta:
        return NO_DIFFERENCE
    if low > 0 and mean >= delta:
        return HOLDS
    if high < 0:
        return CONTRADICTED
    return UNKNOWN


# --- the forest plot -------------------------------------------------------------------------------------------------

# Inches: a line of text, and what the points and the interval need below the text.
_LINE, _POINTS = 0.17, 0.4
# Characters in a line of text. The letters of a browser's font may be a little wider than those drawn here.
_CHARACTERS = 56


def _in_the_plot(effect: Effect) -> str:
    """The verdict, and what it means for an arm, for those who see nothing but the plot."""
    surely = "better" if effect.low > 0 else "worse" if effect.high < 0 else ""
    if effect.verdict == NO_DIFFERENCE or not surely:
        return effect.verdict
    little = ", but by little" if abs(effect.mean) < effect.delta else ""
    return f"{surely}{little}\N{NO-BREAK SPACE}({effect.verdict})"  # in one piece where lines are broken


def _forest(effects: list[Effect], ax=None):
    import textwrap

    from attnlib.plot import COLOURS, style, subplots

    if not effects:
        raise ValueError("there is nothing to compare: give compare a second arm")
    told = [textwrap.fill(f"{effect.arm} — {_in_the_plot(effect)}", _CHARACTERS)
            for effect in effects]
    delta, top = effects[0].delta, 0.0
    label = f"{effects[0].metric} minus that of {effects[0].against} (grey: less than {delta:g}, too small to matter)"
    label = textwrap.fill(label, _CHARACTERS)
    with style():
        if ax is None:
            rows = sum(_LINE * (text.count("\n") + 1) + _POINTS for text in told)
            _, ax = subplots(height=rows + 0.4 + 0.18 * (label.count("\n") + 1))
        for text, effect in zip(told, effects):
            ax.text(0, top, text, transform=ax.get_yaxis_transform(), verticalalignment="top", linespacing=1.15)
            top += _LINE * (text.count("\n") + 1)
            # Band and line not across the text, which would be hard to read.
            high, seeds, interval, low = (top + below for below in (0.03, 0.1, 0.22, 0.29))
            ax.fill_between((-delta, delta), high, low, color=COLOURS["neutral"], alpha=0.18, linewidth=0)
            ax.plot((0, 0), (high, low), color=COLOURS["neutral"], linewidth=1)
            ax.plot(effect.differences, [seeds] * effect.n, "o", color=COLOURS["data"], alpha=0.6, markersize=4)
            if math.isfinite(effect.low):
                ax.plot((effect.low, effect.high), (interval, interval), "|-", color=COLOURS["text"], linewidth=1.6)
            ax.plot(effect.mean, interval, "D", color=COLOURS["text"], markersize=5)
            top += _POINTS
        ax.set(ylim=(top, 0), yticks=[], xlabel=label)
        ax.spines["left"].set_visible(False)
    return ax.figure
