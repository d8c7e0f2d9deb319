import os

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from attnlib.data import DataDamaged, DataMissing
from attnlib.data.osie import osie_fixations, osie_pictures

RANDOM = np.random.default_rng(0)


def subject(*places, types=(float, float, np.uint16)):
    columns = [np.array(column) for column in zip(*places)] or [np.zeros(0)] * 3
    return {name: column.astype(kind) for name, column, kind in zip(("fix_x", "fix_y", "fix_duration"), columns, types)}


# As MATLAB counts: the first pixel is around 1. Whole numbers come as integers, a single fixation as a bare number.
RECORDS = {
    "1001.jpg": [subject((1.2, 600.2, 200), (800.4, 1.0, 150)), subject((400.5, 300.5, 90))],
    "1003.jpg": [subject(), subject((10, 20, 30), (5, 6, 7), types=(int, int, np.uint8))],
}


def written(root, records, names=("1001", "1003"), size=(800, 600)):
    """A small OSIE below `root`; records and photographs may be made to differ from the published ones."""
    for folder in ("eye", "stimuli"):
        (root / "OSIE" / "data" / folder).mkdir(parents=True, exist_ok=True)
    cells = np.empty(len(records), dtype=object)
    for place, (img, subjects) in enumerate(records.items()):
        inner = np.empty(len(subjects), dtype=object)
        inner[:] = subjects
        cells[place] = {"img": img, "subjects": inner}
    scipy.io.savemat(root / "OSIE/data/eye/fixations.mat", {"fixations": cells}, do_compression=True)
    for name in names:
        pixels = RANDOM.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(root / f"OSIE/data/stimuli/{name}.jpg")
    return root


def test_fixations_are_read_and_counted_from_the_edge(tmp_path):
    names, fixations = osie_fixations(written(tmp_path, RECORDS, names=()))
    assert names == ("1001", "1003") and fixations.size == (600, 800)
    assert (fixations.pictures, fixations.observers, len(fixations)) == (2, 2, 5)
    assert fixations.x.tolist() == pytest.approx([0.7, 799.9, 400, 9.5, 4.5])
    assert fixations.y.tolist() == pytest.approx([599.7, 0.5, 300, 19.5, 5.5])
    assert fixations.duration.tolist() == [200, 150, 90, 30, 7] and fixations.observer.tolist() == [0, 0, 1, 1, 1]


def test_the_same_pixels_are_hit_as_in_the_authors_code(tmp_path):
    _, fixations = osie_fixations(written(tmp_path, RECORDS, names=()))
    rows, columns = fixations.pixels
    # Theirs: round, then count from 1.
    assert (columns + 1).tolist() == [1, 800, 401, 10, 5] and (rows + 1).tolist() == [600, 1, 301, 20, 6]


def test_photographs_and_fixations_belong_together(tmp_path, monkeypatch):
    written(tmp_path, RECORDS, names=("1003",))
    monkeypatch.setenv("ATTNLIB_DATA", str(tmp_path))
    pictures, fixations = osie_pictures(size=(150, 200))
    assert pictures.images.shape == (1, 3, 150, 200) and pictures.classes == ("1003",) and pictures.source
    assert 0 <= pictures.images.min() and pictures.images.max() <= 1
    assert (fixations.pictures, fixations.observers, fixations.size) == (1, 2, (150, 200))
    assert fixations.x.tolist() == pytest.approx([9.5 / 4, 4.5 / 4])
    whole, _ = osie_pictures(size=(600, 800))
    means = whole.images.unflatten(3, (200, 4)).unflatten(2, (150, 4)).mean((3, 5))
    assert (means - pictures.images).abs().mean() < 0.02 < pictures.images.std()


def test_names_choose_and_order(tmp_path):
    written(tmp_path, RECORDS)
    pictures, fixations = osie_pictures(tmp_path, names=["1003", "1001"])
    assert pictures.classes == ("1003", "1001") and fixations.picture.tolist() == [1, 1, 1, 0, 0]
    for wrong in ([], ["1002"], ["1001.jpg"]):
        with pytest.raises(ValueError, match="OSIE's pictures are 1001 to 1003, not"):
            osie_pictures(tmp_path, names=wrong)


def missing(function, *args, **options):
    with pytest.raises(DataMissing) as raised:
        function(*args, **options)
    message = str(raised.value)
    assert "\n" not in message and "get it with: git clone https://github.com/" in message
    assert isinstance(raised.value, FileNotFoundError) and raised.value.__cause__ is None
    return message


def test_what_is_absent_is_one_sentence_with_the_command(tmp_path):
    for function in (osie_pictures, osie_fixations):
        message = missing(function, tmp_path)
        assert "fixations.mat is absent" in message and message.endswith(f"and set ATTNLIB_DATA={tmp_path}")
    written(tmp_path, RECORDS, names=())
    assert "there is no photograph" in missing(osie_pictures, tmp_path)
    assert "1001.jpg is absent" in missing(osie_pictures, tmp_path, names=["1001"])


def damaged(function, root):
    with pytest.raises(DataDamaged) as raised:
        function(root)
    message = str(raised.value)
    assert "\n" not in message and "is damaged or not the published file" in message and "fetch it again" in message
    return message


@pytest.mark.parametrize("damage", [lambda old: old[: len(old) // 2], lambda old: b"", lambda old: b"hello" * 100,
                                    lambda old: old[:200] + bytes(20) + old[220:]])
def test_damaged_fixations_are_named(tmp_path, damage):
    path = written(tmp_path, RECORDS, names=()) / "OSIE/data/eye/fixations.mat"
    path.write_bytes(damage(path.read_bytes()))
    assert "fixations.mat" in damaged(osie_fixations, tmp_path)


@pytest.mark.parametrize("records, says", [
    ({"1001.jpg": [{**subject((1, 2, 3)), "fix_y": np.array([1.0, 2.0])}]}, "same shape"),
    ({"1001.jpg": [{"fix_x": 1.0, "fix_y": 2.0}]}, "fix_duration"),
    ({"1001.jpg": [subject((801, 2, 3))]}, "outside the picture of 600×800"),
    ({"1001.jpg": [subject((1, float("nan"), 3))]}, "outside the picture"),
    ({"1001.jpg": [subject()], "1002.jpg": [subject(), subject()]}, "an entry for every observer"),
    ({"1001.jpg": [subject((1, 2, 3))], "1001.png": [subject((1, 2, 3))]}, "occurs twice"),
])
def test_other_contents_are_named(tmp_path, records, says):
    assert says in damaged(osie_fixations, written(tmp_path, records, names=()))


def test_other_variables_are_named(tmp_path):
    path = written(tmp_path, RECORDS, names=()) / "OSIE/data/eye/fixations.mat"
    scipy.io.savemat(path, {"other": np.ones(3)})
    assert "KeyError 'fixations'" in damaged(osie_fixations, tmp_path)
    scipy.io.savemat(path, {"fixations": np.ones(3)})
    assert "fixations.mat" in damaged(osie_fixations, tmp_path)


def test_damaged_photographs_are_named(tmp_path):
    written(tmp_path, RECORDS, size=(640, 480))
    assert "640×480 pixels instead of 800×600" in damaged(osie_pictures, tmp_path)
    path = tmp_path / "OSIE/data/stimuli/1001.jpg"
    path.write_bytes(path.read_bytes()[:500])
    assert "1001.jpg is damaged" in damaged(osie_pictures, tmp_path)


@pytest.fixture
def published():
    root = os.environ.get("ATTNLIB_DATA")
    if not root:
        pytest.skip("ATTNLIB_DATA is not set, so there are no published files to read")
    if not os.path.isfile(os.path.join(root, "OSIE/data/eye/fixations.mat")):
        pytest.skip("there is no OSIE in ATTNLIB_DATA")


def test_the_published_fixations(published):
    names, fixations = osie_fixations()
    assert names == tuple(str(number) for number in range(1001, 1701))
    assert (fixations.pictures, fixations.observers, len(fixations)) == (700, 15, 98_321)
    assert float(fixations.duration.mean()) == pytest.approx(214.34, abs=0.01)
    # Nobody skipped a picture.
    assert (torch.zeros(700, 15).index_put_((fixations.picture, fixations.observer), torch.ones(98_321)) == 1).all()


def test_the_published_photographs(published):
    pictures, fixations = osie_pictures(names=["1001", "1002"])
    assert pictures.images.shape == (2, 3, 150, 200) and fixations.counts().sum((1, 2)).gt(100).all()
    assert pictures.images.flatten(1).std(1).gt(0.05).all()
