//= player
// The path of glimpses over a picture, step by step: where each lies, what the eye gets there, and the answer so far.

const GREYS = Array.from({ length: 64 }, (_, grey) => Array(3).fill(4.05 * grey));

export default {
  render({ model, el: root }) {
    const data = model.get("data"), { controls, body, readout, say } = frame(root, model);
    const { names, uris, classes, size: [height, width], patch, paths, word, joined } = data, margin = 0.15 * max(height, width);
    const opened = paths.map((path) => ({ ...path, at: unpack(path.locations), seen: unpack(path.patches), odds: unpack(path.scores) }));
    const [, steps, scales, side] = paths[0].patches.shape, end = steps - 1, kinds = classes.length;
    const view = { picture: 0, path: 0, step: 0 };

    const picture = document.createElementNS("http://www.w3.org/2000/svg", "image");
    put(picture, { width, height, preserveAspectRatio: "none", style: "image-rendering:pixelated" });
    const thin = max(height, width) / 120, trail = el("path", { class: "attn-trail", "stroke-width": thin });
    // What was looked at before stays, faintly, with its number.
    const past = Array.from({ length: steps }, () => el("rect", { class: "attn-trail", "stroke-width": 0.7 * thin, "stroke-opacity": 0.6 }));
    const dots = Array.from({ length: steps }, (_, step) => el("text", { class: "attn-nth", style: `font-size:${9 * thin}px;stroke-width:${1.2 * thin}px` }, step + 1));
    const frames = Array.from({ length: scales }, () => el("rect", { class: "attn-trail", "stroke-width": thin }));
    const input = el("svg", { viewBox: `${-margin} ${-margin} ${width + 2 * margin} ${height + 2 * margin}`, "aria-hidden": "true" }, picture, ...past, trail, ...frames, ...dots);
    const eyes = Array.from({ length: scales }, () => el("canvas", { width: side, height: side }));
    const told = eyes.map((eye, scale) => el("div", {}, eye, `${patch * 2 ** scale} pixels wide`));
    const answers = el("ol", { class: "attn-answers-so-far" });
    body.append(el("div", { class: "attn-sampling attn-glimpses" },
      el("div", {}, el("b", {}, "where it looks"), input),
      el("div", {}, el("b", {}, "what it gets"), el("div", { class: "attn-eyes", "aria-hidden": "true" }, ...told)),
      el("div", {}, el("b", {}, "its answer after each"), answers)));

    const show = () => {
      const { at, seen, odds } = opened[view.path], from = view.picture * steps;
      const places = Array.from({ length: steps }, (_, step) => [0, 1].map((axis) =>
        ((at[2 * (from + step) + axis] + 1) / 2) * [width, height][axis]));
      put(picture, { href: uris[view.picture] });
      if (joined) put(trail, { d: places.slice(0, view.step + 1).map(([x, y], step) => `${step ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`).join("") });
      places.forEach(([x, y], step) => {
        put(dots[step], { x, y });
        put(past[step], { x: x - patch / 2, y: y - patch / 2, width: patch, height: patch });
        for (const node of [dots[step], past[step]]) node.style.display = step > view.step ? "none" : "";
      });
      const [x, y] = places[view.step];
      frames.forEach((box, scale) => {
        const wide = patch * 2 ** scale;
        put(box, { x: x - wide / 2, y: y - wide / 2, width: wide, height: wide });
      });
      eyes.forEach((eye, scale) => {
        const first = ((from + view.step) * scales + scale) * side * side;
        paint(eye, seen.slice(first, first + side * side), side, side, GREYS, 0, 1);
      });
      const said = Array.from({ length: view.step + 1 }, (_, step) => {
        const shares = softmax([...odds.slice((from + step) * kinds, (from + step + 1) * kinds)]), best = shares.indexOf(max(...shares));
        return [best, shares[best]];
      });
      const right = data.labels?.[view.picture];
      answers.replaceChildren(...said.map(([best, share]) =>
        el("li", { class: best === right && "attn-best" }, `${classes[best]} · ${percent(share)}`)));
      const [best, share] = said.at(-1), truth = right === undefined ? "" : best === right ? ", which is right" : `; it is ${classes[right]}`;
      say(`${opened[view.path].name}, ${word} ${view.step + 1} of ${steps}: ${classes[best]}, ${percent(share)} sure${truth}`);
    };
    const set = (what) => { Object.assign(view, what); show(); };

    const go = (step) => { slider.set(step); set({ step }); };
    const { button, stop } = player(readout, { end, span: 1.5 * end, at: () => view.step, go });
    const slider = range(word, { high: end, step: 1, told: (at) => `${word} ${at + 1}` }, (step) => { stop(); set({ step }); });
    if (names.length > 1) controls.append(menu("picture", names, 0, (index) => set({ picture: index })));
    if (paths.length > 1) controls.append(menu(joined ? "path" : "order", paths.map(({ name }) => name), 0, (index) => set({ path: index })));
    if (end) controls.append(...(still() ? [] : [button]), slider);
    show();
    return stop;
  },
};
