"""The odd one out with four times the training: does a network that sees further find it without attention, then?

Everything else is as in objects.py, but for the pictures: four times as many, so that none is seen twice.
"""

import runpy
from pathlib import Path

from attnlib import compare
from attnlib.data.odd_one_out import odd_one_out

objects = runpy.run_path(str(Path(__file__).with_name("objects.py")))
ARMS = {name: objects["ARMS"][name] for name in ("none", "deeper", "SE")}


def arm(options):
    return lambda seed: objects["trained"](options, odd_one_out, seed, steps=1_000)[1]["max F"]


def measure():
    arms = {name: arm(options) for name, options in ARMS.items()}
    return compare(arms, seeds=range(8), baseline="none", metric="max F", delta=0.02)
