// The calculator: what a catalog of any size takes, as codes and otherwise. Its figures are those of `compressae plan`.
const FIELDS = [
  ["Catalog", [
    ["items", "Items", { least: 1, whole: true }], ["dim", "Dimensions", { least: 1, whole: true }],
    ["k", "Non-zeros of a code, k", { least: 1, whole: true }], ["latents", "Latents, h", { least: 1, whole: true }],
    ["datatype", "Index values", { choices: ["uint8", "float16", "float32"] }],
    ["payload_bytes", "Payload, bytes an item", { least: 0 }],
  ]],
  ["Load", [
    ["queries_per_second", "Queries/s at the peak", { least: 0 }], ["replicas", "Replicas, at least", { least: 1, whole: true }],
    ["ram_gib", "Memory of a node, GiB", { least: 0, above: true }], ["vcpus", "vCPUs of a node", { least: 1, whole: true }],
    ["headroom", "Share of a node left free", { least: 0, below: 1 }],
  ]],
  ["Your prices, USD a month", [
    ["price_ram_gib", "GiB of memory", { least: 0, optional: true }], ["price_disk_gib", "GiB of disk", { least: 0, optional: true }],
    ["price_vcpu", "vCPU", { least: 0, optional: true }],
  ]],
];
const ALL_FIELDS = FIELDS.flatMap(([, fields]) => fields);

function calculator(host, { constants, workload, node, machine }) {
  const start = { ...workload, ...node };
  const inputs = {}, groups = [];
  for (const [legend, fields] of FIELDS) {
    groups.push(el("fieldset", {}, el("legend", {}, legend), fields.map(([name, label, rule]) => {
      const id = `calc-${name}`;
      inputs[name] = rule.choices
        ? el("select", { id }, rule.choices.map((value) => el("option", { value }, value)))
        : el("input", { id, type: "text", inputmode: rule.whole ? "numeric" : "decimal", autocomplete: "off", spellcheck: "false", "aria-describedby": "calc-problem" });
      inputs[name].value = shownInput(start[name]);
      return el("label", { for: id }, label, inputs[name]);
    })));
  }
  const says = el("output", { id: "calc-says", class: "says", "aria-live": "polite" });
  const problem = el("p", { id: "calc-problem", class: "problem", role: "alert", hidden: true });
  const result = el("div", { class: "result" });
  const again = el("button", { type: "button" }, "This catalog again");

  const show = () => {
    const { values, wrong } = readInputs(inputs);
    problem.hidden = !wrong;
    problem.textContent = wrong?.text ?? "";
    for (const [name, input] of Object.entries(inputs)) input.setAttribute("aria-invalid", wrong?.name === name ? "true" : "false");
    result.classList.toggle("stale", Boolean(wrong));
    if (wrong) return;
    const { price_ram_gib: ram, price_disk_gib: disk, price_vcpu: vcpu, ram_gib, vcpus, headroom, ...asked } = values;
    const prices = [ram, disk, vcpu].includes(null) ? null : { ram_gib: ram, disk_gib: disk, vcpu };
    const ways = makePlan(constants, { ...workload, ...asked }, { ram_gib, vcpus, headroom }, prices);
    says.replaceChildren(...sentence(ways, asked));
    result.replaceChildren(planTable(ways, asked.items, prices));
  };
  for (const input of Object.values(inputs)) {
    input.addEventListener("input", show);
    input.addEventListener("change", () => { if (input.value.trim() && !input.matches("select")) input.value = shownInput(numberOf(input.value)); });
  }
  again.addEventListener("click", () => {
    for (const [name, input] of Object.entries(inputs)) input.value = shownInput(start[name]);
    show();
  });
  host.append(
    el("form", { class: "calculator", "aria-label": "Savings calculator" }, groups, el("div", { class: "steps" }, again)), problem, says, result,
    el("p", { class: "fine" }, `Memory and disk of all replicas, a shard to a node; memory is the index and the engine's tables of items; p50 of an idle cluster with a warm cache, without the network. `
      + `Recall is of the benchmark's 63,666 items at the nearest dimensions, not of this catalog. ${machine}`));
  host.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  show();
}

const shownInput = (value) => (value === undefined || value === null || Number.isNaN(value) ? "" : typeof value === "number" && value >= 1000 && Number.isInteger(value) ? integer(value) : String(value));

/** A number as people write it: 1,000,000 or 1e6 or 2.5M. */
function numberOf(text) {
  const found = /^([+-]?[\d.]+(?:e[+-]?\d+)?)\s*([kKmMbBgG]?)$/.exec(text.replaceAll(/[,_\s]/g, ""));
  const factor = { k: 1e3, m: 1e6, b: 1e9, g: 1e9 }[found?.[2].toLowerCase()] ?? 1;
  return found ? Number(found[1]) * factor : NaN;
}

function readInputs(inputs) {
  const values = {};
  for (const [name, label, rule] of ALL_FIELDS) {
    const text = inputs[name].value.trim();
    if (rule.choices) values[name] = text;
    else if (rule.optional && text === "") values[name] = null;
    else {
      const value = numberOf(text);
      const fits = Number.isFinite(value) && value >= rule.least && !(rule.above && value === rule.least)
        && !(rule.below !== undefined && value >= rule.below) && (!rule.whole || Number.isInteger(value));
      if (!fits) {
        const range = rule.below !== undefined ? `from ${rule.least} to below ${rule.below}` : `${rule.above ? "above" : "of at least"} ${rule.least}`;
        return { wrong: { name, text: `${label}: “${text}” is not a ${rule.whole ? "whole " : ""}number ${range}.` } };
      }
      values[name] = value;
    }
  }
  if (values.k > values.latents) return { wrong: { name: "k", text: `k is ${integer(values.k)} but there are ${integer(values.latents)} latents.` } };
  return { values };
}

const usd = (value) => `$${value < 100 ? decimals(2)(value) : integer(value)}`;

function sentence(ways, { items, dim }) {
  const [codes] = ways, dense = ways.find((way) => way.name.startsWith("dense float32"));
  const size = (way) => way.replicas * way.resident_bytes;
  const parts = [`${integer(items)} items of ${integer(dim)} dimensions: `, el("strong", {}, bytes(size(codes))), " of memory as codes"];
  if (dense) {
    parts.push(`, ${bytes(size(dense))} as dense float32: `, el("strong", {}, `${significant(size(dense) / size(codes))} times less`));
    if (codes.usd !== null) parts.push(`, ${usd(codes.usd)} instead of ${usd(dense.usd)} a month`);
  }
  return [...parts, "."];
}

function planTable(ways, items, prices) {
  const most = Math.max(...ways.map((way) => way.replicas * way.resident_bytes));
  const head = ["kept as", "memory", "B an item", "disk", "shards × replicas", "p50, ms", "queries/s of a core", "recall@100", ...(prices ? ["USD a month", "by whole nodes"] : [])];
  const cells = (way) => [
    ["memory", bytes(way.replicas * way.resident_bytes), way.replicas * way.resident_bytes],
    ["item", integer(way.resident_bytes / items), way.resident_bytes / items],
    ["disk", bytes(way.replicas * way.disk_bytes), way.replicas * way.disk_bytes],
    ["shards", `${integer(way.shards)} × ${integer(way.replicas)}`, way.shards],
    ["p50", significant(way.p50_ms), way.p50_ms], ["rate", significant(way.queries_per_core), way.queries_per_core],
    ["recall", way.recall100 === null ? "" : recallText(way.recall100), way.recall100 ?? ""],
    ...(prices ? [["usd", usd(way.usd), way.usd], ["usd-nodes", usd(way.usd_nodes), way.usd_nodes]] : []),
  ];
  const row = (way, i) => el("tr", { class: i ? null : "ours" }, el("th", { scope: "row" }, way.name,
    svg("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true", class: "share" },
      svg("rect", { width: Math.max((100 * way.replicas * way.resident_bytes) / most, 0.5), height: 4, class: i ? "grey dot" : "ours dot" }))),
    cells(way).map(([key, text, value]) => el("td", { class: "number", "data-key": key, "data-value": value }, text)));
  return scrolling("Plan: every way to keep the catalog", el("table", { class: "plan" }, el("caption", { class: "unseen" }, "Every way to keep the catalog; bars show memory"),
    el("thead", {}, el("tr", {}, head.map((text, i) => el("th", { scope: "col", class: i ? "number" : null }, text)))), el("tbody", {}, ways.map(row))));
}
