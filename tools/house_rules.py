"""The house rules of the book's pages: what every notebook keeps to, beyond running.

`python tools/house_rules.py [page ...]` (or `make rules`) says what a page breaks; the tests hold every page to all of
them. A rule is a function that yields one sentence for each thing that is wrong.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
CHAPTERS = ("saliency", "spatial", "channel", "mixed", "self_attention", "applications")

# The parts of a chapter's page, in their order: the name to write, and what a heading must contain to be that part.
# A heading may say more ("See it: two gates"), and there may be others between.
ANATOMY = {
    "See it": "see it", "The problem": "the problem", "The idea": "the idea", "The code": "the code",
    "Train it": "train it", "Look inside": "look inside", "Is the paper's claim true here?": "true here",
    "When it fails": "when it fails", "The card": "the card", "Summary": "summary", "Exercises": "exercises",
}
CODE_LINES, CELLS, WORDS, EXERCISES, BYTES = 25, (15, 30), (1_200, 2_300), (2, 4), 1_000_000
ALT_WORDS = 4  # fewer name a picture and do not say what it shows

WIDGETS = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"


@dataclasses.dataclass
class Page:
    """A notebook of the book. `chapter` pages teach a mechanism and keep to the anatomy; others are free in form."""

    path: Path
    notebook: dict

    @classmethod
    def read(cls, path: Path) -> Page:
        return cls(path, json.loads(path.read_text(encoding="utf-8")))

    @property
    def chapter(self) -> bool:
        return self.path.parent.name in CHAPTERS

    @property
    def cells(self) -> list[dict]:
        return self.notebook["cells"]

    @property
    def code(self) -> list[tuple[int, dict]]:
        """Code cells, with their numbers among all cells, counted from one."""
        return [(n, cell) for n, cell in enumerate(self.cells, 1) if cell["cell_type"] == "code"]

    @property
    def outputs(self) -> Iterator[tuple[int, dict, dict]]:
        for number, cell in self.code:
            for output in cell["outputs"]:
                yield number, cell, output

    @property
    def markdown(self) -> list[tuple[int, str]]:
        return [(n, text(cell["source"])) for n, cell in enumerate(self.cells, 1) if cell["cell_type"] == "markdown"]

    @property
    def models(self) -> dict:
        """The saved states of the page's widgets."""
        return self.notebook["metadata"].get("widgets", {}).get(WIDGETS, {}).get("state", {})


def text(source: str | list[str]) -> str:
    """Notebooks store text as one string or as a list of lines."""
    return source if isinstance(source, str) else "".join(source)


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def headings(page: Page, level: int) -> list[tuple[int, str]]:
    """Headings of one level, with the numbers of their cells."""
    mark = "#" * level + " "
    return [
        (number, line.removeprefix(mark).strip())
        for number, source in page.markdown for line in without_code(source).splitlines() if line.startswith(mark)
    ]


def part(page: Page, words: str) -> range:
    """The numbers of the cells of the part whose heading (`##`) holds these words; empty where there is none."""
    parts = [*headings(page, 2), (len(page.cells) + 1, "")]
    for (here, name), (after, _) in zip(parts, parts[1:]):
        if words in name.lower():
            return range(here, after)
    return range(0)


Rule = Callable[[Page], Iterator[str]]
RULES: dict[str, Rule] = {}


def rule(function: Rule) -> Rule:
    RULES[function.__name__] = function
    return function


# -- Form ------------------------------------------------------------------------------------------------------------


@rule
def code_is_short(page: Page) -> Iterator[str]:
    for number, cell in page.code:
        lines = text(cell["source"]).count("\n") + 1
        if lines > CODE_LINES:
            yield f"cell {number} has {lines} lines of code; {CODE_LINES} are the most: move some into the package"


@rule
def has_a_page_s_length(page: Page) -> Iterator[str]:
    least, most = CELLS
    exercises = part(page, "exercises")
    cells = sum(n not in exercises and "hide-cell" not in tags(cell) for n, cell in enumerate(page.cells, 1))
    if page.chapter and not least <= cells <= most:
        yield f"the page has {cells} cells, exercises and folded ones not counted; a chapter's page has {least} to {most}"


@rule
def has_a_page_s_words(page: Page) -> Iterator[str]:
    least, most = WORDS
    words = sum(len(re.findall(r"[^\W\d_][\w'’-]*", prose(source))) for _, source in page.markdown)
    if page.chapter and not least <= words <= most:
        yield f"the page has {words:,} words; a chapter's page has {least:,} to {most:,}"


@rule
def weighs_little(page: Page) -> Iterator[str]:
    size = len(json.dumps(page.notebook))
    if size > BYTES:
        yield f"the file has {size / 1e6:.1f} MB; 1 MB is the most: draw smaller pictures, or fewer"


@rule
def follows_the_anatomy(page: Page) -> Iterator[str]:
    if not page.chapter:
        return
    found = [heading.lower().replace("’", "'") for _, heading in headings(page, 2)]
    places = {name: next((n for n, h in enumerate(found) if words in h), None) for name, words in ANATOMY.items()}
    for name, place in places.items():
        if place is None:
            yield f'there is no heading "## {name}"'
    present = {name: place for name, place in places.items() if place is not None}
    for (before, first), (after, second) in zip(list(present.items()), list(present.items())[1:]):
        if first > second:
            yield f'"## {after}" must come after "## {before}"'


@rule
def opens_with_a_title_and_a_figure(page: Page) -> Iterator[str]:
    titles = headings(page, 1)
    if len(titles) != 1 or titles[0][0] != 1:
        yield "the page needs one title (`# ...`), in its first cell"
    if not page.chapter:
        return
    first_part = part(page, ANATOMY["See it"])
    if first_part and not any(number in first_part and is_figure(output) for number, _, output in page.outputs):
        yield "the first part (See it) needs a figure that already works: an output with a picture or a widget"


def is_figure(output: dict) -> bool:
    data = output.get("data", {})
    return VIEW in data or any(mime.startswith("image/") for mime in data) or bool(
        re.search("<(img|svg|canvas)", text(data.get("text/html", "")))
    )


# -- Execution -------------------------------------------------------------------------------------------------------


@rule
def was_executed_in_order(page: Page) -> Iterator[str]:
    for expected, (number, cell) in enumerate(page.code, 1):
        if not text(cell["source"]).strip():
            yield f"cell {number} is empty"
        elif cell["execution_count"] != expected:
            yield f"cell {number} was executed as [{cell['execution_count']}], not [{expected}]: run `make execute`"
    for number, _, output in page.outputs:
        if output["output_type"] == "error":
            yield f"cell {number} ends in {output['ename']}: {output['evalue']}"


@rule
def was_saved_by_make_execute(page: Page) -> Iterator[str]:
    ids = [cell.get("id") for cell in page.cells]
    if None in ids or len(set(ids)) != len(ids):
        yield "cells need ids of their own: run `make execute`"
    if page.notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        yield "the kernel must be python3: run `make execute`"
    for number, cell in page.code:
        if "execution" in cell["metadata"]:
            yield f"cell {number} records when it ran, which differs every time: run `make execute`"


@rule
def skips_nothing(page: Page) -> Iterator[str]:
    for number, cell in page.code:
        for tag in {"nbval-skip", "nbval-raises-exception", "raises-exception"} & set(tags(cell)):
            yield f"cell {number} is tagged {tag}: every cell runs in the tests, and none may fail"
        if re.search(r"^\s*#\s*(NBVAL_|PYTEST_VALIDATE_)", text(cell["source"]), re.MULTILINE):
            yield f"cell {number} steers nbval by a comment; use the tag nbval-ignore-output, which readers do not see"


@rule
def checks_what_depends_on_hardware(page: Page) -> Iterator[str]:
    for number, cell in page.code:
        checks = [cell, *until_heading(page, number)]
        if "nbval-ignore-output" in tags(cell) and not any(map(has_assertion, checks)):
            yield (
                f"cell {number} is tagged nbval-ignore-output, so a wrong result would pass; it, or one of the two "
                "cells after it before the next heading, must `assert` what has to be true of it"
            )


def until_heading(page: Page, number: int) -> list[dict]:
    """The two cells after this one, as far as they come before the next heading."""
    following = []
    for cell in page.cells[number:number + 2]:
        if cell["cell_type"] == "markdown" and re.search(r"^#+ ", text(cell["source"]), re.MULTILINE):
            break
        following.append(cell)
    return following


def has_assertion(cell: dict) -> bool:
    """Whether a code cell asserts something that is not true by itself."""
    if cell["cell_type"] != "code":
        return False
    asserted = [node.test for node in ast.walk(parse(cell)) if isinstance(node, ast.Assert)]
    return any(not isinstance(test, ast.Constant) for test in asserted)


def parse(cell: dict) -> ast.Module:
    """The code of a cell, without the lines that only IPython understands."""
    lines = ["pass" if re.match(r"\s*[%!]", line) else line for line in text(cell["source"]).splitlines()]
    return ast.parse("\n".join(lines))


@rule
def mentions_no_device(page: Page) -> Iterator[str]:
    for number, cell in page.code:
        words = {node.id for node in ast.walk(parse(cell)) if isinstance(node, ast.Name)}
        words |= {node.attr for node in ast.walk(parse(cell)) if isinstance(node, ast.Attribute)}
        words |= {node.arg for node in ast.walk(parse(cell)) if isinstance(node, ast.keyword)}
        for word in words & {"cuda", "device", "get_device_name"}:
            yield f"cell {number} mentions `{word}`; the package finds the device, and pages run on any"


@rule
def names_no_local_path(page: Page) -> Iterator[str]:
    for number, cell in enumerate(page.cells, 1):
        found = LOCAL_PATH.search(BASE64.sub("", json.dumps(cell)))
        if found:
            yield f"cell {number} names a path of one machine: {found[0]}"
    found = LOCAL_PATH.search(BASE64.sub("", json.dumps(page.notebook["metadata"])))
    if found:
        yield f"the notebook's metadata name a path of one machine: {found[0]}"


LOCAL_PATH = re.compile(r"(?<![\w.:/+=-])(/(home|root|Users|tmp|work|mnt|private|opt|var)/[\w.-]+|[A-Z]:\\\\+Users)")
BASE64 = re.compile(r"(?<=base64,)[\w+/=\\]+|(?<=\")[\w+/=\\]{200,}(?=\")")


# -- What a reader gets ----------------------------------------------------------------------------------------------


@rule
def describes_every_picture(page: Page) -> Iterator[str]:
    for number, cell, output in page.outputs:
        data = output.get("data", {})
        if VIEW in data:
            continue
        if "text/html" in data:
            yield from (f"cell {number}: {fault}" for fault in unnamed_pictures(text(data["text/html"])))
        elif any(mime.startswith("image/") for mime in data):
            alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
            if not says_something(alt):
                yield f'cell {number} shows a picture; say what it shows in the metadata: {{"mystnb": {{"image": {{"alt": ...}}}}}}'
    for number, source in page.markdown:
        for alt in re.findall(r"!\[(.*?)\]\(", without_code(source), re.DOTALL):
            if not says_something(alt):
                yield f"cell {number}: the alt text {alt!r} of a picture does not say what it shows"
        yield from (f"cell {number}: {fault}" for fault in unnamed_pictures(without_code(source)))


@rule
def describes_every_widget(page: Page) -> Iterator[str]:
    for model in page.models.values():
        if model["model_name"] == "ImageModel":
            yield "a widget is an ipywidgets.Image, which has no alt text: use HTML('<img alt=... src=...>')"
        for value in model["state"].values():
            if isinstance(value, str) and "<" in value:
                yield from (f"in a widget: {fault}" for fault in unnamed_pictures(value))


def says_something(alt: str | None) -> bool:
    return len((alt or "").split()) >= ALT_WORDS


class Pictures(HTMLParser):
    """Collects the pictures of a piece of HTML, each with the name that a screen reader would speak."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[tuple[str, str | None]] = []
        self._depth = 0
        self._in_title = False

    def handle_starttag(self, tag: str, attributes: list) -> None:
        values = dict(attributes)
        name = values.get("aria-label") or values.get("alt") or values.get("title")
        hidden = values.get("aria-hidden") == "true" or values.get("role") in ("presentation", "none")
        outermost = tag == "svg" and self._depth == 0
        if not hidden and (tag in ("img", "canvas") or outermost and values.get("role") == "img"):
            self.names.append((tag, name))
        elif outermost and not hidden:
            self.names.append((tag, None))
        self._depth += tag == "svg"
        self._in_title = tag == "title" and self._depth == 1

    def handle_data(self, data: str) -> None:
        if self._in_title and self.names and self.names[-1] == ("svg", None):
            self.names[-1] = ("svg", data)

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag == "svg"
        self._in_title = False


def unnamed_pictures(html: str) -> Iterator[str]:
    pictures = Pictures()
    pictures.feed(html)
    for tag, name in pictures.names:
        if not says_something(name):
            how = 'role="img" and aria-label' if tag == "svg" else "alt" if tag == "img" else "aria-label"
            yield f"<{tag}> does not say what it shows ({name!r}); give it {how}, in a sentence"


@rule
def saves_its_widgets(page: Page) -> Iterator[str]:
    shown = {output["data"][VIEW]["model_id"] for _, _, output in page.outputs if VIEW in output.get("data", {})}
    named = set(re.findall(r"IPY_MODEL_(\w+)", json.dumps(page.notebook)))
    for model in sorted((shown | named) - page.models.keys()):
        yield f"the state of widget {model} was not saved, so the page would show nothing: run `make execute`"


@rule
def carries_current_scripts(page: Page) -> Iterator[str]:
    from scripts import stale  # loads the viewers, for some seconds

    for name in sorted(set(stale(page.models))):
        yield f"{name} was saved with another script or style than the package has now: run `make scripts`"


@rule
def types_no_result(page: Page) -> Iterator[str]:
    for number, source in page.markdown:
        for sentence in sentences(prose(source)):
            if CITATION in sentence:
                continue
            for found in RESULT.finditer(sentence):
                if not NAME_BEFORE.search(sentence[:found.start()]):
                    yield (
                        f"cell {number} types a result by hand: {sentence[max(0, found.start() - 40):found.end() + 10]!r}. "
                        "Print it in a cell; or cite the work it is from in the same sentence; or, if it follows from a "
                        "definition, write it as maths ($0.5$)"
                    )


CITATION = "⟦citation⟧"
UNIT = (
    r"%|per ?cent\b|(percentage )?points?\b|×(?!\s?\d)|[mµ]s\b|s\b|seconds?\b|minutes?\b|times (faster|slower|more|fewer)"
    r"|images/s|[kMGT]?FLOPs?\b|[kMG]i?B\b|parameters\b"
)
# A decimal, a number with thousands set apart, or any number with a unit of measurement.
RESULT = re.compile(rf"(?<![\w.,:/×-])(\d+\.\d+|\d{{1,3}}(,\d{{3}})+(\.\d+)?|\d+(?=\s?({UNIT})))(\s?({UNIT}))?")
NAME_BEFORE = re.compile(
    r"(Python|PyTorch|torch|torchvision|timm|CUDA|[Vv]ersion|[Ss]ections?|[Tt]ables?|[Ff]ig(ures?|\.)|[Ee]q(uations?|\.)"
    r"|[Cc]hapters?|[Aa]ppendix|arXiv:?)\s*$"
)


def without_code(source: str) -> str:
    """Markdown without its blocks of code; blocks that are directives keep what they say."""
    return re.sub(r"^(`{3,}|~{3,})(?!`*\{)[^\n]*\n.*?^\1`*\s*$", "", source, flags=re.MULTILINE | re.DOTALL)


def prose(source: str) -> str:
    """The words of a piece of Markdown: no code, maths, tags or addresses; a citation becomes a mark."""
    source = without_code(source)
    source = re.sub(r"\{cite[\w:]*\}`[^`]*`", CITATION, source)
    source = re.sub(r"^(`{3,}|:{3,}|~{3,}).*$", "", source, flags=re.MULTILINE)  # the frames of directives
    source = re.sub(r"^:[\w-]+:.*$", "", source, flags=re.MULTILINE)  # and their options
    source = re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$|\\\[.*?\\\]|\\\(.*?\\\)", " ", source, flags=re.DOTALL)
    source = re.sub(r"<!--.*?-->|<[^>\n]*>", " ", source, flags=re.DOTALL)
    source = re.sub(r"\{[\w:-]+\}`([^`<]*)[^`]*`", r"\1", source)  # other roles keep the words they show
    source = re.sub(r"`+[^`]*`+", " ", source)
    return re.sub(r"\]\([^)]*\)", "] ", source)


def sentences(words: str) -> Iterator[str]:
    """Sentences, with every item of a list by itself and every table as one."""
    for paragraph in re.split(r"\n\s*\n", words):
        if paragraph.lstrip().startswith("|"):
            yield paragraph
            continue
        for item in re.split(r"\n(?=\s*(?:[-*+]|\d+\.) )", paragraph):
            yield from re.split(r"(?<=[.!?:;])\s+(?=\W*[A-Z])", " ".join(item.split()))


@rule
def has_exercises_with_solutions(page: Page) -> Iterator[str]:
    section = part(page, "exercises")
    if not page.chapter or not section:
        return
    exercises = [number for number, _ in headings(page, 3) if number in section]
    least, most = EXERCISES
    if not least <= len(exercises) <= most:
        yield f"the page has {len(exercises)} exercises (headings `###` below `## Exercises`); it needs {least} to {most}"
    for here, after in zip(exercises, [*exercises[1:], section.stop]):
        if not any("hide-cell" in tags(page.cells[number - 1]) for number in range(here, after)):
            yield f"the exercise in cell {here} has no folded solution: a code cell tagged hide-cell, before the next one"


@rule
def links_lead_somewhere(page: Page) -> Iterator[str]:
    for number, source in page.markdown:
        for target in re.findall(r"\]\(<?([^)>\s]+)>?[^)]*\)", re.sub(r"`[^`\n]*`", "", without_code(source))):
            path = target.partition("#")[0]
            if path and not re.match(r"\w+:", path) and not any(
                (page.path.parent / (path + suffix)).exists() for suffix in ("", ".md", ".ipynb")
            ):
                yield f"cell {number} links to {target}, which does not exist"


# -- From the command line -------------------------------------------------------------------------------------------


def pages() -> list[Path]:
    """Every notebook of the book."""
    return sorted(path for path in BOOK.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def broken(page: Page) -> list[str]:
    """What is wrong with a page, each with the name of its rule."""
    return [f"{name}: {fault}" for name, check in RULES.items() for fault in check(page)]


def main() -> None:
    faults = 0
    for path in [Path(name).resolve() for name in sys.argv[1:]] or pages():
        for fault in broken(Page.read(path)):
            print(f"{path.name}: {fault}")
            faults += 1
    if faults:
        sys.exit(f"{faults} to mend.")
    print("All pages keep to the house rules.")


if __name__ == "__main__":
    main()
