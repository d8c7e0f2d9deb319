"""Serving the book: a free port is found, and a taken one is told."""

import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import serve

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def taken():
    """A port that something listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_takes_the_next_port_where_one_is_taken(taken, tmp_path):
    server = serve.open_server([taken, 0], tmp_path)
    assert server.server_port not in (taken, 0)
    server.server_close()


def test_explicit_port_in_use_is_one_sentence(taken, monkeypatch):
    monkeypatch.setenv("PORT", str(taken))
    with pytest.raises(SystemExit, match=f"Port {taken} is in use"):
        serve.chosen_server()


@pytest.mark.parametrize("port", ["http", "0", "70000", "-1"])
def test_port_that_is_none_is_one_sentence(port, monkeypatch):
    monkeypatch.setenv("PORT", port)
    with pytest.raises(SystemExit, match="PORT must be a number"):
        serve.chosen_server()


def test_prints_its_address_serves_and_ends_quietly():
    process = subprocess.Popen(
        [sys.executable, "tools/serve.py"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    address = process.stdout.readline().split()[4]
    (ROOT / "_build" / "html").mkdir(parents=True, exist_ok=True)
    with urllib.request.urlopen(address) as answer:
        assert answer.status == 200 and answer.headers["Cache-Control"] == "no-cache"
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=10)
    assert (rest.strip(), errors, process.returncode) == ("", "", 0)
