// Parts that all charts share: title, legend, axes with units, values on hover and focus, and the data as a table.

/** Width of a printed page in pixels; charts are redrawn at this width for printing, so that text keeps its size. */
const PAPER_WIDTH = 680;

/**
 * spec: {title, summary, note, legend: [{name, kind, shape}], height(width), table: {head, rows, numeric},
 *        draw(canvas, width, height) -> marks, nearest: "x" | "xy"}
 * A mark: {node, x, y, title, lines: [[name, value]]}; its node is highlighted and takes the focus.
 */
function chart(host, spec) {
  const tip = el("div", { class: "tip", "aria-hidden": "true" });
  const plot = el("div", { class: "plot" }, tip);
  host.append(
    el("figcaption", {}, el("strong", {}, spec.title), spec.note ? el("span", {}, spec.note) : null),
    spec.legend && spec.legend.length > 1 ? legend(spec.legend) : "",
    plot,
    el("details", { class: "data" }, el("summary", {}, "Data table", el("span", { class: "unseen" }, `: ${spec.title}`)),
      scrolling(`Data: ${spec.title}`, table(spec.title, spec.table.head, spec.table.rows, spec.table.numeric))),
  );
  let drawnFor = 0;
  const draw = (width) => {
    if (width === drawnFor || width < 100) return;
    drawnFor = width;
    const height = spec.height(width);
    const canvas = svg("svg", {
      viewBox: `0 0 ${width} ${height}`, role: "group", "aria-roledescription": "chart",
      "aria-label": `${spec.title}. ${spec.summary} Use the arrow keys to step through the values.`,
    });
    plot.querySelector("svg")?.remove();
    plot.prepend(canvas);
    listen(canvas, tip, spec.draw(canvas, width, height), width, height, spec.nearest ?? "xy");
  };
  const fit = () => draw(Math.round(plot.clientWidth));
  new ResizeObserver(fit).observe(plot);
  addEventListener("beforeprint", () => draw(PAPER_WIDTH));
  addEventListener("afterprint", fit);
  fit();
}

function legend(entries) {
  return el("ul", { class: "legend" }, entries.map(({ name, kind, shape }) =>
    el("li", {}, svg("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true", class: `swatch ${kind}` }, symbol(shape ?? "circle", 5)), name)));
}

/** The shape of a mark; series differ by shape as well as by colour. */
function symbol(shape, r) {
  const points = {
    square: [[-1, -1], [1, -1], [1, 1], [-1, 1]], diamond: [[0, -1.35], [1.35, 0], [0, 1.35], [-1.35, 0]],
    triangle: [[0, -1.3], [1.25, 1], [-1.25, 1]], down: [[0, 1.3], [1.25, -1], [-1.25, -1]],
  }[shape];
  if (shape === "line" || shape === "dash") return svg("line", { x1: -8, x2: 8, class: shape === "dash" ? "line dashed" : "line" });
  if (shape === "cross") return svg("path", { d: `M${-r},${-r}L${r},${r}M${-r},${r}L${r},${-r}`, class: "line" });
  return points
    ? svg("polygon", { points: points.map(([x, y]) => `${x * r * 0.9},${y * r * 0.9}`).join(" "), class: "dot" })
    : svg("circle", { r, class: "dot" });
}

/** Pointer and keyboard handling: one mark at a time is active and shows its values. */
function listen(canvas, tip, marks, width, height, nearest) {
  const activate = (mark) => {
    for (const other of marks) other.node.classList.toggle("active", other === mark);
    tip.classList.toggle("shown", Boolean(mark));
    if (!mark) return;
    tip.replaceChildren(el("b", {}, mark.title),
      el("dl", {}, mark.lines.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
    const scale = canvas.clientWidth / width || 1;
    const left = Math.min(Math.max(mark.x * scale - tip.offsetWidth / 2, 0), Math.max(canvas.clientWidth - tip.offsetWidth, 0));
    const above = mark.y * scale - tip.offsetHeight - 12;
    tip.style.setProperty("left", `${left}px`);
    tip.style.setProperty("top", `${above >= -24 ? above : mark.y * scale + 14}px`);
  };
  marks.forEach((mark, i) => {
    fill(mark.node, {
      role: "img", tabindex: i === 0 ? 0 : -1,
      "aria-label": `${mark.title}: ${mark.lines.map(([name, value]) => `${name} ${value}`).join(", ")}`,
    }, []);
    mark.node.addEventListener("focus", () => activate(mark));
    mark.node.addEventListener("blur", () => activate(null));
  });
  canvas.addEventListener("keydown", (event) => {
    const at = marks.findIndex((mark) => mark.node === document.activeElement);
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: marks.length - 1 }[event.key];
    if (event.key === "Escape") activate(null);
    if (to === undefined || at < 0) return;
    event.preventDefault();
    const next = marks[Math.min(Math.max(to, 0), marks.length - 1)];
    marks[at].node.setAttribute("tabindex", -1);
    next.node.setAttribute("tabindex", 0);
    next.node.focus({ preventScroll: true });
  });
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const x = (event.clientX - box.left) * (width / box.width), y = (event.clientY - box.top) * (height / box.height);
    let best = null, least = nearest === "x" ? Infinity : 36;
    for (const mark of marks) {
      const far = nearest === "x" ? Math.abs(mark.x - x) : nearest === "y" ? Math.abs(mark.y - y) : Math.hypot(mark.x - x, mark.y - y);
      if (far < least) [best, least] = [mark, far];
    }
    activate(best);
  });
  canvas.addEventListener("pointerleave", () => activate(null));
}

/** Axes of a plot: grid lines, ticks, titles. Returns the area inside. */
function axes(canvas, width, height, { x, y, bands = [] }) {
  const narrow = width < 520;
  const area = { left: narrow ? 46 : 56, right: width - 14, top: bands.length ? 40 : 26, bottom: height - 46 };
  const make = (axis, range) =>
    axis.log ? logScale(axis.domain, range, axis.log) : (axis.missed ? missedScale : linearScale)(axis.domain, range);
  const scaleX = make(x, [area.left, area.right]), scaleY = make(y, [area.bottom, area.top]);
  for (const band of bands) {
    const from = Math.max(scaleX.at(band.from), area.left), to = Math.min(scaleX.at(band.to), area.right);
    canvas.append(svg("rect", { x: from, y: area.top, width: Math.max(to - from, 0), height: area.bottom - area.top, class: `band ${band.shaded ? "shaded" : ""}` }));
    if (to - from > 6.2 * band.name.length) canvas.append(svg("text", { x: from + 4, y: area.top - 8, class: "tick" }, band.name));
  }
  for (const value of scaleY.ticks(narrow ? 4 : 6)) {
    const at = scaleY.at(value);
    canvas.append(svg("line", { x1: area.left, x2: area.right, y1: at, y2: at, class: "grid" }),
      svg("text", { x: area.left - 8, y: at + 4, class: "tick", "text-anchor": "end" }, y.format(value)));
  }
  for (const value of scaleX.ticks(narrow ? 5 : 9)) {
    const at = scaleX.at(value);
    canvas.append(svg("line", { x1: at, x2: at, y1: area.bottom, y2: area.bottom + 5, class: "axis" }),
      svg("text", { x: at, y: area.bottom + 19, class: "tick", "text-anchor": "middle" }, x.format(value)));
  }
  canvas.append(svg("line", { x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom, class: "axis" }),
    svg("text", { x: 0, y: 11, class: "label" }, y.label),
    svg("text", { x: area.right, y: height - 6, class: "label", "text-anchor": "end" }, x.label));
  return { ...area, x: scaleX, y: scaleY };
}
