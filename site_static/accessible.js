// What the theme and the widgets leave out for readers who listen to a page or use it by keyboard.
(() => {
  "use strict";

  const each = (selector, action) => document.querySelectorAll(selector).forEach(action);

  // A name that is spoken must hold the words that are shown: what shows words needs no other name.
  each("details.hide summary, .search-button-field", (control) => control.removeAttribute("aria-label"));
  each(".navbar-brand.logo", (title) => title.parentElement.setAttribute("role", "banner"));
  // What folds a part of the contents shows only an arrow.
  each(".bd-links details > summary", (arrow) => {
    arrow.setAttribute("aria-label", `Pages below ${arrow.parentElement.previousElementSibling.textContent}`);
  });
  // A signature over several lines is no list of definitions, though Sphinx writes it as one.
  each("dt.sig dl", (list) => {
    const lines = [...list.children].map((item) => {
      const line = document.createElement("span");
      line.className = "sig-line";
      line.append(...item.childNodes);
      return line;
    });
    list.replaceWith(...lines);
  });
  // Docutils gives references a role that browsers no longer know.
  each("[role=doc-biblioentry]", (entry) => entry.setAttribute("role", "listitem"));

  // A wide table, formula or output scrolls inside its own frame, so the frame has to be reachable by keyboard.
  const scrolls = "div.output, div.highlight pre, mjx-container[display], .table-scrolls, .widget-container, "
    + ".where-mechanisms";
  each("article table:not(div.output table)", (table) => {
    const frame = document.createElement("div");
    frame.className = "table-scrolls";
    table.replaceWith(frame);
    frame.append(table);
  });
  const markScrolling = () => each(scrolls, (frame) => {
    if (frame.scrollWidth > frame.clientWidth + 1) frame.tabIndex = 0; else frame.removeAttribute("tabindex");
  });
  // Also when maths and widgets have been drawn.
  new ResizeObserver(markScrolling).observe(document.querySelector(".bd-article-container"));

  // Of a long line of neighbours, the part around this page; where it goes on is marked.
  each(".where-mechanisms", (line) => {
    const mark = () => {
      const ends = { before: line.scrollLeft > 1, after: line.scrollLeft + line.clientWidth < line.scrollWidth - 1 };
      line.dataset.more = Object.keys(ends).filter((end) => ends[end]).join(" ");
    };
    line.addEventListener("scroll", mark, { passive: true });
    new ResizeObserver(mark).observe(line);
  });
  each(".where-mechanism[aria-current]", (here) => {
    const line = here.closest("ul");
    line.scrollLeft = here.offsetLeft - line.offsetLeft - (line.clientWidth - here.offsetWidth) / 2;
  });

  // pandas leaves the corner of a table empty: a cell, then, and no header.
  each("table.dataframe th:empty", (corner) => corner.replaceWith(document.createElement("td")));

  // ipywidgets: names for controls that have only a picture or a neighbour to tell what they are.
  const setOnce = (element, name, value) => {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  };
  const labelOf = (widget) => widget.querySelector(".widget-label")?.textContent.trim();
  const PLAYER = ["Play or pause", "Stop", "Repeat"];
  const nameWidgets = () => {
    each(".widget-play", (player) => player.querySelectorAll("button").forEach((button, n) => {
      setOnce(button, "aria-label", button.title || PLAYER[n]);
    }));
    each(".widget-slider", (slider) => {
      const label = labelOf(slider) || "Position";
      slider.querySelectorAll("[role=slider]").forEach((handle) => setOnce(handle, "aria-label", label));
      slider.querySelectorAll(".widget-readout").forEach((number) => {
        setOnce(number, "role", "textbox");
        setOnce(number, "aria-label", `${label}, as a number`);
      });
    });
    each(".widget-toggle-buttons", (group) => {
      setOnce(group, "role", "group");
      setOnce(group, "aria-label", labelOf(group) || "Choose");
      group.querySelectorAll("button").forEach((button) => {
        setOnce(button, "aria-pressed", String(button.classList.contains("mod-active")));
      });
    });
  };

  if (document.querySelector('script[type="application/vnd.jupyter.widget-view+json"]')) {
    nameWidgets();
    new MutationObserver(nameWidgets).observe(document.querySelector("main"), {
      childList: true, subtree: true, attributes: true, attributeFilter: ["class"],
    });
  }
})();
