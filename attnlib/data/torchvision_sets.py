"""MNIST, FashionMNIST and CIFAR-10, as torchvision lays them on disk.

They are read from the folder in ``ATTNLIB_DATA``, or one that is named, and downloaded only when asked for. Every file
is checked before it is used, so that what is absent or damaged is told in one sentence.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attnlib.data.pictures import Pictures

# MD5 of the files as they lie on disk. CIFAR-10's are the release's own; those of the unpacked MNIST files follow from
# the release's packed ones.
MNIST_FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
FASHION_FILES = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
CIFAR10_FILES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f", "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751", "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb", "test_batch": "40351d587109b95175f43aff81a1287e",
}
FASHION_CLASSES = (
    "T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class DataMissing(FileNotFoundError):
    """A data set is not where it was looked for. The message holds the command that gets it."""


class DataDamaged(ValueError):
    """A file of a data set is not what its authors published. The message names it and says what to do."""


def mnist(root: str | Path | None = None, *, download: bool = False) -> tuple[Pictures, Pictures]:
    """MNIST: 60,000 and 10,000 handwritten digits of 28×28 pixels, (train, test).

    LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86(11), 1998; CC BY-SA 3.0.

    Args:
        root: folder that holds ``MNIST/raw``; ``ATTNLIB_DATA`` by default.
        download: fetch it into `root` where it is absent.

    Returns:
        two `Pictures` with images (N, 1, 28, 28) float32 in 0–1.

    Raises:
        DataMissing: it is not there, or could not be downloaded.
        DataDamaged: a file is truncated or changed.
    """
    return _idx_set("mnist", "MNIST", MNIST_FILES, tuple("0123456789"), root, download,
                    "LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86(11), 1998; CC BY-SA 3.0")


def fashion_mnist(root: str | Path | None = None, *, download: bool = False) -> tuple[Pictures, Pictures]:
    """FashionMNIST: 60,000 and 10,000 pictures of clothes of 28×28 pixels, (train, test).

    Xiao, Rasul, Vollgraf, arXiv:1708.07747, 2017; MIT licence (Zalando). Otherwise as `mnist`.
    """
    return _idx_set("fashion_mnist", "FashionMNIST", FASHION_FILES, FASHION_CLASSES, root, download,
                    "Xiao, Rasul, Vollgraf, arXiv:1708.07747, 2017; MIT licence (Zalando)")


def cifar10(root: str | Path | None = None, *, download: bool = False) -> tuple[Pictures, Pictures]:
    """CIFAR-10: 50,000 and 10,000 colour photographs of 32×32 pixels, (train, test); 740 MB in memory.

    Krizhevsky, technical report, Toronto, 2009; no licence stated, the authors ask for a citation. `root` holds
    ``CIFAR10/cifar-10-batches-py``. Otherwise as `mnist`; images are (N, 3, 32, 32).
    """
    top = _folder(root)
    folder = top / "CIFAR10" / "cifar-10-batches-py"
    _fetched("cifar10", "CIFAR10", top, top / "CIFAR10", folder, CIFAR10_FILES, download)
    batches = [_cifar_batch(folder / name, digest) for name, digest in CIFAR10_FILES.items()]
    source = "Krizhevsky, technical report, Toronto, 2009; no licence stated, the authors ask for a citation"

    def part(chosen) -> Pictures:
        images, labels = (torch.cat(parts) for parts in zip(*chosen))
        return Pictures(images.float().div_(255), labels, CIFAR10_CLASSES, name="CIFAR10", source=source)

    return part(batches[:-1]), part(batches[-1:])


def normalise(train: Pictures, test: Pictures) -> tuple[Pictures, Pictures]:
    """Both with mean 0 and standard deviation 1 in each channel, by the statistics of the training pictures.

    The test pictures use the training statistics too: nothing about them may be known beforehand. A channel that never
    changes is only shifted.
    """
    deviation, mean = torch.std_mean(train.images, dim=(0, 2, 3), correction=0, keepdim=True)
    deviation = torch.where(deviation > 0, deviation, 1)
    train, test = (dataclasses.replace(part, images=(part.images - mean) / deviation) for part in (train, test))
    return train, test


def _folder(root: str | Path | None) -> Path:
    return Path(root or os.environ.get("ATTNLIB_DATA") or "~/.cache/attnlib").expanduser()


def _idx_set(function: str, name: str, files: dict[str, str], classes: tuple[str, ...], root, download: bool,
             source: str) -> tuple[Pictures, Pictures]:
    top = _folder(root)
    folder = top / name / "raw"
    _fetched(function, name, top, top, folder, files, download)

    def part(prefix: str) -> Pictures:
        images, labels = (
            _idx(folder / file, digest) for file, digest in files.items() if file.startswith(prefix)
        )
        return Pictures(images[:, None].float().div_(255), labels.long(), classes, name=name, source=source)

    return part("train"), part("t10k")


def _fetched(function: str, name: str, top: Path, torchvision_root: Path, folder: Path, files: dict[str, str],
             download: bool) -> None:
    """Make sure that every file is there, downloading it if that is wanted.

    Raises:
        DataMissing: one is not.
    """
    absent = [file for file in files if not (folder / file).is_file()]
    if not absent:
        return
    if not download:
        raise DataMissing(
            f"{name} is not in {folder} ({absent[0]} is absent); get it with: "
            f"python -c \"from attnlib.data import {function}; {function}({str(top)!r}, download=True)\" "
            f"and set ATTNLIB_DATA={top}"
        )
    import torchvision

    try:
        getattr(torchvision.datasets, name)(torchvision_root, download=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong checksum is torchvision's RuntimeError
        raise DataMissing(
            f"{name} could not be downloaded into {folder}; try again, or put the files there by hand "
            f"({' '.join(str(error).split())})"
        ) from None


def _verified(path: Path, digest: str) -> bytes:
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != digest:
        raise DataDamaged(
            f"{path} is damaged ({len(content):,} bytes, and not the published ones); delete it and run again with "
            "download=True"
        )
    return content


def _idx(path: Path, digest: str) -> Tensor:
    """An IDX file of bytes: two zeros, type 8, the number of dimensions, their sizes as big-endian 32 bit, the data."""
    content = _verified(path, digest)
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy())


def _cifar_batch(path: Path, digest: str) -> tuple[Tensor, Tensor]:
    # A pickle can run code when it is read: only the published bytes ever get here.
    batch = pickle.loads(_verified(path, digest), encoding="latin1")
    return torch.from_numpy(batch["data"]).reshape(-1, 3, 32, 32), torch.tensor(batch["labels"])
