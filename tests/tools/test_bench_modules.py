"""The benchmark of the mechanisms measures what it says, and the cards read it."""

import json
import subprocess
import sys
from pathlib import Path

import bench_modules
import pytest

from attnlib import cost

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "speed.json"
    command = [sys.executable, "tools/bench_modules.py", "se", "--size", "2", "32", "10", "14", "--seconds", "0.05", "--out", path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return path


def test_ours_theirs_and_the_floor_are_measured(measured):
    (found,) = json.loads(measured.read_text()).values()
    assert set(found["forward"]) == {"attnlib", "torchvision", "memory floor"}
    assert set(found["forward and backward"]) == {"attnlib", "torchvision"}
    assert all(ms > 0 for part in ("forward", "forward and backward") for ms in found[part].values())
    assert found["size"] == [2, 32, 10, 14] and found["machine"]["torch"]


def test_card_gets_its_rows(measured):
    rows = cost.speed(measured, "se")
    assert list(rows) == ["forward, 2×32×10×14", "forward and backward, 2×32×10×14"]
    assert "× the memory floor, " in rows["forward, 2×32×10×14"]
    assert all(row.endswith("× the time of torchvision") for row in rows.values())


def test_what_was_not_measured_is_said(measured, tmp_path):
    with pytest.raises(KeyError, match="ONLY=eca"):
        cost.speed(measured, "eca")
    with pytest.raises(FileNotFoundError, match="make bench"):
        cost.speed(tmp_path / "none.json", "se")


def test_floor_counts_reads_and_writes():
    """A gate reads twice and writes once; pooling writes next to nothing; times by hand."""
    assert bench_modules.floor(read=2.0, copy=10.0, passes=3, written=1.0) == 2 * 2 + 8
    assert bench_modules.floor(read=2.0, copy=10.0, passes=2, written=0.0) == 4
