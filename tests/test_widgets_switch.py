"""One switch for a page: in the saved state it is linked to every figure, with a kernel it switches the networks."""

import os
import re
from pathlib import Path

import pytest
import torch
from ipywidgets.embed import dependency_state

from attnlib import attentions, backbones, plot, widgets
from attnlib.widgets.viewer import Viewer, script

JS = Path(widgets.__file__).parent / "js"


@pytest.fixture
def network():
    torch.manual_seed(0)
    return backbones.small(3, 4, widths=(8, 12), attention="se", where="last", reduction=2).eval()


@pytest.fixture
def drawing(network):
    """A function that draws what the network answers, and so whether its attention is on."""
    picture = torch.rand(1, 3, 10, 14, generator=torch.Generator().manual_seed(1))

    def draw():
        with torch.no_grad():
            scores = network(picture)[0]
        return plot.show(plot.gates(scores.sigmoid()), alt=f"scores {[round(s, 4) for s in scores.tolist()]}")

    draw.picture = picture
    return draw


def pages(figure):
    return [page.value for page in figure.children[-1].children]


def test_figure_has_both_states_and_a_link(network, drawing):
    switch = widgets.Switch(network)
    figure = switch.figure(drawing)
    off, on = pages(figure)
    assert off != on and figure.children[0] is switch
    state = {model: entry["state"] for model, entry in dependency_state(figure, drop_defaults=False).items()}
    (link,) = [entry for entry in state.values() if "source" in entry]
    assert link["source"] == [f"IPY_MODEL_{switch.model_id}", "index"]
    assert link["target"][1] == "selected_index"
    assert figure.children[-1].selected_index == switch.index == 1


def test_networks_are_switched_while_it_is_off(network, drawing):
    switch = widgets.Switch(network)
    with torch.no_grad():
        on = network(drawing.picture)
        switch.index = 0
        off = network(drawing.picture)
        switch.index = 1
        assert torch.equal(network(drawing.picture), on) and not torch.allclose(on, off)
    (attention,) = attentions(network).values()
    assert attention.weights.edits == ()


def test_figures_are_drawn_anew_with_the_network_as_it_is(network, drawing):
    switch = widgets.Switch(network)
    figure = switch.figure(drawing)
    before = pages(figure)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    switch.index = 0
    assert pages(figure)[0] != before[0] and pages(figure)[1] == before[1]


def test_figure_made_while_it_is_off_has_both_states_too(network, drawing):
    wanted = pages(widgets.Switch(network).figure(drawing))
    switch = widgets.Switch(network)
    switch.index = 0
    figure = switch.figure(drawing)
    assert pages(figure) == wanted and figure.children[-1].selected_index == 0
    assert attentions(network).popitem()[1].weights.edits, "it stays off"


def test_given_figures_are_taken_as_they_are(network):
    figure = widgets.Switch(network).figure({"on": "<p>with</p>", "off": "<p>without</p>"})
    assert pages(figure) == ["<p>without</p>", "<p>with</p>"]


def test_what_goes_wrong_while_redrawing_is_said_in_the_figure(network, drawing):
    broken = []

    def draw():
        if broken:
            raise RuntimeError("a < b")
        return drawing()

    switch = widgets.Switch(network)
    figure = switch.figure(draw)
    broken.append(True)
    switch.index = 0
    assert pages(figure)[0] == '<p role="alert">RuntimeError: a &lt; b</p>'


def test_viewers_follow(network):
    switch = widgets.Switch(network)
    viewer = widgets.gates(network, torch.rand(2, 3, 10, 14))
    switch.index = 0
    assert switch.follow(viewer) is viewer and viewer.state == 0
    assert switch.over(viewer).children == (switch, viewer)


def test_networks_are_added(network):
    other = backbones.small(3, 4, widths=(8, 12), attention="se", where="last", reduction=2).eval()
    switch = widgets.Switch()
    switch.index = 0
    switch.add(network, other)
    assert all(a.weights.edits for net in (network, other) for a in attentions(net).values())


@pytest.mark.parametrize("states", [{"off": "<p>a</p>"}, {"on": "a", "off": "b", "shuffled": "c"}])
def test_other_states_are_refused(network, states):
    with pytest.raises(ValueError, match="off and on"):
        widgets.Switch(network).figure(states)


def test_network_without_attention_is_refused():
    with pytest.raises(ValueError, match="holds no attention"):
        widgets.Switch(backbones.small(3, 4, widths=(8, 12)))


def test_scripts_are_small_and_ask_for_nothing():
    whole = {path.stem: script(path.stem) for path in JS.glob("*.js")}
    shared = len(os.path.commonprefix(list(whole.values())))
    own = {name: len(text) - shared for name, text in whole.items()}
    # What any page may show together, and what one chapter adds for a thing of its own.
    common = {"switch", "gates", "maps", "training"}
    assert shared + sum(own[name] for name in common) < 30_000
    assert max(size for name, size in own.items() if name not in common) < 6_000
    for text in whole.values():
        assert not re.search(r"\bimport\b|fetch\(|XMLHttpRequest|https?://(?!www.w3.org)", text)
        assert not [line for line in text.splitlines() if line.count("`") % 2], "a string over lines would lose its indentation"


def test_viewer_that_is_too_heavy_is_refused():
    class Heavy(Viewer):
        script = "switch"

    with pytest.raises(ValueError, match="more than the 200 kB"):
        Heavy({"d": "x" * 300_000}, name="a", alt="b")
    with pytest.raises(ValueError, match="alt text"):
        Heavy({}, name="a", alt=" ")
