// The concept browser: a filter over names, terms and items, a sort order, and paging.
const CONCEPTS_PER_PAGE = 12;

const ORDERS = {
  main: ["main concept of most items", (a, b) => b.main - a.main || b.use - a.use],
  used: ["most used", (a, b) => b.use - a.use],
  rare: ["least used", (a, b) => a.use - b.use],
  name: ["name", (a, b) => a.name.localeCompare(b.name)],
  latent: ["latent number", (a, b) => a.latent - b.latent],
};

function conceptBrowser(host, concepts) {
  const most = Math.max(...concepts.map((one) => one.use));
  const found = concepts.map((one) => ({
    ...one, text: [one.name, one.latent, ...one.terms, ...one.items.map(([title]) => title)].join("\n").toLowerCase(),
  }));
  const filter = el("input", { type: "search", id: "concept-filter", autocomplete: "off", spellcheck: "false", placeholder: "word in a name or item" });
  // Unnamed latents, and concepts of older versions, have no share of items whose main concept they are.
  const orders = Object.entries(ORDERS).filter(([value]) => value !== "main" || concepts.some((one) => one.main));
  const order = el("select", { id: "concept-order" }, orders.map(([value, [label]]) => el("option", { value }, label)));
  const count = el("output", { for: "concept-filter", "aria-live": "polite" });
  const list = el("ul", { class: "concepts" });
  const more = el("button", { type: "button", class: "more" });
  let shown = CONCEPTS_PER_PAGE;

  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const match = found.filter((one) => words.every((word) => one.text.includes(word))).sort(ORDERS[order.value][1]);
    list.replaceChildren(...match.slice(0, shown).map((one) => conceptCard(one, most)));
    count.value = `${integer(match.length)} of ${integer(found.length)} concepts`;
    more.hidden = match.length <= shown;
    more.textContent = `Show ${Math.min(CONCEPTS_PER_PAGE, match.length - shown)} more`;
  };
  const restart = () => { shown = CONCEPTS_PER_PAGE; show(); };
  filter.addEventListener("input", restart);
  order.addEventListener("change", restart);
  more.addEventListener("click", () => {
    const first = shown;
    shown += CONCEPTS_PER_PAGE;
    show();
    list.children[first]?.focus();
  });
  host.append(
    el("div", { class: "controls" },
      el("label", { for: "concept-filter", class: "wide" }, "Filter", filter), el("label", { for: "concept-order" }, "Order", order), count),
    list, more);
  show();
}

function conceptCard({ name, latent, use, main, terms, items }, most) {
  const bar = svg("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true", class: "share" },
    svg("rect", { width: 100, height: 4, class: "rest" }), svg("rect", { width: Math.max((100 * use) / most, 1), height: 4, class: "ours dot" }));
  return el("li", { tabindex: -1 },
    el("h3", {}, name), el("p", { class: "facts" }, `${name === `Latent ${latent}` ? "" : `latent ${latent} · `}in ${percent(use, use < 0.001 ? 2 : 1)} of items${main ? `, main concept of ${percent(main, main < 0.001 ? 2 : 1)}` : ""}`), bar,
    terms.length ? el("p", { class: "terms" }, terms.join(", ")) : null,
    el("ol", {}, items.map(([title, value]) => el("li", {}, el("span", {}, title), el("span", { class: "number" }, decimals(2)(value))))));
}
