//= player
// A training, replayed: curves with the chosen step marked, and the weights as they were at that step.

// The looks of the runs in their order, as in `plot.curves`: a role, and dashes for those who see no colours.
const LOOKS = [["quiet"], ["data"], ["learned", "6 3"], ["query", "8 3 2 3"], ["key", "2 3"], ["value", "9 3 2 3 2 3"]];
const LEFT = 36, RIGHT = 12, TOP = 26, BOTTOM = 34;

const upTo = (steps, step) => steps.findLastIndex((other) => other <= step);
const line = (x1, y1, x2, y2, more) => el("line", { x1, y1, x2, y2, ...more });

// An empty chart: its title, the ends of both axes, and lines across.
const chart = (width, height, title, [low, high], [from, to, axis]) => {
  const right = width - RIGHT, base = height - BOTTOM;
  const x = (value) => LEFT + (right - LEFT) * (value - from) / (to - from || 1);
  const y = (value) => base - (base - TOP) * (value - low) / (high - low);
  const svg = el("svg", { width, height, "aria-hidden": "true" });
  const text = (at, down, anchor, words, kind = "quiet") =>
    svg.append(el("text", { x: at, y: down, "text-anchor": anchor, class: kind }, words));
  text(0, 12, "start", title, "");
  for (const value of [low, (low + high) / 2, high]) {
    svg.append(line(LEFT, y(value), right, y(value), { class: "attn-rule" }));
    text(LEFT - 6, y(value) + 4, "end", value ? short(value) : "0");
  }
  text(LEFT, base + 16, "start", from);
  text((LEFT + right) / 2, base + 16, "middle", axis);
  text(right, base + 16, "end", to);
  return { svg, x, y };
};

// One chart of all runs, with the chosen step marked.
const curves = (width, what, { kind, runs, limits, last }, step, look) => {
  const { svg, x, y } = chart(width, 190, kind + what, limits[what], [0, last, "training step"]);
  svg.append(line(x(step), TOP, x(step), 190 - BOTTOM, { class: "attn-now" }));
  runs.forEach((run, number) => {
    const values = run[what] ?? [], looks = look(number), row = upTo(run.steps, step);
    const points = values.map((value, at) => `${x(run.steps[at]).toFixed(1)} ${y(value).toFixed(1)}`);
    svg.append(el("path", { d: points.length && `M${points.join("L")}`, fill: "none", ...looks }));
    if (row in values) svg.append(el("circle", { cx: x(run.steps[row]), cy: y(values[row]), r: 4, fill: looks.stroke }));
  });
  return svg;
};

// Bars of the weights, each with a thin line where it ends.
const bars = (width, title, now, final, { limits, axis }, fill) => {
  const { svg, y } = chart(width, 150, title, limits, [1, now.length, axis]);
  const each = (width - LEFT - RIGHT) / now.length, wide = each * (each > 4 ? 0.7 : 1);
  const path = (draw) => Array.from(now, (_, bar) => `M${LEFT + bar * each + (each - wide) / 2} ${draw(bar)}`).join("");
  svg.append(el("path", { d: path((bar) => `${y(0)}V${y(now[bar])}h${wide}V${y(0)}z`), fill }),
    el("path", { d: path((bar) => `${y(final[bar])}h${wide}`), class: "attn-final" }));
  return svg;
};

// Maps side by side in the same colours, and what the colours mean.
const maps = (titled, { size: [rows, columns], limits: [low, high] }, ramp) => {
  const painted = (words, ...painting) => {
    const canvas = el("canvas");
    paint(canvas, ...painting);
    return el("div", {}, canvas, words);
  };
  return el("div", { class: "attn-maps" },
    ...titled.map(([words, values]) => painted(words, values, columns, rows, ramp, low, high)),
    painted(`${short(low)} … ${short(high)}`, [...ramp.keys()], ramp.length, 1, ramp, 0, ramp.length - 1));
};

export default {
  render({ model, el: root }) {
    const data = model.get("data"), { runs, steps, layers, pictures } = data, end = steps.length - 1;
    const { figure, controls, body, readout, say } = frame(root, model);
    const weights = layers.map(({ values }) => unpack(values)), picked = layers.map(({ choose }) => choose.map(() => 0));
    const measured = ["loss", "accuracy"].filter((what) => data.limits[what]);
    let at = data.start, layer = 0, picture = 0, width = 0;

    const strong = () => (model.get("state") ? runs.length - 1 : 0);
    const look = (run) => {
      const [role, dashes] = LOOKS[(run + (runs.length < 2)) % LOOKS.length];
      return { stroke: `var(--${role})`, "stroke-dasharray": dashes, "stroke-width": run === strong() ? 2.8 : 1.3 };
    };
    const values = (run) => {
      const row = upTo(run.steps, steps[at]);
      if (row < 0) return `${run.name} not measured yet`;
      const known = measured.filter((what) => run[what]).map((what) => `${what} ${short(run[what][row])}`).join(", ");
      return `${run.name} ${known}${run.steps.at(-1) < steps[at] ? ` (ended at step ${run.steps[row]})` : ""}`;
    };
    const sample = (run) => el("svg", { width: 28, height: 10, "aria-hidden": "true" }, line(0, 5, 28, 5, look(run)));

    const drawWeights = () => {
      const shown = layers[layer], { steps: taken, choose, values: { shape } } = shown;
      // The place of a slice in (steps, pictures, what is chosen ..., what is drawn).
      const places = [picture, ...picked[layer]], length = shape.slice(2 + choose.length).reduce((a, b) => a * b);
      const slice = (row) => {
        const from = places.reduce((place, index, axis) => place * shape[axis + 1] + index, row) * length;
        return weights[layer].subarray(from, from + length);
      };
      const row = max(0, upTo(taken, steps[at])), now = slice(row), final = slice(taken.length - 1);
      const title = [`step ${taken[row]}`, ...choose.map(([name], axis) => `${name} ${picked[layer][axis] + 1}`)].join(", ");
      const ends = `at the end, step ${taken.at(-1)}`, colour = `var(--${shown.run === strong() ? "data" : "quiet"})`;
      beneath.replaceChildren(shown.map ? maps([[title, now], [ends, final]], shown, colours(data.ramps[shown.map]))
        : bars(width, `weights at ${title} (thin lines: ${ends})`, now, final, shown, colour));
    };
    const show = () => {
      if (!width) return;
      const one = width < 560 ? width : (width - 24) / 2, first = runs[strong()];
      plots.forEach((plot, number) => plot.replaceChildren(curves(one, measured[number], data, steps[at], look)));
      if (runs.length > 1) legend.replaceChildren(...runs.map(({ title }, run) => el("span", {}, sample(run), title)));
      if (layers.length) drawWeights();
      say(`step ${steps[at]}: ${[first, ...runs.filter((run) => run !== first)].map(values).join(" · ")}`);
    };
    const go = (to) => { at = to; slider.set(at); show(); };

    const { button, stop } = player(readout, { end, span: 6, at: () => at, go });
    const slider = range("step", { high: end, step: 1, value: at, told: (index) => `step ${steps[index]}` },
      (index) => { stop(); go(index); });

    const follow = ({ currentTarget, clientX }) => {
      const { left, width: wide } = currentTarget.getBoundingClientRect();
      const step = (clientX - left - LEFT) / (wide - LEFT - RIGHT) * data.last;
      const far = steps.map((other) => abs(other - step)), near = far.indexOf(min(...far));
      stop();
      if (near !== at) go(near);
    };
    const plots = measured.map(() => el("div", { onpointermove: follow, onpointerdown: follow }));

    const legend = el("div", { class: "attn-legend" }), beneath = el("div", { "aria-hidden": "true" });
    const more = el("div", { class: "attn-controls" }), menus = el("div", { class: "attn-controls" });
    const pick = (axis) => (value) => { picked[layer][axis] = value - 1; show(); };
    const choosers = () => more.replaceChildren(...(layers[layer]?.choose ?? []).map(([name, high], axis) =>
      range(name, { low: 1, high, step: 1, value: picked[layer][axis] + 1 }, pick(axis))));
    const turn = (index) => { layer = index; choosers(); show(); };
    if (layers.length > 1) menus.append(menu("layer", layers.map(({ title }) => title), 0, turn));
    if (pictures.length > 1) menus.append(menu("picture", pictures, 0, (index) => { picture = index; show(); }));
    if (end) controls.append(...(still() ? [] : [button]), slider);
    choosers();
    figure.classList.add("attn-training");
    body.append(legend, el("div", { class: "attn-charts" }, ...plots), menus, more, beneath);

    model.on("change:state", show);
    const forget = drawn(body, (now) => { width = now; show(); });
    return () => { forget(); stop(); model.off("change:state", show); };
  },
};
