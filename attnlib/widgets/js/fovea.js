// A picture under an eye that follows the pointer: copies of it, each blurrier than the one above, seen through holes.

const STEPS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
// Parts of the width that one press of an arrow key moves, and stops in one hole's edge.
const STRIDE = 1 / 24, STOPS = 8;

export default {
  render({ model, el: root }) {
    const data = model.get("data"), { controls, body, say } = frame(root, model);
    const [height, width] = data.size, view = { ...data.start };
    const stage = el("div", {
      class: "attn-stage attn-gaze", role: "slider", tabindex: 0, "aria-valuemin": 0, "aria-valuemax": 100,
      "aria-label": "gaze: arrow keys move it", "data-lm-suppress-shortcuts": "true", style: `aspect-ratio:${width}/${height}`,
    });
    const mark = el("span", { class: "attn-cell" });

    // Degrees from the gaze at which a copy of this variance, in square pixels, is what is seen.
    const away = (variance) => data.half * (Math.sqrt(variance / data.pixel + 1) - 1);
    // A hole in a copy: whole up to where its own blur is right, gone where that of the next copy is.
    const hole = (level) => {
      const [own, next] = data.variances.slice(level, level + 2), across = 100 / data.degrees[view.degrees];
      const stops = Array.from({ length: STOPS + 1 }, (_, at) =>
        `rgb(0 0 0/${1 - at / STOPS}) ${(across * away(own + (at / STOPS) * (next - own))).toFixed(2)}cqw`);
      return `radial-gradient(circle at var(--x) var(--y),${stops})`;
    };
    const copies = data.variances.map((_, level) => el("div", { style: `z-index:${-level}` }));
    stage.append(...copies, mark);
    body.append(stage);

    const look = () => {
      const [x, y] = view.at.map((share) => `${(100 * share).toFixed(1)}%`);
      stage.style.setProperty("--x", x);
      stage.style.setProperty("--y", y);
      mark.style.cssText = `left:${x};top:${y}`;
      const far = [0, 1].map((axis) => max(view.at[axis], 1 - view.at[axis]));
      const degrees = data.degrees[view.degrees] * Math.hypot(far[0], (far[1] * height) / width);
      const place = `${percent(view.at[0])} from the left, ${percent(view.at[1])} from the top`;
      put(stage, { "aria-valuenow": round(100 * view.at[0]), "aria-valuetext": place });
      const coarse = `details ${short(1 + degrees / data.half)} times as coarse`;
      say(model.get("state") === 0 ? "sharp everywhere" : `gaze ${place} · farthest corner ${degrees.toFixed(0)}° away: ${coarse}`);
    };
    const show = () => {
      const even = model.get("state") === 0;
      copies.forEach(({ style }, level) => {
        style.backgroundImage = `url(${data.pictures[view.picture].uris[level]})`;
        style.maskImage = even || level === copies.length - 1 ? "none" : hole(level);
      });
      mark.hidden = even;
      acuity.set(even ? 0 : 1);
      look();
    };
    const set = (what) => { Object.assign(view, what); show(); };
    const move = (at) => { view.at = at.map((share) => clamp(share, 0, 1)); look(); };
    const follow = ({ clientX, clientY }) => {
      const box = stage.getBoundingClientRect();
      move([(clientX - box.left) / box.width, (clientY - box.top) / box.height]);
    };
    put(stage, {
      onpointermove: follow,
      onclick: follow,
      onkeydown: (event) => {
        const step = STEPS[event.key];
        if (!step || event.ctrlKey || event.metaKey) return;
        event.preventDefault();
        move([view.at[0] + STRIDE * step[0], view.at[1] + (STRIDE * step[1] * width) / height]);
      },
    });

    const acuity = buttons("acuity", ["the same everywhere", "as the eye's"], 1, (state) => {
      model.set("state", state);
      model.save_changes();
    });
    const names = data.pictures.map(({ name }) => name);
    if (names.length > 1) controls.append(menu("picture", names, view.picture, (picture) => set({ picture })));
    if (data.degrees.length > 1) {
      controls.append(menu("spans", data.degrees.map((degrees) => `${degrees}°`), view.degrees, (degrees) => set({ degrees })));
    }
    controls.append(acuity);
    show();
    model.on("change:state", show);
    return () => model.off("change:state", show);
  },
};
