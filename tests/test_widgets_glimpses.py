import base64

import numpy as np
import pytest
import torch

from attnlib.data import Pictures
from attnlib.widgets import GlimpsePath, glimpses

N, T, S, SIDE, K = 2, 3, 2, 4, 5


def path(seed=0, count=N, steps=T):
    rng = torch.Generator().manual_seed(seed)
    return GlimpsePath(2 * torch.rand(count, steps, 2, generator=rng) - 1,
                       torch.rand(count, steps, S, SIDE, SIDE, generator=rng), torch.randn(count, steps, K, generator=rng))


def pictures():
    return Pictures(torch.rand(N, 1, 10, 14), torch.tensor([3, 0]), tuple("abcde"))


def test_it_holds_every_path():
    viewer = glimpses({"learned": path(), "random": tuple(path(1))}, pictures(), labels=["x", "y"])
    data = viewer.data
    assert [p["name"] for p in data["paths"]] == ["learned", "random"] and data["names"] == ["x", "y"]
    assert data["labels"] == [3, 0] and data["classes"] == list("abcde") and data["size"] == [10, 14]
    held = np.frombuffer(base64.b64decode(data["paths"][1]["locations"]["f"]), "<f4").reshape(N, T, 2)
    np.testing.assert_array_equal(held, path(1).locations.numpy())
    assert data["paths"][0]["patches"]["shape"] == [N, T, S, SIDE, SIDE] and data["patch"] == SIDE
    assert "2 pictures" in viewer.alt and "learned, random" in viewer.alt


def test_tensors_alone_have_no_right_answers():
    data = glimpses({"": path()}, pictures().images, patch=6).data
    assert data["labels"] is None and data["classes"] == list("01234") and data["patch"] == 6


@pytest.mark.parametrize("paths, options, message", [
    ({}, {}, "no path"), ({"a": path(count=3)}, {}, r"the path 'a' .* for the 2 pictures"),
    ({"a": path()._replace(scores=torch.zeros(N, T + 1, K))}, {}, "scores"),
    ({"a": path()._replace(locations=torch.zeros(N, T, 3))}, {}, "locations"),
    ({"a": path(), "b": path(steps=4)}, {}, "differ"), ({"a": path()}, dict(classes=["one"]), "1 names of classes for 5"),
    ({"a": path()}, dict(labels=["one"]), "1 names of labels for 2"),
    ({"a": path()._replace(scores=torch.full((N, T, K), torch.nan))}, {}, "no finite numbers"),
])
def test_wrong_arguments_are_told(paths, options, message):
    with pytest.raises(ValueError, match=message):
        glimpses(paths, pictures(), **options)
