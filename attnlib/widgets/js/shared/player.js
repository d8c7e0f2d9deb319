// A button that plays the steps up to `end`, all within `span` seconds, from where the view is (from the first again
// where it is at the end); `stop` is for all other controls.
const player = (readout, { end, span, at, go }) => {
  let timer;
  // While it plays it says nothing aloud, or a screen reader would read every step.
  const turn = (word, live) => {
    timer = clearInterval(timer);
    button.textContent = word;
    put(readout, { "aria-live": live });
  };
  const stop = () => turn("Play", "polite");
  const play = () => {
    const from = at() % end, began = Date.now();
    turn("Pause", "off");
    timer = setInterval(() => {
      go(min(end, from + floor((Date.now() - began) / 1e3 / span * end)));
      if (at() === end) stop();
    }, 50);
    go(from);
  };
  const button = el("button", { class: "attn-play", onclick: () => (timer ? stop() : play()) }, "Play");
  return { button, stop };
};
