"""Arguments are given back as they are, or refused in a sentence that names them."""

import math

import numpy
import pytest

from attnlib.arguments import not_negative, number, positive, share, whole


@pytest.mark.parametrize("check, value", [
    (whole, 1), (whole, numpy.int64(3)), (number, -2.5), (number, 0), (positive, 1e-9), (positive, numpy.float32(2)),
    (not_negative, 0), (not_negative, 3), (share, 0.5),
])
def test_good_ones_come_back(check, value):
    assert check("it", value) == value


def test_whole_numbers_are_of_pythons_own_kind():
    assert type(whole("it", numpy.int64(3))) is int


def test_least_is_the_callers():
    assert whole("it", 0, least=0) == 0 and whole("it", -4, least=-4) == -4
    with pytest.raises(ValueError, match="SK's branches is a whole number from 2 up, not 1"):
        whole("SK's branches", 1, least=2)


@pytest.mark.parametrize("check, says", [
    (whole, "it is a whole number from 1 up"), (number, "it is a finite number"), (positive, "it is above 0 and finite"),
    (not_negative, "it is 0 or more, and finite"), (share, "it is a share between 0 and 1"),
])
@pytest.mark.parametrize("value", ["3", None, True, math.nan, math.inf, [1]])
def test_others_are_refused(check, says, value):
    with pytest.raises(ValueError, match=says) as refused:
        check("it", value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("check, value", [
    (whole, 0), (whole, 1.0), (positive, 0), (positive, -1), (not_negative, -1e-9), (share, 0), (share, 1),
])
def test_limits(check, value):
    with pytest.raises(ValueError, match=f"not {value!r}"):
        check("it", value)
