// The calculator: memory, disk, latency and cost of a catalog of any size. Its figures match those of `compressae plan`.
const FIELDS = [
  ["Catalog", [
    ["items", "Items", { min: 1, whole: true }], ["dim", "Dimensions", { min: 1, whole: true }],
    ["k", "Non-zeros of a code, k", { min: 1, whole: true }], ["latents", "Latents, h", { min: 1, whole: true }],
    ["datatype", "Index values", { choices: ["uint8", "float16", "float32"] }],
    ["payload_bytes", "Payload, bytes per item", { min: 0 }],
  ]],
  ["Graph", [
    ["navigation_dim", "Dimensions of a navigation vector", { min: 1, whole: true, optional: true }],
    ["navigation_bits", "Bits per dimension", { choices: ["1", "1.5", "2", "4"], number: true }],
    ["navigation_m", "Links, m", { min: 2, whole: true }],
    ["navigation_datatype", "Navigation vectors on disk", { choices: ["float16", "turbo4"] }],
  ]],
  ["Load", [
    ["queries_per_second", "Peak queries per second", { min: 0 }], ["replicas", "Minimum replicas", { min: 1, whole: true }],
    ["ram_gib", "Memory of a node, GiB", { min: 0, above: true }], ["vcpus", "vCPUs of a node", { min: 1, whole: true }],
    ["headroom", "Headroom, share of a node", { min: 0, below: 1 }],
  ]],
  ["Your prices, USD per month", [
    ["price_ram_gib", "GiB of memory", { min: 0, optional: true }], ["price_disk_gib", "GiB of disk", { min: 0, optional: true }],
    ["price_vcpu", "vCPU", { min: 0, optional: true }],
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
  const summary = el("output", { id: "calc-summary", class: "summary", "aria-live": "polite" });
  const problem = el("p", { id: "calc-problem", class: "problem", role: "alert", hidden: true });
  const result = el("div", { class: "result" });
  const reset = el("button", { type: "button" }, "Reset to this catalog");

  const show = () => {
    const { values, wrong } = readInputs(inputs);
    problem.hidden = !wrong;
    problem.textContent = wrong?.text ?? "";
    for (const [name, input] of Object.entries(inputs)) input.setAttribute("aria-invalid", wrong?.name === name ? "true" : "false");
    result.classList.toggle("stale", Boolean(wrong));
    if (wrong) return;
    const { price_ram_gib: ram, price_disk_gib: disk, price_vcpu: vcpu, ram_gib, vcpus, headroom, ...edited } = values;
    const prices = [ram, disk, vcpu].includes(null) ? null : { ram_gib: ram, disk_gib: disk, vcpu };
    const methods = makePlan(constants, { ...workload, ...edited }, { ram_gib, vcpus, headroom }, prices);
    summary.replaceChildren(...sentence(methods, edited));
    result.replaceChildren(planTable(methods, edited.items, prices));
  };
  for (const input of Object.values(inputs)) {
    input.addEventListener("input", show);
    input.addEventListener("change", () => { if (input.value.trim() && !input.matches("select")) input.value = shownInput(numberOf(input.value)); });
  }
  reset.addEventListener("click", () => {
    for (const [name, input] of Object.entries(inputs)) input.value = shownInput(start[name]);
    show();
  });
  host.append(
    el("form", { class: "calculator", "aria-label": "Calculator" }, groups, el("div", { class: "steps" }, reset)), problem, summary, result,
    el("p", { class: "fine" }, `Memory and disk are totals over all replicas, with one shard per node. Memory is the index and the engine's tables of items: for "graph", the graph and its navigation vectors. p50 is for an idle cluster with a warm cache, without the network; a cold query finds nothing in the page cache and reads so many bytes on each shard. `
      + `Recall was measured on the benchmark's 63,666 items at the nearest dimensions, not on this catalog. ${machine}`));
  host.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  show();
}

const shownInput = (value) => (value === undefined || value === null || Number.isNaN(value) ? "" : typeof value === "number" && value >= 1000 && Number.isInteger(value) ? integer(value) : String(value));

/** Parse a number such as 1,000,000, 1e6 or 2.5M. */
function numberOf(text) {
  const found = /^([+-]?[\d.]+(?:e[+-]?\d+)?)\s*([kKmMbBgG]?)$/.exec(text.replaceAll(/[,_\s]/g, ""));
  const factor = { k: 1e3, m: 1e6, b: 1e9, g: 1e9 }[found?.[2].toLowerCase()] ?? 1;
  return found ? Number(found[1]) * factor : NaN;
}

function readInputs(inputs) {
  const values = {};
  for (const [name, label, rule] of ALL_FIELDS) {
    const text = inputs[name].value.trim();
    if (rule.choices) values[name] = rule.number ? Number(text) : text;
    else if (rule.optional && text === "") values[name] = null;
    else {
      const value = numberOf(text);
      const fits = Number.isFinite(value) && value >= rule.min && !(rule.above && value === rule.min)
        && !(rule.below !== undefined && value >= rule.below) && (!rule.whole || Number.isInteger(value));
      if (!fits) {
        const range = rule.below !== undefined ? `from ${rule.min} to less than ${rule.below}` : `${rule.above ? "greater than" : "of at least"} ${rule.min}`;
        return { wrong: { name, text: `${label}: “${text}” is not a ${rule.whole ? "whole " : ""}number ${range}.` } };
      }
      values[name] = value;
    }
  }
  if (values.k > values.latents) return { wrong: { name: "k", text: `k is ${integer(values.k)} but there are ${integer(values.latents)} latents.` } };
  const most = Math.min(values.dim, 256);
  if (values.navigation_dim > most) return { wrong: { name: "navigation_dim", text: `A navigation vector has at most ${integer(most)} dimensions here.` } };
  return { values };
}

const usd = (value) => `$${value < 100 ? decimals(2)(value) : integer(value)}`;

function sentence(methods, { items, dim }) {
  const codes = methods.find((method) => method.name.startsWith("codes")), dense = methods.find((method) => method.name.startsWith("dense float32"));
  const size = (method) => method.replicas * method.resident_bytes;
  const parts = [`${integer(items)} items of ${integer(dim)} dimensions: `, el("strong", {}, bytes(size(codes))), " of memory as codes"];
  if (dense) {
    parts.push(`, ${bytes(size(dense))} as dense float32: `, el("strong", {}, `${significant(size(dense) / size(codes))} times less`));
    if (codes.usd !== null) parts.push(`, ${usd(codes.usd)} instead of ${usd(dense.usd)} per month`);
  }
  return [...parts, "."];
}

function planTable(methods, items, prices) {
  const most = Math.max(...methods.map((method) => method.replicas * method.resident_bytes));
  const head = ["method", "memory", "bytes per item", "read per cold query", "disk", "disk bytes per item", "shards × replicas", "p50, ms", "p50 cold, ms", "queries/s per core", "recall@100", ...(prices ? ["USD per month", "USD per month, whole nodes"] : [])];
  const cells = (method) => [
    ["memory", bytes(method.replicas * method.resident_bytes), method.replicas * method.resident_bytes],
    ["item", integer(method.resident_bytes / items), method.resident_bytes / items],
    ["read", bytes(method.read_bytes), method.read_bytes],
    ["disk", bytes(method.replicas * method.disk_bytes), method.replicas * method.disk_bytes],
    ["disk-item", integer(method.disk_bytes / items), method.disk_bytes / items],
    ["shards", `${integer(method.shards)} × ${integer(method.replicas)}`, method.shards],
    ["p50", significant(method.p50_ms), method.p50_ms], ["cold", significant(method.cold_ms), method.cold_ms], ["rate", significant(method.queries_per_core), method.queries_per_core],
    ["recall", method.recall100 === null ? "" : recallText(method.recall100), method.recall100 ?? ""],
    ...(prices ? [["usd", usd(method.usd), method.usd], ["usd-nodes", usd(method.usd_nodes), method.usd_nodes]] : []),
  ];
  const ours = (method) => method.name.startsWith("codes");
  const row = (method) => el("tr", { class: ours(method) ? "ours" : null }, el("th", { scope: "row" }, method.name,
    svg("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true", class: "share" },
      svg("rect", { width: Math.max((100 * method.replicas * method.resident_bytes) / most, 0.5), height: 4, class: ours(method) ? "ours dot" : "grey dot" }))),
    cells(method).map(([key, text, value]) => el("td", { class: "number", "data-key": key, "data-value": value }, text)));
  return scrolling("Plan: all methods", el("table", { class: "plan" }, el("caption", { class: "unseen" }, "Resources of all methods; bars show memory"),
    el("thead", {}, el("tr", {}, head.map((text, i) => el("th", { scope: "col", class: i ? "number" : null }, text)))), el("tbody", {}, methods.map(row))));
}
