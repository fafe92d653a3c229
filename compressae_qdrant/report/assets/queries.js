// Sample queries: hits of dense search and of the codes side by side.
function sampleQueries(host, queries, saved) {
  const limit = queries[0].dense.length;
  const [dense, codes] = saved ? saved.rows.map((row) => `${integer(row.bytes)} bytes per item`) : ["", ""];
  const choice = el("select", { id: "query" }, queries.map((query, i) =>
    el("option", { value: i }, `${query.shared} of ${limit} · ${query.title}`)));
  const step = (text, label, by) => {
    const button = el("button", { type: "button", "aria-label": label }, text);
    button.addEventListener("click", () => { choice.value = (Number(choice.value) + by + queries.length) % queries.length; show(); });
    return button;
  };
  const sides = el("div", { class: "sides" });
  const about = el("p", { class: "query-concepts" });
  const summary = el("output", { for: "query", "aria-live": "polite" });
  const show = () => {
    const query = queries[choice.value];
    summary.value = `${query.shared} of ${limit} shared`;
    about.replaceChildren(...(query.concepts.length ? [el("strong", {}, "Query: "), query.concepts.join(" · ")] : []));
    sides.replaceChildren(
      results("Dense, exact", dense, query.dense, query.codes, "not in the hits of the codes"),
      results("Codes", codes, query.codes, query.dense, "not in the dense hits"));
  };
  choice.addEventListener("change", show);
  host.append(
    el("div", { class: "controls" }, el("label", { for: "query", class: "wide" }, "Items similar to", choice),
      el("div", { class: "steps" }, step("←", "Previous query", -1), step("→", "Next query", 1)), summary),
    about, sides);
  choice.value = Math.floor(queries.length / 2);
  show();
}

function results(title, note, hits, others, missing) {
  const otherIds = new Set(others.map((hit) => hit.id));
  return el("section", { "aria-label": title },
    el("h3", {}, title, el("small", {}, note)),
    el("ol", {}, hits.map((hit) => {
      const shared = otherIds.has(hit.id);
      return el("li", { class: shared ? "" : "alone" }, el("span", {}, hit.title, shared ? null : el("em", {}, ` ${missing}`),
        hit.why?.length ? el("span", { class: "hits-why" }, hit.why.map(([name, share]) => `${name} ${percent(share, 0)}`).join(" · ")) : null),
        el("span", { class: "number" }, decimals(3)(hit.score)));
    })));
}
