"""The scripts of others that the site serves: locked byte for byte, and only the few files it needs."""

import base64
import hashlib
import io
import json
import tarfile

import pytest
import third_party


def packed(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo("package/" + name.replace("__", "/").replace("_js", ".js"))
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def lock_of(package: bytes) -> dict:
    digest = base64.b64encode(hashlib.sha512(package).digest()).decode()
    return {"a": {
        "version": "1", "integrity": f"sha512-{digest}", "below": "dist/", "keep": ["*.js"], "into": "in",
    }}


def test_keeps_only_what_the_lock_names(monkeypatch, tmp_path):
    package = packed(dist__main_js=b"main", dist__more=b"x", other_js=b"x", LICENSE=b"free")
    monkeypatch.setattr(third_party, "fetch", lambda *arguments: package)
    third_party.bring_packages(lock_of(package), tmp_path)
    files = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"in/main.js": b"main", "in/LICENSE.a": b"free"}


def test_other_bytes_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(third_party, "fetch", lambda *arguments: packed(dist__main_js=b"changed"))
    with pytest.raises(SystemExit, match="is not the package that"):
        third_party.bring_packages(lock_of(packed(dist__main_js=b"main")), tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_network_is_told(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    with pytest.raises(SystemExit, match="npm could not bring a-package 1, .* Connect to the internet once"):
        third_party.fetch("a-package", "1", tmp_path)


def test_what_is_there_is_what_the_lock_says():
    third_party.bring()
    lock = json.loads(third_party.LOCK.read_text())
    assert third_party.STAMP.read_text() == third_party.wanted(lock)
    names = {path.name for path in third_party.SITE.rglob("*")}
    assert {"tex-mml-chtml.js", "MathJax_Main-Regular.woff", "require.js", "embed-amd.js", "anywidget.js"} <= names
