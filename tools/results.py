"""Measure again what results/ holds: `make results`, or `make results ONLY=results/channel/se.py`.

Beside every file of measurements stands what made it: results/channel/se.py has a function `measure()`, which returns
an `attnlib.trials.Comparison`, and this saves it as results/channel/se.json. Pages read the one; nobody types it.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from pathlib import Path

from attnlib.data import DataMissing

ROOT = Path(__file__).resolve().parent.parent


def measure(script: Path) -> None:
    """Run one script's `measure()` and save beside it what it returns."""
    if not script.is_file():
        sys.exit(f"{script} does not exist.")
    names = runpy.run_path(str(script))
    if "measure" not in names:
        sys.exit(f"{os.path.relpath(script)} has no function `measure()`, which should return what is to be saved.")
    names["measure"]().save(script.with_suffix(".json"))


def main() -> None:
    for script in [Path(name).resolve() for name in sys.argv[1:]] or sorted((ROOT / "results").rglob("*.py")):
        start = time.monotonic()
        try:
            measure(script)
        except DataMissing as missing:  # the others can be measured all the same
            print(f"{os.path.relpath(script)} was left out: {missing}")
            continue
        print(f"{os.path.relpath(script.with_suffix('.json'))}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped; what was not finished was not written.")
