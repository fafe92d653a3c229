// Sample queries: what dense search finds beside what the codes find.
function sampleQueries(host, queries, saved) {
  const limit = queries[0].dense.length;
  const [dense, codes] = saved ? saved.rows.map((row) => `${integer(row.bytes)} B an item`) : ["", ""];
  const choice = el("select", { id: "query" }, queries.map((query, i) =>
    el("option", { value: i }, `${query.shared} of ${limit} · ${query.title}`)));
  const step = (text, label, by) => {
    const button = el("button", { type: "button", "aria-label": label }, text);
    button.addEventListener("click", () => { choice.value = (Number(choice.value) + by + queries.length) % queries.length; show(); });
    return button;
  };
  const sides = el("div", { class: "sides" });
  const about = el("p", { class: "query-concepts" });
  const says = el("output", { for: "query", "aria-live": "polite" });
  const show = () => {
    const query = queries[choice.value];
    says.value = `${query.shared} of ${limit} shared`;
    about.replaceChildren(...(query.concepts.length ? [el("strong", {}, "Query: "), query.concepts.join(" · ")] : []));
    sides.replaceChildren(
      results("Dense, exact", dense, query.dense, query.codes, "not among the codes' hits"),
      results("Codes", codes, query.codes, query.dense, "not among the dense hits"));
  };
  choice.addEventListener("change", show);
  host.append(
    el("div", { class: "controls" }, el("label", { for: "query", class: "wide" }, "Items like", choice),
      el("div", { class: "steps" }, step("←", "Previous query", -1), step("→", "Next query", 1)), says),
    about, sides);
  choice.value = Math.floor(queries.length / 2);
  show();
}

function results(title, note, hits, others, missing) {
  const there = new Set(others.map((hit) => hit.id));
  return el("section", { "aria-label": title },
    el("h3", {}, title, el("small", {}, note)),
    el("ol", {}, hits.map((hit) => {
      const shared = there.has(hit.id);
      return el("li", { class: shared ? "" : "alone" }, el("span", {}, hit.title, shared ? null : el("em", {}, ` ${missing}`),
        hit.why?.length ? el("span", { class: "hits-why" }, hit.why.map(([name, share]) => `${name} ${percent(share, 0)}`).join(" · ")) : null),
        el("span", { class: "number" }, decimals(3)(hit.score)));
    })));
}
