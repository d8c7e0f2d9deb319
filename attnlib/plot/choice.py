"""A figure to choose from: accuracy against cost for several mechanisms on several tasks, without a line of script."""

from __future__ import annotations

import hashlib
import html
import math
from collections.abc import Mapping, Sequence

from attnlib.plot.figure import check_alt, stylesheet
from attnlib.plot.svg import role_variable

Point = tuple[float, float]
Scores = Mapping[str, Mapping[str, Sequence[float]]]

# The area a panel plots in, in units of its own; the room kept free at its edges; and between two dots.
WIDE, HIGH, EDGE, APART = 200, 140, 10, 11
# Costs that differ by more than this factor are drawn on a scale of powers of ten.
_POWERS = 20
_STEPS = (1, 2, 2.5, 5, 10)


def choice(scores: Scores, costs: Mapping[str, Mapping[str, float]], *, alt: str, chosen: str | None = None,
           baseline: str | None = None, verdicts: Mapping[str, Mapping[str, Mapping[str, str]]] | None = None,
           caption: str | None = None) -> Choice:
    """One panel for each task, a dot with its interval for each mechanism, and radio buttons to choose one of them.

    The chosen mechanism stands out in every panel, and its values stand below in words. Pointing into a panel shows
    the mechanism whose dot is nearest for as long as one points, and a click chooses it. A second group of buttons
    says which cost is drawn. All of it is HTML, SVG and CSS: it works on a saved page, by keyboard and by touch.

    Dots that would cover each other are moved to the side until they do not. A cost whose values differ by more than a
    factor of 20 is drawn on a scale of powers of ten, from 0 on.

    Args:
        scores: by task and mechanism, the accuracy between 0 and 1 and the ends of its interval: (mean, low, high).
            What of an interval lies outside 0 to 1 is not drawn.
        costs: by what they are, such as ``"parameters added"``, and by mechanism; 0 or more each. In the words their
            name stands behind the number, so it should hold the unit. The first is drawn at the start.
        alt: what the whole figure shows, in a sentence.
        chosen: the mechanism that stands out at the start; the first by default.
        baseline: the mechanism whose accuracy a dashed line marks in each panel; none by default.
        verdicts: by what a mechanism is held against, by task and by mechanism: words for the table. Pairs that are
            missing stay empty.
        caption: printed below.

    Raises:
        ValueError: no task, mechanism or cost; a mechanism that one of them lacks; numbers that are no accuracy with
            its interval, or no cost; or a name that is not known.
    """
    names = _check_scores(scores)
    _check_costs(costs, names)
    verdicts = verdicts or {}
    for word, name in (("chosen", chosen), ("baseline", baseline)):
        if name is not None and name not in names:
            raise ValueError(f"{word} is one of {', '.join(names)}, not {name!r}")
    for against, by_task in verdicts.items():
        for task, by_name in by_task.items():
            if task not in scores or not set(by_name) <= set(names):
                raise ValueError(f"the verdicts against {against!r} are of a task or mechanism without scores: "
                                 f"{task!r}, {', '.join(by_name)}")
    start = names.index(chosen) if chosen else 0
    body = "".join([
        '<div class="attn-choice-controls">', _radios("mechanism", "m", names, start, described=True),
        _radios("cost, from left to right", "c", list(costs), 0), '</div><div class="attn-choice-panels">',
        *(_panel(task, scores[task], costs, names, baseline) for task in scores),
        '</div><div class="attn-choice-words">', *_words(scores, costs, verdicts, names), "</div>",
    ])
    return Choice(body, len(names), len(costs), alt, caption)


class Choice:
    """What `choice` draws. A notebook shows it; its text form is ``Choice('the alt text')``.

    Attributes:
        alt, caption: as given.
    """

    def __init__(self, body: str, mechanisms: int, costs: int, alt: str, caption: str | None = None) -> None:
        self.alt, self.caption = check_alt(alt), caption
        self._body, self._sizes = body, (mechanisms, costs)

    def __repr__(self) -> str:
        return f"Choice({self.alt!r})"

    def _repr_html_(self) -> str:
        content = self._body + self.alt + (self.caption or "")
        own = "c" + hashlib.sha1(content.encode()).hexdigest()[:8]
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        style = stylesheet() + _css() + _rules(own, *self._sizes)
        return (f'<figure class="attn-figure attn-choice" id="{own}" aria-label="{html.escape(self.alt)}">'
                f"<style>{style}</style>{self._body.replace(_OWN, own)}{caption}</figure>")


# --- checks ----------------------------------------------------------------------------------------------------------


def _check_scores(scores: Scores) -> list[str]:
    """The names of the mechanisms."""
    if not scores or not all(scores.values()):
        raise ValueError("scores needs a task, and a mechanism in it: {'one cue': {'SE': (0.9, 0.88, 0.92)}}")
    names = list(next(iter(scores.values())))
    for task, by_name in scores.items():
        if set(by_name) != set(names):
            different = ", ".join(sorted(set(by_name) ^ set(names)))
            raise ValueError(f"every task has the same mechanisms; {task!r} differs in {different}")
        for name, values in by_name.items():
            if len(values) != 3 or not all(map(math.isfinite, values)) or not values[1] <= values[0] <= values[2]:
                raise ValueError(f"{name!r} on {task!r} needs (mean, low, high) in this relation, not {tuple(values)}")
            if not 0 <= values[0] <= 1:
                raise ValueError(f"an accuracy lies between 0 and 1, not {values[0]} ({name!r} on {task!r})")
    return names


def _check_costs(costs: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> None:
    if not costs:
        raise ValueError("costs needs one cost, by mechanism: {'parameters added': {'SE': 552}}")
    for cost, by_name in costs.items():
        if set(by_name.keys()) != set(names):  # of a pandas.Series too
            different = ", ".join(sorted(set(by_name.keys()) ^ set(names)))
            raise ValueError(f"every mechanism has every cost and scores; {cost!r} differs in {different}")
        for name, value in by_name.items():
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"a cost is a number from 0 on, not {value} ({cost!r} of {name!r})")


# --- where things are ------------------------------------------------------------------------------------------------


class Scale:
    """From values to places between `start` and `end`, and round values to mark.

    Args:
        values: those that must have a place.
        powers: count in powers of ten (and let 0 be where 1 would be without them).
        bounds: the scale does not reach beyond these.
    """

    def __init__(self, values: Sequence[float], start: float, end: float, *, powers: bool = False,
                 bounds: Point = (0, math.inf)) -> None:
        self.start, self.end, self.powers = start, end, powers
        low, high = (min(max(value, bounds[0]), bounds[1]) for value in (min(values), max(values)))
        if low == high:
            low, high = low - (0.05 * low or 0.5), high + (0.05 * high or 0.5)
        self.low, self.high = (0, high) if powers else (low, high)

    def __call__(self, value: float) -> float:
        low, high, value = map(self._along, (self.low, self.high, min(max(value, self.low), self.high)))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def _along(self, value: float) -> float:
        return math.log10(1 + value) if self.powers else value

    def ticks(self) -> list[float]:
        """Two to five round values."""
        if self.powers:
            most = int(math.log10(self.high))
            every = 1 if most <= 2 else 2
            return [0.0, *(10.0**power for power in range(most % every or every, most + 1, every))]
        rough = (self.high - self.low) / 3
        size = 10 ** math.floor(math.log10(rough))
        step = next(step * size for step in _STEPS if step * size >= rough)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def cost_scale(values: Sequence[float]) -> Scale:
    """The scale of a cost, from left to right."""
    powers = max(values) > _POWERS * max(min(values), 1e-9) and max(values) > _POWERS
    return Scale(values, EDGE, WIDE - EDGE, powers=powers)


def accuracy_scale(scores: Mapping[str, Sequence[float]]) -> Scale:
    """The scale of a task's accuracies, from the bottom up."""
    return Scale([value for values in scores.values() for value in values], HIGH - EDGE, EDGE, bounds=(0, 1))


def apart(points: Sequence[Point]) -> list[Point]:
    """The points, moved to the side as little as is needed to be `APART` from each other."""
    placed: dict[int, Point] = {}
    for number in sorted(range(len(points)), key=lambda each: points[each]):
        x, y = points[number]
        free = [(x + side * far, y) for far in range(WIDE) for side in (1, -1) if 0 < x + side * far < WIDE
                and all(math.hypot(x + side * far - p, y - q) >= APART for p, q in placed.values())]
        placed[number] = free[0] if free else (x, y)
    return [placed[number] for number in range(len(points))]


def nearest(points: Sequence[Point]) -> list[list[Point]]:
    """For each point the corners of the area that is nearer to it than to any other (Voronoi cells)."""
    cells = []
    for x, y in points:
        cell: list[Point] = [(0, 0), (WIDE, 0), (WIDE, HIGH), (0, HIGH)]
        for p, q in points:
            if (p, q) != (x, y):
                cell = _cut(cell, (p - x, q - y), (p * p - x * x + q * q - y * y) / 2)
        cells.append(cell)
    return cells


def _cut(corners: list[Point], normal: Point, limit: float) -> list[Point]:
    """What of a convex area has a product with `normal` of at most `limit`."""
    kept: list[Point] = []
    beyond = [normal[0] * x + normal[1] * y - limit for x, y in corners]
    for number, (corner, over) in enumerate(zip(corners, beyond)):
        before, over_before = corners[number - 1], beyond[number - 1]
        if (over > 0) != (over_before > 0):
            share = over_before / (over_before - over)
            kept.append((before[0] + share * (corner[0] - before[0]), before[1] + share * (corner[1] - before[1])))
        if over <= 0:
            kept.append(corner)
    return kept


# --- what is written -------------------------------------------------------------------------------------------------

# Stands for the figure's own name until its content, and with it the name, is known.
_OWN = "\0"


def _radios(legend: str, group: str, names: Sequence[str], start: int, described: bool = False) -> str:
    parts = [f"<fieldset><legend>{legend}</legend>"]
    for number, name in enumerate(names):
        own = f"{_OWN}-{group}{number}"
        # The dots are labels of the buttons too; the name to be spoken is this one alone.
        words = f' aria-describedby="{_OWN}-w{number}"' if described else ""
        parts.append(
            f'<label><input type="radio" name="{_OWN}-{group}" id="{own}" aria-labelledby="{own}-name"{words}'
            f'{" checked" * (number == start)}><span id="{own}-name">{html.escape(name)}</span></label>'
        )
    return "".join([*parts, "</fieldset>"])


def _panel(task: str, scores: Mapping[str, Sequence[float]], costs: Mapping[str, Mapping[str, float]],
           names: Sequence[str], baseline: str | None) -> str:
    height = accuracy_scale(scores)
    drawn, beside = [], []
    for value in height.ticks():
        drawn.append(f'<path class="attn-choice-grid" d="M0 {_short(height(value))}h{WIDE}"/>')
        beside.append(f'<span class="attn-choice-y" style="top:{_percent(height(value), HIGH)}">{value:.4g}</span>')
    if baseline is not None:
        drawn.append(f'<path class="attn-choice-base" d="M0 {_short(height(scores[baseline][0]))}h{WIDE}"/>')
    for number, (cost, by_name) in enumerate(costs.items()):
        marks, around = _marks(scores, [by_name[name] for name in names], names, height)
        drawn.append(f'<g class="attn-choice-c{number}">{marks}</g>')
        beside.append(f'<div class="attn-choice-c{number}">{around}'
                      f'<span class="attn-choice-x attn-choice-cost">{html.escape(cost)}</span></div>')
    return (
        f'<div class="attn-choice-panel"><div class="attn-choice-task" aria-hidden="true">{html.escape(task)}</div>'
        f'<div class="attn-choice-plot"><div role="img" aria-label="{html.escape(_alt(task, scores))}">'
        f'<svg viewBox="0 0 {WIDE} {HIGH}" aria-hidden="true">{"".join(drawn)}</svg></div>'
        f'<div aria-hidden="true">{"".join(beside)}</div></div></div>'
    )


def _marks(scores: Mapping[str, Sequence[float]], values: Sequence[float], names: Sequence[str],
           height: Scale) -> tuple[str, str]:
    """Dots and intervals of one panel for one cost, as SVG; and around them as HTML the marks of the scale, and the
    areas that belong to the dots."""
    along = cost_scale(values)
    points = apart([(along(value), height(scores[name][0])) for value, name in zip(values, names)])
    marks = [
        f'<g class="attn-choice-m{number}"><path d="M{_short(x)} {_short(height(scores[name][1]))}'
        f'V{_short(height(scores[name][2]))}"/><circle cx="{_short(x)}" cy="{_short(y)}" r="3.5"/></g>'
        for number, (name, (x, y)) in enumerate(zip(names, points))
    ]
    around = [f'<span class="attn-choice-x" style="left:{_percent(along(value), WIDE)}">{_tick(value)}</span>'
              for value in along.ticks()]
    for number, corners in enumerate(nearest(points)):
        area = ",".join(f"{_percent(x, WIDE)} {_percent(y, HIGH)}" for x, y in corners)
        around.append(f'<label class="attn-choice-at attn-choice-at{number}" for="{_OWN}-m{number}" '
                      f'style="clip-path:polygon({area})"></label>')
    return "".join(marks), "".join(around)


def _alt(task: str, scores: Mapping[str, Sequence[float]]) -> str:
    ordered = sorted(scores, key=lambda name: -scores[name][0])
    told = ", ".join(f"{name} {scores[name][0]:.3f}" for name in ordered)
    return f"Accuracy against cost on {task}, from the highest accuracy: {told}"


def _words(scores: Scores, costs: Mapping[str, Mapping[str, float]],
           verdicts: Mapping[str, Mapping[str, Mapping[str, str]]], names: Sequence[str]) -> list[str]:
    """The values of each mechanism: its costs in a line, its accuracies and verdicts in a table."""
    heads = "".join(f'<th scope="col">{html.escape(head)}</th>'
                    for head in ("task", "accuracy", *(f"against {against}" for against in verdicts)))
    blocks = []
    for number, name in enumerate(names):
        price = " · ".join(f"{_number(by_name[name])} {cost}" for cost, by_name in costs.items())
        rows = []
        for task, by_name in scores.items():
            mean, low, high = by_name[name]
            cells = [f"{mean:.3f} ({low:.3f}–{high:.3f})"]
            cells += [by_task.get(task, {}).get(name, "") for by_task in verdicts.values()]
            rows.append(f'<tr><th scope="row">{html.escape(task)}</th>'
                        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
        blocks.append(
            f'<div class="attn-choice-w attn-choice-w{number}" id="{_OWN}-w{number}"><p><b>{html.escape(name)}</b>: '
            f"{html.escape(price)}</p>"
            f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        )
    return blocks


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _tick(value: float) -> str:
    return f"{value / 1000:.4g}k" if value >= 1000 else f"{value:.4g}"


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _percent(place: float, whole: float) -> str:
    return f"{100 * place / whole:.2f}".rstrip("0").rstrip(".") + "%"


def _css() -> str:
    """What all these figures share."""
    data, neutral, line, text, ground = map(role_variable, ("data", "neutral", "line", "text", "ground"))
    return (
        f".attn-choice{{color:{text};font-size:.9rem;line-height:1.35}}"
        ".attn-choice fieldset{border:0;margin:0 0 .5rem;padding:0;min-width:0;display:flex;flex-wrap:wrap;"
        "column-gap:1.1rem}"
        ".attn-choice legend{float:none;width:auto;font-size:inherit;font-weight:600;padding:0;margin:0}"
        ".attn-choice fieldset label{display:inline-flex;align-items:center;gap:.4rem;min-height:44px;min-width:44px;"
        "margin:0;cursor:pointer}"
        f".attn-choice input{{margin:0;width:1.1rem;height:1.1rem;flex:none;accent-color:{data}}}"
        # Choosing a dot focuses its button; with margins beyond the screen, the page does not scroll there for that.
        ".attn-choice:has(.attn-choice-at:hover) input{scroll-margin:300vh}"
        f".attn-choice input:focus-visible{{outline:2px solid {text};outline-offset:2px}}"
        ".attn-choice-panels{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:.75rem 1rem;"
        "align-items:end}"
        "@media(max-width:600px){.attn-choice-panels{grid-template-columns:repeat(2,minmax(0,1fr));column-gap:.5rem}}"
        ".attn-choice-task{font-weight:600;margin:0 0 .25rem 2.4rem}"
        ".attn-choice-plot{position:relative;margin:0 0 2.7rem 2.4rem}"
        f".attn-choice-plot svg{{overflow:visible;fill:{ground};stroke:{neutral}}}"
        f".attn-choice-grid{{stroke:{line}}}.attn-choice-base{{stroke-dasharray:5 4}}"
        f".attn-choice-y,.attn-choice-x{{position:absolute;font-size:.75rem;color:{neutral};white-space:nowrap}}"
        ".attn-choice-y{right:calc(100% + .3rem);transform:translateY(-50%)}"
        ".attn-choice-x{top:calc(100% + .2rem);transform:translateX(-50%)}"
        ".attn-choice-cost{left:50%;top:calc(100% + 1.3rem)}"
        # Each covers the whole plot and is cut to the part of it that is nearest to its dot.
        ".attn-choice-at{position:absolute;inset:0;margin:0;cursor:pointer}"
        ".attn-choice-words{display:grid;margin-top:.5rem}"
        # All lie on one another, so that the page does not jump from a long one to a short one.
        ".attn-choice-w{grid-area:1/1;visibility:hidden}.attn-choice-w p{margin:0 0 .4rem;max-width:none}"
        ".attn-choice table{width:100%;margin:0;border-collapse:collapse;font-size:.95em;table-layout:auto}"
        f".attn-choice :is(th,td){{border:0;border-top:1px solid {line};background:none;color:inherit;text-align:left;"
        "vertical-align:top;padding:.25rem .75rem .25rem 0;white-space:normal}"
        ".attn-choice :is(tbody th,thead th){font-weight:normal}"
        f".attn-choice thead th{{border:0;color:{neutral}}}"
        "@media(max-width:600px){.attn-choice table{font-size:.85em}.attn-choice :is(th,td){padding-right:.4rem}}"
    )


def _rules(own: str, mechanisms: int, costs: int) -> str:
    """What stands out, and which cost is drawn, for one figure. Pointing goes before what was chosen."""
    data = role_variable("data")
    resting = f"#{own}:not(:has(.attn-choice-at:hover))"
    rules = []
    for number in range(mechanisms):
        when = f":is({resting}:has(#{own}-m{number}:checked),#{own}:has(.attn-choice-at{number}:hover))"
        rules.append(f"{when} .attn-choice-w{number}{{visibility:visible}}"
                     f"{when} .attn-choice-m{number}{{stroke:{data};fill:{data};stroke-width:3;opacity:1}}"
                     f"{when} .attn-choice-m{number} circle{{r:5px}}")
    for number in range(costs):
        rules.append(f"#{own}:not(:has(#{own}-c{number}:checked)) .attn-choice-c{number}{{display:none}}")
    return f'#{own} [class*="attn-choice-m"]{{opacity:.75}}' + "".join(rules)
