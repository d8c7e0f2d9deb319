// Gates of a layer as bars: choose, sort, compare, read out; and, where the answer can be computed here or by a kernel,
// move them and watch the answer.

const SORTS = ["as in the layer", "by learned size", "by difference"];
const TALL = 170;

export default {
  render({ model, el: root }) {
    const data = model.get("data");
    const { body, controls, say } = frame(root, model);
    const gates = data.gates.map(unpack), answers = data.answers && unpack(data.answers);
    const affine = data.affine.map((part) => part && { slope: unpack(part.slope), offset: unpack(part.offset) });
    const classes = data.classes, many = data.items.length, none = -1;
    const at = { layer: data.layer, item: 0, other: none, sort: data.sort, channel: 0, state: model.get("state") };
    let own = null, answer = null, order = [], alive = false, waiting = false, again = false;

    const count = () => data.gates[at.layer].shape[2];
    // The gates of an item in one of the precomputed states.
    const row = (item, state = 1) => {
      const start = (state * many + item) * count();
      return gates[at.layer].subarray(start, start + count());
    };
    const now = () => own ?? row(at.item, at.state);
    const asked = () => data.items[at.item].picture !== undefined;
    const movable = () => asked() && (affine[at.layer] || alive);

    // -- what the network answers ------------------------------------------------------------------------------------
    const precomputed = () => {
      if (!answers || !asked()) return null;
      const start = (at.state * many + at.item) * classes.length;
      return [...answers.subarray(start, start + classes.length)];
    };
    const computed = ({ slope, offset }) => {
      const values = now(), size = count();
      return softmax(classes.map((_, k) => {
        const start = (at.item * classes.length + k) * size;
        return values.reduce((sum, value, c) => sum + value * slope[start + c], offset[at.item * classes.length + k]);
      }));
    };
    const ask = () => {
      again = waiting;
      if (waiting) return;
      waiting = true;
      model.send({ layer: at.layer, item: at.item, gates: [...own] });
    };
    const think = () => {
      if (!own) answer = precomputed();
      else if (alive) ask();
      else if (affine[at.layer]) answer = computed(affine[at.layer]);
    };
    model.on("msg:custom", (message) => {
      if (message.error) say(message.error);
      if (message.error || message.answer) waiting = false;
      if (!message.answer) return;
      if (own) answer = message.answer;
      if (again) ask();
      drawAnswer();
      tell();
    });

    // -- drawing -----------------------------------------------------------------------------------------------------
    const svg = el("svg", { tabindex: 0, role: "slider", "aria-label": "Channel", class: "attn-gates" });
    const said = el("div", { class: "attn-answers" });
    body.append(el("div", { class: "attn-bars" }, svg), said);
    const [low, high] = data.bounds;
    const height = (value) => clamp((value - low) / (high - low), 0, 1) * TALL;
    const arrange = () => {
      const mine = row(at.item, 1), others = at.other === none ? row(at.item, 0) : row(at.other, 1);
      order = [...mine.keys()];
      if (at.sort === 1) order.sort((a, b) => mine[b] - mine[a]);
      if (at.sort === 2) order.sort((a, b) => mine[b] - others[b] - (mine[a] - others[a]));
    };
    let wide = 0;
    const bar = (place, value, step) => el("rect", {
      x: place * step, y: TALL - height(value), width: max(step - (step > 4 ? 2 : 0.4), 0.8), height: max(height(value), 1),
      style: `fill:var(--${at.state || own ? "data" : "quiet"})`,
    });
    const draw = (width = wide) => {
      wide = width;
      const values = now(), step = (width - 34) / count(), other = at.other === none ? null : row(at.other, 1);
      const inside = el("g", { transform: "translate(30 8)" });
      for (const value of [low, (low + high) / 2, high]) {
        const y = TALL - height(value);
        inside.append(el("line", { x1: 0, x2: width - 34, y1: y, y2: y, style: "stroke:var(--line)" }),
          el("text", { x: -5, y: y + 4, "text-anchor": "end", class: "quiet" }, String(+value.toFixed(2))));
      }
      order.forEach((channel, place) => {
        inside.append(bar(place, values[channel], step));
        if (!other) return;
        const y = TALL - height(other[channel]), x = place * step - 1;
        inside.append(el("line", { x1: x, x2: x + step, y1: y, y2: y, style: "stroke:var(--text);stroke-width:2" }));
      });
      const x = (order.indexOf(at.channel) + 0.5) * step - 0.5;
      inside.append(el("path", { d: `M${x} ${TALL + 4}l5 8h-10z`, style: "fill:var(--text)" }));
      put(svg, { width, height: TALL + 24 }).replaceChildren(inside);
    };
    const drawAnswer = () => {
      said.hidden = !answer;
      if (!answer) return;
      const best = answer.indexOf(max(...answer)), picture = data.items[at.item].picture;
      said.replaceChildren(
        ...(picture ? [el("img", { src: picture, alt: data.items[at.item].alt, class: data.pixels ? "attn-pixels" : null })] : []),
        el("div", { class: "attn-said" }, ...answer.map((share, k) => el("div", { class: k === best ? "attn-best" : null },
          el("span", {}, classes[k]),
          el("span", { class: "attn-share" }, el("span", { style: `width:${100 * share}%` })), el("span", {}, percent(share))))));
    };

    // -- words -------------------------------------------------------------------------------------------------------
    const tell = () => {
      const value = now()[at.channel], place = `channel ${data.channels[at.layer][at.channel] + 1}`;
      const against = at.other === none ? "" : ` (mark: ${data.items[at.other].name}, ${short(row(at.other, 1)[at.channel])})`;
      const words = `${own ? "moved by hand · " : ""}${place}, gate ${short(value)}${against}`;
      const best = answer && answer.indexOf(max(...answer));
      say(words + (answer ? ` · the network answers “${classes[best]}” (${percent(answer[best])})` : ""));
      put(svg, {
        "aria-valuemin": 1, "aria-valuemax": count(), "aria-valuenow": order.indexOf(at.channel) + 1, "aria-valuetext": words,
      });
      gate.hidden = !movable();
      pressed.hidden = !asked();
      gate.set(value);
      pressed.set(own ? none : at.state);
    };
    const show = () => { think(); draw(); drawAnswer(); tell(); };
    const fresh = () => { own = null; arrange(); at.channel = min(at.channel, count() - 1); show(); };
    const move = (value) => {
      own ??= Float32Array.from(now());
      own[at.channel] = clamp(value, low, high);
      show();
    };
    const choose = (channel) => { if (channel !== at.channel) { at.channel = channel; draw(); tell(); } };

    // -- controls ----------------------------------------------------------------------------------------------------
    const names = data.items.map((item) => item.name);
    // Off and learned are the page's, where it has a switch that this viewer follows; shuffled is learned gates, exchanged.
    const pressed = buttons("gates", data.states, at.state, (state) => {
      model.set("state", min(state, 1));
      model.save_changes();
      at.state = state;
      fresh();
    });
    const gate = range("gate", { low, high, step: (high - low) / 100, told: short }, move);
    if (data.gates.length > 1) controls.append(menu("layer", data.layers, at.layer, (layer) => { at.layer = layer; fresh(); }));
    if (many > 1) {
      controls.append(menu(data.what, names, 0, (item) => { at.item = item; fresh(); }),
        menu("compare with", ["nothing", ...names], 0, (other) => { at.other = other + none; fresh(); }));
    }
    controls.append(menu("order", SORTS, at.sort, (sort) => { at.sort = sort; arrange(); show(); }), pressed, gate);
    const follow = () => { at.state = model.get("state"); fresh(); };
    model.on("change:state", follow);

    // -- pointer and keys --------------------------------------------------------------------------------------------
    const under = (event) => {
      const box = svg.getBoundingClientRect(), step = (wide - 34) / count();
      return {
        channel: order[clamp(floor((event.clientX - box.left - 30) / step), 0, count() - 1)],
        value: low + ((TALL + 8 - (event.clientY - box.top)) / TALL) * (high - low),
      };
    };
    let dragging = false;
    const release = () => { dragging = false; };
    put(svg, {
      onpointerdown: (event) => {
        const { channel, value } = under(event);
        choose(channel);
        // A finger scrolls the page; it moves a gate by the slider.
        dragging = movable() && event.pointerType !== "touch";
        if (dragging) { svg.setPointerCapture(event.pointerId); move(value); }
      },
      onpointermove: (event) => {
        if (dragging) move(under(event).value); else if (event.pointerType !== "touch") choose(under(event).channel);
      },
      onpointerup: release,
      onpointercancel: release,
      onkeydown: (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1, Home: -count(), End: count() }[event.key];
        const lift = { ArrowUp: 0.05, ArrowDown: -0.05 }[event.key];
        if (step) choose(order[clamp(order.indexOf(at.channel) + step, 0, count() - 1)]);
        else if (lift && movable()) move(now()[at.channel] + lift * (high - low));
        else return;
        event.preventDefault();
      },
    });

    arrange();
    at.channel = order[0];
    think();
    drawAnswer();
    tell();
    whenAlive(model, () => { alive = true; tell(); });
    const rest = drawn(svg.parentElement, draw);
    return () => { model.off("change:state", follow); rest(); };
  },
};
