import pytest
import torch

from attnlib.data.odd_one_out import _GROUND, CELL, COLOURS, RGB, SHAPES, odd_one_out, through_window


@pytest.mark.parametrize("by", ["colour", "shape"])
def test_shapes_and_classes(by):
    data = odd_one_out(50, (3, 7), by, 40)
    assert data.images.shape == (50, 3, 40, 40) and data.images.dtype == torch.float32
    assert 0 <= data.images.min() and data.images.max() <= 1
    assert data.labels.dtype == torch.int64 and data.classes == (COLOURS if by == "colour" else SHAPES)
    assert {what: tuple(tensor.shape) for what, tensor in data.truth.items()} == {
        "mask": (50, 40, 40), "instances": (50, 40, 40), "figures": (50,), "common": (50,), "colours": (50, 7),
        "shapes": (50, 7),
    }
    assert data.truth["mask"].dtype == torch.bool and data.truth["instances"].dtype == torch.uint8


@pytest.mark.parametrize(("by", "free"), [("colour", "shapes"), ("shape", "colours")])
def test_all_figures_but_the_odd_one_share_the_feature_and_nothing_else(by, free):
    data = odd_one_out(600, (3, 6), by)
    asked = data.truth["colours" if by == "colour" else "shapes"]
    assert torch.equal(asked[:, 0], data.labels) and (data.labels != data.truth["common"]).all()
    there = torch.arange(6) < data.truth["figures"][:, None]
    common = data.truth["common"][:, None].expand(-1, 6)
    assert torch.equal(asked[:, 1:][there[:, 1:]], common[:, 1:][there[:, 1:]])
    assert (asked[~there] == -1).all() and (data.truth[free][~there] == -1).all()
    # The other feature is drawn for each figure, and says nothing about which one is odd.
    shares = data.truth[free][there].bincount(minlength=4) / there.sum()
    assert ((shares - 0.25).abs() < 0.05).all()
    odd = data.truth[free][:, 0].bincount(minlength=4) / 600
    assert ((odd - 0.25).abs() < 0.07).all()


def test_every_pair_of_colours_is_as_frequent():
    data = odd_one_out(12_000)
    pairs = (4 * data.labels + data.truth["common"]).bincount(minlength=16).view(4, 4) / 12_000
    assert (pairs.diagonal() == 0).all()
    assert ((pairs - 1 / 12).abs() < 0.01)[~torch.eye(4, dtype=torch.bool)].all()


@pytest.mark.parametrize("by", ["colour", "shape"])
def test_what_was_painted_is_what_the_truth_says(by):
    data = odd_one_out(100, by=by, noise=0.0)
    instances = data.truth["instances"].long()
    assert torch.equal(data.truth["mask"], instances == 1)
    for image, instance, colours, count in zip(data.images, instances, data.truth["colours"], data.truth["figures"]):
        assert instance.unique().tolist() == list(range(count + 1))
        for number in range(count):
            inside = instance == number + 1
            assert 8 <= inside.sum() <= 40
            # The darkest of its pixels is half covered at least.
            along = (image[:, inside] - _GROUND) / (RGB[colours[number]] - _GROUND)[:, None]
            assert along.min() >= 0.5 - 1e-5 and along.max() == pytest.approx(1, abs=1e-5)


def test_figures_stand_in_cells_of_their_own():
    data = odd_one_out(200, 6, size=37, noise=0.0)
    first = (37 - 4 * CELL) // 2
    grid = data.truth["instances"][:, first : first + 32, first : first + 32]
    cells = grid.view(200, 4, CELL, 4, CELL).permute(0, 1, 3, 2, 4).reshape(200, 16, -1).long()
    for some in cells:
        held = [set(cell[cell > 0].tolist()) for cell in some]
        assert sorted(map(len, held)) == [0] * 10 + [1] * 6
    around = data.images.clone()
    around[:, :, first : first + 32, first : first + 32] = _GROUND
    assert torch.allclose(around, torch.tensor(_GROUND))


def test_the_shapes_differ_and_are_about_as_large():
    data = odd_one_out(4_000, by="shape", noise=0.0)
    shape, area = data.truth["shapes"][:, 0], data.truth["mask"].sum((1, 2)).float()
    means = torch.stack([area[shape == number].mean() for number in range(4)])
    assert means.min() / means.max() > 0.75
    # Along the diagonals of the middle a square goes on where a cross has stopped.
    pictures = odd_one_out(400, 16, size=32, noise=0.0)
    assert pictures.truth["shapes"].unique().tolist() == [0, 1, 2, 3]


def test_the_number_of_figures():
    numbers = odd_one_out(3_000, (3, 5)).truth["figures"]
    assert ((numbers.bincount(minlength=6)[3:] / 3_000 - 1 / 3).abs() < 0.04).all()
    assert (odd_one_out(20, 16).truth["figures"] == 16).all()


def test_another_feature_leaves_the_figures_where_they_are():
    one, other = odd_one_out(50, by="colour", seed=5), odd_one_out(50, by="shape", seed=5)
    assert torch.equal(one.truth["figures"], other.truth["figures"])
    cells = [data.truth["instances"].view(50, 4, 8, 4, 8).amax((2, 4)) for data in (one, other)]
    assert torch.equal(*cells)


@pytest.mark.parametrize("by", ["colour", "shape"])
def test_swapped_pictures_keep_two_figures_and_make_the_other_one_odd(by):
    one, other = odd_one_out(60, by=by, seed=4), odd_one_out(60, by=by, seed=4, swap=True)
    assert torch.equal(one.labels, other.truth["common"]) and torch.equal(other.labels, one.truth["common"])
    assert torch.equal(one.truth["mask"], one.truth["instances"] == 1)
    assert torch.equal(other.truth["mask"], other.truth["instances"] == 2)
    grid = one.truth["instances"].view(60, 4, 8, 4, 8).amax((2, 4))
    assert torch.equal(grid, other.truth["instances"].view(60, 4, 8, 4, 8).amax((2, 4)))
    stays = (grid < 3).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None].expand(-1, 3, -1, -1)
    assert torch.equal(one.images[stays], other.images[stays])
    assert not torch.equal(one.images[~stays], other.images[~stays])
    asked = "colours" if by == "colour" else "shapes"
    changed = one.truth[asked][:, 2:] != other.truth[asked][:, 2:]
    assert torch.equal(changed, one.truth[asked][:, 2:] >= 0)


def test_the_same_seed_gives_the_same_pictures():
    assert torch.equal(odd_one_out(20, seed=3).images, odd_one_out(20, seed=3).images)
    assert not torch.equal(odd_one_out(20, seed=3).images, odd_one_out(20, seed=4).images)


# --- what a window can tell


@pytest.mark.parametrize("by", ["colour", "shape"])
def test_a_pixel_by_itself_knows_the_number_of_figures_and_the_whole_picture_everything(by):
    data = odd_one_out(40, (3, 7), by)
    inside = data.truth["instances"] > 0
    alone = (inside / data.truth["figures"][:, None, None]).float()
    torch.testing.assert_close(through_window(data, 1), alone)
    assert torch.equal(through_window(data, 63), data.truth["mask"].float())
    swapped = odd_one_out(40, (3, 7), by, swap=True)
    assert torch.equal(through_window(swapped, 63), swapped.truth["mask"].float())


@pytest.mark.parametrize("side", [3, 9, 15, 33])
def test_a_window_pixel_by_pixel(side):
    data, half = odd_one_out(6, (4, 6), seed=2), side // 2
    told = through_window(data, side)
    for n, instances in enumerate(data.truth["instances"].long()):
        colours = data.truth["colours"][n].tolist()
        for y in range(32):
            for x in range(32):
                mine = int(instances[y, x])
                window = instances[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
                others = [colours[k - 1] for k in window.unique().tolist() if k not in (0, mine)]
                if mine == 0 or colours[mine - 1] in others:
                    expected = 0
                else:
                    expected = (1 / int(data.truth["figures"][n]), 0.5, 1)[min(len(others), 2)]
                assert float(told[n, y, x]) == pytest.approx(expected)


@pytest.mark.parametrize("side", [0, -1, 4])
def test_windows_that_have_no_middle_are_refused(side):
    with pytest.raises(ValueError, match=f"an odd side, not {side}"):
        through_window(odd_one_out(2), side)


@pytest.mark.parametrize(("options", "says"), [
    ({"count": 0}, "at least one picture"), ({"by": "size"}, "one of colour, shape, not 'size'"),
    ({"size": 15}, "at least 16 pixels"), ({"figures": 2}, "room for 3 to 16 figures, not 2 to 2"),
    ({"figures": (4, 17)}, "not 4 to 17"), ({"figures": (6, 4)}, "not 6 to 4"), ({"noise": -0.1}, "0 or more"),
    ({"size": 16, "figures": 5}, "16 pixels have room for 3 to 4"), ({"noise": float("nan")}, "0 or more"),
    ({"figures": (4, 5, 6)}, "a whole number, or two of them"), ({"figures": 4.5}, "a whole number, or two"),
])
def test_bad_arguments_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        odd_one_out(**{"count": 5} | options)
