"""Recurrent attention with 1 to 6 glimpses, all else as in ram.py: when do further glimpses stop helping?

Every network is trained with as many glimpses as it is tested with, on the same pictures, with the same steps and rate.
"""

import runpy
from pathlib import Path

from attnlib import compare

shared = runpy.run_path(str(Path(__file__).with_name("ram.py")))
COUNTS = (1, 2, 3, 4, 6)


def measure():
    arms = {f"{count} glimpse{'s' * (count > 1)}": shared["glimpses"](glimpses=count) for count in COUNTS}
    return compare(arms, seeds=6, baseline="1 glimpse", delta=0.02)
