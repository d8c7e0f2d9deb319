import hashlib
import os
import pickle

import numpy as np
import pytest
import torch
import torchvision

from attnlib.data import DataDamaged, DataMissing, Pictures, cifar10, fashion_mnist, mnist, normalise, torchvision_sets

RANDOM = np.random.default_rng(0)
IMAGES = {"train": RANDOM.integers(0, 256, (7, 28, 28), dtype=np.uint8),
          "t10k": RANDOM.integers(0, 256, (3, 28, 28), dtype=np.uint8)}
LABELS = {part: RANDOM.integers(0, 10, len(images), dtype=np.uint8) for part, images in IMAGES.items()}


def idx(array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def written(folder, files, monkeypatch, table):
    """Write small stand-ins for the published files, and take their checksums for the published ones."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    digests = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    assert set(digests) == set(getattr(torchvision_sets, table))
    monkeypatch.setattr(torchvision_sets, table, digests)


def idx_files():
    return {f"{part}-{kind}-ubyte": idx(array) for part in IMAGES
            for kind, array in (("images-idx3", IMAGES[part]), ("labels-idx1", LABELS[part]))}


@pytest.fixture(params=["mnist", "fashion_mnist"])
def small_idx(request, tmp_path, monkeypatch):
    """(function, root, folder of the files) of a tiny MNIST or FashionMNIST."""
    name, table = {"mnist": ("MNIST", "MNIST_FILES"), "fashion_mnist": ("FashionMNIST", "FASHION_FILES")}[request.param]
    written(tmp_path / name / "raw", idx_files(), monkeypatch, table)
    return {"mnist": mnist, "fashion_mnist": fashion_mnist}[request.param], tmp_path, tmp_path / name / "raw"


@pytest.fixture
def small_cifar(tmp_path, monkeypatch):
    files = {}
    for number, name in enumerate(torchvision_sets.CIFAR10_FILES):
        batch = {"data": np.full((2, 3072), number, dtype=np.uint8), "labels": [number, 9]}
        batch["data"][0, :1024] = 255  # the first picture's red
        files[name] = pickle.dumps(batch, protocol=2)
    written(tmp_path / "CIFAR10" / "cifar-10-batches-py", files, monkeypatch, "CIFAR10_FILES")
    return tmp_path


def test_idx_files_are_read(small_idx):
    function, root, _ = small_idx
    for part, pictures in zip(("train", "t10k"), function(root)):
        assert pictures.images.dtype == torch.float32 and pictures.images.shape == (len(IMAGES[part]), 1, 28, 28)
        assert np.allclose(pictures.images[:, 0].numpy() * 255, IMAGES[part], atol=1e-4)
        assert pictures.labels.tolist() == LABELS[part].tolist() and pictures.labels.dtype == torch.int64
        assert len(pictures.classes) == 10 and pictures.source


def test_the_environment_names_the_folder(small_idx, monkeypatch):
    function, root, _ = small_idx
    monkeypatch.setenv("ATTNLIB_DATA", str(root))
    assert len(function()[0]) == 7


def test_torchvision_reads_the_same_layout(tmp_path, monkeypatch):
    written(tmp_path / "MNIST" / "raw", idx_files(), monkeypatch, "MNIST_FILES")
    theirs = torchvision.datasets.MNIST(tmp_path, train=True)
    assert torch.equal(theirs.data, torch.from_numpy(IMAGES["train"]))


def test_cifar_is_read(small_cifar):
    train, test = cifar10(small_cifar)
    assert train.images.shape == (10, 3, 32, 32) and test.images.shape == (2, 3, 32, 32)
    assert train.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9] and test.labels.tolist() == [5, 9]
    assert (train.images[2, 0] == 1).all() and torch.allclose(train.images[2, 1:], torch.tensor(1 / 255))
    assert train.classes[:2] == ("airplane", "automobile")


@pytest.mark.parametrize("function, name", [(mnist, "MNIST"), (fashion_mnist, "FashionMNIST"), (cifar10, "CIFAR10")])
def test_absent_data_is_one_sentence_with_the_command(function, name, tmp_path):
    with pytest.raises(DataMissing) as raised:
        function(tmp_path)
    message, called = str(raised.value), function.__name__
    assert isinstance(raised.value, FileNotFoundError)
    assert "\n" not in message and message.startswith(f"{name} is not in")
    command = message.split("python -c ")[1].split(" and set")[0].strip('"')
    assert command == f"from attnlib.data import {called}; {called}({str(tmp_path)!r}, download=True)"
    compile(command, "command", "exec")
    assert raised.value.__cause__ is None and not list(tmp_path.iterdir())


def test_one_absent_file_is_named(small_idx):
    function, root, folder = small_idx
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataMissing, match="t10k-labels-idx1-ubyte is absent"):
        function(root)


@pytest.mark.parametrize("damage", [lambda old: old[:-100], lambda old: old[:50] + b"x" + old[51:], lambda old: b""])
def test_damaged_files_are_named(small_idx, damage):
    function, root, folder = small_idx
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataDamaged, match=r"train-images-idx3-ubyte is damaged .*; delete it and run again") as raised:
        function(root)
    assert "\n" not in str(raised.value)


def test_a_foreign_pickle_is_never_run(small_cifar):
    path = small_cifar / "CIFAR10" / "cifar-10-batches-py" / "data_batch_3"

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(small_cifar / "sprung"),)

    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataDamaged, match="data_batch_3"):
        cifar10(small_cifar)
    assert not (small_cifar / "sprung").exists()


def test_download_is_torchvisions_and_only_on_request(small_idx, monkeypatch):
    function, root, folder = small_idx
    asked = []

    def download(where, download):
        asked.append((where, download))
        path.write_bytes(content)

    for name in ("MNIST", "FashionMNIST"):
        monkeypatch.setattr(torchvision.datasets, name, download)
    function(root, download=True)
    assert asked == []  # everything is there
    path = folder / "train-labels-idx1-ubyte"
    content = path.read_bytes()
    path.unlink()
    assert len(function(root, download=True)[0]) == 7
    assert asked == [(root, True)]


@pytest.mark.parametrize("error", [OSError("no route\nto host"), RuntimeError("File not found or corrupted.")])
def test_a_failed_download_is_one_sentence(tmp_path, monkeypatch, error):
    def download(*args, **kwargs):
        raise error

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", download)
    with pytest.raises(DataMissing, match="CIFAR10 could not be downloaded into .*; try again") as raised:
        cifar10(tmp_path, download=True)
    assert "\n" not in str(raised.value)


def test_normalise_uses_the_training_statistics():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 3, 5, 7, generator=generator) * torch.tensor([1, 2, 0.5])[:, None, None]
    images[:, 2] = 0.25
    train, test = (Pictures(part, torch.zeros(20)) for part in images.split(20))
    ours, held_out = normalise(train, test)
    assert torch.allclose(ours.images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(ours.images.std((0, 2, 3), correction=0), torch.tensor([1.0, 1, 0]), atol=1e-5)
    mean, deviation = train.images[:, 1].mean(), train.images[:, 1].std(correction=0)
    assert torch.allclose(held_out.images[:, 1], (test.images[:, 1] - mean) / deviation, atol=1e-5)
    assert train.images[:, 1].max() > 1.5  # the sets it was given stay as they were


REAL = {"MNIST": (mnist, 60_000, 0.1307, 5923), "FashionMNIST": (fashion_mnist, 60_000, 0.2860, 6000),
        "CIFAR10": (cifar10, 50_000, 0.4914, 5000)}


@pytest.mark.parametrize("name", REAL)
def test_the_published_files(name):
    function, count, mean, zeros = REAL[name]
    root = os.environ.get("ATTNLIB_DATA")
    if not root:
        pytest.skip("ATTNLIB_DATA is not set, so there are no published files to read")
    if not os.path.isdir(os.path.join(root, name)):
        pytest.skip(f"there is no {name} in ATTNLIB_DATA")
    train, test = function()
    assert len(train) == count and len(test) == 10_000
    assert float(train.images[:, 0].mean()) == pytest.approx(mean, abs=1e-4)
    assert int(train.labels.bincount()[0]) == zeros and test.labels.bincount().shape == (10,)
