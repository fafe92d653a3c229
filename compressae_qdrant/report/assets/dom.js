// Elements and number formats. Values from the data only become text nodes or attribute values, never markup.
const SVG = "http://www.w3.org/2000/svg";

function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
  return node;
}

function table(caption, head, rows, numeric = []) {
  const cell = (tag, text, column) =>
    el(tag, { class: numeric.includes(column) ? "number" : null, scope: tag === "th" ? (column === 0 && head[0] !== text ? "row" : "col") : null }, text);
  return el("table", {},
    el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, head.map((text, column) => cell("th", text, column)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((text, column) => cell(column ? "td" : "th", text, column))))));
}

/** A container with its own horizontal scrolling, also by keyboard, for tables wider than the page. */
function scrolling(label, content) {
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, content);
}

const formatted = (options) => { const format = new Intl.NumberFormat("en", options); return (value) => format.format(value); };
const integer = formatted({ maximumFractionDigits: 0 });
const decimals = (digits) => formatted({ minimumFractionDigits: digits, maximumFractionDigits: digits });
const significant = formatted({ maximumSignificantDigits: 3 });
const compact = formatted({ notation: "compact", maximumSignificantDigits: 3 });
const recallText = decimals(3);
const percent = (value, digits = 1) => `${decimals(digits)(100 * value)}%`;
const milliseconds = (value) => `${value < 10 ? decimals(1)(value) : integer(value)} ms`;

const UNITS = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];
function bytes(value) {
  for (const [unit, size] of UNITS) if (value >= size) return `${significant(value / size)} ${unit}`;
  return `${integer(value)} B`;
}
