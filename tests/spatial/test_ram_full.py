"""The script of the paper's experiment, which only a GPU runs in full: its pictures, its networks, and a tiny run."""

import runpy
from pathlib import Path

import pytest
import torch

from attnlib.cost import parameters
from attnlib.data.pictures import Pictures

SCRIPT = Path(__file__).resolve().parents[2] / "results" / "spatial" / "ram_full.py"
FULL = runpy.run_path(str(SCRIPT))


def bars(count=12):
    """Sources: a bar of its own height and brightness for each."""
    images = torch.zeros(count, 1, 28, 28)
    for number in range(count):
        images[number, 0, 10:12 + number, 13:15] = (number + 1) / count
    return Pictures(images, torch.arange(count) % 10, tuple("0123456789"))


@pytest.fixture
def upright():
    return torch.nn.functional.pad(bars().images, (16, 16, 16, 16))


def test_digits_are_moved_whole(upright):
    torch.manual_seed(0)
    moved = FULL["anew"](0)(upright)
    assert moved.shape == upright.shape
    for before, after in zip(upright[:, 0], moved[:, 0]):
        rows, columns = after.nonzero().T
        first, second = before.nonzero().T
        assert torch.equal(after[after > 0], before[before > 0])
        assert torch.equal(rows - rows.min(), first - first.min())
        assert torch.equal(columns - columns.min(), second - second.min())
    assert len({tuple(picture.nonzero()[0].tolist()) for picture in moved[:, 0]}) > 8


def test_they_come_as_far_as_they_stay_inside():
    torch.manual_seed(0)
    at = FULL["squares"](4_000, 28, 60, torch.device("cpu"))
    assert at.shape == (4_000, 28 * 28) and at.min() == 0 and at.max() == 60 * 60 - 1
    rows, columns = at[:, 0] // 60, at[:, 0] % 60
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 32, 0, 32)
    assert torch.equal(at[0] - at[0, 0], (torch.arange(28)[:, None] * 60 + torch.arange(28)).flatten())


def test_fragments_are_added_and_brightness_ends_at_one(upright):
    torch.manual_seed(0)
    white = (upright > 0).float()
    alone, among = FULL["anew"](0)(white), FULL["anew"](4)(white)
    assert among.max() == 1 and among.sum() > alone.sum() * 1.1
    assert set(among.unique().tolist()) == {0.0, 1.0}


def test_a_fragment_is_a_piece_of_its_digit():
    torch.manual_seed(0)
    digits = torch.rand(5, 28, 28)
    for digit, piece in zip(digits, FULL["cut"](digits, 8)):
        windows = digit.unfold(0, 8, 1).unfold(1, 8, 1)
        assert (windows == piece).all((2, 3)).sum() == 1


def test_networks_are_the_papers():
    arms = {name: build() for name, build in FULL["ARMS"].items()}
    assert parameters(arms["FC, 64"]) == 3601 * 64 + 65 * 64 + 65 * 10
    assert parameters(arms["CNN"]) == 101 * 8 + (8 * 121 + 1) * 256 + 257 * 10
    assert arms["RAM, 6"].pixels == 6 * 3 * 144 and arms["random, 8"].policy == "random"
    x = torch.zeros(2, 1, 60, 60)
    assert all(network.eval()(x).shape == (2, 10) for network in arms.values())


def test_a_tiny_run_measures_every_arm(capsys):
    trial = FULL["measure"](bars(20), steps=2, batch=8, count=24, tested=16)
    assert trial.arms == list(FULL["ARMS"]) and len(trial.runs) == len(trial.arms)
    assert set(trial.runs) == {"arm", "seed", "pictures seen", "accuracy, translated", "accuracy, cluttered"}
    assert trial.values("CNN", "pictures seen") == [16]
    assert trial.runs[["accuracy, translated", "accuracy, cluttered"]].stack().between(0, 1).all()
    assert "minutes on this machine" in capsys.readouterr().out


def test_it_says_why_it_is_left_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "without a GPU" in FULL["left_out"]()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert FULL["left_out"]() is None
