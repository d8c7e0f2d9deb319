"""What `make results` does with a script, and where its data are not on this machine."""

import json

import pytest
import results

WORKS = """
from attnlib import compare
def measure():
    return compare({"none": lambda seed: 0.5, "se": lambda seed: 0.75}, seeds=2, delta=0.1, workers=1, progress=False)
"""
MISSING = """
from attnlib.data import DataMissing
def measure():
    raise DataMissing("the set is not here")
"""


def run(monkeypatch, *scripts):
    monkeypatch.setattr("sys.argv", ["results.py", *map(str, scripts)])
    results.main()


def test_what_is_measured_stands_beside_its_script_and_missing_data_stop_nothing(tmp_path, monkeypatch, capsys):
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text(MISSING)
    second.write_text(WORKS)
    run(monkeypatch, first, second)
    assert "first.py was left out: the set is not here" in capsys.readouterr().out
    assert not first.with_suffix(".json").exists()
    assert len(json.loads(second.with_suffix(".json").read_text())["runs"]) == 4


def test_a_script_without_measure_is_named(tmp_path, monkeypatch):
    script = tmp_path / "empty.py"
    script.write_text("")
    with pytest.raises(SystemExit, match="has no function `measure"):
        run(monkeypatch, script)


def test_what_is_too_much_for_this_machine_is_measured_only_if_it_is_named(tmp_path, monkeypatch, capsys):
    script = tmp_path / "results" / "chapter" / "long.py"
    script.parent.mkdir(parents=True)
    script.write_text(WORKS + "\ndef left_out():\n    return 'it needs a GPU'\n")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    run(monkeypatch)
    assert "long.py was left out: it needs a GPU" in capsys.readouterr().out
    assert not script.with_suffix(".json").exists()
    run(monkeypatch, script)
    assert script.with_suffix(".json").exists()
