import re

import ipywidgets as ipw
import pandas
import pytest
import torch
from ipywidgets.embed import dependency_state
from matplotlib.figure import Figure as Canvas

from attnlib import plot, widgets


def drawn(alt, height=1.0):
    return plot.show(plot.gates(torch.tensor([height, 0.5])), alt=alt)


def saved(widget):
    """The widget as a notebook saves it: states by model id, without a kernel."""
    states = dependency_state(widget, drop_defaults=False)
    return {model: entry["state"] | {"kind": entry["model_name"]} for model, entry in states.items()}


def links(state):
    def end(reference):
        return state[reference[0].removeprefix("IPY_MODEL_")], reference[1]

    return [(end(entry["source"]), end(entry["target"])) for entry in state.values() if entry["kind"] == "LinkModel"]


def children(state, entry):
    return [state[child.removeprefix("IPY_MODEL_")] for child in entry["children"]]


def test_toggle_is_linked_to_its_figures_in_the_saved_state():
    state = saved(widgets.toggle({"off": drawn("gates off"), "on": drawn("gates on")}, label="attention", start="on"))
    (((control, what), (stack, shown)),) = links(state)
    assert (control["kind"], what, stack["kind"], shown) == ("ToggleButtonsModel", "index", "StackModel",
                                                             "selected_index")
    assert control["index"] == stack["selected_index"] == 1
    assert list(control["_options_labels"]) == ["off", "on"] and control["description"] == "attention"
    pages = children(state, stack)
    assert [page["kind"] for page in pages] == ["HTMLModel", "HTMLModel"]
    assert ['aria-label="gates off"' in pages[0]["value"], 'aria-label="gates on"' in pages[1]["value"]] == [True, True]


def test_no_python_callback_is_needed():
    toggle = widgets.toggle({"off": drawn("off"), "on": drawn("on")}, label="attention")
    assert {entry["kind"] for entry in saved(toggle).values()} <= {
        "VBoxModel", "ToggleButtonsModel", "ToggleButtonsStyleModel", "StackModel", "HTMLModel", "HTMLStyleModel",
        "LinkModel", "LayoutModel", "DescriptionStyleModel"}


def test_slider_goes_through_the_states_in_order():
    state = saved(widgets.slider([(f"{k}", drawn(f"gate {k}", k)) for k in (0, 0.5, 1)], label="gate", start="0.5"))
    (((control, what), (stack, _)),) = links(state)
    assert control["kind"] == "SelectionSliderModel" and what == "index" and stack["selected_index"] == 1
    assert [re.search('aria-label="gate ([^"]+)"', page["value"])[1] for page in children(state, stack)] == [
        "0", "0.5", "1"]


def test_play_drives_the_slider():
    state = saved(widgets.play({"a": drawn("a"), "b": drawn("b"), "c": drawn("c")}, label="training", interval=300))
    ends = [(source["kind"], a, target["kind"], b) for (source, a), (target, b) in links(state)]
    assert sorted(ends) == [("PlayModel", "value", "SelectionSliderModel", "index"),
                            ("SelectionSliderModel", "index", "StackModel", "selected_index")]
    (play,) = [entry for entry in state.values() if entry["kind"] == "PlayModel"]
    assert (play["min"], play["max"], play["interval"]) == (0, 2, 300)


def test_the_empty_corner_of_a_data_frame_is_no_heading():
    table = pandas.DataFrame({"gates": [1]}, index=["row"])
    page = saved(widgets.toggle({"a": table, "b": table}, label="which"))
    text = "".join(str(entry.get("value", "")) for entry in page.values())
    assert "<th></th>" in table.to_html() and "<th></th>" not in text and text.count("<th>gates</th>") == 2


def test_every_combination_of_toggles_has_its_figure():
    options = {"attention": ("off", "on"), "picture": ("cat", "cup", "sea")}
    made = widgets.toggles(options, lambda attention, picture: drawn(f"{picture} {attention}"), start=("on", "cup"))
    state = saved(made)
    (outer,) = [stack for (control, _), (stack, _) in links(state) if control["description"] == "attention"]
    assert outer["selected_index"] == 1
    for attention, inner in zip(options["attention"], children(state, outer)):
        assert inner["kind"] == "StackModel" and inner["selected_index"] == 1
        for picture, page in zip(options["picture"], children(state, inner)):
            assert f'aria-label="{picture} {attention}"' in page["value"]
    second = [control for (control, _), _ in links(state) if control["description"] == "picture"]
    assert len(second) == 2  # the one control moves the stack of either choice of the other
    assert second[0] is second[1]


def test_toggles_name_the_combination_that_is_absent():
    with pytest.raises(ValueError, match="no figure was given for on . b"):
        widgets.toggles({"x": ("off", "on"), "y": ("a", "b")},
                        {("off", "a"): drawn("1"), ("off", "b"): drawn("2"), ("on", "a"): drawn("3")})


def test_matplotlib_figures_and_html_are_taken_too():
    canvas = Canvas()
    canvas.subplots().plot([1, 2])
    page = saved(widgets.toggle({"a": (canvas, "a line"), "b": '<img alt="a dot" src="data:,">'}, label="which"))
    values = [entry["value"] for entry in page.values() if entry["kind"] == "HTMLModel"]
    assert 'aria-label="a line"' in values[0] and 'alt="a dot"' in values[1]


@pytest.mark.parametrize("figure", ['<img src="data:,">', '<img alt="" src="data:,">', "<p><svg></svg></p>"])
def test_a_picture_without_alt_text_is_an_error(figure):
    with pytest.raises(ValueError, match="'on' holds a picture without alt text"):
        widgets.toggle({"off": drawn("off"), "on": figure}, label="attention")


def test_what_cannot_be_shown_is_an_error():
    with pytest.raises(TypeError, match="'on' is a int"):
        widgets.toggle({"off": drawn("off"), "on": 3}, label="attention")
    with pytest.raises(ValueError, match="alt text"):
        widgets.toggle({"off": drawn("off"), "on": (Canvas(), "")}, label="attention")


@pytest.mark.parametrize("states, options, message", [
    ({"on": "a"}, {}, "nothing to switch between 1 states"), ([("a", "x"), ("a", "y")], {}, "same name"),
    ({"off": "a", "on": "b"}, {"start": "of"}, "no state 'of' to start with; there are: off, on"),
])
def test_states_that_make_no_toggle_are_errors(states, options, message):
    with pytest.raises(ValueError, match=message):
        widgets.toggle(states, label="attention", **options)


def test_too_many_bytes_are_an_error_that_says_how_many():
    page = "x" * (widgets.MOST_BYTES // 2)
    with pytest.raises(ValueError, match=r"the 2 states of 'attention' weigh 4[01]\d kB, more than the 400 kB"):
        widgets.toggle({"off": page, "on": page}, label="attention")


def test_state_bytes_are_what_is_saved():
    toggle = widgets.toggle({"off": "<p>a</p>", "on": "<p>b</p>"}, label="attention")
    longer = widgets.toggle({"off": "<p>a</p>" + "é" * 1000, "on": "<p>b</p>"}, label="attention")
    assert widgets.state_bytes(toggle) == toggle.bytes
    assert longer.bytes - toggle.bytes == 6000  # JSON writes é in six characters


def test_text_forms_hold_no_address():
    pages = {"off": "<p>a</p>", "on": "<p>b</p>"}
    for widget, text in (
        (widgets.toggle(pages, label="attention"), "attention: off | on"),
        (widgets.slider(pages, label="gate"), "gate: off | on"),
        (widgets.toggles({"a": ("x", "y"), "b": ("z",)}, lambda a, b: "<p>c</p>"), "a, b: x + z | y + z"),
        (widgets.live(lambda gate: "<p>d</p>", gate=(0.0, 1.0)), "live: gate"),
    ):
        assert repr(widget) == text
        assert widget._repr_mimebundle_()["text/plain"] == text


# -- live controls

def value_of(live):
    return re.search('aria-label="([^"]*)"|(<p .*)', live.picture.value)[0]


def test_live_shows_its_first_result_without_being_asked():
    state = saved(widgets.live(lambda gate=0.5: drawn(f"gate {gate}"), gate=(0.0, 1.0, 0.1)))
    pages = [entry["value"] for entry in state.values() if entry["kind"] == "HTMLModel"]
    assert any('aria-label="gate 0.5"' in page for page in pages)
    assert any("need a running kernel" in page for page in pages)


def test_the_note_is_for_pages_without_a_kernel():
    note = widgets.live(lambda gate: "<p>a</p>", gate=(0.0, 1.0)).children[-2].value
    assert ".attn-needs-kernel{display:none}" in note
    assert ".jupyter-widgets-disconnected .attn-needs-kernel{display:block}" in note


def test_live_redraws_when_a_control_changes():
    live = widgets.live(lambda gate, layer: drawn(f"{layer} {gate}"), gate=(0, 10), layer=["first", "last"])
    assert value_of(live) == 'aria-label="first 5"'
    live.controls["gate"].value = 7
    live.controls["layer"].value = "last"
    assert value_of(live) == 'aria-label="last 7"'
    assert live.controls["gate"].continuous_update is False


def test_with_a_button_it_waits_for_it_and_shows_every_step():
    seen = []

    def train(epochs=2):
        for epoch in range(epochs):
            yield drawn(f"epoch {epoch + 1}")

    live = widgets.live(train, run="Train", epochs=(1, 5))
    live.picture.observe(lambda change: seen.append(value_of(live)), "value")
    live.controls["epochs"].value = 3
    assert seen == []
    live.button.click()
    assert seen == [f'aria-label="epoch {k}"' for k in (1, 2, 3)]
    assert live.button.disabled is False


def test_what_goes_wrong_later_is_shown_and_can_be_mended():
    def draw(gate=1):
        if gate == 3:
            raise ValueError("no <gate> is 3")
        return drawn(f"gate {gate}")

    live = widgets.live(draw, gate=(0, 5))
    live.controls["gate"].value = 3
    assert live.picture.value == '<p role="alert">ValueError: no &lt;gate&gt; is 3</p>'
    live.controls["gate"].value = 2
    assert value_of(live) == 'aria-label="gate 2"'


def test_what_goes_wrong_at_first_is_raised():
    with pytest.raises(ZeroDivisionError):
        widgets.live(lambda gate: 1 / 0, gate=(0, 5))
    with pytest.raises(TypeError, match="at least one control"):
        widgets.live(lambda: drawn("a"))
    with pytest.raises(TypeError, match="no argument 'gates'; it has: gate"):
        widgets.live(lambda gate: drawn("a"), gates=(0, 5))
    with pytest.raises(TypeError, match="no control can be made of"):
        widgets.live(lambda gate: drawn("a"), gate=object())
    with pytest.raises(ValueError, match="the figure weighs"):
        widgets.live(lambda gate: "x" * 500_000, gate=(0, 5))


def test_ready_made_widgets_keep_their_words():
    own = ipw.FloatSlider(0.25, min=0, max=1, description="gate of red")
    live = widgets.live(lambda gate: drawn(f"{gate}"), gate=own)
    assert live.controls["gate"].description == "gate of red" and value_of(live) == 'aria-label="0.25"'
