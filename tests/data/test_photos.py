import socket

import numpy as np
import pytest
import torch
from PIL import Image

from attnlib.data import SHIPPED, from_file, photograph, photographs


@pytest.fixture
def no_network(monkeypatch):
    def refused(*args, **kwargs):
        raise OSError("the test has no network")

    monkeypatch.setattr(socket, "socket", refused)


def test_every_photograph_is_there_without_a_network(no_network):
    pictures = photographs(size=32)
    assert pictures.images.shape == (len(SHIPPED), 3, 32, 32) and pictures.classes == tuple(SHIPPED)
    assert pictures.labels.tolist() == list(range(len(SHIPPED)))
    assert (pictures.images.flatten(1).std(1) > 0.05).all()
    assert all(f"{name}: {shipped.credit}" in pictures.source for name, shipped in SHIPPED.items())


def test_a_photograph_is_whole_or_a_square():
    whole = photograph("cat").images
    assert whole.shape == (1, 3, 300, 451) and 0 <= whole.min() and whole.max() <= 1
    square = photograph("cat", 100).images
    assert square.shape == (1, 3, 100, 100)
    middle = whole[..., 75:375]
    assert (torch.nn.functional.avg_pool2d(middle, 3) - square).abs().mean() < 0.02


def test_grey_and_colour():
    assert photograph("cat", grey=True).images.shape == (1, 1, 300, 451)
    assert photograph("camera", 16).images.shape == (1, 3, 16, 16)
    red = photograph("flower", 32).images
    assert torch.allclose(photograph("flower", 32, grey=True).images[0, 0],
                          0.299 * red[0, 0] + 0.587 * red[0, 1] + 0.114 * red[0, 2], atol=1e-5)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="no photograph called 'dog'; there are: astronaut, camera, cat"):
        photograph("dog")
    with pytest.raises(ValueError, match="at least 1 pixel"):
        photograph("cat", 0)


PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10


def saved(tmp_path, picture, name="own.png", **options):
    picture.save(tmp_path / name, **options)
    return from_file(tmp_path / name)


def test_own_picture(tmp_path):
    own = saved(tmp_path, Image.fromarray(PIXELS))
    assert np.allclose(own.images[0].permute(1, 2, 0).numpy() * 255, PIXELS, atol=1e-3)
    assert own.classes == ("own",) and len(own) == 1


def test_own_picture_in_grey(tmp_path):
    own = saved(tmp_path, Image.fromarray(PIXELS[..., 0]))
    assert own.images.shape == (1, 3, 2, 3)
    assert np.allclose(own.images[0, 2].numpy() * 255, PIXELS[..., 0], atol=1e-3)


def test_transparency_is_white(tmp_path):
    half = np.dstack([PIXELS, np.array([[0, 255, 0], [255, 0, 255]], dtype=np.uint8)])
    own = saved(tmp_path, Image.fromarray(half))
    assert (own.images[0, :, 0, 0] == 1).all() and own.images[0, 0, 0, 1] == pytest.approx(30 / 255)


def test_palettes_and_sixteen_bits(tmp_path):
    assert saved(tmp_path, Image.fromarray(PIXELS).convert("P", palette=Image.Palette.ADAPTIVE)).images.shape[1] == 3
    deep = saved(tmp_path, Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)))
    assert deep.images[0, 0, 0].tolist() == pytest.approx([0, 0.5, 1], abs=0.01)


def test_the_cameras_rotation_is_undone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90°
    own = saved(tmp_path, Image.fromarray(PIXELS), exif=exif)
    assert own.images.shape == (1, 3, 3, 2)
    assert np.allclose(own.images[0].permute(1, 2, 0).numpy() * 255, np.rot90(PIXELS, -1), atol=1e-3)


def test_what_is_no_picture_is_told_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*absent.png; give the path"):
        from_file(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match="text.png cannot be read as a picture"):
        from_file(tmp_path / "text.png")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for name in ("cut.png", "cut.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:600])
        with pytest.raises(ValueError, match=f"{name} cannot be read as a picture"):
            from_file(tmp_path / name)
