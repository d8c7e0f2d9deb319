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
  const page = (window.attnSwitch ??= { views: new Map(), bar: null });
  if (!page.bar) {
    const [group] = control(model);
    page.bar = el("div", { class: "attn-viewer attn-floating", hidden: "" }, group);
    page.watch = new IntersectionObserver((entries) => {
      entries.forEach((entry) => page.views.set(entry.target, entry.isIntersecting));
      const [first] = page.views.keys();
      const past = first.getBoundingClientRect().bottom < 0;
      page.bar.hidden = !past || [...page.views.values()].some(Boolean);
    });
    view.append(page.bar);
  }
  page.views.set(view, true);
  page.watch.observe(view);
  return () => { page.watch.unobserve(view); page.views.delete(view); };
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
