"""Every test of the project, one part after the other: `make test`, or `make test PARTS="pages site"`.

Each part is a run of pytest of its own, with its own closing lines; the next one runs also if one failed, and in the
end any failure is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Two processes: the machine the book is made for has two cores. Tests of one file stay in one process, so that what a
# file sets up is set up once, and a notebook has one kernel. The site's tests share what they set up; they go to
# whichever process is free.
TWO = ["-n", "2", "--dist", "loadscope"]
TWO_FREE = ["-n", "2", "--dist", "worksteal"]
NO_NOTEBOOKS = ["-p", "no:nbval"]  # it takes seconds to load

PACKAGE = ["tests", "--ignore=tests/pages", "--ignore=tests/site", *NO_NOTEBOOKS]
PARTS = {
    "package": [*PACKAGE, "-m", "not speed", *TWO, "--durations=10"],
    "speed": [*PACKAGE, "-m", "speed"],  # after the others and in one process: times are taken while nothing else runs
    "rules": ["tests/pages", *NO_NOTEBOOKS],
    "notebooks": [
        "book", "-p", "notebook_run", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=300",
        "--nbval-sanitize-with=tests/pages/sanitize.cfg", *TWO, "--durations=10",
    ],
    "site": ["tests/site", *NO_NOTEBOOKS, *TWO_FREE, "--durations=10"],
}


def run(part: str) -> bool:
    """Run one part; whether it passed."""
    threads = os.environ.get("ATTNLIB_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "tests" / "pages"), os.environ.get("PYTHONPATH")]))
    print(f"\n== {part} ==", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", *PARTS[part]]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode == 0


def chosen() -> list[str]:
    for part in sys.argv[1:]:
        if part not in PARTS:
            sys.exit(f"There is no part {part!r}; there are: {', '.join(PARTS)}.")
    return sys.argv[1:] or list(PARTS)


def main() -> None:
    passed, seconds = {}, {}
    for part in chosen():
        start = time.monotonic()
        passed[part] = run(part)
        seconds[part] = time.monotonic() - start
    print()
    for part, good in passed.items():
        print(f"{part:10} {'passed' if good else 'FAILED'} in {seconds[part]:.0f} s")
    if not all(passed.values()):
        sys.exit("Not everything passed; the lines above say what did not.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped.")
