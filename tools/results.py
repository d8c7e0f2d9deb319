"""Measure again what results/ holds: `make results`, or `make results ONLY=results/channel/se.py`.

Beside every file of measurements stands what made it: results/channel/se.py has a function `measure()`, which returns
an `attnlib.trials.Comparison`, and this saves it as results/channel/se.json. Pages read the one; nobody types it.

A script that needs more than every machine has, such as hours of a GPU, also has a function `left_out()`, which returns
the reason not to measure it here, or None. It is measured all the same where ONLY names it.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from pathlib import Path

from attnlib.data import DataMissing

ROOT = Path(__file__).resolve().parent.parent


def measure(script: Path, asked_for: bool = True) -> str | None:
    """Run one script's `measure()` and save beside it what it returns; or return the reason why not."""
    if not script.is_file():
        sys.exit(f"{script} does not exist.")
    names = runpy.run_path(str(script))
    if "measure" not in names:
        sys.exit(f"{os.path.relpath(script)} has no function `measure()`, which should return what is to be saved.")
    if not asked_for and (why := names.get("left_out", lambda: None)()):
        return why
    try:
        names["measure"]().save(script.with_suffix(".json"))
    except DataMissing as missing:  # the others can be measured all the same
        return str(missing)
    return None


def main() -> None:
    named = [Path(name).resolve() for name in sys.argv[1:]]
    for script in named or sorted((ROOT / "results").rglob("*.py")):
        start = time.monotonic()
        if why := measure(script, asked_for=bool(named)):
            print(f"{os.path.relpath(script)} was left out: {why}")
        else:
            print(f"{os.path.relpath(script.with_suffix('.json'))}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped; what was not finished was not written.")
