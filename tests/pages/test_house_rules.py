"""Every page keeps to the house rules, and every house rule can fail."""

import copy
import json
from pathlib import Path

import house_rules
import pytest
import yaml
from house_rules import ROOT, RULES, VIEW, WIDGETS, Page

from attnlib.widgets.viewer import script, style

PAGES = house_rules.pages()
BUDGET = {"cpu": 60, "gpu": 20}  # seconds


def name(path: Path) -> str:
    return path.relative_to(house_rules.BOOK).with_suffix("").as_posix()


@pytest.fixture(scope="module", params=PAGES, ids=name)
def page(request) -> Page:
    return Page.read(request.param)


@pytest.mark.parametrize("rule", RULES)
def test_page_keeps_the_rule(page, rule):
    faults = list(RULES[rule](page))
    assert not faults, f"{name(page.path)}:\n" + "\n".join(faults)


def test_page_stands_in_the_table_of_contents(page):
    contents = json.dumps(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    assert f'"book/{name(page.path)}"' in contents, "add one line for it to _toc.yml, below its chapter"


def test_page_fits_its_budget(page):
    """By the seconds that `make execute` recorded; what the notebook tests measure depends on what else runs."""
    times = json.loads((ROOT / "results" / "execution.json").read_text())
    assert name(page.path) in times, "run `make execute`"
    for kind, run in times[name(page.path)].items():
        assert run["seconds"] <= BUDGET[kind], f"{name(page.path)} takes {run['seconds']} s on a {kind}"


# -- Can each rule fail? A small page that keeps to all of them, and for each rule a change that breaks it. -----------


def markdown(source: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source: str, *outputs: dict, tags: tuple[str, ...] = (), alt: str | None = None) -> dict:
    metadata = {"tags": list(tags)} | ({"mystnb": {"image": {"alt": alt}}} if alt is not None else {})
    return {"cell_type": "code", "metadata": metadata, "source": source, "outputs": list(outputs)}


def shows(mime: str, data) -> dict:
    return {"output_type": "display_data", "metadata": {}, "data": {mime: data}}


ALT = "Bars of the gates, high where the cue is"


def good_page(folder: str = "channel") -> Page:
    filler = " ".join(["word"] * 130)
    cells = [markdown("# A mechanism")]
    for part in list(house_rules.ANATOMY)[:-1]:
        cells += [markdown(f"## {part}\n\n{filler}"), code("x = 1", shows("image/png", "AAAA"), alt=ALT)]
    cells += [code("seconds = 1", tags=("nbval-ignore-output",)), code("assert seconds < 60")]
    widget = f"<img alt='{ALT}' src='data:,'>"
    cells += [code("toggle()", shows(VIEW, {"model_id": "01"}))]
    cells += [markdown("## Exercises\n\n### One"), code("1 + 1", tags=("hide-cell",))]
    cells += [markdown("### Two\n\nSee [the first](#one)."), code("2 + 2", tags=("hide-cell",))]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    for count, cell in enumerate((cell for cell in cells if cell["cell_type"] == "code"), 1):
        cell["execution_count"] = count
    models = {
        "01": {"model_name": "StackModel", "state": {"children": ["IPY_MODEL_02"]}},
        "02": {"model_name": "HTMLModel", "state": {"value": widget}},
        "03": {"model_name": "AnyModel", "state": {
            "_anywidget_id": "attnlib.widgets.switch.Switch", "_esm": script("switch"), "_css": style()}},
    }
    metadata = {"kernelspec": {"name": "python3"}, "widgets": {WIDGETS: {"state": models}}}
    return Page(house_rules.BOOK / folder / "made.ipynb", {"cells": cells, "metadata": metadata})


def first(page: Page, kind: str) -> dict:
    return next(cell for cell in page.cells if cell["cell_type"] == kind)


def second_text(page: Page) -> dict:
    return [cell for cell in page.cells if cell["cell_type"] == "markdown"][1]


def says(words: str):
    """A change: the page says this, somewhere in its text."""
    return lambda page: second_text(page).update(source=second_text(page)["source"] + "\n\n" + words)


def runs(line: str):
    """A change: the first cell of code is this."""
    return lambda page: first(page, "code").update(source=line)


def puts_out(output: dict):
    """A change: the first cell of code also puts this out."""
    return lambda page: first(page, "code")["outputs"].append(output)


def tagged(*tags: str):
    return lambda page: first(page, "code")["metadata"].update(tags=list(tags))


def without(*words: str):
    """A change: cells that hold one of these words are gone."""
    def change(page: Page) -> None:
        page.notebook["cells"] = [cell for cell in page.cells if not any(word in cell["source"] for word in words)]

    return change


def swapped(one: str, other: str):
    """A change: the headings of two parts stand in each other's place."""
    def change(page: Page) -> None:
        for cell in page.cells:
            names = {f"## {one}\n": f"## {other}\n", f"## {other}\n": f"## {one}\n"}
            cell["source"] = next((cell["source"].replace(a, b) for a, b in names.items() if a in cell["source"]), cell["source"])

    return change


def state(page: Page) -> dict:
    return page.models


BREAKS = [
    ("code_is_short", runs("x = 1\n" * 25 + "x")),
    ("has_a_page_s_length", without("x = 1")),
    ("has_a_page_s_length", lambda page: page.cells.__setitem__(slice(1, 1), [markdown("more")] * 10)),
    ("has_a_page_s_words", says("and more " * 600)),
    ("has_a_page_s_words", without("## The code", "## The card")),
    ("weighs_little", puts_out(shows("image/png", "A" * 1_000_001))),
    ("follows_the_anatomy", without("## When it fails")),
    ("follows_the_anatomy", swapped("The idea", "The code")),
    ("opens_with_a_title_and_a_figure", without("# A mechanism")),
    ("opens_with_a_title_and_a_figure", lambda page: first(page, "code")["outputs"].clear()),
    ("was_executed_in_order", lambda page: first(page, "code").update(execution_count=7)),
    ("was_executed_in_order", lambda page: first(page, "code").update(execution_count=None)),
    ("was_executed_in_order", runs("")),
    ("was_executed_in_order", puts_out({"output_type": "error", "ename": "ValueError", "evalue": "no"})),
    ("was_saved_by_make_execute", lambda page: first(page, "code").update(id="cell-0")),
    ("was_saved_by_make_execute", lambda page: first(page, "code")["metadata"].update(execution={})),
    ("was_saved_by_make_execute", lambda page: page.notebook["metadata"]["kernelspec"].update(name="mine")),
    ("skips_nothing", tagged("nbval-skip")),
    ("skips_nothing", tagged("raises-exception")),
    ("skips_nothing", runs("# NBVAL_IGNORE_OUTPUT\nx")),
    ("checks_what_depends_on_hardware", tagged("nbval-ignore-output")),
    ("checks_what_depends_on_hardware", without("assert")),
    ("mentions_no_device", runs("x.to(device='cpu')")),
    ("mentions_no_device", runs("torch.cuda.synchronize()")),
    ("names_no_local_path", runs("open('/home/me/data.csv')")),
    ("names_no_local_path", puts_out({"output_type": "stream", "text": "saved to /tmp/x.png"})),
    ("describes_every_picture", lambda page: first(page, "code")["metadata"].clear()),
    ("describes_every_picture", lambda page: first(page, "code")["metadata"]["mystnb"]["image"].update(alt="Figure 1")),
    ("describes_every_picture", puts_out(shows("text/html", "<p><img src='x.png'></p>"))),
    ("describes_every_picture", puts_out(shows("text/html", "<svg><path/></svg>"))),
    ("describes_every_picture", says("![](x.png)")),
    ("describes_every_widget", lambda page: state(page)["02"].update(model_name="ImageModel")),
    ("describes_every_widget", lambda page: state(page)["02"]["state"].update(value="<img src='data:,'>")),
    ("saves_its_widgets", lambda page: state(page).pop("01")),
    ("saves_its_widgets", lambda page: state(page).pop("02")),
    ("saves_its_widgets", lambda page: page.notebook["metadata"].pop("widgets")),
    ("carries_current_scripts", lambda page: state(page)["03"]["state"].update(_esm="export default {}")),
    ("carries_current_scripts", lambda page: state(page)["03"]["state"].update(_css="")),
    ("types_no_result", says("It reaches 97.3 % of the pictures.")),
    ("types_no_result", says("It is 3 times faster, and takes 20 ms.")),
    ("types_no_result", says("The network has 28,088,024 weights.")),
    ("types_no_result", says("- The gain is 0.4 points.")),
    ("types_no_result", says("| net | error |\n|---|---|\n| plain | 23.30 |")),
    ("types_no_result", says("The paper says so {cite}`hu2018se`. We found 0.93 instead.")),
    ("has_exercises_with_solutions", without("### Two")),
    ("has_exercises_with_solutions", without("2 + 2")),
    ("links_lead_somewhere", says("See [there](../nowhere/page.ipynb).")),
]

KEEPS = [
    ("code_is_short", runs("x = 1\n" * 24 + "x")),
    ("checks_what_depends_on_hardware", lambda page: None),
    ("describes_every_picture", puts_out(shows("text/html", f"<svg role='img' aria-label='{ALT}'><svg/></svg>"))),
    ("describes_every_picture", puts_out(shows("text/html", f"<svg><title>{ALT}</title></svg>"))),
    ("describes_every_picture", puts_out(shows("text/html", "<svg aria-hidden='true'></svg>"))),
    ("types_no_result", says("The paper reports 22.28 % {cite}`hu2018se`.")),
    ("types_no_result", says("| net | error |\n|---|---|\n| {cite:t}`hu2018se` | 23.30 |")),
    ("types_no_result", says("By chance $62.5\\,\\%$ are right, and `lr=0.01` is given; a 3×3 kernel, 16 channels.")),
    ("types_no_result", says("Python 3.11 and torch 2.14 ran it; see Table 4.2 and arXiv:1709.01507.")),
    ("types_no_result", says("```python\nx = 0.97\n```")),
    ("mentions_no_device", runs("fit(network, seconds=10)")),
    ("names_no_local_path", puts_out(shows("image/png", "AA/tmp/AAAA"))),
    ("links_lead_somewhere", says("See [the works](../bibliography.md) and [the paper](https://arxiv.org/abs/1709.01507).")),
]


def changed(change) -> Page:
    page = copy.deepcopy(good_page())
    change(page)
    return page


def test_good_page_keeps_every_rule():
    assert house_rules.broken(good_page()) == []


@pytest.mark.parametrize("rule, change", BREAKS, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(BREAKS)])
def test_rule_can_fail(rule, change):
    assert list(RULES[rule](changed(change))), f"{rule} does not see what is wrong"


@pytest.mark.parametrize("rule, change", KEEPS, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(KEEPS)])
def test_rule_lets_pass_what_is_right(rule, change):
    assert list(RULES[rule](changed(change))) == []


def test_every_rule_is_shown_to_fail():
    assert {rule for rule, _ in BREAKS} == set(RULES)


def test_rules_of_form_hold_for_chapters_only():
    page = good_page(folder="book")
    page.notebook["cells"] = page.cells[:3]
    page.notebook["metadata"].pop("widgets")
    assert house_rules.broken(page) == []
