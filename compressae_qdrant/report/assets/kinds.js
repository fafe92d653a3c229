// The kinds of charts: scatter, lines, bars.

/** series: [{name, kind, shape, points: [{x, y, name, lines, labelled}]}]; front: [[x, y]] drawn as steps. */
function scatter(host, spec) {
  const all = spec.series.flatMap((one) => one.points);
  chart(host, {
    ...spec,
    legend: [...spec.series.map(({ name, kind, shape }) => ({ name, kind, shape })),
      ...(spec.front ? [{ name: "Pareto front", kind: "muted", shape: "line" }] : [])],
    height: (width) => Math.round(Math.min(Math.max(width * 0.58, 300), 460)),
    draw(canvas, width, height) {
      const area = axes(canvas, width, height, spec.axes);
      if (spec.front) {
        const steps = spec.front.map(([x, y], i) => {
          const [px, py] = [area.x.at(x), area.y.at(y)];
          return i ? `H${px}V${py}` : `M${px},${py}`;
        });
        canvas.append(svg("path", { d: `${steps.join("")}H${area.right}`, class: "muted line front" }));
      }
      const taken = all.map((point) => ({ x: area.x.at(point.x) - 6, y: area.y.at(point.y) - 6, w: 12, h: 12 }));
      const marks = [], names = [];
      for (const one of spec.series) {
        for (const point of one.points) {
          const x = area.x.at(point.x), y = area.y.at(point.y);
          const node = svg("g", { class: `mark ${one.kind}`, transform: `translate(${x},${y})` },
            svg("circle", { r: 9, class: "halo" }), symbol(one.shape, one.kind.startsWith("ours") ? 6 : 4.5));
          marks.push({ node, x, y, title: point.name, lines: point.lines });
          if (point.labelled && (width >= 520 || one.kind === "ours")) names.push(nameOf(point.name, x, y, area, taken, one.kind));
        }
      }
      marks.sort((a, b) => a.x - b.x);
      canvas.append(...marks.map((mark) => mark.node), ...names.filter(Boolean));
      return marks;
    },
  });
}

/** The name of a point, placed beside it where it overlaps nothing; null if there is no room. */
function nameOf(name, x, y, area, taken, kind) {
  const w = name.length * 6.1 + 4, h = 13;
  const places = [[x + 11, y + 4, "start"], [x - 11, y + 4, "end"], [x + 6, y + 18, "start"], [x - 6, y - 10, "end"], [x - 6, y + 18, "end"], [x + 6, y - 10, "start"]];
  for (const [px, py, anchor] of places) {
    const box = { x: anchor === "start" ? px : px - w, y: py - 10, w, h };
    const inside = box.x >= area.left && box.x + w <= area.right + 8 && box.y >= area.top - 8 && box.y + h <= area.bottom;
    if (inside && !taken.some((o) => box.x < o.x + o.w && o.x < box.x + w && box.y < o.y + o.h && o.y < box.y + h)) {
      taken.push(box);
      return svg("text", { x: px, y: py, class: `name ${kind}`, "text-anchor": anchor }, name);
    }
  }
  return null;
}

/** series: [{name, kind, dash, points: [[x, y]]}]; one mark for each x, or for each of `spec.marks`. */
function lines(host, spec) {
  chart(host, {
    ...spec,
    nearest: spec.marks ? "xy" : "x",
    legend: spec.series.map(({ name, kind, dash }) => ({ name, kind, shape: dash ? "dash" : "line" })),
    height: (width) => Math.round(Math.min(Math.max(width * 0.42, 240), 340)),
    draw(canvas, width, height) {
      const area = axes(canvas, width, height, spec.axes);
      for (const { kind, dash, points } of spec.series) {
        const d = points.map(([x, y], i) => `${i ? "L" : "M"}${area.x.at(x).toFixed(1)},${area.y.at(y).toFixed(1)}`).join("");
        canvas.append(svg("path", { d, class: `line ${kind} ${dash ? "dashed" : ""}` }));
      }
      const marks = spec.marks
        ? spec.marks.map(({ x, y, kind, title, label, lines: values }) => ({ at: [x, y], kind, title, label, values }))
        : slices(spec);
      return marks.map(({ at: [x, y], kind, title, label, values, rule }) => {
        const px = area.x.at(x), py = area.y.at(y);
        const node = rule
          ? svg("g", { class: "mark slice" }, svg("line", { x1: px, x2: px, y1: area.top, y2: area.bottom, class: "rule" }),
            rule.map(([value, its]) => svg("circle", { cx: px, cy: area.y.at(value), r: 4, class: `dot ${its}` })))
          : svg("g", { class: `mark ${kind}`, transform: `translate(${px},${py})` }, svg("circle", { r: 9, class: "halo" }), symbol("circle", 4));
        canvas.append(node);
        if (label) canvas.append(svg("text", { x: px + 10, y: py + 4, class: `name ${kind}` }, label));
        return { node, x: px, y: py, title, lines: values };
      });
    },
  });
}

function slices(spec) {
  const xs = [...new Set(spec.series.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b);
  return xs.map((x) => {
    const here = spec.series.flatMap((one) => one.points.filter(([px]) => px === x).map(([, y]) => ({ y, one })));
    return {
      at: [x, Math.max(...here.map(({ y }) => y))], title: spec.titleOf(x),
      values: here.map(({ y, one }) => [one.name, spec.valueOf(y)]), rule: here.map(({ y, one }) => [y, one.kind]),
    };
  });
}

/** rows: [{name, note, value, low, high, kind, text}]; dots with intervals where `spec.dots`, bars from zero otherwise. */
function bars(host, spec) {
  const pitch = spec.dots ? 26 : 34;
  chart(host, {
    ...spec,
    nearest: "y",
    height: (width) => 52 + spec.rows.length * (width < 520 ? pitch + 16 : pitch),
    draw(canvas, width, height) {
      const narrow = width < 520;
      const left = narrow ? 2 : Math.min(Math.max(...spec.rows.map((row) => row.name.length * 7 + 14), 90), width * 0.42);
      const ends = Math.max(...spec.rows.map((row) => row.text.length)) * 7.2 + 14;
      const area = { left, right: width - ends, top: 4, bottom: height - 44 };
      const scale = linearScale(spec.axis.domain, [area.left, area.right]);
      const step = (area.bottom - area.top) / spec.rows.length;
      for (const value of scale.ticks(narrow ? 4 : 6)) {
        const at = scale.at(value);
        canvas.append(svg("line", { x1: at, x2: at, y1: area.top, y2: area.bottom, class: "grid" }),
          svg("text", { x: at, y: area.bottom + 18, class: "tick", "text-anchor": at < 20 ? "start" : "middle" }, spec.axis.format(value)));
      }
      if (spec.reference) {
        const at = scale.at(spec.reference.value);
        canvas.append(svg("line", { x1: at, x2: at, y1: area.top, y2: area.bottom, class: "reference" }));
      }
      canvas.append(svg("text", { x: area.right, y: height - 6, class: "label", "text-anchor": "end" }, spec.axis.label));
      return spec.rows.map((row, i) => {
        const top = area.top + i * step, middle = top + (narrow ? step - pitch / 2 : step / 2);
        const node = svg("g", { class: `mark bar ${row.kind}` });
        const end = scale.at(row.value);
        if (spec.dots) {
          node.append(svg("line", { x1: scale.at(row.low), x2: scale.at(row.high), y1: middle, y2: middle, class: "whisker" }),
            svg("circle", { cx: end, cy: middle, r: 5, class: "dot" }));
        } else {
          node.append(svg("rect", { x: area.left, y: middle - 9, width: Math.max(end - area.left, 1.5), height: 18, rx: 2, class: "dot" }));
        }
        node.append(
          narrow ? svg("text", { x: 2, y: top + 14, class: "row" }, row.name)
            : svg("text", { x: left - 12, y: middle + 4, class: "row", "text-anchor": "end" }, row.name),
          svg("text", { x: (spec.dots ? scale.at(row.high) : end) + 8, y: middle + 4, class: "value" }, row.text));
        canvas.append(node);
        return { node, x: end, y: middle, title: row.name, lines: row.lines };
      });
    },
  });
}
