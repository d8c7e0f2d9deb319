"""The viewers of maps in the built page: by mouse, by touch and by keyboard, with no kernel and no network."""

import re

import pytest
from playwright.sync_api import expect
from test_pages import works
from visit import NARROW, WIDE, visit


@pytest.fixture(scope="module")
def address(maps_book, serve) -> str:
    return serve(maps_book.parent) + "/html/book/maps.html"


@pytest.fixture
def page(browser, address):
    with visit(browser, address) as (page, faults):
        drawn(page)
        yield page
    assert not faults


def drawn(page) -> None:
    """Wait until the three viewers, with one, one and four panels, have opened what they hold."""
    expect(page.locator(".attn-stage canvas")).to_have_count(6)
    expect(page.locator(".attn-readout")).to_have_text([re.compile(r"\d")] * 3)


class View:
    """One viewer of the page."""

    def __init__(self, page, number):
        self.root = page.locator("figure.attn-viewer").nth(number)
        self.stages = self.root.locator(".attn-stage")
        self.readout = self.root.locator(".attn-readout")
        self.query = self.root.locator(".attn-query")

    def says(self, text):
        expect(self.readout).to_have_text(text if isinstance(text, re.Pattern) else re.compile(f"^{re.escape(text)}$"))

    def at(self, row, column, panel=0, size=14):
        """The middle of a cell, in pixels of a stage."""
        box = self.stages.nth(panel).bounding_box()
        return {"x": (column - 0.5) * box["width"] / size, "y": (row - 0.5) * box["height"] / size}

    def pixels(self, panel=0):
        """The map as it is painted: rows of the red channel."""
        return self.stages.nth(panel).locator("canvas").evaluate("""canvas => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return [...Array(canvas.height)].map((_, row) =>
                [...Array(canvas.width)].map((_, column) => data[4 * (row * canvas.width + column)]));
        }""")


def middle(box):
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_query_is_where_it_should_start(page):
    view = View(page, 0)
    view.says(re.compile(r"^head 1 · row 2, column 3 looks most at row \d+, column \d+: 0\.\d+$"))
    stage, query = view.stages.bounding_box(), view.query.bounding_box()
    assert middle(query)[0] - stage["x"] == pytest.approx(view.at(2, 3)["x"], abs=1)
    assert middle(query)[1] - stage["y"] == pytest.approx(view.at(2, 3)["y"], abs=1)


def test_hovering_reads_and_leaving_stops(page):
    view = View(page, 0)
    view.stages.hover(position=view.at(5, 9))
    view.says(re.compile(r"^head 1 · query row 2, column 3 → pointer row 5, column 9: [\d.]+$"))
    page.mouse.move(1, 1)
    view.says(re.compile(r"^head 1 · row 2, column 3 looks most at"))


def test_click_moves_the_query(page):
    view = View(page, 0)
    view.root.get_by_role("slider", name=re.compile("^head")).press("ArrowRight")
    view.stages.click(position=view.at(7, 4))
    view.says("head 2 · query row 7, column 4 → pointer row 7, column 4: 0")
    stage = view.stages.bounding_box()
    assert middle(view.query.bounding_box())[0] - stage["x"] == pytest.approx(view.at(7, 4)["x"], abs=1)
    page.mouse.move(1, 1)
    view.says("head 2 · row 7, column 4 looks most at row 7, column 5: 1.00")


def test_tap_sets_the_query_and_leaves_the_rest_to_the_page(browser, address):
    context = browser.new_context(viewport=NARROW, has_touch=True, reduced_motion="reduce")
    page = context.new_page()
    page.goto(address)
    drawn(page)
    view = View(page, 0)
    view.stages.tap(position=view.at(3, 10))
    view.says(re.compile("^head 1 · row 3, column 10 looks most at"))
    assert view.stages.evaluate("stage => getComputedStyle(stage).touchAction") == "manipulation"
    context.close()


def test_arrow_keys_move_the_query_and_brackets_the_head(page):
    view = View(page, 0)
    view.stages.focus()
    for key in ("]", "ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    view.says("head 2 · row 3, column 5 looks most at row 3, column 6: 1.00")
    expect(view.stages).to_have_attribute("aria-valuetext", "row 3, column 5")
    expect(view.stages).to_have_attribute("aria-valuenow", str(2 * 14 + 5))
    for key in ("[", "[", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    view.says(re.compile("^head 1 · row 1, column 5 looks"))


def test_the_map_is_painted(page):
    view = View(page, 0)
    view.stages.focus()
    page.keyboard.press("]")
    view.says(re.compile("^head 2"))
    pixels = view.pixels()
    bright = [(row + 1, column + 1) for row in range(14) for column in range(14) if pixels[row][column] > 200]
    assert bright == [(2, 4)]


def test_state_follows_what_is_linked_to_it(page):
    view = View(page, 0)
    page.get_by_role("button", name="off", exact=True).click()
    view.says("head 1 · row 2, column 3 looks everywhere alike: 0.0051")
    assert len({red for row in view.pixels() for red in row}) == 1
    page.get_by_role("button", name="on", exact=True).click()
    view.says(re.compile("looks most at"))


def test_blend_goes_from_picture_to_map(page):
    view = View(page, 0)
    canvas, blend = view.stages.locator("canvas"), view.root.get_by_role("slider", name="blend")
    expect(canvas).to_have_css("opacity", "0.5")
    blend.press("End")
    expect(canvas).to_have_css("opacity", "1")
    expect(blend).to_have_attribute("aria-valuetext", "100 % map")
    blend.press("Home")
    expect(canvas).to_have_css("opacity", "0")
    expect(view.stages.locator("div")).to_have_css("filter", "grayscale(0)")


def test_the_picture_keeps_its_colours_beside_the_map(page):
    plain = View(page, 1).root.locator(".attn-plain")
    expect(plain).to_have_css("filter", "none")
    first = plain.evaluate("plain => plain.style.backgroundImage")
    assert first.startswith('url("data:image/')
    View(page, 1).root.get_by_role("combobox", name="picture").select_option("second")
    assert plain.evaluate("plain => plain.style.backgroundImage") != first


def test_scale_of_a_channel_is_that_of_all_pictures_and_states(page):
    """On and off, and another picture, are drawn by the same colours, so that a closed gate is seen."""
    view = View(page, 1)
    ends = view.root.locator(".attn-ramp span")
    chosen = view.root.get_by_role("combobox", name="scale").locator("option:checked")
    expect(chosen).to_have_text("all of this channel")
    before = ends.all_inner_texts()
    view.root.get_by_role("combobox", name="picture").select_option("second")
    assert ends.all_inner_texts() == before
    page.get_by_role("button", name="off", exact=True).click()
    assert ends.all_inner_texts() == before
    view.root.get_by_role("slider", name=re.compile("^channel")).press("ArrowRight")
    assert ends.all_inner_texts() != before


def test_scale_is_shared_or_the_maps_own(page):
    view = View(page, 0)
    ends = view.root.locator(".attn-ramp span")
    highest = ends.nth(1).inner_text()
    assert 0 < float(highest) < 1
    view.root.get_by_role("combobox", name="scale").select_option("same for all")
    expect(ends).to_have_text(["0", "1.00"])


def test_picture_and_layer_change(page):
    view = View(page, 1)
    view.says(re.compile(r"^channel 1 · row 7, column 7: gate 0\.\d+, −?[\d.]+ → −?[\d.]+$"))
    before, shown = view.readout.inner_text(), view.pixels()
    view.root.get_by_role("combobox", name="picture").select_option("second")
    expect(view.readout).not_to_have_text(before)
    assert view.pixels() != shown
    view.root.get_by_role("combobox", name="layer").select_option("3")
    view.says(re.compile(r"^row 7, column 7: 0\.\d+$"))
    expect(view.root.get_by_role("slider", name=re.compile("^channel"))).to_have_count(0)
    view.root.get_by_role("combobox", name="layer").select_option("2")
    expect(view.root.get_by_role("slider", name=re.compile("^channel"))).to_have_count(1)


def test_gate_is_what_lies_between_before_and_after(page):
    view = View(page, 1)
    channel = view.root.get_by_role("slider", name=re.compile("^channel"))
    for _ in range(4):
        channel.press("ArrowRight")
    expect(channel).to_have_attribute("aria-valuetext", "channel 5")
    view.says(re.compile("^channel 5"))
    gate, before, after = (float(n.replace("−", "-")) for n in re.findall(r"−?\d+\.\d+", view.readout.inner_text()))
    assert after == pytest.approx(gate * before, rel=0.06)


def test_one_pointer_serves_all_panels(page):
    view = View(page, 2)
    view.stages.nth(1).hover(position=view.at(3, 11, panel=1))
    number = r"(−?[\d.]+)"
    view.says(re.compile(rf"^head 1 · query row 7, column 7 → pointer row 3, column 11: Alike {number} · Bright "
                         rf"{number} · mean {number} · coarse {number}$"))
    for panel in range(4):
        stage = view.stages.nth(panel).bounding_box()
        x, y = middle(view.stages.nth(panel).locator(".attn-cell").first.bounding_box())
        cell = stage["width"] / (7 if panel == 3 else 14)
        assert abs(x - stage["x"] - 10.5 / 14 * stage["width"]) <= cell / 2 + 1
        assert abs(y - stage["y"] - 2.5 / 14 * stage["height"]) <= cell / 2 + 1
    view.stages.nth(2).click(position=view.at(1, 1, panel=2))
    view.says(re.compile("query row 1, column 1 → pointer row 1, column 1"))


def test_lines_belong_to_their_picture(page):
    view = View(page, 2)
    expect(view.root.get_by_text("rising 97 %")).to_be_visible()
    view.root.get_by_role("combobox", name="picture").select_option("second")
    expect(view.root.get_by_text("falling 80 %")).to_be_visible()
    expect(view.root.get_by_text("rising 97 %")).to_have_count(0)


def test_everything_is_reached_by_keyboard(page):
    for number, stops in ((0, 5), (1, 6), (2, 8)):
        view = View(page, number)
        view.root.get_by_role("combobox", name="picture").focus()
        reached = 1
        while reached < 20:
            page.keyboard.press("Tab")
            if not view.root.evaluate("root => root.contains(document.activeElement)"):
                break
            reached += 1
        assert reached == stops


def test_viewers_are_named_and_described(page):
    figure = page.get_by_role("group", name="Weights of Alike", exact=True)
    words = figure.evaluate("figure => document.getElementById(figure.getAttribute('aria-describedby')).textContent")
    assert "2 heads, from each of 14 × 14 positions" in words
    assert page.get_by_role("figure", name="Weights of Squeeze-and-Excitation, Bright").count() == 1
    labels = page.locator(".attn-stage").evaluate_all("stages => stages.map(stage => stage.ariaLabel)")
    assert labels[0] == "position: arrow keys move the query, [ and ] change the head"
    assert labels[1] == "position: arrow keys move the place read, [ and ] change the channel"
    assert labels[5].startswith("coarse position: arrow keys move the query")


@pytest.mark.parametrize("viewport, themes", [(WIDE, ("light", "dark")), (NARROW, ("dark", "light"))])
def test_viewers_are_accessible_and_fit(browser, address, viewport, themes):
    with visit(browser, address, viewport, themes[0]) as (page, faults):
        drawn(page)
        boxes = [stage.bounding_box() for stage in page.locator(".attn-stage").all()]
        assert all(box["width"] <= 320 and box["width"] == pytest.approx(box["height"], abs=1) for box in boxes)
        plain = page.locator(".attn-plain").nth(2).bounding_box()
        assert plain["y"] == boxes[2]["y"] and boxes[3]["y"] == boxes[4]["y"]  # two in a row also on a phone
        small = page.locator(".attn-viewer :is(select, input)").evaluate_all(
            "all => all.filter(one => one.getBoundingClientRect().height < 44).map(one => one.outerHTML)")
        assert not small
        works(page, "maps", themes)
        assert not faults


def test_works_from_a_file(browser, maps_book):
    with visit(browser, (maps_book / "book" / "maps.html").as_uri()) as (page, faults):
        drawn(page)
        view = View(page, 0)
        view.stages.click(position=view.at(7, 4))
        view.says(re.compile("query row 7, column 4"))
    assert not faults
