// The charts of each section.

/** Colour and shape of a family of methods; hollow for originals on disk and for recall measured elsewhere. */
function styleOf(family, number) {
  const [maker, ...how] = family.split(", ");
  const known = { ours: ["ours", "circle"], "ours for the encoder": ["ours", "square"], "the paper": ["violet", "triangle"], Qdrant: ["blue", "square"], PCA: ["grey", "down"], truncation: ["grey", "triangle"], dense: ["red", "cross"] };
  if (maker.startsWith("Faiss")) known[maker] = ["orange", { "Faiss RaBitQ": "diamond", "Faiss OPQ": "down" }[maker] ?? "triangle"];
  const [kind, shape] = known[maker] ?? [["green", "violet", "orange", "grey"][number % 4], ["square", "diamond", "down"][number % 3]];
  if (how.includes("originals on disk")) return [`${kind} hollow`, how.includes("elsewhere") ? "diamond" : shape];
  if (how.includes("elsewhere")) return [`${kind} hollow`, shape];
  if (how.includes("no originals") || how.includes("sparse")) return [kind, "down"];
  if (how.includes("exhaustive")) return [kind, "diamond"];
  return how.some((word) => ["by encoder", "encoder", "refit"].includes(word)) ? [kind, "cross"] : [kind, shape];
}

const logDomain = (values) => [Math.min(...values) / 1.15, Math.max(...values) * 1.2];

function paretoOf(points) {
  const best = [];
  for (const [cost, gain] of [...points].sort((a, b) => a[0] - b[0] || b[1] - a[1])) {
    if (!best.length || gain > best.at(-1)[1]) best.push([cost, gain]);
  }
  return best;
}

function saved(host, { rows, items }) {
  bars(host, {
    title: "Bytes per item", note: `${integer(items)} items`,
    summary: rows.map((row) => `${row.name} ${integer(row.bytes)} bytes`).join(", ") + ".",
    axis: { domain: [0, Math.max(...rows.map((row) => row.bytes))], format: integer, label: "bytes per item" },
    rows: rows.map((row) => ({
      name: row.name, value: row.bytes, kind: row.kind, text: `${integer(row.bytes)} B`,
      lines: [["per item", `${integer(row.bytes)} B`], ["all items", bytes(row.bytes * items)]],
    })),
    table: { head: ["stored", "bytes per item", "all items"], numeric: [1, 2],
      rows: rows.map((row) => [row.name, integer(row.bytes), bytes(row.bytes * items)]) },
  });
}

/** Recall against the cost in `field` of the rows. */
function front(host, { rows, families, planned }, field, { title, label, log, format }) {
  const shown = rows.filter((row) => row[field] > 0);
  const best = paretoOf(shown.map((row) => [row[field], row.recall100]));
  const onFront = (row) => best.some(([cost, gain]) => cost === row[field] && gain === row.recall100);
  scatter(host, {
    title, note: `up and to the left is better; logarithmic in 1 − recall${planned ? "; hollow: recall measured elsewhere" : ""}`,
    summary: `${shown.length} methods; on the Pareto front: ${shown.filter(onFront).map((row) => row.name).join(", ")}.`,
    front: best,
    axes: {
      x: { log, domain: logDomain(shown.map((row) => row[field])), format, label },
      y: { missed: true, domain: [Math.min(...shown.map((row) => row.recall100)), Math.max(...shown.map((row) => row.recall100))], format: decimals(2), label: "recall@100" },
    },
    series: families.map((family, i) => {
      const [kind, shape] = styleOf(family, i);
      return {
        name: family, kind, shape,
        points: shown.filter((row) => row.family === family).map((row) => ({
          x: row[field], y: row.recall100, name: row.name, labelled: onFront(row) || row.family.startsWith("ours"),
          lines: [["recall@100", recallText(row.recall100)], ["95% interval", row.low === null ? "" : `${recallText(row.low)} to ${recallText(row.high)}`],
            ["recall@10", row.recall10 === null ? "" : recallText(row.recall10)], ["in memory", `${integer(row.resident)} bytes per item`],
            ["median query", row.p50_ms === null ? "" : milliseconds(row.p50_ms)]].filter(([, value]) => value),
        })),
      };
    }).filter((one) => one.points.length),
    table: {
      head: ["method", "family", "bytes in memory", "recall@10", "recall@100", "p50, ms"], numeric: [2, 3, 4, 5],
      rows: [...shown].sort((a, b) => a[field] - b[field]).map((row) => [row.name, row.family, integer(row.resident), row.recall10 === null ? "" : recallText(row.recall10),
        recallText(row.recall100), row.p50_ms === null ? "" : decimals(1)(row.p50_ms)]),
    },
  });
}

const byBytes = (host, data) => front(host, data, "resident", {
  title: "Recall against bytes in memory", label: "bytes per item in memory (logarithmic)", log: 2, format: integer });
const byTime = (host, data) => front(host, data, "p50_ms", {
  title: "Recall against query latency", label: "median query latency, ms (logarithmic)", log: 10, format: significant });

function latency(host, plans) {
  const at = (plan, share) => plan.quantiles.find(([q]) => Math.abs(q - share) < 1e-9)[1];
  const named = [[0.5, "median"], [0.95, "p95"], [0.99, "p99"]];
  const kinds = ["ours", "orange", "blue"];
  lines(host, {
    title: "Distribution of query latency", note: `${integer(plans[0].queries)} queries, one at a time, ${plans[0].limit} hits each`,
    summary: plans.map((plan) => `${plan.name}: median ${milliseconds(at(plan, 0.5))}, p95 ${milliseconds(at(plan, 0.95))}`).join("; ") + ".",
    axes: {
      x: { log: 10, domain: logDomain(plans.flatMap((plan) => [plan.quantiles[0][1], plan.quantiles.at(-1)[1]])), format: significant, label: "query latency, ms (logarithmic)" },
      y: { domain: [0, 1], format: (value) => percent(value, 0), label: "share of queries" },
    },
    series: plans.map((plan, i) => ({ name: plan.name, kind: kinds[i], dash: i > 0, points: plan.quantiles.map(([share, ms]) => [ms, share]) })),
    marks: plans.flatMap((plan, i) => named.map(([share, name]) => ({
      x: at(plan, share), y: share, kind: kinds[i], title: plan.name, label: i === plans.length - 1 && share === 0.5 ? name : null, lines: [[name, milliseconds(at(plan, share))]] }))),
    table: {
      head: ["plan", "recall@10", "median, ms", "p95, ms", "p99, ms", "maximum, ms"], numeric: [1, 2, 3, 4, 5],
      rows: plans.map((plan) => [plan.name, recallText(plan.recall), ...[0.5, 0.95, 0.99, 1].map((share) => decimals(1)(at(plan, share)))]),
    },
  });
}

function segments(host, { field, depth, overall, rows }) {
  bars(host, {
    title: `Recall@${depth} by ${field}`, note: "lowest first, with 95% intervals; the dashed line is the mean of all queries", dots: true,
    summary: `From ${rows[0].name} at ${recallText(rows[0].recall)} to ${rows.at(-1).name} at ${recallText(rows.at(-1).recall)}; all queries ${recallText(overall)}.`,
    axis: { domain: [Math.min(Math.floor(Math.min(...rows.map((row) => row.low)) * 10) / 10, 0.9), 1], format: decimals(2), label: `recall@${depth}` },
    reference: { value: overall },
    rows: rows.map((row) => ({
      name: row.name, value: row.recall, low: row.low, high: row.high, kind: row.high < overall ? "red" : "ours", text: recallText(row.recall),
      lines: [[`recall@${depth}`, recallText(row.recall)], ["95% interval", `${recallText(row.low)} to ${recallText(row.high)}`], ["queries", integer(row.queries)]],
    })),
    table: {
      head: [field, "queries", `recall@${depth}`, "95% low", "95% high"], numeric: [1, 2, 3, 4],
      rows: rows.map((row) => [row.name, integer(row.queries), ...[row.recall, row.low, row.high].map(recallText)]),
    },
  });
}

function training({ losses, masses }, { records, phases }) {
  const points = (name) => records.filter((record) => record[name] > 0).map((record) => [record.items, record[name]]);
  const shared = { domain: [0, records.at(-1).items], format: compact, label: "items seen, with repeats" };
  const rowsOf = (names) => records.map((record) => [record.phase, integer(record.items), ...names.map((name) => significant(record[name]))]);
  const kinds = [["pursuit_loss", "held out, codes by pursuit", "ours", false], ["encoder_loss", "held out, codes by the encoder", "orange", true], ["train_loss", "training batches", "grey", true]];
  lines(losses, {
    title: "Reconstruction loss",
    summary: `The final loss of pursuit codes on held-out items is ${significant(records.at(-1).pursuit_loss)}.`,
    axes: { bands: phases, x: shared, y: { log: 10, domain: logDomain(kinds.flatMap(([name]) => points(name).map(([, y]) => y))), format: significant, label: "1 − cos(x, x̂), logarithmic" } },
    series: kinds.map(([name, label, kind, dash]) => ({ name: label, kind, dash, points: points(name) })),
    titleOf: (x) => `after ${compact(x)} items`, valueOf: significant,
    table: { head: ["phase", "items seen", "pursuit", "encoder", "training"], numeric: [1, 2, 3, 4], rows: rowsOf(kinds.map(([name]) => name)) },
  });
  lines(masses, {
    title: "Posting mass", note: "Σ p², where p is the share of items using a latent; lower makes queries faster",
    summary: `The final posting mass is ${significant(records.at(-1).posting_mass)}.`,
    axes: { bands: phases, x: shared, y: { domain: [0, Math.max(...records.map((record) => record.posting_mass)) * 1.05], format: significant, label: "posting mass" } },
    series: [{ name: "posting mass", kind: "ours", points: points("posting_mass") }],
    titleOf: (x) => `after ${compact(x)} items`, valueOf: significant,
    table: { head: ["phase", "items seen", "posting mass", "dead latents"], numeric: [1, 2, 3], rows: rowsOf(["posting_mass", "dead_latents"]) },
  });
}

function latentUse(host, { trained, sample, even, latents }) {
  const series = [
    { name: "in this sample", kind: "ours", points: sample }, { name: "in training", kind: "orange", dash: true, points: trained },
    { name: "even use", kind: "grey", dash: true, points: [[1, even], [latents, even]] },
  ].filter((one) => one.points.length);
  const positive = (points) => points.filter(([, share]) => share > 0);
  const shown = series.map((one) => ({ ...one, points: positive(one.points) }));
  lines(host, {
    title: "Share of items that use a latent", note: "latents by rank, most used first",
    summary: `The most used latent is in ${percent(sample[0][1])} of the items; with even use it would be ${percent(even, 2)}.`,
    axes: {
      x: { log: 10, domain: [1, latents], format: integer, label: "rank of the latent (logarithmic)" },
      y: { log: 10, domain: logDomain(shown.flatMap(({ points }) => points.map(([, share]) => share))), format: (share) => `${significant(100 * share)}%`, label: "share of items (logarithmic)" },
    },
    series: shown, titleOf: (rank) => `rank ${integer(rank)}`, valueOf: (share) => `${significant(100 * share)}%`,
    table: {
      head: ["rank", ...series.slice(0, -1).map((one) => one.name)], numeric: [0, 1, 2],
      rows: sample.map(([rank], i) => [integer(rank), ...series.slice(0, -1).map(({ points }) => points[i] ? `${significant(100 * points[i][1])}%` : "")]),
    },
  });
}
