"""Every page of the site, in a browser: nothing leaves the site, nothing is missing, nothing sticks out."""

from pathlib import Path

import pytest
import yaml
from visit import NARROW, WIDE, too_wide, visit

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "site_vendor" / "tests" / "axe.min.js"


def pages() -> list[str]:
    """Every page that _toc.yml names, and those that Sphinx adds."""

    def files(entry: dict) -> list[str]:
        below = [f for key in ("parts", "chapters", "sections") for part in entry.get(key, []) for f in files(part)]
        return [entry[key] for key in ("root", "file") if key in entry] + below

    return [*files(yaml.safe_load((ROOT / "_toc.yml").read_text())), "index", "search", "genindex"]


@pytest.fixture(scope="module")
def address(site, serve) -> str:
    """The site below a path, as on a host that serves many: what asks for the root of the host is not found."""
    return serve(site.parent) + "/html"


@pytest.mark.parametrize("name", pages())
@pytest.mark.parametrize("viewport, theme", [(WIDE, "light"), (NARROW, "dark")], ids=["wide-light", "narrow-dark"])
def test_page_works_by_itself(browser, address, name, viewport, theme):
    with visit(browser, f"{address}/{name}.html", viewport, theme) as (page, faults):
        page.emulate_media(color_scheme="light" if theme == "dark" else "dark")
        page.wait_for_timeout(50)
        assert not too_wide(page)
        violations = violated(page) if name != "index" else []
    assert not faults
    assert not violations


def violated(page) -> list[str]:
    """What axe finds against WCAG 2.2 AA and best practice."""
    page.add_script_tag(path=AXE)
    result = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [f"{v['id']}: {v['help']} at {n['target']}" for v in result["violations"] for n in v["nodes"]]
