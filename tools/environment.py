"""Create or refresh the project's environment, .venv: the step before every command of the Makefile.

Needs only the standard library, and its syntax is old on purpose: a Python that is too old must get far enough to
say so in one sentence.
"""

import hashlib
import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
NAMES = ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python"]
ROOM = 8  # GB: torch with its CUDA libraries takes about 6 on disk, and their archives lie beside it while it installs

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "installed.txt")

IS_NEW_ENOUGH = "import sys; sys.exit(sys.version_info < {0!r})".format(OLDEST)


def is_new_enough(python):
    """Whether this command starts a Python that can run the project."""
    with open(os.devnull, "w") as nowhere:
        try:
            return subprocess.call([python, "-c", IS_NEW_ENOUGH], stdout=nowhere, stderr=nowhere) == 0
        except OSError:
            return False


def continue_with_a_newer_python():
    """Start again under another Python of this machine; where there is none, say what is needed."""
    for name in NAMES:
        if is_new_enough(name):
            os.execvp(name, [name] + sys.argv)
    sys.exit(
        "This project needs Python 3.11 or newer, but {0} is Python {1}.{2}. Install a newer one and run the command "
        "again; `make book PYTHON=/path/to/python3.12` names one by hand.".format(sys.executable, *sys.version_info)
    )


def wanted():
    """What the environment must hold, as one fingerprint. The path counts: environments cannot be moved."""
    fingerprint = hashlib.sha256(ROOT.encode())
    for name in ("requirements.txt", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            fingerprint.update(file.read())
    return fingerprint.hexdigest()


def is_current():
    if not os.path.exists(STAMP):
        return False
    with open(STAMP) as file:
        return file.read() == wanted() and os.access(PYTHON, os.X_OK)


def require_room():
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < ROOM:
        sys.exit(
            "The environment needs about {0} GB, but only {1:.1f} GB are free on the disk that holds {2}. "
            "Make room and run the command again.".format(ROOM, free, ROOT)
        )


def require_venv_module():
    try:
        import ensurepip  # noqa: F401  (Debian ships venv without it; then environments come out without pip)
        import venv  # noqa: F401
    except ImportError:
        sys.exit(
            "This Python cannot create environments: its venv module is missing. On Debian or Ubuntu install it with "
            "`apt install python{0}.{1}-venv`, then run the command again.".format(*sys.version_info)
        )


def create():
    """An empty .venv, in place of one whose Python is gone or too old."""
    require_venv_module()
    require_room()
    print("Creating the environment in .venv. This happens once: some minutes, about 6 GB.")
    if subprocess.call([sys.executable, "-m", "venv", "--clear", VENV]) != 0:
        sys.exit("Python could not create .venv; the lines above say why.")


def pip_install(*arguments):
    """Run pip, and turn the failures a reader is likely to meet into one sentence."""
    command = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check"]
    if not sys.stdout.isatty():
        command.append("--quiet")
    run = subprocess.run(command + list(arguments), cwd=ROOT, stderr=subprocess.PIPE, universal_newlines=True)
    if run.returncode == 0:
        return
    sys.stderr.write(run.stderr)
    if "No space left on device" in run.stderr:
        sys.exit("The disk is full: make about {0} GB of room and run the command again.".format(ROOM))
    if "Connection" in run.stderr or "resolve" in run.stderr or "Network is unreachable" in run.stderr:
        sys.exit("pip reached no package index: connect to the internet once and run the command again.")
    sys.exit("pip could not install what the project needs; the lines above say why.")


def install():
    pip_install("-r", "requirements.txt")
    # The requirements hold everything the package depends on, and the setuptools that builds it.
    pip_install("--no-deps", "--no-build-isolation", "-e", ".")
    with open(STAMP, "w") as file:
        file.write(wanted())


def main():
    if sys.version_info < OLDEST:
        continue_with_a_newer_python()
    if is_current():
        return
    if not is_new_enough(PYTHON):
        create()
    print("Installing what requirements.txt names.")
    install()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on from here.")
