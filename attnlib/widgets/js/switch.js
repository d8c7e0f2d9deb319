// The page's one switch. Every view of it shows the same state; in the book's site a copy floats where none is in sight.

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

// One floating copy a page, shown below the first view, where none is in sight but a cell with something that follows is.
const boxes = (what) => [...document.querySelectorAll(what)].map((node) => node.getBoundingClientRect());
const inSight = ({ top, bottom }) => bottom > 0 && top < innerHeight;
const floating = (model, view) => {
  if (!document.querySelector(".bd-article") || document.querySelector(".attn-floating")) return;
  const [group] = control(model), bar = el("div", { class: "attn-viewer attn-floating", hidden: "" }, group);
  const place = () => {
    const views = boxes(".attn-switch");
    bar.hidden = views[0].bottom > 0 || views.some(inSight) || !boxes(".cell_output:has(.attn-switch,figure.attn-viewer)").some(inSight);
  };
  view.append(bar);
  // For as long as the page is open: in the site a view never goes.
  addEventListener("scroll", place);
};

export default {
  render({ model, el: root }) {
    const [group, forget] = control(model);
    const note = el("span", { class: "attn-note", hidden: "" }, "also in cells you run");
    const view = el("div", { class: "attn-viewer attn-switch" }, group, note);
    root.append(view);
    whenAlive(model, () => { note.hidden = false; });
    floating(model, view);
    return forget;
  },
};
