import pytest
import torch
from sklearn.datasets import load_digits

from attnlib.data import digits


def test_the_digits_are_scikit_learns():
    train, test = digits()
    assert train.images.shape == (1347, 1, 8, 8) and test.images.shape == (450, 1, 8, 8)
    assert train.images.dtype == torch.float32 and train.labels.dtype == torch.int64
    assert train.images.min() == 0 and train.images.max() == 1 and train.classes == tuple("0123456789")
    ours = torch.cat([train.images, test.images]).flatten(1)
    theirs = torch.from_numpy(load_digits().data).float() / 16
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, theirs.tolist()))
    assert "CC BY 4.0" in train.source


def test_every_picture_keeps_its_label():
    known = {tuple(row): label for row, label in zip((load_digits().data / 16).tolist(), load_digits().target)}
    for part in digits(seed=3):
        assert [known[tuple(image)] for image in part.images.flatten(1).tolist()] == part.labels.tolist()


def test_the_split_is_stratified_and_decided_by_the_seed():
    train, test = digits(seed=1, test=0.2)
    shares = test.labels.bincount() / (test.labels.bincount() + train.labels.bincount())
    assert (shares - 0.2).abs().max() < 0.01
    assert torch.equal(digits(seed=1, test=0.2)[1].images, test.images)
    assert not torch.equal(digits(seed=2, test=0.2)[1].images, test.images)


def test_random_numbers_are_left_alone():
    state = torch.get_rng_state()
    digits(16)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("size", [4, 8, 20])
def test_size(size):
    train, _ = digits(size)
    assert train.images.shape[2:] == (size, size) and 0 <= train.images.min() and train.images.max() <= 1
    assert train.images.mean() == pytest.approx(float(digits()[0].images.mean()), abs=0.01)


@pytest.mark.parametrize("options, message", [({"test": 0}, "between 0.01"), ({"test": 1.0}, "between 0.01"),
                                              ({"size": 0}, "at least 1 pixel")])
def test_what_makes_no_sense_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        digits(**options)
