"""The pictures at the openings of chapters are what their scripts draw, and the chapters show them."""

import base64
import io
import re

import numpy as np
import openings
import pytest
from PIL import Image

PICTURE = re.compile(r'href="data:image/\w+;base64,([^"]+)"')
WORKS = """
from attnlib import plot
def draw():
    figure, axes = plot.subplots()
    return plot.show(figure, alt="Two axes and nothing between them")
"""


def colours(html):
    """Every picture in it, as it is seen: compressors differ, and so may the last bit of a processor."""
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)
            for data in PICTURE.findall(html)]


@pytest.mark.parametrize("script", openings.scripts([]), ids=lambda script: script.parent.name)
def test_the_picture_that_is_kept_is_what_its_script_draws(script):
    kept, now = script.with_suffix(".html").read_text(encoding="utf-8"), openings.drawn(script)
    why = f"python tools/openings.py {script.parent.name} draws another picture than the one that is kept"
    assert PICTURE.sub("", kept) == PICTURE.sub("", now), why
    found, wanted = colours(kept), colours(now)
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted):
        assert one.shape == other.shape and (abs(one - other).max(2) > 12).mean() < 0.005, why


@pytest.mark.parametrize("script", openings.scripts([]), ids=lambda script: script.parent.name)
def test_the_chapter_shows_it_on_a_page_and_on_a_phone_and_says_what_it_is(script):
    assert "```{raw} html\n:file: opening.html\n```" in (script.parent / "index.md").read_text(encoding="utf-8")
    html = script.with_suffix(".html").read_text(encoding="utf-8")
    assert len(html.encode()) <= openings.MOST_BYTES
    drawings = re.findall(r'<div class="([^"]+)" role="img" aria-label="([^"]+)"', html)
    assert {kinds.split()[1] for kinds, _ in drawings} == {"attn-wide", "attn-narrow"}
    assert all(len(alt.split()) >= 10 for _, alt in drawings)
    assert "var(--attn-text," in html, "its words are legible in light and dark"


def test_what_is_drawn_stands_beside_its_script(tmp_path, monkeypatch, capsys):
    script = tmp_path / "one" / "opening.py"
    script.parent.mkdir()
    script.write_text(WORKS)
    monkeypatch.setattr(openings, "scripts", lambda chapters: [script])
    monkeypatch.setattr("sys.argv", ["openings.py"])
    openings.main()
    html = script.with_suffix(".html").read_text()
    assert html.startswith('<figure class="attn-figure">') and "nothing between them" in html
    assert "opening.html" in capsys.readouterr().out


def test_scripts_are_those_of_the_chapters_named(tmp_path):
    for chapter in ("one", "two"):
        (tmp_path / chapter).mkdir()
        (tmp_path / chapter / "opening.py").touch()
    (tmp_path / "three").mkdir()
    assert openings.scripts(["two"], tmp_path) == [tmp_path / "two" / "opening.py"]
    assert [script.parent.name for script in openings.scripts([], tmp_path)] == ["one", "two"]
    with pytest.raises(SystemExit, match="does not exist"):
        openings.scripts(["three"], tmp_path)


def test_a_script_without_draw_and_a_heavy_picture_are_named(tmp_path, monkeypatch):
    script = tmp_path / "opening.py"
    script.write_text("")
    with pytest.raises(SystemExit, match="has no function `draw"):
        openings.drawn(script)
    script.write_text(WORKS)
    monkeypatch.setattr(openings, "MOST_BYTES", 1_000)
    with pytest.raises(SystemExit, match="1,000 are the most"):
        openings.drawn(script)
