import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgba
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from attnlib import Attention, Description, create, plot
from attnlib.data import Pictures
from attnlib.plot import COLOURS, DARK, Step


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def svg_of(figure, drawn=0):
    return ET.fromstring(figure.drawings[drawn].svg)


def words_of(element):
    return [node.text for node in element.iter() if node.tag.endswith("text") and node.text]


def embedded(figure):
    data = re.findall(r'href="data:image/\w+;base64,([^"]+)"', figure._repr_html_())
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in data]


def line_figure():
    figure, axes = plot.subplots()
    with plot.style():
        axes.plot([0, 1, 2], [1, 0, 3], "o-", color=COLOURS["data"], label="α & <β>")
        axes.plot([0, 2], [2, 2], color=COLOURS["neutral"])
        axes.plot([0, 2], [1, 2], color="#123456")
        axes.legend()
    return figure


def softmax_over_rows():
    class Rows(Attention):
        about = Description(title="Rows", paper="", cite="", axes=("batch", "row"), shape=("B", "H"), kind="softmax",
                            sums_over=("row",))

    return Rows().about


# -- colours

def luminance(colour):
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgba(colour)[:3]]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


@pytest.mark.parametrize("roles, ground", [(COLOURS, "#FFFFFF"), (DARK, "#121212")])
def test_roles_can_be_read(roles, ground):
    for role in set(roles) - {"ground", "line"}:
        darker, lighter = sorted([luminance(roles[role]), luminance(ground)])
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, role


@pytest.mark.parametrize("name", ["attn_map", "attn_signed"])
def test_ramps_are_perceptually_even(name):
    colours = colormaps[name](np.arange(256))[:, :3]
    halves = [colours] if name == "attn_map" else [colours[:128], colours[128:]]
    for half in halves:
        lab = rgb2lab(half[None])[0]
        # Averaged over eight steps: a ramp holds 8-bit colours on screen, and single steps round.
        steps = deltaE_ciede2000(lab[:-8], lab[8:])
        assert steps.max() / steps.min() < 2.2
        rising = np.diff(lab[:, 0])
        assert (rising > 0).all() or (rising < 0).all()


def test_signed_ramp_has_grey_in_the_middle():
    assert np.ptp(colormaps["attn_signed"](0.5)[:3]) < 0.02


def test_no_ramp_colour_is_taken_for_a_role():
    ramps = {to_hex(colormaps[name](i)) for name in ("attn_map", "attn_signed") for i in range(256)}
    assert not ramps & {colour.lower() for colour in COLOURS.values()}


# -- finished figures

def test_role_colours_become_variables_and_others_stay():
    svg = plot.show(line_figure(), alt="Lines").drawings[0].svg
    assert "var(--attn-data,#B8432A)" in svg and "var(--attn-neutral,#666E7A)" in svg and "#123456" in svg
    without = re.sub(r"var\([^)]*\)", "", svg).lower()
    assert not [role for role, colour in COLOURS.items() if colour.lower() in without]


def test_page_brings_the_dark_colours():
    page = plot.show(line_figure(), alt="Lines")._repr_html_()
    for where in ('html[data-theme="dark"]', '[data-jp-theme-light="false"]'):
        assert where in page
    assert all(f"--attn-{role}:{colour}" in page for role, colour in DARK.items())


def test_text_stays_text_in_the_pages_font():
    svg = plot.show(line_figure(), alt="Lines").drawings[0].svg
    assert "α &amp; &lt;β&gt;" in svg and "font-family" not in svg


def test_same_figure_same_bytes_and_nothing_that_changes():
    first, second = (plot.show(line_figure(), alt="Lines")._repr_html_() for _ in range(2))
    assert first == second
    assert "metadata" not in first and "matplotlib" not in first.lower()


def test_coordinates_are_rounded():
    svg = plot.show(line_figure(), alt="Lines").drawings[0].svg
    assert not re.search(r"\d\.\d{3}", svg)


def test_ids_are_few_resolve_and_differ_between_figures():
    other, axes = plot.subplots()
    axes.plot([0, 1], [3, 4], "o")
    taken = set()
    for figure in (line_figure(), other):
        svg = plot.show(figure, alt="Lines").drawings[0].svg
        ids = set(re.findall(r'id="([^"]+)"', svg))
        assert ids == set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) and ids
        assert not ids & taken
        taken |= ids


def test_background_is_transparent():
    filled = [node.get("style", "") for node in svg_of(plot.show(line_figure(), alt="Lines")).iter()]
    assert not any("--attn-ground" in style for style in filled)


def test_alt_and_caption_are_there_and_escaped():
    page = plot.show(line_figure(), alt='A "quoted"\n <line>', caption="a < b")._repr_html_()
    assert 'role="img" aria-label="A &quot;quoted&quot; &lt;line&gt;"' in page
    assert "<figcaption>a &lt; b</figcaption>" in page


def test_text_form_is_plain():
    assert repr(plot.show(line_figure(), alt="Two lines")) == "Figure('Two lines')"


@pytest.mark.parametrize("alt", ["", "  \n", None])
def test_no_alt_text_is_an_error(alt):
    with pytest.raises(ValueError, match="alt text"):
        plot.show(line_figure(), alt=alt)


def test_what_is_no_figure_is_an_error():
    with pytest.raises(TypeError, match="matplotlib figure, not int"):
        plot.show(3, alt="three")


def test_pyplot_figures_are_closed_and_closed_ones_can_be_shown():
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    plt.close(figure)
    assert "<path" in plot.show(figure, alt="A line").drawings[0].svg
    figure, axes = plt.subplots()
    plot.show(axes, alt="Nothing yet")
    assert figure.number not in plt.get_fignums()


def test_wide_figures_scroll_by_keyboard_and_small_ones_fit_a_phone():
    narrow, _ = plot.subplots()
    wide, _ = plot.subplots(width=7)
    assert "min-width" not in (page := plot.show(narrow, alt="Axes")._repr_html_()) and "tabindex" not in page
    assert "min-width:504px" in (page := plot.show(wide, alt="Axes")._repr_html_()) and 'tabindex="0"' in page


def test_save_writes_a_picture_that_stands_alone(tmp_path):
    plot.show(line_figure(), alt="A <line>").save(tmp_path / "line.svg")
    text = (tmp_path / "line.svg").read_text()
    assert ET.fromstring(text)[0].text == "A <line>" and "prefers-color-scheme:dark" in text


def test_reading_the_style_leaves_the_readers_settings_alone():
    before = dict(plt.rcParams)
    plot.show(plot.gates(rand(8)), alt="Gates")
    assert dict(plt.rcParams) == before


# -- pictures and overlays

def test_few_pixels_are_kept_exactly():
    picture = rand(3, 5, 7)
    (drawn,) = embedded(plot.show(plot.pictures([picture]), alt="Noise"))
    expected = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(drawn.convert("RGB")), expected)


def test_photographs_are_small_in_bytes_and_close_to_what_they_were():
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 400), torch.linspace(0, 1, 600), indexing="ij")
    smooth = torch.stack([rows, columns, rows * columns]) * 0.8 + 0.02 * rand(3, 400, 600)
    figure = plot.show(plot.pictures([smooth]), alt="A gradient")
    (drawn,) = embedded(figure)
    assert max(drawn.size) == 288 and len(figure._repr_html_()) < 60_000
    expected = torch.nn.functional.interpolate(smooth[None], size=(192, 288), mode="area")[0]
    assert np.abs(np.asarray(drawn.convert("RGB")) / 255 - expected.permute(1, 2, 0).numpy()).mean() < 0.02


@pytest.mark.parametrize("picture", [
    rand(8, 8), rand(1, 8, 8), rand(3, 8, 8), rand(8, 8, 3), (rand(3, 8, 8) * 255).byte(), rand(8, 8).double().numpy(),
])
def test_every_form_of_picture_is_drawn(picture):
    assert len(embedded(plot.show(plot.pictures([picture]), alt="Noise"))) == 1


@pytest.mark.parametrize("picture, message", [
    (rand(2, 8, 8), "1 or 3 channels"), (rand(3, 8, 8) * 4, "values lie in 0–1"), (rand(3, 0, 8), "a picture is"),
    (rand(8, 8) * float("nan"), "values lie in 0–1"),
])
def test_what_is_no_picture_is_an_error(picture, message):
    with pytest.raises(ValueError, match=message):
        plot.pictures([picture])


def test_pictures_and_titles_must_belong_together():
    with pytest.raises(ValueError, match="2 pictures, but 1 titles"):
        plot.pictures(rand(2, 1, 8, 8), ["one"])
    with pytest.raises(ValueError, match="no picture"):
        plot.pictures([])


def lightness(figure):
    """Mean grey value of the drawn overlay (the colour bar is embedded too, but after it)."""
    return np.asarray(embedded(plot.show(figure, alt="Overlay"))[0].convert("L"), dtype=float)


def test_answers_are_marked_right_or_wrong():
    data = Pictures(torch.tensor([-0.5, 0.5, 1.5]).view(3, 1, 1, 1).expand(3, 1, 8, 8), torch.tensor([0, 1, 1]), ("no", "yes"))
    titles = [place.get_title() for place in plot.answers(data, torch.tensor([0, 0, 1])).axes]
    assert titles == ["no ✓", "no ✗", "yes ✓"]
    scores = torch.tensor([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    assert [place.get_title() for place in plot.answers(data, scores).axes] == titles
    with pytest.raises(ValueError, match="3 pictures, but 2 answers"):
        plot.answers(data, torch.tensor([0, 1]))


def test_overlay_is_brightest_where_the_weight_is():
    weights = torch.zeros(4, 6)
    weights[0, 5] = 1
    light = lightness(plot.overlay(torch.full((1, 40, 60), 0.5), weights))
    row, column = np.unravel_index(light.argmax(), light.shape)
    assert row < light.shape[0] / 4 and column > light.shape[1] * 5 / 6


def test_overlay_of_strength_nought_is_the_picture_in_grey():
    picture = rand(1, 8, 8)
    light = lightness(plot.overlay(picture, rand(3, 3), strength=0))
    assert light.shape == (160, 160)
    assert np.abs(light[10::20, 10::20] / 255 - picture[0].numpy()).max() < 0.02


def test_overlays_of_several_pictures_share_one_scale():
    weights = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])[:, None]
    figure = plot.overlay(torch.full((2, 1, 8, 8), 0.5), weights, ["low", "high"], smooth=False)
    low, high = (np.asarray(one.convert("L"), float) for one in embedded(plot.show(figure, alt="Two"))[:2])
    assert low.max() < high.min()


@pytest.mark.parametrize("weights, message", [
    (rand(2, 4, 4), "not one map"), (rand(5), "not one map"), (torch.full((4, 4), float("nan")), "NaN"),
])
def test_overlay_refuses_weights_it_cannot_draw(weights, message):
    with pytest.raises(ValueError, match=message):
        plot.overlay(rand(3, 8, 8), weights)


def test_overlay_of_constant_weights_is_drawn():
    assert len(embedded(plot.show(plot.overlay(rand(8, 8), torch.ones(2, 2)), alt="Even"))) >= 1


# -- charts

def bars(axes):
    return [patch.get_height() for patch in axes.patches]


def test_gates_are_the_means_over_the_batch():
    weights = rand(6, 5, 1, 1)
    axes = plot.gates(weights, create("se", 64).about).axes[0]
    assert bars(axes) == pytest.approx(weights.mean((0, 2, 3)).tolist())
    assert axes.lines[0].get_ydata()[0] == 1 and axes.get_xlabel() == "channel"


def test_gates_sorted_and_side_by_side():
    axes = plot.gates({"early": torch.tensor([0.1, 0.9, 0.5]), "late": torch.tensor([0.2, 0.3])}, sort=True).axes
    assert [place.get_title(loc="left") for place in axes] == ["early", "late"]
    assert bars(axes[0]) == pytest.approx([0.9, 0.5, 0.1]) and bars(axes[1]) == pytest.approx([0.3, 0.2])


def test_gates_of_many_channels_keep_every_value():
    weights = rand(200)
    (stairs,) = plot.gates(weights).axes[0].patches
    assert np.allclose(stairs.get_data().values, weights)
    assert np.allclose(stairs.get_data().edges, np.arange(201) + 0.5)


@pytest.mark.parametrize("channels", [1, 2, 8, 17, 32, 33, 200])
@pytest.mark.parametrize("panels", [1, 2, 6])
def test_gates_count_channels_from_one(channels, panels):
    figure = plot.gates({str(number): rand(5, channels) for number in range(panels)})
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.get_xlim() == pytest.approx((0.3, channels + 0.7))
        if channels <= 32:
            assert [patch.get_x() + patch.get_width() / 2 for patch in axes.patches] == pytest.approx(
                range(1, channels + 1))
            assert [path[0, 0] for path in axes.collections[0].get_segments()] == pytest.approx(range(1, channels + 1))
        ticks = axes.get_xticks()
        assert ticks[0] == 1 and ticks[-1] <= channels and all(tick == int(tick) for tick in ticks)
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:]))


@pytest.mark.parametrize("channels", [4, 64])
def test_gates_in_one_or_two_panels_fit_a_phone(channels):
    width = {panels: plot.gates({str(number): rand(channels) for number in range(panels)}).get_figwidth()
             for panels in (1, 2, 3)}
    assert width[1] <= 4.8 and width[2] <= 4.8 < width[3] + 0.5 <= 7.5


def test_the_description_says_what_an_axis_means():
    axes = plot.gates(torch.full((3, 4), 0.25), softmax_over_rows()).axes[0]
    assert axes.get_xlabel() == "row" and axes.lines[0].get_ydata()[0] == 0.25


@pytest.mark.parametrize("weights, options, message", [
    (torch.zeros(2, 3, 4), {"about": softmax_over_rows()}, "do not have the axes batch, row"),
    (torch.zeros(2, 3), {"about": softmax_over_rows(), "axis": "key"}, "no axis 'key'"),
    (torch.tensor([float("nan")]), {}, "NaN"), (torch.zeros(0), {}, "no weights"), ({}, {}, "no weights"),
])
def test_gates_refuse_what_they_cannot_draw(weights, options, message):
    with pytest.raises(ValueError, match=message):
        plot.gates(weights, **options)


def test_gates_by_class_are_centred_means():
    weights, labels = rand(9, 4, 1, 1), torch.tensor([0, 1, 2] * 3)
    drawn = plot.gates_by_class(weights, labels, "abc").axes[0].images[0].get_array()
    means = torch.stack([weights[labels == k].mean((0, 2, 3)) for k in range(3)])
    assert np.allclose(drawn, means - means.mean(0), atol=1e-6)
    raw = plot.gates_by_class(weights, labels, "abc", centre=False).axes[0].images[0].get_array()
    assert np.allclose(raw, means, atol=1e-6)


def test_a_class_without_pictures_is_left_blank():
    drawn = plot.gates_by_class(rand(4, 3), torch.tensor([0, 0, 2, 2]), "abc").axes[0].images[0].get_array()
    assert np.ma.getmaskarray(np.ma.masked_invalid(drawn)).any(1).tolist() == [False, True, False]


def test_gates_by_class_needs_matching_labels():
    with pytest.raises(ValueError, match="4 pictures, but 3 labels"):
        plot.gates_by_class(rand(4, 3), torch.zeros(3), "ab")
    with pytest.raises(ValueError, match="up to 2, but there are names for 2"):
        plot.gates_by_class(rand(4, 3), torch.tensor([0, 1, 2, 0]), "ab")


def history(steps=20):
    step = np.arange(steps)
    tested = np.where(step % 5 == 0, step / steps, np.nan)
    return pd.DataFrame({"step": step, "seconds": step / 10, "loss": 1 / (step + 1), "accuracy": step / steps / 2,
                         "test_accuracy": tested})


def test_curves_hold_the_history():
    figure = plot.curves({"none": history(), "se": history()})
    loss, accuracy = figure.axes
    assert np.allclose(loss.lines[1].get_ydata(), history()["loss"])
    assert accuracy.lines[1].get_xdata().tolist() == [0, 5, 10, 15]
    assert to_hex(loss.lines[0].get_color()).upper() == COLOURS["neutral"]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["none", "se"]
    run = type("Run", (), {"history": history()})()
    assert np.allclose(plot.curves({"none": run}).axes[0].lines[0].get_ydata(), history()["loss"])
    assert plot.curves(history(), against="seconds").axes[0].lines[0].get_xdata()[1] == 0.1


def test_long_histories_are_thinned_to_means():
    line = plot.curves(history(3001)).axes[0].lines[0]
    assert len(line.get_ydata()) <= 150
    assert line.get_ydata()[0] == pytest.approx((1 / np.arange(1, 22)).mean())


def test_curves_name_the_column_that_is_absent():
    with pytest.raises(ValueError, match="'se' has no column loss"):
        plot.curves({"se": history().drop(columns="loss")})
    with pytest.raises(ValueError, match="no run"):
        plot.curves({})


def test_labels_of_a_scatter_do_not_overlap():
    names = ["ResNet-50", "SE-ResNet-50", "CBAM", "BAM", "ECA", "Shuffle"]
    points = {name: (4.1 + 0.002 * (i % 2), 76.4 + 0.01 * (i // 3)) for i, name in enumerate(names)}
    figure = plot.scatter_cost(points, cost="GFLOPs", accuracy="top-1")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert [text.get_text() for text in figure.axes[0].texts] == names
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    table = pd.DataFrame(points, index=["GFLOPs", "top-1"]).T
    assert len(plot.scatter_cost(table, cost="GFLOPs", accuracy="top-1").axes[0].texts) == 6


# -- diagrams

def test_diagram_is_read_from_the_code():
    se = create("se", 64)
    figure = plot.diagram(se)
    assert "x × a" in words_of(svg_of(plot.diagram(se, weights="a")))
    words = words_of(svg_of(figure))
    steps = ["mean over H, W", "1×1 conv, 64 → 4", "relu", "1×1 conv, 4 → 64", "sigmoid", "x × s"]
    assert [word for word in words if word in steps] == steps
    assert words.count("B×64×H×W") == 2 and "B×64×1×1" in words and "Squeeze-and-Excitation" in words
    assert se.training and "1×1 conv, 64 → 4 (learned)" in figure.alt and repr(figure).startswith("Figure('Diagram")


def test_a_window_is_no_axis():
    class Windowed(Attention):
        about = Description(title="Windowed", paper="", cite="", axes=("batch", "channel", "row", "column"),
                            shape=("B", "C", "H", "W"), name="windowed")

        def attend(self, x):
            return torch.nn.functional.avg_pool2d(x, 7, 1, 3).sigmoid()

        def use(self, x, weights):
            return x * weights

    words = words_of(svg_of(plot.diagram(Windowed(8))))
    assert "avg_pool2d" in words and not any("over axis" in word for word in words)


def test_learned_steps_have_the_cool_colour():
    boxes = [node for node in svg_of(plot.diagram(create("se", 64))).iter() if node.tag.endswith("rect")]
    cool = [box for box in boxes if "--attn-learned" in box.get("style")]
    assert len(cool) == 3  # two convolutions and the legend


def test_diagram_of_code_that_is_no_chain_shows_its_learned_parts():
    class Two(Attention):
        about = Description(title="Two", paper="", cite="", axes=("batch", "channel", "row", "column"),
                            shape=("B", "C", 1, 1))

        def __init__(self, channels):
            super().__init__(channels)
            self.mix = torch.nn.Conv2d(channels, channels, 1)

        def attend(self, x):
            return torch.sigmoid(self.mix(x.mean((2, 3), keepdim=True)) + self.mix(x.amax((2, 3), keepdim=True)))

        def use(self, x, weights):
            return x * weights if x.sum() > 0 else x

    words = words_of(svg_of(plot.diagram(Two(8))))
    assert "1×1 conv, 8 → 8" in words and "mean over H, W" not in words


def test_axes_are_named_only_where_they_are_known():
    class Positions(Attention):
        about = Description(title="Positions", paper="", cite="", axes=("batch", "query", "key"),
                            shape=("B", "N", "N"), kind="softmax", sums_over=("key",))

        def attend(self, x):
            return x.amax(1).flatten(1).softmax(-1)

        def use(self, x, weights):
            return x * weights.sum(-1).view(-1, 1, 1, 1)

    words = words_of(svg_of(plot.diagram(Positions(), weights="A")))
    assert "max over C" in words and "softmax over axis -1" in words and "B×143" in words
    assert "x × s" not in words


def test_both_layouts_hold_every_word_inside_their_frame():
    figure = plot.diagram(
        attend=[[Step("query", "query", "N×d"), Step("key", "key", "N×d")], "scaled\nproduct", "softmax over keys"],
        use=[Step("value", "value"), "weighted sum", [Step("project", "learned"), "x"]], weights="A", output="z",
        shapes={"x": "B×C×H×W", "A": "B×N×N"}, title="Non-local",
    )
    assert [drawing.only for drawing in figure.drawings] == ["wide", "narrow"]
    for drawing in figure.drawings:
        svg = ET.fromstring(drawing.svg)
        _, _, width, height = map(float, svg.get("viewBox").split())
        assert {"query", "key", "scaled", "product", "softmax over keys", "value", "A", "z"} <= set(words_of(svg))
        for node in svg.iter():
            if "x" in node.attrib:
                assert 0 <= float(node.get("x")) <= width and 0 <= float(node.get("y")) <= height
            for x, y in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", node.get("d", "")):
                assert 0 <= float(x) <= width and 0 <= float(y) <= height
    assert figure.drawings[1].width <= 350  # a phone


def test_words_fit_their_boxes():
    svg = svg_of(plot.diagram(attend=["MMMM WWWW mmmm", "illi"], use=["s · x"]))
    boxes = [node for node in svg.iter() if node.tag.endswith("rect")]
    assert max(float(box.get("width")) for box in boxes) > 14 * 14 * 0.75


def test_the_input_may_enter_a_later_step():
    steps = dict(attend=["find"], use=[plot.Step("grid", shape="B×H×W×2"), "sampler", "sum"])
    first, second = plot.diagram(**steps), plot.diagram(**steps, enters=1)
    assert "where it says sampler" in second.alt and "where it says" not in first.alt
    for drawn in range(2):  # wide and narrow: as many arrows, one of which ends elsewhere
        ends = [[node.get("d") for node in svg_of(figure, drawn).iter() if "l" in node.get("d", "")]
                for figure in (first, second)]
        assert len(ends[0]) == len(ends[1]) and ends[0] != ends[1]
    for step in (3, -1, 1.0):
        with pytest.raises(ValueError, match="one of the 3 steps of use, from 0 on"):
            plot.diagram(**steps, enters=step)
    with pytest.raises(ValueError, match="2 side by side"):
        plot.diagram(attend=["find"], use=["grid", ["a", "b"]], enters=1)


def test_a_diagram_needs_steps_and_known_roles():
    with pytest.raises(ValueError, match="needs a mechanism, or the steps of both"):
        plot.diagram(attend=["look"])
    with pytest.raises(ValueError, match="role is one of data, learned"):
        Step("look", "cool")
