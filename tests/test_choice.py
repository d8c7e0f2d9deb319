import math
import re
import xml.etree.ElementTree as ET

import pandas as pd
import pytest

from attnlib import plot
from attnlib.plot import COLOURS
from attnlib.plot.choice import APART, EDGE, HIGH, WIDE, accuracy_scale, apart, cost_scale, nearest

SCORES = {
    "first task": {"none": (0.5, 0.45, 0.55), "SE": (0.9, 0.8, 1.1), "a & <b>": (0.7, 0.7, 0.7)},
    "second <task>": {"SE": (0.5, 0.5, 0.5), "none": (0.3, 0.2, 0.4), "a & <b>": (0.25, 0.0, 0.5)},
}
COSTS = {"parameters added": {"none": 0, "SE": 999, "a & <b>": 9}, "kB <moved>": {"none": 10, "SE": 20, "a & <b>": 15}}


def draw(scores=SCORES, costs=COSTS, **options):
    return plot.choice(scores, costs, **{"alt": "Accuracy against cost of three networks."} | options)


def tree(figure):
    """The figure as XML: what is not well-formed or not escaped raises."""
    markup = re.sub(r"<style>.*?</style>", "", figure._repr_html_())
    markup = re.sub(r"<input ([^>]*?)>", r"<input \1/>", markup).replace(" checked/>", ' checked="checked"/>')
    return ET.fromstring(markup)


def of_class(root, name):
    return [element for element in root.iter() if name in element.get("class", "").split()]


def words(element):
    return "".join(element.itertext())


def test_radios_are_grouped_named_and_described():
    root = tree(draw(chosen="SE"))
    groups = {words(group.find("legend")): group for group in root.iter("fieldset")}
    assert list(groups) == ["mechanism", "cost, from left to right"]
    ids = {element.get("id"): element for element in root.iter() if element.get("id")}
    for legend, names, checked in (("mechanism", ["none", "SE", "a & <b>"], [False, True, False]),
                                   ("cost, from left to right", list(COSTS), [True, False])):
        radios = list(groups[legend].iter("input"))
        assert {radio.get("type") for radio in radios} == {"radio"}
        assert len({radio.get("name") for radio in radios}) == 1
        assert [words(ids[radio.get("aria-labelledby")]) for radio in radios] == names
        assert ["checked" in radio.attrib for radio in radios] == checked
    described = [words(ids[radio.get("aria-describedby")]) for radio in groups["mechanism"].iter("input")]
    assert [text.partition(":")[0] for text in described] == ["none", "SE", "a & <b>"]


def test_first_mechanism_stands_out_by_default():
    radios = list(next(tree(draw()).iter("fieldset")).iter("input"))
    assert ["checked" in radio.attrib for radio in radios] == [True, False, False]


def test_every_mechanism_is_in_every_panel_for_every_cost():
    root = tree(draw())
    panels = of_class(root, "attn-choice-panel")
    assert len(panels) == 2
    radios = [radio.get("id") for radio in next(root.iter("fieldset")).iter("input")]
    for panel in panels:
        for number in range(3):
            assert len(of_class(panel, f"attn-choice-m{number}")) == 2
            areas = of_class(panel, f"attn-choice-at{number}")
            assert [area.get("for") for area in areas] == [radios[number]] * 2
        for number in range(2):
            group, around = of_class(panel, f"attn-choice-c{number}")
            assert len(list(group.iter("circle"))) == len(list(around.iter("label"))) == 3


def test_panels_are_pictures_with_words():
    pictures = [element for element in tree(draw()).iter() if element.get("role") == "img"]
    assert [picture.get("aria-label") for picture in pictures] == [
        "Accuracy against cost on first task, from the highest accuracy: SE 0.900, a & <b> 0.700, none 0.500",
        "Accuracy against cost on second <task>, from the highest accuracy: SE 0.500, none 0.300, a & <b> 0.250",
    ]
    assert all(svg.get("aria-hidden") == "true" for svg in tree(draw()).iter("svg"))


def dots(panel, cost):
    group = of_class(panel, f"attn-choice-c{cost}")[0]
    return [(float(c.get("cx")), float(c.get("cy"))) for c in group.iter("circle")]


def test_dots_and_intervals_lie_where_the_numbers_say():
    first, second = of_class(tree(draw()), "attn-choice-panel")
    # Accuracies from 0.45 to 1 (an interval ends there) over the free height; 0 and 999 are ends, 9 a third between.
    per_unit = (HIGH - 2 * EDGE) / 0.55
    expected = [(EDGE, 0.5), (WIDE - EDGE, 0.9), (EDGE + (WIDE - 2 * EDGE) / 3, 0.7)]
    for dot, (x, accuracy) in zip(dots(first, 0), expected):
        assert dot == pytest.approx((x, HIGH - EDGE - (accuracy - 0.45) * per_unit), abs=0.06)
    # The second cost is linear: 10, 20, 15.
    assert [x for x, _ in dots(first, 1)] == pytest.approx([EDGE, WIDE - EDGE, WIDE / 2], abs=0.06)
    bar = next(of_class(first, "attn-choice-m1")[0].iter("path")).get("d")
    x, low, high = map(float, re.fullmatch(r"M([\d.]+) ([\d.]+)V([\d.]+)", bar).groups())
    assert (x, high) == (WIDE - EDGE, EDGE) and low == pytest.approx(HIGH - EDGE - 0.35 * per_unit, abs=0.06)
    # The order in which a task names its mechanisms plays no part.
    assert dots(second, 0)[1][1] == pytest.approx(EDGE, abs=0.06)


def test_baseline_is_a_line_in_each_panel():
    first, second = of_class(tree(draw(baseline="none")), "attn-choice-panel")
    for panel in (first, second):
        (line,) = of_class(panel, "attn-choice-base")
        assert float(re.match(r"M0 ([\d.]+)h", line.get("d"))[1]) == dots(panel, 0)[0][1]
    assert not of_class(tree(draw()), "attn-choice-base")


def test_words_hold_all_values():
    verdicts = {"none": {"first task": {"SE": "+0.4: holds"}, "second <task>": {"SE": "+0.2: <unknown>"}}}
    block = of_class(tree(draw(verdicts=verdicts)), "attn-choice-w1")[0]
    assert words(block.find("p")) == "SE: 999 parameters added · 20 kB <moved>"
    rows = [[words(cell) for cell in row] for row in block.iter("tr")]
    assert rows == [
        ["task", "accuracy", "against none"],
        ["first task", "0.900 (0.800–1.100)", "+0.4: holds"],
        ["second <task>", "0.500 (0.500–0.500)", "+0.2: <unknown>"],
    ]
    missing = of_class(tree(draw(verdicts=verdicts)), "attn-choice-w0")[0]
    assert [words(row[2]) for row in missing.iter("tr")][1:] == ["", ""]


@pytest.mark.parametrize("value, text", [(0, "0"), (3, "3"), (0.125, "0.125"), (99.5, "99.5"), (12345.6, "12,346")])
def test_numbers_in_words_are_short(value, text):
    costs = {"units": {"none": value, "SE": 1, "a & <b>": 2}}
    block = of_class(tree(draw(costs=costs)), "attn-choice-w0")[0]
    assert words(block.find("p")) == f"none: {text} units"


def test_same_content_same_bytes_and_other_content_other_names():
    one, same, other = draw(), draw(), draw(chosen="SE")
    assert one._repr_html_() == same._repr_html_()
    for attribute in ("id", "name"):
        first, second = ({e.get(attribute) for e in tree(f).iter() if e.get(attribute)} for f in (one, other))
        assert first and not first & second
    ids = [element.get("id") for element in tree(one).iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert {e.get("id") for e in tree(one).iter()}.isdisjoint(e.get("id") for e in tree(draw(caption="Other.")).iter()
                                                             if e.get("id"))


def test_every_reference_finds_its_target():
    root = tree(draw())
    ids = {element.get("id") for element in root.iter()}
    for attribute in ("for", "aria-labelledby", "aria-describedby"):
        targets = {element.get(attribute) for element in root.iter() if element.get(attribute)}
        assert targets and targets <= ids
    style = re.search(r"<style>(.*?)</style>", draw()._repr_html_())[1]
    assert set(re.findall(r"#(c[0-9a-f]{8}[-\w]*)", style)) <= ids


def test_is_a_figure_without_script():
    figure = draw(caption="Say <this>.")
    markup = figure._repr_html_()
    assert repr(figure) == "Choice('Accuracy against cost of three networks.')"
    assert words(tree(figure).find("figcaption")) == "Say <this>." and figure.caption == "Say <this>."
    assert "<script" not in markup and not re.search(r"\son\w+=", markup)
    colours = set(re.findall(r"#[0-9A-Fa-f]{6}(?![0-9a-f-])", re.sub(r"--attn-\w+[:,]#\w{6}", "", markup)))
    assert not colours, "colours follow the page"
    assert f"var(--attn-data,{COLOURS['data']})" in markup


def test_costs_may_be_columns_of_a_table():
    columns = {cost: pd.Series(by_name) for cost, by_name in COSTS.items()}
    assert draw(costs=columns)._repr_html_() == draw()._repr_html_()


def test_dots_keep_apart_by_moving_sideways():
    points = [(50.0, 60.0)] * 6 + [(54.0, 65.0), (50.0, 90.0), (195.0, 60.0), (195.0, 60.0)]
    moved = apart(points)
    assert [y for _, y in moved] == [y for _, y in points]
    assert all(math.dist(a, b) >= APART for n, a in enumerate(moved) for b in moved[:n])
    assert all(0 < x < WIDE for x, _ in moved)
    assert moved[7] == (50.0, 90.0) and apart([(10, 10), (10, 21)]) == [(10, 10), (10, 21)]


def test_areas_cover_the_panel_and_hold_what_is_nearest():
    points = [(20.0, 30.0), (150.0, 100.0), (90.0, 30.0), (160.0, 20.0)]

    def inside(x, y, corners):
        return all((q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) >= -1e-9
                   for p, q in zip(corners, corners[1:] + corners[:1]))

    areas = nearest(points)
    for x in range(1, WIDE, 13):
        for y in range(1, HIGH, 13):
            best = min(range(4), key=lambda n: math.dist(points[n], (x, y)))
            assert [inside(x, y, area) for area in areas].index(True) == best


def test_scales_have_round_marks():
    assert cost_scale([0, 3, 552, 8200]).ticks() == [0, 10, 1000]
    assert cost_scale([0, 30]).ticks() == [0, 10]
    assert cost_scale([120, 330]).ticks() == [200, 300]
    assert cost_scale([0, 8]).ticks() == [0, 5]
    assert accuracy_scale({"a": (0.5, 0.38, 1.2)}).ticks() == pytest.approx([0.5, 0.75, 1.0])
    scale = cost_scale([7, 7])
    assert scale(7) == pytest.approx(WIDE / 2)


@pytest.mark.parametrize("change, message", [
    (dict(scores={}), "needs a task"),
    (dict(scores={"first task": {}}), "needs a task"),
    (dict(scores={"a": {"x": (0, 0, 0)}, "b": {"y": (0, 0, 0)}}), "'b' differs in x, y"),
    (dict(scores={"a": {"x": (0.5, 0.6, 0.7)}}), r"\(mean, low, high\)"),
    (dict(scores={"a": {"x": (0.5, 0.6)}}), r"\(mean, low, high\)"),
    (dict(scores={"a": {"x": (math.nan, 0, 1)}}), r"\(mean, low, high\)"),
    (dict(scores={"a": {"x": (0.5, -math.inf, math.inf)}}), r"\(mean, low, high\)"),
    (dict(scores={"a": {"x": (50, 40, 60)}}), "between 0 and 1, not 50"),
    (dict(costs={}), "needs one cost"),
    (dict(costs={"kB": {"none": 1, "SE": 1}}), "'kB' differs in a & <b>"),
    (dict(costs={"kB": {"none": -1, "SE": 1, "a & <b>": 1}}), "from 0 on, not -1"),
    (dict(costs={"kB": {"none": math.nan, "SE": 1, "a & <b>": 1}}), "from 0 on, not nan"),
    (dict(chosen="CBAM"), "chosen is one of none, SE"),
    (dict(baseline="CBAM"), "baseline is one of none, SE"),
    (dict(verdicts={"none": {"third": {"SE": "holds"}}}), "without scores: 'third'"),
    (dict(verdicts={"none": {"first task": {"CBAM": "holds"}}}), "without scores: 'first task', CBAM"),
    (dict(alt=" "), "needs alt text"),
])
def test_bad_input_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        draw(**change)
