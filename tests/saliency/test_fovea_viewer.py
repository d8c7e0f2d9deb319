import math

import pytest
import torch

from attnlib.data import Pictures
from attnlib.data.photos import photographs
from attnlib.saliency.fovea import HALF_ACUITY, blur_width
from attnlib.saliency.fovea_viewer import fovea_viewer


def small(count=2, height=20, width=28):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_it_holds_a_copy_for_every_blur_that_can_be_asked_for():
    viewer = fovea_viewer(small(), degrees=(10, 40))
    data = viewer.data
    # The widest picture, seen from one corner to the other.
    far = torch.tensor(40 * math.hypot(20, 28) / 28)
    most = float(blur_width(far, 40 / 28)) ** 2
    assert data["variances"][-2] < most <= data["variances"][-1]
    assert [len(picture["uris"]) for picture in data["pictures"]] == [len(data["variances"])] * 2
    assert data["size"] == [20, 28] and data["half"] == HALF_ACUITY and data["start"]["degrees"] == 1


def test_much_blur_is_stored_small():
    viewer = fovea_viewer(photographs("cat", size=128))
    sizes = [len(uri) for uri in viewer.data["pictures"][0]["uris"]]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0] / 10
    assert viewer.bytes < 60_000 and viewer.still.startswith("<img src=")


def test_pictures_are_named():
    assert [p["name"] for p in fovea_viewer(photographs("cat", "coffee", size=32)).data["pictures"]] == ["cat", "coffee"]
    assert [p["name"] for p in fovea_viewer(small()).data["pictures"]] == ["picture 1", "picture 2"]
    viewer = fovea_viewer(small(), labels=["a", "b"])
    assert [p["name"] for p in viewer.data["pictures"]] == ["a", "b"] and "a, b" in viewer.alt


def test_grey_pictures_are_shown_grey():
    assert fovea_viewer(small()[:, :1]).data["size"] == [20, 28]


def test_one_picture_of_one_class_may_have_no_name():
    only = Pictures(small(1), torch.zeros(1, dtype=torch.long))
    assert fovea_viewer(only).data["pictures"][0]["name"] == "picture 1"


@pytest.mark.parametrize("wrong, message", [
    (dict(degrees=()), "one or more angles"), (dict(degrees=(0, 30)), "in degrees, is above 0"),
    (dict(at=(0.5, 1.2)), "inside the picture"), (dict(labels=["one"]), "1 labels for 2 pictures"),
    (dict(degrees=("wide",)), "is above 0 and finite, not 'wide'"), (dict(half_acuity=0), "half_acuity is above 0"),
])
def test_wrong_arguments_are_told(wrong, message):
    with pytest.raises(ValueError, match=message):
        fovea_viewer(small(), **wrong)


def test_wrong_pictures_are_told():
    for pictures in (small()[0], small(0)):
        with pytest.raises(ValueError, match="at least one"):
            fovea_viewer(pictures)
    with pytest.raises(ValueError, match="more than the 200 kB"):
        fovea_viewer(torch.rand(3, 3, 320, 320))
