// The path of glimpses over a picture, step by step: where each lies, what the eye gets there, and the answer so far.

const SECONDS = 0.8, GREYS = Array.from({ length: 64 }, (_, grey) => Array(3).fill(4.05 * grey));

export default {
  render({ model, el: root }) {
    const data = model.get("data"), { controls, body, readout, say } = frame(root, model);
    const { names, uris, classes, size: [height, width], patch, paths } = data, margin = 0.15 * max(height, width);
    const opened = paths.map((path) => ({ ...path, at: unpack(path.locations), seen: unpack(path.patches), odds: unpack(path.scores) }));
    const [, steps, scales, side] = paths[0].patches.shape, end = steps - 1, kinds = classes.length;
    const view = { picture: 0, path: 0, step: end };
    let timer = 0;

    const picture = document.createElementNS("http://www.w3.org/2000/svg", "image");
    put(picture, { width, height, preserveAspectRatio: "none", style: "image-rendering:pixelated" });
    const thin = max(height, width) / 120, trail = el("path", { class: "attn-trail", "stroke-width": thin });
    const dots = Array.from({ length: steps }, () => el("circle", { r: 2.2 * thin, class: "attn-corner" }));
    const frames = Array.from({ length: scales }, () => el("rect", { class: "attn-trail", "stroke-width": thin }));
    const input = el("svg", { viewBox: `${-margin} ${-margin} ${width + 2 * margin} ${height + 2 * margin}`, "aria-hidden": "true" }, picture, trail, ...frames, ...dots);
    const eyes = Array.from({ length: scales }, () => el("canvas", { width: side, height: side }));
    const answers = el("ol", { class: "attn-answers-so-far" });
    body.append(el("div", { class: "attn-sampling attn-glimpses" },
      el("div", {}, el("b", {}, "where it looks"), input),
      el("div", {}, el("b", {}, "what it gets"), el("div", { class: "attn-eyes", "aria-hidden": "true" }, ...eyes)),
      el("div", {}, el("b", {}, "its answer after each"), answers)));

    const show = () => {
      const { at, seen, odds } = opened[view.path], from = view.picture * steps;
      const places = Array.from({ length: steps }, (_, step) => [0, 1].map((axis) =>
        ((at[2 * (from + step) + axis] + 1) / 2) * [width, height][axis]));
      put(picture, { href: uris[view.picture] });
      put(trail, { d: places.slice(0, view.step + 1).map(([x, y], step) => `${step ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`).join("") });
      dots.forEach((dot, step) => {
        put(dot, { cx: places[step][0], cy: places[step][1], "fill-opacity": step === view.step ? 1 : 0.55 });
        dot.style.display = step > view.step ? "none" : "";
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
      say(`${opened[view.path].name}, glimpse ${view.step + 1} of ${steps}: ${classes[best]}, ${percent(share)} sure${truth}`);
    };
    const set = (what) => { Object.assign(view, what); show(); };

    const stop = () => { clearInterval(timer); timer = 0; button.textContent = "Play"; readout.setAttribute("aria-live", "polite"); };
    const go = (step) => { slider.set(step); set({ step }); };
    const play = () => {
      button.textContent = "Pause";
      readout.setAttribute("aria-live", "off");
      go(0);
      timer = setInterval(() => { go(view.step + 1); if (view.step === end) stop(); }, 1000 * SECONDS);
    };
    const button = el("button", { type: "button", class: "attn-play", onclick: () => (timer ? stop() : play()) }, "Play");
    const slider = range("glimpse", { high: end, step: 1, value: end, told: (at) => `glimpse ${at + 1}` }, (step) => { stop(); set({ step }); });
    if (names.length > 1) controls.append(menu("picture", names, 0, (index) => set({ picture: index })));
    if (paths.length > 1) controls.append(menu("path", paths.map(({ name }) => name), 0, (index) => set({ path: index })));
    if (end) controls.append(...(still() ? [] : [button]), slider);
    show();
    return stop;
  },
};
