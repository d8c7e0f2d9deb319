// Loaded on pages with widgets only, after RequireJS and before the widget manager.
(() => {
  // Everything the manager may ask for lies next to this file: relative to it, so that the site works below any path.
  const thirdParty = new URL("third_party/widgets", document.currentScript.src).href;
  requirejs.config({
    paths: {
      "anywidget": `${thirdParty}/anywidget`,
      // The manager holds these modules already; from their addresses it derives where its icon fonts are.
      "@jupyter-widgets": thirdParty,
      "@jupyter-widgets/html-manager/dist": thirdParty,
    },
  });

  // A still figure stands where a widget will be; two of them would share their ids.
  new MutationObserver(() => document.querySelectorAll(".before-widget").forEach((figure) => {
    if (figure.nextElementSibling.matches(".widget-subarea:not(:empty)")) figure.remove();
  })).observe(document.documentElement, {childList: true, subtree: true});

  // Figures come before formulas, which a reader meets later: MathJax is loaded when the first widget has been drawn.
  const drawn = new Promise((done) => {
    const look = () => document.querySelector(".widget-subarea > *") ? done() : setTimeout(look, 30);
    addEventListener("load", () => {
      look();
      setTimeout(done, 5000);
    });
  });
  const formulas = drawn.then(() => new Promise((done) => {
    const later = document.querySelector("script[type='text/later']");
    if (!later) return;
    const script = document.createElement("script");
    script.onload = done;
    script.src = later.src;
    document.head.append(script);
  }));

  // The widget manager calls MathJax 2 (`MathJax.Hub.Queue(["Typeset", ..., element])`); the page has MathJax 3, which
  // replaces the global object once while it starts. The Hub has to be there before and after.
  const Hub = {
    Queue: ([, , element]) => formulas.then(() => mathjax.startup.promise).then(() => mathjax.typesetPromise([element])),
  };
  const withHub = (value) => value && Object.assign(value, { Hub });
  let mathjax = withHub(window.MathJax);
  Object.defineProperty(window, "MathJax", {
    configurable: true,
    get: () => mathjax,
    set: (value) => { mathjax = withHub(value); },
  });
})();
