//= player
// Where a spatial transformer samples a picture, step by step of its training, and what it makes of it; or a map of one's own.

const NAMES = ["a", "b", "c", "d", "e", "f"], IDENTITY = [1, 0, 0, 0, 1, 0];
const signed = (value) => `${value < 0 ? "−" : "+"} ${abs(value).toFixed(2)}`;

export default {
  render({ model, el: root }) {
    const data = model.get("data"), { controls, body, readout, say } = frame(root, model);
    const { steps, names, size, uris } = data, [, count, side] = data.lattices.shape, end = steps.length - 1;
    const lattices = unpack(data.lattices), truths = data.truth && unpack(data.truth), values = unpack(data.values);
    const [, channels, rows, columns] = data.values.shape;
    const view = { picture: 0, step: end, own: data.own };

    // A map as a function of a place: x and y from −1 to 1 in the output to x and y in the picture.
    const straight = ([a, b, c, d, e, f]) => ([x, y]) => [a * x + b * y + c, d * x + e * y + f];
    const between = (held, from) => ([x, y]) => {
      const [u, v] = [x, y].map((place) => ((place + 1) / 2) * (side - 1));
      const [i, j] = [u, v].map((at) => clamp(floor(at), 0, side - 2));
      return [0, 1].map((axis) => {
        const at = (row, column) => held[from + 2 * (row * side + column) + axis];
        const line = (row) => at(row, i) + (u - i) * (at(row, i + 1) - at(row, i));
        return line(j) + (v - j) * (line(j + 1) - line(j));
      });
    };
    const learned = () => between(lattices, (view.step * count + view.picture) * 2 * side * side);
    const now = () => (view.own ? straight(view.own) : model.get("state") ? learned() : straight(IDENTITY));
    const six = (map) => {
      const [[x, y], [right, down], [left, below]] = [[0, 0], [1, 0], [0, 1]].map(map);
      return [right - x, left - x, x, down - y, below - y, y];
    };

    // Bilinear, with the ground's value outside.
    const value = (channel, row, column) => (row < 0 || row >= rows || column < 0 || column >= columns ? data.fill
      : values[((view.picture * channels + channel) * rows + row) * columns + column]);
    const read = (channel, [x, y]) => {
      const column = ((x + 1) * columns - 1) / 2, row = ((y + 1) * rows - 1) / 2, left = floor(column), top = floor(row);
      const line = (at) => value(channel, at, left) + (column - left) * (value(channel, at, left + 1) - value(channel, at, left));
      return line(top) + (row - top) * (line(top + 1) - line(top));
    };

    const picture = document.createElementNS("http://www.w3.org/2000/svg", "image");
    put(picture, { x: -1, y: -1, width: 2, height: 2, preserveAspectRatio: "none", style: "image-rendering:pixelated" });
    const edge = el("path", { class: "attn-sampled attn-edge" }), grid = el("path", { class: "attn-sampled" });
    const truth = el("path", { class: "attn-true" }), corner = el("circle", { r: 0.06, class: "attn-corner" });
    const input = el("svg", { viewBox: "-1.5 -1.5 3 3", "aria-hidden": "true" }, picture, truth, grid, edge, corner);
    const output = el("canvas", { width: size[1], height: size[0], "aria-hidden": "true" });
    body.append(el("div", { class: "attn-sampling" }, el("div", {}, el("b", {}, "where it looks"), input),
      el("div", {}, el("b", {}, "what it sees"), output)));

    const line = (map, from, to, last = 12) => Array.from({ length: last + 1 }, (_, at) => {
      const [x, y] = map([0, 1].map((axis) => from[axis] + (at / last) * (to[axis] - from[axis])));
      return `${at ? "L" : "M"}${x.toFixed(3)} ${y.toFixed(3)}`;
    }).join("");
    const border = (map) => [[-1, -1], [1, -1], [1, 1], [-1, 1]].map((from, at, all) => line(map, from, all[(at + 1) % 4])).join("");
    const lines = (map) => [-0.6, -0.2, 0.2, 0.6].map((at) => line(map, [at, -1], [at, 1]) + line(map, [-1, at], [1, at])).join("");

    const show = () => {
      const map = now(), [a, b, c, d, e, f] = six(map), context = output.getContext("2d");
      put(picture, { href: uris[view.picture] });
      put(edge, { d: border(map) });
      put(grid, { d: lines(map) });
      const [x, y] = map([-1, -1]);
      put(corner, { cx: x, cy: y });
      if (truths) put(truth, { d: border(between(truths, view.picture * 2 * side * side)) });
      const image = context.createImageData(size[1], size[0]);
      for (let at = 0; at < size[0] * size[1]; at += 1) {
        const place = map([(2 * (at % size[1]) + 1) / size[1] - 1, (2 * floor(at / size[1]) + 1) / size[0] - 1]);
        const colour = [0, 1, 2].map((channel) => 255 * clamp(read(min(channel, channels - 1), place), 0, 1));
        image.data.set([...colour, 255], 4 * at);
      }
      context.putImageData(image, 0, 0);
      sliders.forEach((slider, at) => slider.set([a, b, c, d, e, f][at]));
      const who = view.own ? "your own map" : model.get("state") ? `step ${steps[view.step]}` : "switched off";
      say(`${who}: x′ = ${a.toFixed(2).replace("-", "−")} x ${signed(b)} y ${signed(c)}, y′ = ${d.toFixed(2).replace("-", "−")} x ${signed(e)} y ${signed(f)}`);
    };
    const set = (what) => { Object.assign(view, what); show(); };

    const go = (step) => { steady.set(step); set({ step, own: null }); };
    const { button, stop } = player(readout, { end, span: 4, at: () => view.step, go });
    const steady = range("step", { high: end, step: 1, value: end, told: (at) => `step ${steps[at]}` }, (at) => { stop(); go(at); });
    const sliders = NAMES.map((name, at) => range(name, { low: -1.5, high: 1.5, step: 0.01, told: short }, (to) => {
      stop();
      set({ own: six(now()).map((value, which) => (which === at ? to : value)) });
    }));
    if (names.length > 1) controls.append(menu("picture", names, 0, (index) => set({ picture: index })));
    if (end) controls.append(...(still() ? [] : [button]), steady);
    readout.after(el("div", { class: "attn-six", role: "group", "aria-label": "a map of your own" }, ...sliders),
      el("div", { class: "attn-controls" },
        el("button", { onclick: () => set({ own: IDENTITY }) }, "identity"),
        el("button", { onclick: () => set({ own: null }) }, "the network's")));
    show();
    const flip = () => set({ own: null });
    model.on("change:state", flip);
    return () => { stop(); model.off("change:state", flip); };
  },
};
