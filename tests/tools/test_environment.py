"""The first step of every command: what goes wrong on a reader's machine is said in one sentence."""

import shutil
import subprocess
import sys
from pathlib import Path

import environment
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stopped(capsys):
    """A function: call another, which must stop the program, and return what it says."""

    def call(function, *arguments) -> str:
        with pytest.raises(SystemExit) as stop:
            function(*arguments)
        said = str(stop.value.code)
        assert "\n" not in said and said.endswith("."), "one sentence, or two, on one line"
        return said

    return call


def test_old_python_goes_on_under_a_newer_one(monkeypatch):
    started = []
    monkeypatch.setattr(environment, "is_new_enough", lambda name: name == "python3.12")
    monkeypatch.setattr(environment.os, "execvp", lambda *arguments: started.append(arguments) or sys.exit())
    with pytest.raises(SystemExit):
        environment.continue_with_a_newer_python()
    assert started == [("python3.12", ["python3.12", *sys.argv])]


def test_too_old_python_is_told(monkeypatch, stopped):
    monkeypatch.setattr(environment, "is_new_enough", lambda name: False)
    assert "needs Python 3.11 or newer" in stopped(environment.continue_with_a_newer_python)


def test_new_enough_is_found_by_running():
    assert environment.is_new_enough(sys.executable)
    assert not environment.is_new_enough("no-such-python")


def test_script_compiles_for_a_python_far_too_old():
    """No syntax newer than what a Python 2 understands: it has to get as far as the sentence."""
    source = (ROOT / "tools" / "environment.py").read_text()
    compile(source, "environment.py", "exec")
    for newer in ('f"', "f'", ":=", "->", "nonlocal", "async ", " match "):
        assert newer not in source


def test_full_disk_is_told(monkeypatch, stopped):
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 3_000_000_000))
    said = stopped(environment.require_room)
    assert "about 8 GB" in said and "only 3.0 GB are free" in said


def test_missing_venv_module_is_told(monkeypatch, stopped):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    assert "venv module is missing" in stopped(environment.require_venv_module)


@pytest.mark.parametrize("stderr, said", [
    ("OSError: [Errno 28] No space left on device", "disk is full"),
    ("Failed to establish a new connection: Temporary failure in name resolution, NewConnectionError", "no package index"),
    ("ERROR: No matching distribution found for torch==0", "lines above say why"),
])
def test_pip_failure_is_told(monkeypatch, stopped, stderr, said):
    failed = subprocess.CompletedProcess([], 1, None, stderr)
    monkeypatch.setattr(environment.subprocess, "run", lambda *a, **k: failed)
    assert said in stopped(environment.pip_install, "-r", "requirements.txt")


def test_environment_is_current_until_what_it_needs_changes(monkeypatch, tmp_path):
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_text("one\n")
    monkeypatch.setattr(environment, "ROOT", str(tmp_path))
    monkeypatch.setattr(environment, "STAMP", str(tmp_path / "stamp"))
    monkeypatch.setattr(environment, "PYTHON", sys.executable)
    assert not environment.is_current()
    monkeypatch.setattr(environment, "pip_install", lambda *arguments: None)
    environment.install()
    assert environment.is_current()
    (tmp_path / "requirements.txt").write_text("two\n")
    assert not environment.is_current()


def test_make_without_python_says_so():
    run = subprocess.run(["make", "--no-print-directory", "book", "PYTHON="], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode != 0
    assert run.stdout == "There is no Python on this machine: install Python 3.11 or newer first.\n"
