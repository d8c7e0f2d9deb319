"""The site brings everything it loads: no page, style sheet or script of ours asks for anything outside it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from attnlib import registry

ROOT = Path(__file__).resolve().parents[2]

# What a browser loads by itself, as (element, attribute). Links that a reader may follow are no part of this.
LOADED = {
    ("script", "src"), ("link", "href"), ("img", "src"), ("img", "srcset"), ("source", "src"), ("source", "srcset"),
    ("iframe", "src"), ("embed", "src"), ("object", "data"), ("video", "src"), ("video", "poster"), ("audio", "src"),
    ("image", "href"), ("image", "xlink:href"), ("use", "href"), ("input", "src"),
}
NOT_LOADED = {"canonical", "index", "search", "next", "prev", "author", "license"}  # kinds of <link> that only point
INLINE = ("data:", "blob:", "#")


class Loads(HTMLParser):
    """Addresses of everything that a page makes its browser load, and of the pages it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        values = {name: value for name, value in attributes if value}
        if tag == "link" and values.get("rel") in NOT_LOADED:
            return
        self.loaded += [value for name, value in values.items() if (tag, name) in LOADED]
        self.loaded += urls_in_css(values.get("style", ""))
        self.linked += [values["href"]] if tag == "a" and "href" in values else []


def urls_in_css(css: str) -> list[str]:
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    return [url.strip("'\" ") for url in re.findall(r"url\(\s*('[^']*'|\"[^\"]*\"|[^)]*)\)", css)] + re.findall(
        r"@import\s+['\"]([^'\"]+)", css
    )


def pages(built: Path) -> list[Path]:
    return [page for page in built.rglob("*.html") if "_static" not in page.parts]  # a template of the theme lies there


def read(page: Path) -> Loads:
    loads = Loads()
    loads.feed(page.read_text(encoding="utf-8"))
    return loads


def outside(url: str) -> bool:
    return not url.startswith(INLINE) and bool(urlsplit(url).scheme or urlsplit(url).netloc or url.startswith("/"))


def missing(url: str, beside: Path) -> bool:
    path = unquote(urlsplit(url).path)
    return bool(path) and not url.startswith(INLINE) and not (beside.parent / path).exists()


@pytest.fixture(scope="module", params=["site", "machinery"])
def built(request) -> Path:
    return request.getfixturevalue(request.param)


def test_pages_load_only_what_the_site_has(built):
    assert len(pages(built)) > 3
    for page in pages(built):
        for url in read(page).loaded:
            assert not outside(url), f"{page.name} loads {url}"
            assert not missing(url, page), f"{page.name} loads {url}, which does not exist"


def test_links_within_the_site_lead_to_pages(built):
    for page in pages(built):
        for url in read(page).linked:
            if not urlsplit(url).scheme:
                assert not outside(url), f"{page.name} links to {url}, which breaks below a path"
                assert not missing(url, page), f"{page.name} links to {url}, which does not exist"


def test_style_sheets_load_only_what_the_site_has(built):
    for sheet in built.rglob("*.css"):
        for url in urls_in_css(sheet.read_text(encoding="utf-8")):
            assert not outside(url), f"{sheet.name} loads {url}"
            # Sphinx's own basic.css names an icon for downloads that the theme does not bring, and no page shows.
            if not (sheet.name == "basic.css" and url == "file.png"):
                assert not missing(url, sheet), f"{sheet.name} loads {url}, which does not exist"


def test_widgets_are_looked_for_nowhere_else(machinery):
    html = (machinery / "book" / "machinery.html").read_text()
    scripts = re.findall(r'src="\.\./_static/([\w./-]+\.js)', html)
    wanted = ["third_party/widgets/require.js", "widgets.js", "third_party/widgets/embed-amd.js"]
    assert [script for script in scripts if script in wanted] == wanted, "all three, in this order"
    assert 'data-jupyter-widgets-cdn="not-part-of-this-site/"' in html


def test_first_page_is_found_at_the_root(site):
    assert "url=book/intro.html" in (site / "index.html").read_text()


def test_mechanisms_and_times_are_on_their_pages(site):
    """Pages that are generated hold what they are generated from, to the last name."""
    mechanisms = (site / "book" / "api" / "mechanisms.html").read_text()
    assert registry.available()
    for name in registry.available():
        assert f'<span class="pre">{name}</span>' in mechanisms
    times = (site / "book" / "execution_times.html").read_text()
    recorded = json.loads((ROOT / "results" / "execution.json").read_text())
    for page, runs in recorded.items():
        assert f"{Path(page).name}.html" in times
        assert all(f"{run['seconds']} s" in times for run in runs.values())


def test_every_module_of_the_package_has_its_page():
    modules = {path.stem if path.is_file() else path.name for path in (ROOT / "attnlib").iterdir()}
    modules -= {"__init__", "__pycache__", *registry.CHAPTERS}
    pages = {path.stem for path in (ROOT / "book" / "api").glob("*.md")}
    assert {module for module in modules if not module.startswith("_")} <= pages, "add a page to book/api, and to _toc.yml"
    contents = (ROOT / "_toc.yml").read_text()
    assert all(f"book/api/{page}\n" in contents for page in pages)


GLOSSARY = {
    "attention mechanism": "注意力机制", "saliency map": "显著图", "salient object detection": "显著目标检测",
    "spatial attention": "空间注意力", "channel attention": "通道注意力", "self-attention": "自注意力",
    "scale attention": "", "soft attention": "软注意力", "hard attention": "硬注意力", "query": "查询", "key": "键",
    "value": "值", "squeeze": "压缩", "excitation": "激励", "receptive field": "感受野", "long-range dependency": "长程依赖",
    "feature map": "特征图", "fovea": "中央凹", "acuity": "敏锐度", "fine-grained classification": "细粒度分类",
    "semantic segmentation": "语义分割", "object context": "物体上下文",
}


@pytest.mark.parametrize("term", GLOSSARY)
def test_glossary_has_the_field_s_words(site, term):
    entry = re.search(rf'<dt id="term-[^"]*">{term}<.*?</dd>', (site / "book" / "glossary.html").read_text(), re.DOTALL)
    assert entry and GLOSSARY[term] in entry[0]


# -- Can these checks fail? -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("html", [
    '<script src="https://cdn.example/x.js"></script>', '<img src="//cdn.example/x.png">', '<img src="/root.png">',
    '<link rel="stylesheet" href="http://x.example/x.css">', '<p style="background: url(https://x.example/y.png)">',
    '<iframe src="https://x.example"></iframe>',
])
def test_outside_addresses_are_seen(html):
    loads = Loads()
    loads.feed(html)
    assert [url for url in loads.loaded if outside(url)]


def test_outside_addresses_in_styles_are_seen():
    assert urls_in_css("@import 'https://x.example/a.css'; p { src: url( \"b.woff\" ) } /* url(c) */") == [
        "b.woff", "https://x.example/a.css"
    ]
