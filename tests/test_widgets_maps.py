import base64
import zlib

import numpy as np
import pytest
import torch
from torch import nn

from attnlib import Attention, Description, attentions, create
from attnlib.data import Pictures
from attnlib.widgets import viewer
from attnlib.widgets.maps import Maps, maps, side_by_side

ROWS, COLUMNS = 10, 14
PAPER = dict(paper="A. Nobody. Nowhere, 2026.", cite="nobody")


class Heads(Attention):
    """Two heads: one looks at like colours, the other exactly one pixel to the right."""

    about = Description(title="Two heads", axes=("batch", "head", "query", "key"), shape=("B", 2, "HW", "HW"),
                        kind="softmax", sums_over=("key",), **PAPER)

    def attend(self, x):
        flat = x.flatten(2).transpose(1, 2)
        alike = (flat @ flat.mT).softmax(-1)
        rows, columns = x.shape[2:]
        right = torch.zeros(rows, columns, rows, columns, dtype=x.dtype)
        for row in range(rows):
            for column in range(columns):
                right[row, column, row, (column + 1) % columns] = 1
        return torch.stack([alike, right.reshape(rows * columns, -1).expand_as(alike)], 1)

    def use(self, x, weights):
        return (x.flatten(2)[:, None] @ weights.mT).mean(1).view_as(x)


class Spot(Attention):
    """A gate for each position."""

    about = Description(title="Spot", axes=("batch", "channel", "row", "column"), shape=("B", 1, "H", "W"), **PAPER)

    def attend(self, x):
        return torch.sigmoid(3 * x.mean(1, keepdim=True))

    def use(self, x, weights):
        return x * weights


def described(axes, weights, kind="gate"):
    """A mechanism with the given axes that always has these weights."""

    class Fixed(Attention):
        about = Description(title="Fixed", axes=axes, shape=tuple(weights.shape), kind=kind, **PAPER)

        def attend(self, x):
            return weights

        def use(self, x, weights):
            return x

    return Fixed()


@pytest.fixture
def pictures():
    return torch.rand(3, 3, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), create("se", 6, reduction=2), Spot())


def decoded(layer, state):
    """The numbers of a state, as the script reads them: (pictures, choices, queries, positions), 1 where all share."""
    block = layer["states"][state]
    if "times" in block:
        return decoded(layer, 0) * exact(block["times"])[:, :, None, None]
    shares = np.frombuffer(zlib.decompress(base64.b64decode(block["z"])), np.uint8).reshape(block["shape"])
    ends = exact(block["ends"])
    return ends[..., :1] + shares / 255 * (ends[..., 1:] - ends[..., :1])


def exact(packed):
    return np.frombuffer(base64.b64decode(packed["f"]), "<f4").reshape(packed["shape"])


def layers(viewer, panel=0):
    return viewer.data["panels"][panel]["layers"]


def within_a_step(values, wanted):
    """Whether the numbers are the wanted ones, to half a 255th of the range of each map."""
    wanted = np.asarray(wanted, dtype=np.float64)
    steps = (wanted.max(-1, keepdims=True) - wanted.min(-1, keepdims=True)) / 255
    return bool((np.abs(values - wanted) <= 0.51 * steps + 1e-6).all())


# -- what is packed

def test_self_attention_is_packed_head_by_head_and_query_by_query(pictures):
    (layer,) = layers(maps(Heads(), pictures))
    assert layer["grid"] == layer["queries"] == [ROWS, COLUMNS]
    assert layer["choices"] == ["head 1", "head 2"] and layer["axis"] == "head"
    weights = Heads().attend(pictures)
    assert within_a_step(decoded(layer, 1), weights)
    assert (layer["low"], layer["high"]) == (0, 1)


def test_faint_maps_keep_their_shades(pictures):
    faint = torch.rand(3, 1, ROWS, COLUMNS) * 1e-4
    faint[0] = 1 - faint[0]
    (layer,) = layers(maps(described(Spot.about.axes, faint), pictures))
    assert within_a_step(decoded(layer, 1), faint.flatten(2)[:, :, None])


def test_queries_and_keys_are_unflattened_row_by_row(pictures):
    (layer,) = layers(maps(Heads(), pictures))
    right = decoded(layer, 1)[2, 1]
    for row in range(ROWS):
        for column in range(COLUMNS):
            seen = right[row * COLUMNS + column].reshape(layer["grid"])
            assert np.unravel_index(seen.argmax(), seen.shape) == (row, (column + 1) % COLUMNS)


def test_state_0_is_neutral_and_costs_nothing(pictures):
    viewer = maps(Heads(), pictures)
    neutral = decoded(layers(viewer)[0], 0)
    assert neutral.shape == (1, 1, 1, 1) and neutral.item() == pytest.approx(1 / (ROWS * COLUMNS))
    assert viewer.state == 1
    assert decoded(layers(maps(Spot(), pictures))[0], 0).item() == 1


def test_weights_without_neutral_values_have_one_state(pictures):
    weights = torch.randn(3, 1, ROWS, COLUMNS)
    (layer,) = layers(maps(described(Spot.about.axes, weights, kind="transform"), pictures))
    assert len(layer["states"]) == 1
    most = float(weights.abs().max())
    assert (layer["low"], layer["high"]) == pytest.approx((-most, most))


def test_gates_of_channels_show_the_feature_map_before_and_after(network, pictures):
    layer, _ = layers(maps(network, pictures))
    x = network[0](pictures).detach()
    gates = network[1].attend(x).detach()
    assert layer["features"] and layer["choices"] == [f"channel {c}" for c in range(1, 7)] and layer["queries"] is None
    assert np.allclose(exact(layer["gates"]), gates[..., 0, 0])
    assert within_a_step(decoded(layer, 0), x.flatten(2)[:, :, None])
    assert within_a_step(decoded(layer, 1), (x * gates).flatten(2)[:, :, None])
    assert layer["states"][1].keys() == {"times"}


def test_features_can_be_asked_for_where_there_is_a_map(pictures):
    (layer,) = layers(maps(Spot(), pictures, shown="features"))
    assert layer["features"] and layer["gates"] is None
    assert within_a_step(decoded(layer, 1), (pictures * Spot().attend(pictures)).flatten(2)[:, :, None])


@pytest.mark.parametrize("axes, size, choices, queries, grid", [
    (("batch", "row", "column"), (3, 5, 7), [], None, [5, 7]),
    (("batch", "column", "row"), (3, 7, 5), [], None, [5, 7]),
    (("batch", "channel", "row"), (3, 2, 5), ["channel 1", "channel 2"], None, [5, 1]),
    (("row", "column"), (5, 7), [], None, [5, 7]),
    (("batch", "group", "head", "key"), (3, 2, 2, 140),
     ["group 1, head 1", "group 1, head 2", "group 2, head 1", "group 2, head 2"], None, [10, 14]),
    (("key", "query", "batch"), (140, 140, 3), [], [10, 14], [10, 14]),
    (("batch", "row", "column", "key"), (3, 5, 7, 140), [], [5, 7], [10, 14]),
    (("batch", "query", "row", "column"), (3, 140, 3, 4), [], [10, 14], [3, 4]),
    (("batch", "query", "head"), (3, 140, 2), ["head 1", "head 2"], None, [10, 14]),
])
def test_any_axes_are_understood(pictures, axes, size, choices, queries, grid):
    weights = torch.rand(size, generator=torch.Generator().manual_seed(2))
    (layer,) = layers(maps(described(axes, weights), pictures))
    assert (layer["choices"], layer["queries"], layer["grid"]) == (choices, queries, grid)
    order = [axes.index(axis) for axis in ("batch", "group", "head", "channel") if axis in axes]
    spatial = ["row", "column", "query", "key"] if "key" in axes else ["query", "row", "column"]
    order += [axes.index(axis) for axis in spatial if axis in axes]
    wanted = weights.permute(order).reshape(size[axes.index("batch")] if "batch" in axes else 1, len(choices) or 1,
                                            queries[0] * queries[1] if queries else 1, -1)
    assert within_a_step(decoded(layer, 1), wanted)


def test_grid_says_how_other_positions_lie(pictures):
    attention = described(("batch", "query", "key"), torch.rand(3, 140, 35))
    with pytest.raises(ValueError, match=r"Fixed has 35 keys for 10 × 14 positions; say .* grid=\(rows, columns\)"):
        maps(attention, pictures)
    (layer,) = layers(maps(attention, pictures, grid=(5, 7)))
    assert (layer["grid"], layer["queries"]) == ([5, 7], [10, 14])


def test_a_network_is_a_menu_of_layers_and_only_chooses(network, pictures):
    assert [layer["name"] for layer in layers(maps(network, pictures))] == ["1", "2"]
    assert [layer["name"] for layer in layers(maps(network, pictures, only="2"))] == ["2"]


def test_double_precision_networks_are_taken(network, pictures):
    assert len(layers(maps(network.double(), pictures))) == 2


def test_pictures_are_shown_as_they_are(pictures):
    data = Pictures(pictures, torch.zeros(3, dtype=torch.long))
    shown = maps(Spot(), data, labels=["a", "b", "c"]).data["pictures"]
    assert (shown["names"], shown["size"], shown["hard"]) == (["a", "b", "c"], [ROWS, COLUMNS], True)
    assert shown["uris"] == [viewer.picture_uri(image) for image in pictures]
    other = maps(Spot(), 4 * pictures - 2, originals=pictures.flip(3)).data["pictures"]
    assert other["uris"] == [viewer.picture_uri(image) for image in pictures.flip(3)]
    rescaled = maps(Spot(), 6 * pictures - 3).data["pictures"]["uris"]
    assert rescaled[0] == viewer.picture_uri((pictures[0] - pictures.min()) / (pictures.max() - pictures.min()))
    assert not maps(Spot(), torch.rand(1, 3, 8, 65)).data["pictures"]["hard"]


def test_start_is_named(network, pictures):
    wanted = {"layer": "2", "picture": "c", "at": (10, 1), "blend": 0.25, "scale": "this map alone"}
    start = maps(network, pictures, labels=list("abc"), start=wanted).data["start"]
    assert start == {"layer": 1, "picture": 2, "choice": 0, "at": [0.5 / COLUMNS, 9.5 / ROWS], "blend": 0.25,
                     "scale": 1}
    assert maps(network, pictures, start={"choice": "channel 4"}).data["start"]["choice"] == 3
    assert [maps(module, pictures).data["start"]["scale"] for module in (Spot(), Heads())] == [0, 1]


def test_words_are_generated_from_the_numbers(network, pictures):
    weights = torch.zeros(3, 1, ROWS, COLUMNS)
    weights[1, 0, 4, 6] = 0.75
    made = maps(described(Spot.about.axes, weights), pictures, labels=["cup", "sea", "cat"])
    assert made.name == "Weights of Fixed" and repr(made) == "Maps('Weights of Fixed')"
    assert made.alt == ("3 pictures with weights over them. Fixed: 10 × 14 cells. The largest value, 0.75, is at row 5, "
                        "column 7 of 'sea'.")
    heads = maps(Heads(), pictures[:1]).alt
    assert "2 heads, from each of 10 × 14 positions, 10 × 14 cells. The largest value, 1, is at row 1, column 2 of " \
           "'picture 1', head 2, seen from row 1, column 1." in heads
    gates = network[1].attend(network[0](pictures))
    assert f"The gates go from {gates.min():.2g} to {gates.max():.2g}, the largest for" in maps(network, pictures).alt
    own = maps(Spot(), pictures, name="Spots", alt="Bright spots.", caption="See.")
    assert (own.name, own.alt, own.caption) == ("Spots", "Bright spots.", "See.")


# -- what is left behind

def test_modes_and_taps_are_restored(network, pictures):
    network.train()
    network[2].eval()
    seen = []
    network[1].weights.watchers = (lambda *_: seen.append(network[0].training),)
    maps(network, pictures)
    assert seen == [False]
    assert [module.training for module in network] == [True, True, False] and network.training
    assert all(tap.weights.edits == () for tap in attentions(network).values())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_modes_and_taps_are_restored_after_an_error(network, pictures):
    network.train()
    with pytest.raises(RuntimeError):
        maps(network, pictures[:, :2])
    assert all(module.training for module in network)
    assert all(tap.weights.edits == () for tap in attentions(network).values())


# -- side by side

def test_variants_stand_side_by_side(network, pictures):
    mean = pictures.mean(1)
    made = side_by_side({"network": network, "heads": Heads(), "mean": mean, "pair": (mean * 0, mean[:, None] - 0.5)},
                        pictures, said={"mean": ["a", "b", "c"]})
    panels = made.data["panels"]
    assert [panel["name"] for panel in panels] == ["network", "heads", "mean", "pair"]
    assert [panel.get("said") for panel in panels] == [None, None, ["a", "b", "c"], None]
    assert [len(panel["layers"]) for panel in panels] == [1, 1, 1, 1]
    last, _, one, two = (panel["layers"][0] for panel in panels)
    x = network[1](network[0](pictures)).detach()
    assert within_a_step(decoded(last, 1), network[2].attend(x).flatten(2)[:, :, None])
    assert len(one["states"]) == 1 and within_a_step(decoded(one, 0), mean.flatten(1)[:, None, None])
    assert decoded(two, 0).item() == 0 and within_a_step(decoded(two, 1), mean.flatten(1)[:, None, None] - 0.5)
    assert made.name == "network, heads, mean and pair side by side"
    assert "maps of network, heads, mean and pair over them. " in made.alt and "mean: 10 × 14 cells." in made.alt


def test_panels_start_at_one_place_and_one_choice(network, pictures):
    coarse = torch.rand(3, 2, 3)
    made = side_by_side({"coarse": coarse, "SE": network}, pictures, only="1",
                        start={"at": (10, 14), "choice": "channel 6"})
    assert made.data["start"]["at"] == [13.5 / COLUMNS, 9.5 / ROWS] and made.data["start"]["choice"] == 5
    asked = described(("batch", "query", "key"), torch.rand(3, 6, 140))
    made = side_by_side({"SE": network, "asked": asked}, pictures, grid=(2, 3), start={"at": (2, 3)})
    assert made.data["start"]["at"] == [2.5 / 3, 1.5 / 2] and made.data["start"]["scale"] == 1


def test_only_picks_the_mechanism_of_every_variant(network, pictures):
    made = side_by_side({"a": network, "b": network}, pictures, only="1")
    assert all(layers(made, panel)[0]["features"] for panel in (0, 1))
    assert made.data["start"]["scale"] == 0


# -- errors

def test_too_much_is_an_error_that_says_how_much(pictures):
    many = torch.rand(1, 3, 24, 24)
    with pytest.raises(ValueError, match=r"would weigh \d+ kB, more than the 200 kB"):
        maps(Heads(), many)
    assert maps(Heads(), pictures[:1]).bytes < viewer.MOST_BYTES


@pytest.mark.parametrize("call, message", [
    (lambda p: maps(nn.Conv2d(3, 3, 1), p), "Conv2d holds no attention"),
    (lambda p: maps(nn.Sequential(Spot()), p, only="x"), "no attention is called 'x'; there are: 0"),
    (lambda p: maps(Spot(), p[0]), r"tensor \(N, C, H, W\) with at least one picture, not \(3, 10, 14\)"),
    (lambda p: maps(Spot(), p[:0]), r"at least one picture, not \(0, 3, 10, 14\)"),
    (lambda p: maps(Spot(), "cup.png"), "with at least one picture, not str"),
    (lambda p: maps(Spot(), p.mul(255).byte()), r"floating-point, not torch.uint8; convert with"),
    (lambda p: maps(Spot(), p / 0), "the pictures hold NaN or infinite values"),
    (lambda p: maps(described(("batch", "row", "column"), torch.full((3, 2, 2), torch.nan)), p),
     "the weights of Fixed hold NaN or infinite values"),
    (lambda p: maps(described(("batch", "row"), torch.ones(3, 2, 2)), p), r"describes the axes batch, row, but"),
    (lambda p: maps(described(("batch", "row", "column"), torch.ones(6, 2, 2)), p),
     r"weights \(6, 2, 2\) for 3 pictures: their batch must be"),
    (lambda p: maps(create("se", 3, reduction=1), p, shown="weights"), "have no map; .* shown='features'"),
    (lambda p: maps(Spot(), p, shown="all"), "shown is one of auto, weights, features, not 'all'"),
    (lambda p: maps(Spot(), p, labels=["a"]), "3 pictures, but 1 label$"),
    (lambda p: maps(Spot(), p, originals=p[:2]), r"originals are \(N, 1 or 3, H, W\) for 3 pictures, not \(2, 3"),
    (lambda p: maps(Spot(), p, start={"picture": "cup"}), "no picture 'cup' to start with; there are: picture 1,"),
    (lambda p: maps(Spot(), p, start={"choice": "head 1"}), "no choice 'head 1' to start with; there are: none"),
    (lambda p: maps(Spot(), p, start={"at": (11, 1)}), "no row 11, column 1 to start at in 10 × 14 positions"),
    (lambda p: maps(Spot(), p, start={"hue": 1}), "cannot start with 'hue'; there are: layer, picture, choice, at"),
    (lambda p: side_by_side({"a": Spot()}, p), "1 variant cannot stand side by side; give at least two"),
    (lambda p: side_by_side({"a": Spot(), "b": p[:2, 0]}, p), r"maps of 'b' have shape \(2, 10, 14\), not .* 3 pict"),
    (lambda p: side_by_side({"a": Spot(), "b": p}, p), r"maps of 'b' have shape \(3, 3, 10, 14\), not \(N, h, w\)"),
    (lambda p: side_by_side({"a": Spot(), "b": p[:, 0] / 0}, p), "the maps of 'b' hold NaN or infinite values"),
    (lambda p: side_by_side({"a": Spot(), "b": (p[:, 0], p[:, 0, ::2])}, p), "'b' has maps or a pair of maps of one"),
    (lambda p: side_by_side({"a": Spot(), "b": p[:, 0]}, p, said={"c": []}), "'c', which is no variant; there are: a"),
    (lambda p: side_by_side({"a": Spot(), "b": p[:, 0]}, p, said={"b": ["x"]}), "'b' has 1 line for 3 pictures"),
])
def test_errors_say_what_to_do(pictures, call, message):
    with pytest.raises(ValueError, match=message):
        call(pictures)


def test_a_mechanism_that_never_runs_is_an_error(pictures):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.spot = Spot()

        def forward(self, x):
            return x

    with pytest.raises(ValueError, match="none of the mechanisms of Idle ran; choose another with only="):
        maps(Idle(), pictures)


def test_both_are_viewers(pictures):
    assert isinstance(side_by_side({"a": Spot(), "b": Spot()}, pictures), Maps)
    assert isinstance(maps(Spot(), pictures), viewer.Viewer)
