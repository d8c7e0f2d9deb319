// What every viewer shares; `viewer.py` puts it before the script of each.

const { abs, floor, max, min, round } = Math;
let serial = 0;

// Attributes and listeners of an element; what is null, undefined or false is left out.
const put = (node, attributes) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value);
  }
  return node;
};
// An element: el("p", {class: "a", onclick: f}, "text", child). SVG where the tag says so.
const SVG = new Set(["svg", "g", "rect", "path", "line", "text", "circle"]);
const el = (tag, attributes = {}, ...children) => {
  const made = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  put(made, attributes).append(...children);
  return made;
};

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// Numbers as `viewer.pack` wrote them: one byte each between low and high, or four as they were.
const unpack = ({ q, f, low, high }) => {
  if (f !== undefined) return new Float32Array(bytes(f).buffer);
  return Float32Array.from(bytes(q), (byte) => low + (byte / 255) * (high - low));
};

const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
const clamp = (value, low, high) => min(high, max(low, value));
const softmax = (scores) => {
  const powers = scores.map((score) => Math.exp(score - max(...scores)));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
};
const short = (value) => {
  const size = abs(value);
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : size >= 0.0995 || size < 1e-6 ? value.toFixed(2) : value.toPrecision(2);
};
const percent = (value) => `${round(100 * value)} %`;

// The frame of a viewer: its name and its words for those who do not see it, a row of controls, the picture, a line of
// values read out, and the caption.
const frame = (root, model) => {
  const words = `attn-words-${(serial += 1)}`;
  const controls = el("div", { class: "attn-controls" });
  const body = el("div", { class: "attn-body" });
  const readout = el("output", { class: "attn-readout", "aria-live": "polite" });
  // A figure with a caption may have no role but its own.
  const figure = el("figure", { class: "attn-viewer", role: model.get("caption") ? null : "group", "aria-label": model.get("name"), "aria-describedby": words },
    controls, body, readout, el("p", { class: "attn-hidden", id: words }, model.get("alt")));
  if (model.get("caption")) figure.append(el("figcaption", {}, model.get("caption")));
  root.append(figure);
  let pending = 0;
  // Words follow a moving pointer at once, but a screen reader should hear the last ones only.
  const say = (text) => {
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(() => { readout.textContent = text; });
  };
  return { figure, controls, body, readout, say };
};

// Controls: each a label and one native element, 44 px high.
const labelled = (label, control) => el("label", { class: "attn-control" }, el("span", {}, label), control);
const menu = (label, names, index, chosen) => {
  const select = el("select", { onchange: () => chosen(select.selectedIndex) }, ...names.map((name) => el("option", {}, name)));
  select.selectedIndex = index;
  return labelled(label, select);
};
const range = (label, { low = 0, high = 1, step = 0.01, value = 0, told = String }, moved) => {
  const input = el("input", { type: "range", min: low, max: high, step, oninput: () => { tell(); moved(+input.value); } });
  const tell = () => input.setAttribute("aria-valuetext", told(+input.value));
  const made = labelled(label, input);
  made.set = (to) => { input.value = to; tell(); };
  made.set(value);
  return made;
};
const buttons = (label, names, index, chosen) => {
  const all = names.map((name, number) => el("button", { onclick: () => chosen(number) }, name));
  const group = el("div", { class: "attn-control attn-buttons", role: "group", "aria-label": label }, el("span", {}, label), ...all);
  group.set = (pressed) => all.forEach((button, number) => button.setAttribute("aria-pressed", String(number === pressed)));
  group.set(index);
  return group;
};

// A map of w × h values as pixels of a canvas, in a ramp given as hex digits.
const colours = (ramp) => ramp.match(/.{6}/g).map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const paint = (canvas, values, w, h, ramp, low, high) => {
  canvas.width = w;
  canvas.height = h;
  const context = canvas.getContext("2d"), image = context.createImageData(w, h), last = ramp.length - 1;
  for (let at = 0; at < w * h; at += 1) {
    const share = high > low ? (values[at] - low) / (high - low) : 0.5;
    const [r, g, b] = ramp[clamp(round(share * last), 0, last)];
    image.data.set([r, g, b, 255], 4 * at);
  }
  context.putImageData(image, 0, 0);
};

// Draw now and whenever the width changes; `draw` gets the width in pixels.
const drawn = (element, draw) => {
  let width = 0;
  const observer = new ResizeObserver(([entry]) => {
    const now = floor(entry.contentRect.width);
    if (now && now !== width) { width = now; draw(width); }
  });
  observer.observe(element);
  return () => observer.disconnect();
};

// Call `then` once a kernel has answered; without one, never.
const whenAlive = (model, then) => {
  model.on("msg:custom", (message) => { if (message.alive) then(); });
  try { model.send({ ask: "alive" }); } catch { /* no kernel, no answer */ }
};
