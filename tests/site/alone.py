"""A viewer on a page of its own: faster to open than a book, for what concerns the viewer alone."""

import base64
import contextlib
import json

from visit import WIDE

from attnlib.widgets.viewer import script, style

# As much of anywidget's model as a viewer uses.
PAGE = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>gaze</title><style>{style} body {{ margin: 8px }}</style><main></main><script type="module">
const state = {state}, heard = {{}};
window.model = {{
  get: (name) => state[name], on: (event, then) => {{ heard[event] = then; }}, off() {{}}, send() {{}}, save_changes() {{}},
  set: (name, value) => {{ state[name] = value; heard[`change:${{name}}`]?.(); }},
}};
const {{ default: viewer }} = await import("data:text/javascript;base64,{script}");
viewer.render({{ model: window.model, el: document.querySelector("main") }});
window.ready = true;
</script></html>"""


def alone(viewer, file) -> str:
    """Write the page; return its address."""
    state = {name: getattr(viewer, name) for name in ("data", "state", "name", "alt", "caption")}
    code = base64.b64encode(script(viewer.script).encode()).decode()
    file.write_text(PAGE.format(style=style(), state=json.dumps(state), script=code), encoding="utf-8")
    return file.as_uri()


@contextlib.contextmanager
def opened(browser, address, viewport=WIDE):
    """The page, drawn; on leaving, no script may have failed."""
    context = browser.new_context(viewport=viewport, has_touch=True)
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)
    page.wait_for_function("window.ready")
    yield page
    context.close()
    assert not faults


def says(page) -> str:
    """What stands in the line of values."""
    page.evaluate("() => new Promise(requestAnimationFrame)")
    return page.locator(".attn-readout").text_content()
