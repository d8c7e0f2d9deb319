"""Where networks looked, against loops over pixels."""

import math

import pytest
import torch

from attnlib import create
from attnlib.spatial.looks import looks
from attnlib.spatial.transforms import Window

H, W = 26, 34


def pictures(count=3, channels=2):
    return torch.rand(count, channels, H, W, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network(name, **options):
    torch.manual_seed(0)
    return create(name, 2, **options).double().eval()


def test_a_window_reads_the_pixels_in_which_it_samples():
    stn, x = network("stn", transform=Window(0.5), size=(7, 9)), pictures()
    weights = torch.tensor([[0.1, -0.3], [-0.45, 0.2], [0.9, 0.0]]).double()  # the last one reaches beyond the edge
    found = looks(stn, x, weights)
    wanted = torch.zeros(3, H, W, dtype=torch.bool)
    for b, (across, down) in enumerate(weights.tolist()):
        for i in range(7):
            for j in range(9):
                at_y, at_x = down + 0.5 * ((2 * i + 1) / 7 - 1), across + 0.5 * ((2 * j + 1) / 9 - 1)
                row, column = math.floor((at_y + 1) / 2 * H), math.floor((at_x + 1) / 2 * W)
                if 0 <= row < H and 0 <= column < W:
                    wanted[b, row, column] = True
    assert torch.equal(found.read, wanted) and found.glanced.all()
    assert torch.allclose(found.places[:, 0], (weights + 1) / 2 * torch.tensor([W, H]))
    assert torch.equal(found.seen, x.mean(1))


def test_a_window_of_the_size_of_what_it_shows_reads_every_pixel_within_it():
    x = torch.rand(1, 2, 40, 40).double()
    read = looks(network("stn", transform=Window(0.5), size=20), x, torch.tensor([[0.1, -0.2]]).double()).read
    assert read.sum() == 400 and read[0, 6:26, 12:32].all()


def test_refined_positions_are_patches_and_the_most_doubtful_comes_first():
    dcn, x = network("dcn", k=3), pictures()
    weights = dcn.attend(x)
    found, doubt = looks(dcn, x), dcn.saliency(dcn.coarse(x))
    for b in range(3):
        wanted, marked = torch.zeros(H, W, dtype=torch.bool), []
        for row, column in weights[b, 0].nonzero().tolist():
            top, left = row * dcn.stride - dcn.padding, column * dcn.stride - dcn.padding
            wanted[max(top, 0):top + dcn.patch, max(left, 0):left + dcn.patch] = True
            marked.append((-doubt[b, row, column].item(), left + dcn.patch / 2, top + dcn.patch / 2))
        assert torch.equal(found.read[b], wanted) and found.glanced[b].all()
        assert found.places[b].tolist() == [[x, y] for _, x, y in sorted(marked)]


def test_pictures_with_fewer_positions_than_others_have_no_number_in_their_place():
    dcn, x = network("dcn"), pictures(2)
    chosen = torch.zeros_like(dcn.attend(x))
    chosen[0, 0, 2, 3] = chosen[0, 0, 5, 1] = chosen[1, 0, 0, 0] = 1
    places = looks(dcn, x, chosen).places
    assert places.shape == (2, 2, 2) and places.isnan().any(2).tolist() == [[False, False], [False, True]]


def test_of_glimpses_the_sharpest_is_seen():
    ram, x = network("ram", patch=4, scales=3), pictures(2)
    weights = torch.tensor([[[0.0, 0.0], [0.6, -0.7]], [[-0.9, 0.95], [-0.9, 0.9]]]).double()
    found = looks(ram, x, weights)
    grey = x.mean(1)
    level, seen = torch.full((2, H, W), 3), torch.zeros(2, H, W).double()
    for b in range(2):
        for scale in (2, 1, 0):
            side, times = 4 * 2**scale, 2**scale
            for at_x, at_y in weights[b].tolist():
                left, top = (math.floor(((at + 1) * size - side) / 2 + 0.5) for at, size in ((at_x, W), (at_y, H)))
                for i in range(side):
                    for j in range(side):
                        row, column = top + i, left + j
                        if 0 <= row < H and 0 <= column < W:
                            cells = [(top + i // times * times + a, left + j // times * times + c)
                                     for a in range(times) for c in range(times)]
                            values = [grey[b, r, c].item() if 0 <= r < H and 0 <= c < W else 0.0 for r, c in cells]
                            seen[b, row, column], level[b, row, column] = sum(values) / len(values), scale
    assert torch.equal(found.read, level == 0) and torch.equal(found.glanced, level < 3)
    assert torch.allclose(found.seen, seen)
    assert torch.allclose(found.seen[found.read], grey[found.read]), "what was read is sharp"
    assert not found.glanced.all() and (found.places[0, 0] - torch.tensor([W / 2, H / 2])).abs().max() <= 0.5


@pytest.mark.parametrize("name", ["stn", "dcn", "ram"])
def test_where_nothing_is_given_the_mechanism_chooses(name):
    module, x = network(name), pictures()
    asked, given = looks(module, x), looks(module, x, module.attend(x))
    assert all(torch.equal(one, other) for one, other in zip(asked, given))
    assert (asked.glanced | ~asked.read).all() and not asked.places.requires_grad


def test_another_mechanism_is_refused():
    with pytest.raises(ValueError, match="where a SE looks is not known"):
        looks(create("se", 32), pictures())
