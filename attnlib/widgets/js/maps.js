// Weights over pictures, in one panel or in several that share the pointer, the query, the choice and the picture.

const SCALES = ["same for all", "this map alone", "all of this "];
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
// What is too little to be told from nothing, by the bytes, is nothing.
const number = (value, most = 0) => (abs(value) <= most / 1000 ? "0" : short(value).replace(/-/g, "−"));

// A place is shares of width and height, the same in panels of any grid; a cell is a row and a column of one grid.
const cellAt = (grid, [x, y]) => [y, x].map((share, axis) => clamp(floor(share * grid[axis]), 0, grid[axis] - 1));
const placeOf = ([rows, columns], [row, column]) => [(column + 0.5) / columns, (row + 0.5) / rows];
const words = ([row, column]) => `row ${row + 1}, column ${column + 1}`;
const wordsAt = (grid, place) => words(cellAt(grid, place));
const indexAt = (grid, place) => {
  const [row, column] = cellAt(grid, place);
  return row * grid[1] + column;
};
const area = (grid) => (grid ? grid[0] * grid[1] : 0);
const most = (all, size) => all.reduce((best, one) => (size(one) > size(best) ? one : best));
const limits = (all) => {
  const low = min(...all.map((one) => one.low)), high = max(...all.map((one) => one.high));
  return low < 0 ? [-max(-low, high), max(-low, high)] : [low, high];
};

// A layer that can be read: `map` gives the values of one map and its smallest and largest.
const inflated = async (text) => new Uint8Array(await new Response(
  new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
const opened = async (layer) => {
  const gates = layer.gates && unpack(layer.gates);
  const gate = (picture, choice) => gates[picture * layer.gates.shape[1] + choice];
  const states = await Promise.all(layer.states.map(async (state) => {
    const held = state.times ? layer.states[0] : state;
    return { ...held, times: state.times, shares: await inflated(held.z), ends: unpack(held.ends) };
  }));
  const map = (state, picture, choice, query) => {
    const { shares, ends, shape, times } = states[min(state, states.length - 1)];
    // An axis of size 1 stands for all.
    const at = [picture, choice, query].reduce((sum, index, axis) => sum * shape[axis] + (index % shape[axis]), 0);
    const [low, high] = [0, 1].map((end) => ends[2 * at + end] * (times ? gate(picture, choice) : 1));
    const value = (_, cell) => low + (shares[at * shape[3] + (cell % shape[3])] / 255) * (high - low);
    const values = Float32Array.from({ length: area(layer.grid) }, value);
    return { values, low: min(low, high), high: max(low, high) };
  };
  return { ...layer, map, gate };
};

// One panel: the picture, the map over it, the cell that is read and the one that looks, and a bar of colours.
const panelOf = ({ name, said }, layers, { pictures, ramps }, listeners) => {
  const picture = el("div", { class: pictures.hard && "attn-hard" }), canvas = el("canvas");
  const read = el("span", { class: "attn-cell" }), query = el("span", { class: "attn-cell attn-query" });
  const stage = el("div", {
    class: "attn-stage", role: "slider", tabindex: 0, "aria-valuemin": 1, "data-lm-suppress-shortcuts": "true",
    style: `aspect-ratio:${pictures.size[1]}/${pictures.size[0]}`, ...listeners,
  }, picture, canvas, read, query);
  const low = el("span"), strip = el("i"), high = el("span"), line = el("div");
  const bar = el("div", { class: "attn-ramp" }, low, strip, high);
  const root = el("div", {}, name && el("b", {}, name), stage, bar, line);
  const draw = (view, layer, { values }, ends) => {
    const ramp = colours(ramps[ends[0] < 0 ? "signed" : "map"]);
    paint(canvas, values, layer.grid[1], layer.grid[0], ramp, ...ends);
    canvas.style.opacity = view.blend;
    picture.style.backgroundImage = `url(${pictures.uris[view.picture]})`;
    // Colours are to be those of the map.
    picture.style.filter = `grayscale(${2 * view.blend})`;
    strip.style.background = `linear-gradient(90deg,${ramp.map((rgb) => `rgb(${rgb})`)})`;
    [low.textContent, high.textContent] = ends.map((end) => number(end, ends[1]));
    line.textContent = said?.[view.picture] ?? "";
  };
  const mark = (box, grid, place) => {
    box.hidden = !place;
    if (!place) return;
    const [x, y] = placeOf(grid, cellAt(grid, place)).map((share) => 100 * share);
    box.style.cssText = `left:${x}%;top:${y}%;width:${100 / grid[1]}%;height:${100 / grid[0]}%`;
  };
  return { name, root, stage, layers, draw, mark, read, query };
};

const render = async ({ model, el: root }) => {
  const data = model.get("data"), { controls, body, readout, say } = frame(root, model);
  const view = { ...data.start, pointer: null };
  // Of the layers shown: the one with most choices names them, the finest grid gives the steps, and whether any asks.
  let panels = [], lead, grid, finest, asks, chooser, plain;

  const choiceIn = ({ choices }) => clamp(view.choice, 0, max(0, choices.length - 1));
  const queryIn = ({ queries }) => (queries ? indexAt(queries, view.at) : 0);
  const mapOf = (layer, state = model.get("state")) =>
    layer.map(state, view.picture, choiceIn(layer), queryIn(layer));

  // All that the layer's present choice can show from here: any picture, in any state.
  const related = (layer) => data.pictures.names.flatMap((_, picture) => layer.states.map((_, state) =>
    layer.map(state, picture, choiceIn(layer), queryIn(layer))));

  const valueOf = (layer) => {
    const { values, low, high } = mapOf(layer), at = indexAt(layer.grid, view.pointer ?? view.at);
    const told = (map) => number(map.values[at], max(-map.low, map.high));
    if (layer.features) return layer.states.map((_, state) => told(mapOf(layer, state))).join(" → ");
    if (view.pointer || !layer.queries) return told({ values, low, high });
    if (high - low <= 1e-6 * abs(high)) return `everywhere alike: ${number(high)}`;
    const top = values.indexOf(max(...values)), columns = layer.grid[1];
    return `most at ${words([floor(top / columns), top % columns])}: ${number(high)}`;
  };
  const joined = (words, between) => words.filter(Boolean).join(between);
  const sentence = () => {
    const chosen = lead.choices[choiceIn(lead)], looks = asks && !view.pointer, at = wordsAt(grid, view.at);
    const pointer = view.pointer && wordsAt(finest, view.pointer);
    const where = looks ? `${at} looks` : asks ? `query ${at} → pointer ${pointer}` : pointer ?? at;
    // What each panel has of its own: its name, another choice than the first one's, a gate, the value.
    const values = panels.map(({ name, layer }) => {
      const choice = choiceIn(layer), own = layer.choices[choice];
      const gate = layer.gates && `gate ${number(layer.gate(view.picture, choice))}`;
      return joined([name, joined([own !== chosen && own, gate, valueOf(layer)], ", ")], " ");
    });
    return `${joined([chosen, where], " · ")}${looks && !panels[1] ? "" : ":"} ${values.join(" · ")}`;
  };

  const point = () => {
    for (const { stage, mark, read, query, layer } of panels) {
      mark(query, layer.queries ?? layer.grid, asks && view.at);
      mark(read, layer.grid, view.pointer ?? (!asks && view.at));
      put(stage, {
        "aria-valuemax": area(grid), "aria-valuenow": indexAt(grid, view.at) + 1, "aria-valuetext": wordsAt(grid, view.at),
      });
    }
    say(sentence());
  };
  const show = () => {
    const shared = limits(panels.map(({ layer }) => layer));
    plain.style.backgroundImage = `url(${data.pictures.uris[view.picture]})`;
    for (const { layer, draw } of panels) {
      const map = mapOf(layer);
      draw(view, layer, map, [() => shared, () => limits([map]), () => limits(related(layer))][view.scale]());
    }
    point();
  };
  const set = (what) => { Object.assign(view, what); show(); };
  const choose = (to) => { chooser.set(to); set({ choice: to }); };

  const turn = (to) => {
    panels.forEach((panel) => { panel.layer = panel.layers[to] ?? panel.layers[0]; });
    const layers = panels.map(({ layer }) => layer);
    asks = layers.some(({ queries }) => queries);
    lead = most(layers, ({ choices }) => choices.length);
    finest = most(layers, (layer) => area(layer.grid)).grid;
    grid = asks ? most(layers, ({ queries }) => area(queries)).queries : finest;
    view.choice = choiceIn(lead);
    chooser?.remove();
    const { axis, choices } = lead;
    if (choices.length) {
      const which = el("span", { class: "attn-choice" });
      const told = (at) => { which.textContent = choices[at].replace(`${axis} `, ""); return choices[at]; };
      chooser = range(axis, { high: choices.length - 1, step: 1, value: view.choice, told }, choose);
      chooser.append(which);
      controls.append(chooser);
    }
    const other = choices.length ? `, [ and ] change the ${axis}` : "";
    const keys = `arrow keys move the ${asks ? "query" : "place read"}${other}`;
    panels.forEach(({ name, stage }) => stage.setAttribute("aria-label", `${name} position: ${keys}`.trim()));
    show();
  };

  const place = ({ currentTarget, clientX, clientY }) => {
    const box = currentTarget.getBoundingClientRect();
    return [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
  };
  const pressed = (event) => {
    const step = ARROWS[event.key], other = { "[": -1, "]": 1 }[event.key], last = lead.choices.length - 1;
    if (event.ctrlKey || event.metaKey || !(step || (other && last > 0))) return;
    event.preventDefault();
    if (other) choose(clamp(view.choice + other, 0, last));
    else {
      const moved = cellAt(grid, view.at).map((at, axis) => clamp(at + step[axis], 0, grid[axis] - 1));
      set({ pointer: null, at: placeOf(grid, moved) });
    }
  };
  const listeners = {
    onpointermove: (event) => { if (event.pointerType === "mouse") { view.pointer = place(event); point(); } },
    onpointerleave: () => { view.pointer = null; point(); },
    onclick: (event) => set({ at: place(event) }),
    onkeydown: pressed,
  };

  panels = await Promise.all(data.panels.map(async (panel) =>
    panelOf(panel, await Promise.all(panel.layers.map(opened)), data, listeners)));
  // The picture itself comes first, as the maps take its colours away. Strips stand one below the other.
  const { names, size, hard } = data.pictures, strips = size[1] > 2 * size[0];
  plain = el("div", { class: `attn-plain ${hard ? "attn-hard" : ""}`, style: `aspect-ratio:${size[1]}/${size[0]}` });
  body.append(el("div", { class: `attn-panels ${strips ? "attn-strips" : ""}`, style: `--panels:${panels.length + 1}` },
    el("div", {}, el("b", {}, panels[1] ? "picture" : ""), plain), ...panels.map((panel) => panel.root)));
  const layers = panels[0].layers.map(({ name }) => name);
  if (names.length > 1) controls.append(menu("picture", names, view.picture, (picture) => set({ picture })));
  if (layers.length > 1) controls.append(menu("layer", layers, view.layer, turn));
  readout.after(el("div", { class: "attn-controls" },
    range("blend", { value: view.blend, told: (share) => `${percent(share)} map` }, (blend) => set({ blend })),
    menu("scale", SCALES.map((scale) => scale.replace(/ $/, ` ${panels[0].layers[0].axis || "map"}`)), view.scale, (scale) => set({ scale }))));
  turn(view.layer);
  model.on("change:state", show);
  return () => model.off("change:state", show);
};

export default { render };
