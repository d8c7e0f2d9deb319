"""From matplotlib's SVG to the compact, recolourable one that pages hold."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import xml.etree.ElementTree as ET

from attnlib.plot.colours import COLOURS

_NUMBER = re.compile(r"-?\d*\.\d+(?:e-?\d+)?")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
# Pictures above this many bytes of PNG are worth a lossy copy, if it is much smaller.
_LOSSY_ABOVE = 12_000
# Pictures up to this wide keep hard pixels when enlarged; wider ones are photographs, which look better smoothed.
_PIXELS_SHOWN = 64


def role_variable(role: str) -> str:
    """The CSS value of a colour role: the page's custom property, or the light colour where the page has none."""
    return f"var(--attn-{role},{COLOURS[role]})"


def recolour(css: str) -> str:
    """Role colours, written as hex, become CSS variables; every other colour stays."""
    for role, colour in COLOURS.items():
        css = re.sub(f"{colour}(?![0-9a-f])", role_variable(role), css, flags=re.IGNORECASE)
    return css


def compact(svg: str) -> tuple[str, float, float]:
    """Shrink one of matplotlib's SVG documents to what a page needs.

    Metadata, names nobody refers to, wrappers and invisible backgrounds go; coordinates keep two decimals; role
    colours become CSS variables; the remaining ids start with a hash of the content, so that two figures on one page
    never share one, and the same figure always has the same bytes.

    Returns:
        the ``<svg>`` element as text, and its width and height in points.
    """
    # Comments and metadata are dropped by the parser and here; the document type is not part of an element.
    root = ET.fromstring(svg)
    for element in root.iter():
        _plain_names(element)
    width, height = (float(root.get(side).removesuffix("pt")) for side in ("width", "height"))
    _simplify(root)
    _rename_ids(root, "a" + hashlib.sha1(svg.encode()).hexdigest()[:8])
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg", "viewBox": root.get("viewBox"), "aria-hidden": "true",
        "style": f"fill:{role_variable('text')};stroke-linejoin:round",
    }
    return ET.tostring(root, encoding="unicode"), width, height


def _plain_names(element: ET.Element) -> None:
    element.tag = element.tag.rpartition("}")[2]
    element.attrib = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}


def _simplify(parent: ET.Element) -> None:
    """Drop what is invisible, unwrap what only wraps, and write attributes briefly; from the leaves up."""
    children = []
    for child in list(parent):
        _simplify(child)
        if not _shows(child):
            continue
        wraps = child.tag == "g" and not set(child.attrib) - {"id"}
        children.extend(child if wraps else [child])
    parent[:] = children
    if parent.tag != "tspan" and not (parent.text or "").strip():
        parent.text = None
    parent.tail = None
    if parent.tag == "image" and float(parent.get("width", 0)) > _PIXELS_SHOWN:
        parent.attrib.pop("style", None)
    for name, value in parent.attrib.items():
        parent.set(name, _brief(name, value))
    for name in [name for name, value in parent.attrib.items() if not value]:
        del parent.attrib[name]


def _shows(element: ET.Element) -> bool:
    if element.tag in ("metadata", "style"):
        return False
    if element.tag in ("g", "defs"):
        return len(element) > 0
    style = element.get("style", "")
    return not (element.tag == "path" and style.startswith("fill:none") and "stroke:" not in style)


def _brief(name: str, value: str) -> str:
    if name == "href" and value.startswith("data:image/png"):
        return _smaller_picture(value)
    if name in ("href", "id", "clip-path"):
        return value
    if name == "style":
        return _brief_style(value)
    value = _NUMBER.sub(_rounded, value)
    if name == "transform":
        return re.sub(r"rotate\(-?0 [^)]*\)", "", value).strip()
    if name == "d":
        return re.sub(r"\s*([A-Za-z])\s*", r"\1", value).replace("\n", "")
    return value


def _brief_style(style: str) -> str:
    rules = [rule.split(":", 1) for rule in style.split(";") if rule.strip()]
    kept = []
    for what, value in ((what.strip(), value.strip()) for what, value in rules):
        # matplotlib's list of stand-ins for its own font would win over the page's font.
        if what == "font-family" and value.count(",") > 3:
            continue
        if what == "image-rendering" and value == "crisp-edges":
            continue
        kept.append(f"{what}:{_NUMBER.sub(_rounded, value)}")
    return recolour(";".join(kept))


def _rounded(match: re.Match) -> str:
    short = f"{float(match.group()):.2f}".rstrip("0").rstrip(".")
    return "0" if short in ("-0", "") else short


def _smaller_picture(uri: str) -> str:
    """The same picture in fewer bytes: an optimised PNG, or a WebP where a large one is much smaller as such."""
    from PIL import Image

    png = base64.b64decode(uri.split(",", 1)[1])
    picture = Image.open(io.BytesIO(png))
    if "A" in picture.mode and picture.getextrema()[-1] == (255, 255):
        picture = picture.convert("RGB")
    best, kind = _encoded(picture, "PNG", optimize=True), "png"
    if picture.mode == "RGB" and len(best) > _LOSSY_ABOVE:
        lossy = _encoded(picture, "WEBP", quality=88, method=6)
        if len(lossy) < len(best) / 2:
            best, kind = lossy, "webp"
    return f"data:image/{kind};base64,{base64.b64encode(best).decode()}"


def _encoded(picture, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _rename_ids(root: ET.Element, prefix: str) -> None:
    used: dict[str, str] = {}
    for element in root.iter():
        for value in element.attrib.values():
            for old in [*_REFERENCE.findall(value), *([value[1:]] if value.startswith("#") else [])]:
                used.setdefault(old, f"{prefix}-{len(used)}")
    for element in root.iter():
        name = element.attrib.pop("id", None)
        for attribute, value in element.attrib.items():
            if value.startswith("#"):
                element.set(attribute, "#" + used[value[1:]])
            else:
                element.set(attribute, _REFERENCE.sub(lambda match: f"url(#{used[match.group(1)]})", value))
        if name in used:
            element.set("id", used[name])
