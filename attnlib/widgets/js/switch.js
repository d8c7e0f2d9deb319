// The page's one switch. Every view of it shows the same state; in the book's site a copy floats while none is in sight.

const NAMES = ["off", "on"];

const control = (model) => {
  const group = buttons(model.get("name"), NAMES, model.get("index"), (index) => {
    model.set("index", index);
    model.save_changes();
  });
  const follow = () => group.set(model.get("index"));
  model.on("change:index", follow);
  return [group, () => model.off("change:index", follow)];
};

// One floating copy a page, shown while the page has been scrolled past the first view and no view is on the screen.
const floating = (model, view) => {
  if (!document.querySelector(".bd-article")) return () => {};
  if (!window.attnSwitch) {
    const seen = new Set(), [group] = control(model);
    const bar = el("div", { class: "attn-viewer attn-floating", hidden: "" }, group);
    window.attnSwitch = new IntersectionObserver((entries) => {
      entries.forEach(({ isIntersecting, target }) => (isIntersecting ? seen.add(target) : seen.delete(target)));
      bar.hidden = seen.size || view.getBoundingClientRect().bottom > 0;
    });
    view.append(bar);
  }
  window.attnSwitch.observe(view);
  return () => window.attnSwitch.unobserve(view);
};

export default {
  render({ model, el: root }) {
    const [group, forget] = control(model);
    const note = el("span", { class: "attn-note", hidden: "" }, "also in cells you run");
    const view = el("div", { class: "attn-viewer attn-switch" }, group, note);
    root.append(view);
    whenAlive(model, () => { note.hidden = false; });
    const sink = floating(model, view);
    return () => { forget(); sink(); };
  },
};
