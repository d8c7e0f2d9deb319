import subprocess
import sys

import pytest
import torch

from attnlib import Attention, Description, available, create, register
from attnlib.registry import _mechanisms

ABOUT = Description(title="T", paper="P", cite="c", axes=("batch",), shape=("B",))


@pytest.fixture
def clean():
    before = dict(_mechanisms)
    yield
    _mechanisms.clear()
    _mechanisms.update(before)


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(ValueError, match="no mechanism is called 'sse'; did you mean 'se'"):
        create("sse", 64)


def test_a_name_like_none_lists_them_all():
    with pytest.raises(ValueError, match="there are: .*se"):
        create("xyzzy", 64)


def test_an_unknown_option_lists_those_there_are():
    with pytest.raises(TypeError, match="'se' has no option 'ratio'; it has: reduction"):
        create("se", 64, ratio=8)


@pytest.mark.parametrize("channels", [0, -3, 2.5])
def test_channels_are_a_positive_whole_number(channels):
    with pytest.raises(ValueError):
        create("se", channels)


def test_a_readers_own_mechanism_joins(clean):
    @register("half")
    class Half(Attention):
        about = ABOUT

        def __init__(self, channels, share=0.5):
            super().__init__(channels)
            self.share = share

        def attend(self, x):
            return torch.full_like(x, self.share)

        def use(self, x, weights):
            return x * weights

    half = create("half", 3, share=0.25)
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(half(x), x * 0.25) and half.describe().name == "half" and available()[-1] == "half"


def test_a_taken_name_is_refused(clean):
    with pytest.raises(ValueError, match="already taken by attnlib.channel.se.SE"):

        @register("se")
        class Other(Attention):
            about = ABOUT


def test_a_cell_run_twice_replaces_its_class(clean):
    for _ in range(2):

        @register("again")
        class Again(Attention):
            about = ABOUT

    assert _mechanisms["again"] is Again


def test_found_by_name_without_importing_the_chapter():
    code = "import attnlib; print(type(attnlib.create('se', 64)).__module__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "attnlib.channel.se"
