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

  // The widget manager calls MathJax 2 (`MathJax.Hub.Queue(["Typeset", ..., element])`); the page has MathJax 3, which
  // replaces the global object once while it starts. The Hub has to be there before and after.
  const Hub = {
    Queue: ([, , element]) => mathjax.startup?.promise?.then(() => mathjax.typesetPromise([element])),
  };
  const withHub = (value) => value && Object.assign(value, { Hub });
  let mathjax = withHub(window.MathJax);
  Object.defineProperty(window, "MathJax", {
    configurable: true,
    get: () => mathjax,
    set: (value) => { mathjax = withHub(value); },
  });
})();
