import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image

from attnlib.plot.looks import NARROW, WIDE, Panel, Strip, _apart, _hatching, _outline, sheet, storyboard
from attnlib.spatial.looks import Looks


def some(count=1):
    """A bright picture of 6×8 of which a part was read, a part seen, and a part not."""
    read = torch.zeros(count, 6, 8, dtype=torch.bool)
    read[:, 1:3, 2:5] = True
    glanced = torch.ones_like(read)
    glanced[:, :, 7] = False
    return Looks(torch.full((count, 6, 8), 0.8), read, glanced, torch.tensor([[[3.0, 2.0], [4.0, 2.0]]] * count))


def drawings(figure):
    return {drawing.only: ET.fromstring(drawing.svg) for drawing in figure.drawings}


def colours(svg):
    found = [node for node in svg.iter() if node.tag.endswith("image")]
    data = [node.get("href").split(",")[1] for node in found]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB")).astype(int) for one in data]


def wide(*panels):
    return drawings(sheet(panels, columns=len(panels), narrow=1, alt="Some pictures"))["wide"]


def words(svg):
    return [node.text for node in svg.iter() if node.tag.endswith("text")]


def box(svg):
    return [float(number) for number in svg.get("viewBox").split()]


def test_what_was_read_is_bright_what_was_seen_is_dim_and_the_rest_has_one_grey():
    looked = some()
    (shown,) = colours(wide(Panel(looked)))
    light, read, unseen = shown.sum(2), looked.read[0].numpy(), ~looked.glanced[0].numpy()
    assert light[read].min() > 1.5 * light[~read & ~unseen].max()
    assert len({tuple(colour) for colour in shown[unseen]}) == 1
    looked.seen[0, :, 7] = 0.1  # nobody knows what is there
    assert np.array_equal(colours(wide(Panel(looked)))[0], shown)


def test_a_picture_by_itself_is_all_bright():
    shown, parts = colours(wide(Panel(torch.full((6, 8), 0.8)), Panel(some())))
    assert (shown == parts[some().read[0].numpy()][0]).all()


def test_rows_are_as_long_as_asked_and_nothing_leaves_the_drawing():
    panels = [Panel(some(2), n % 2, f"title {n}", f"word {n}", marks="path") for n in range(6)]
    for only, svg in drawings(sheet(panels, columns=3, narrow=2, alt="Six pictures")).items():
        corners = [tuple(map(float, re.match(r"translate\(([\d.]+) ([\d.]+)\)", node.get("transform")).groups()))
                   for node in svg.iter() if node.get("transform")]
        rows, columns = (len(set(side)) for side in zip(*((y, x) for x, y in corners)))
        assert (rows, columns) == {"wide": (2, 3), "narrow": (3, 2)}[only]
        x, y, width, height = box(svg)
        assert width <= {"wide": WIDE, "narrow": NARROW}[only]
        for node in svg.iter():
            if node.tag.endswith("text"):
                assert x <= float(node.get("x")) < width and y < float(node.get("y")) < height
        assert [each for each in words(svg) if each.startswith("title")] == [f"title {n}" for n in range(6)]


def test_a_wrong_answer_stands_out_and_a_right_one_does_not():
    svg = wide(Panel(some(), words="a", wrong=True), Panel(some(), words="b"))
    styles = {node.text: node.get("style") for node in svg.iter() if node.tag.endswith("text")}
    assert "--attn-data" in styles["a"] and "--attn-data" not in styles["b"]


def test_numbers_stand_at_the_places_that_exist_and_a_path_joins_them():
    looked = some()
    for marks, wanted in (("", []), ("numbers", ["1", "2"]), ("path", ["1", "2"])):
        svg = wide(Panel(looked, marks=marks))
        assert words(svg) == wanted
        assert ("stroke:#FFFFFF" in ET.tostring(svg, encoding="unicode")) == (marks == "path")
    looked.places[0, 1] = torch.nan
    assert words(wide(Panel(looked, marks="path"))) == ["1"]


def test_numbers_are_moved_apart_and_stay_inside():
    places = torch.tensor([[50.0, 50.0], [50.0, 50.0], [51.0, 50.0], [10.0, 20.0], [109.0, 119.0]])
    moved = _apart(places, 10, 20, 100)
    far = torch.cdist(moved, moved) + 100 * torch.eye(5)
    assert far.min() > 11.5 and (moved[:2] - places[:2]).norm(dim=1).max() < 15
    assert (moved >= torch.tensor([16.0, 26.0])).all() and (moved <= torch.tensor([104.0, 114.0])).all()
    alone = torch.tensor([[30.0, 60.0], [80.0, 60.0]])
    assert torch.allclose(_apart(alone, 10, 20, 100), alone.double(), atol=0.01)


def test_an_outline_goes_around_every_pixel_of_a_mask():
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    edges = set()
    for x, y, way, end in re.findall(r"M(\d+) (\d+)([HV])(\d+)", _outline(mask)):
        x, y, end = int(x), int(y), int(end)
        edges |= {("H", at, y) for at in range(x, end)} if way == "H" else {("V", x, at) for at in range(y, end)}
    inside = lambda row, column: 0 <= row < 5 and 0 <= column < 7 and bool(mask[row, column])  # noqa: E731
    wanted = {("H", c, r) for r in range(6) for c in range(7) if inside(r - 1, c) != inside(r, c)}
    wanted |= {("V", c, r) for r in range(5) for c in range(8) if inside(r, c - 1) != inside(r, c)}
    assert edges == wanted


@pytest.mark.parametrize("apart", [1, 3])
def test_hatching_crosses_what_was_not_seen_and_nothing_else(apart):
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(1)) > 0.5
    crossed = set()
    for column, row, left, down in re.findall(r"M(\d+) (\d+)l-(\d+) (\d+)", _hatching(mask, apart)):
        assert left == down
        crossed |= {(int(row) + n, int(column) - n - 1) for n in range(int(down))}
    wanted = {(row, column) for row, column in mask.nonzero().tolist() if (row + column + 1) % apart == 0}
    assert crossed == wanted


def test_only_what_was_not_seen_is_hatched():
    def hatched(looked):
        return [node.get("d") for node in wide(Panel(looked)).iter() if node.get("class") == "unseen"]

    everything = some()
    everything.glanced[:] = True
    assert hatched(everything) == [""] and len(hatched(some())[0]) > 0
    assert "unseen" not in ET.tostring(wide(Panel(torch.rand(6, 8))), encoding="unicode")


def strip(count, learned):
    return Strip("A title", "a phrase", (Panel(some(), title="first"),) * count, "what is\nchosen", learned)


def test_a_storyboard_says_how_each_choice_is_learned():
    figure = storyboard([strip(2, "by gradient"), strip(3, "by reward"), strip(2, "not")], alt="Three strips")
    for svg in drawings(figure).values():
        said = words(svg)
        told = ["learned by gradient", "learned by reward", "not learned"]
        assert [each for each in said if "learned" in each] == told
        assert said.count("answer") == 3 and len(colours(svg)) == 7
        assert ET.tostring(svg, encoding="unicode").count("stroke-dasharray") == 2, "two arrows between three glimpses"
        assert box(svg)[2] <= WIDE
    assert box(drawings(figure)["narrow"])[2] <= 360


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="a sheet has panels"):
        sheet([], columns=1, narrow=1, alt="Nothing")
    with pytest.raises(ValueError, match="at least one in a row, not 1, in 0"):
        sheet([Panel(some())], columns=0, narrow=1, alt="Nothing")
    with pytest.raises(ValueError, match="two or three panels"):
        storyboard([strip(1, "not")], alt="Nothing")
    with pytest.raises(ValueError, match="'by magic'"):
        storyboard([strip(2, "by magic")], alt="Nothing")
