"""The HTML report in a real browser: no requests, no errors, and every control works."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from compressae_qdrant import CompresSAE
from compressae_qdrant.capacity import Estimate, Node, Prices, Workload, load_constants, plan
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.evaluation.comparison import Row, Timing
from compressae_qdrant.model.concepts import Concept, Concepts, StrongItem
from compressae_qdrant.report import ReportSettings, build_report

from .support.browser import chromium
from .test_report import HOSTILE, Rows

FAMILIES = {"ours": 0.08, "Qdrant, no rescoring": 0.0, "ours, originals on disk": 0.1, "new": -0.1}
RESULTS = [
    Row(f"{family.replace(',', '')} {n}", family, 60.0 * 2**n, None, 0.5 + n / 10, 0.5 + n / 10 + better, (0.4, 0.99),
        {}, Timing(3.0 / (n + 1), 9.0, 10.0, None, None))
    for family, better in FAMILIES.items()
    for n in range(4)
]  # fmt: skip


class Opened:
    """The page in the browser, with its errors and requests."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(address)
        page.locator("html[data-ready=yes]").wait_for()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, embeddings: FloatArray, model: CompresSAE) -> str:
    """The URL of the report of a catalog with hostile payloads."""
    titles = [f"{HOSTILE} thing {i}" if i % 2 else f"plain thing {i}" for i in range(600)]
    payloads = [{"title": title, "group": f"<b>g{i % 4}</b>"} for i, title in enumerate(titles)]
    page, omitted = build_report(
        Rows(embeddings, payloads), model, ReportSettings(f"Things {HOSTILE}", queries=80), results=RESULTS
    )
    assert omitted == []
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(page, encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def opened(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """The page at desktop size, or as the test's parameters set it."""
    options = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **getattr(request, "param", {})}
    context = browser.new_context(**options)
    context.set_default_timeout(5000)
    yield Opened(context.new_page(), address)
    context.close()


PHONE = {"viewport": {"width": 390, "height": 844}}
EVERY = pytest.mark.parametrize(
    "opened", [{}, PHONE, {"color_scheme": "dark"}], ids=["desktop", "phone", "dark"], indirect=True
)


@EVERY
def test_it_opens_without_complaint_request_or_overflow(opened: Opened, address: str) -> None:
    page = opened.page
    for details in page.locator("details").all():
        details.locator("summary").click()
    assert page.locator("figure svg[role=group]").count() == page.locator("figure").count() == 8
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
    page.mouse.wheel(0, 20_000)
    assert opened.complaints == []
    assert opened.requests == [address]


@pytest.mark.parametrize("opened", [{}, {"color_scheme": "dark"}], ids=["light", "dark"], indirect=True)
def test_it_is_accessible(opened: Opened) -> None:
    """axe-core finds nothing: roles, names, contrast, order of headings, tables."""
    found = Axe().run(opened.page).response["violations"]
    assert [(each["id"], [node["target"] for node in each["nodes"]][:3]) for each in found] == []


def test_payloads_stay_text(opened: Opened) -> None:
    page = opened.page
    page.get_by_label("Filter").fill("<script>alert(1)</script>")
    expect(page.locator(".concepts > li").first).to_contain_text("</script><script>alert(1)</script>")
    for query in range(page.locator("#query option").count()):
        page.locator("#query").select_option(str(query))
    assert page.locator(".sides").get_by_text('"><img src=x onerror=alert(1)>').count() > 0
    assert page.locator("main script, main img, main b:not(.tip b)").count() == 0
    assert " ".join(page.title().split()) == " ".join(f"Things {HOSTILE}: compression report".split())
    assert opened.complaints == []


def test_no_script_but_the_page_s_own_may_run(opened: Opened) -> None:
    """The content security policy blocks scripts even if text were inserted as markup."""
    done = opened.page.evaluate("""() => {
        const image = document.createElement("img");
        image.setAttribute("onerror", "window.broken = true");
        image.src = "data:image/png;base64,x";
        const script = document.createElement("script");
        script.textContent = "window.broken = true";
        document.body.append(image, script);
        const before = document.body.dataset.asked = "yes";
        return fetch("https://example.org/").then(() => "fetched", () => window.broken ? "ran" : before);
    }""")
    assert done == "yes"
    assert len([text for text in opened.complaints if "Content Security Policy" in text]) >= 2


def test_concepts_are_filtered_ordered_and_shown_page_by_page(opened: Opened) -> None:
    page = opened.page
    cards, count = page.locator(".concepts > li"), page.locator("output[for=concept-filter]")
    more = page.locator(".more")
    expect(cards).to_have_count(12)
    everything = int(str(count.text_content()).split()[0])
    more.click()
    expect(cards).to_have_count(24)
    word = str(cards.nth(3).locator("ol li span").first.text_content()).split()[-1]
    page.get_by_label("Filter").fill(f"THING {word}")
    left = int(str(count.text_content()).split()[0])
    assert 0 < left < everything
    for card in cards.all():
        assert word in str(card.text_content())
    page.get_by_label("Filter").fill("no such thing anywhere")
    expect(cards).to_have_count(0)
    expect(count).to_have_text(f"0 of {everything} concepts")
    expect(more).to_be_hidden()
    page.get_by_label("Filter").fill("")
    expect(page.get_by_label("Order").locator("option").first).to_have_text("most used")  # these have no main items
    uses = []
    for order in ("used", "rare"):
        page.get_by_label("Order").select_option(order)
        uses.append([float(re.findall(r"in ([\d.]+)% of", text)[0]) for text in cards.all_text_contents()])
    assert uses[0] == sorted(uses[0], reverse=True)
    assert uses[1] == sorted(uses[1])
    assert uses[0][0] > uses[1][0]


def test_hits_of_dense_and_compressed_search_are_shown_together(opened: Opened, address: str) -> None:
    page = opened.page
    data = _data(page)["queries"]
    for number in (0, len(data) - 1):
        page.locator("#query").select_option(str(number))
        sides = page.locator(".sides section")
        for side, name in enumerate(("dense", "codes")):
            shown = sides.nth(side).locator("ol li > span:first-of-type")
            expect(shown.first).to_contain_text(data[number][name][0]["title"])
            expect(shown).to_have_count(10)
        expect(page.locator("output[for=query]")).to_have_text(f"{data[number]['shared']} of 10 shared")
        expect(sides.nth(0).locator(".alone")).to_have_count(10 - data[number]["shared"])
    page.get_by_role("button", name="Next query").click()
    expect(page.locator("#query")).to_have_value("0")


CATALOGS = [
    (Workload(10_000_000, 768), Node(), None),
    (Workload(1000, 64, k=8, latents=512, datatype="float32"), Node(ram_gib=4, vcpus=2, headroom=0), None),
    (Workload(10**9, 768, k=48, latents=16_384, datatype="float16", payload_bytes=312.5, replicas=2,
              queries_per_second=75.5), Node(ram_gib=256, vcpus=32, headroom=0.3), Prices(3.25, 0.09, 21)),
    (Workload(63_666, 384, payload_bytes=300, queries_per_second=40_000), Node(), Prices(0, 0.5, 18.75)),
    (Workload(10**8, 768, navigation_dim=96, navigation_bits=1.5, navigation_m=8,
              navigation_datatype="turbo4"), Node(ram_gib=8), None),
    (Workload(2_000_000, 384, navigation_datatype="turbo4"), Node(), None),
]  # fmt: skip
KEYS: dict[str, Callable[[Estimate, int], float | None]] = {
    "memory": lambda each, _: each.replicas * each.resident_bytes,
    "item": lambda each, items: each.resident_bytes / items,
    "read": lambda each, _: each.read_bytes,
    "disk": lambda each, _: each.replicas * each.disk_bytes,
    "disk-item": lambda each, items: each.disk_bytes / items,
    "shards": lambda each, _: each.shards,
    "p50": lambda each, _: each.p50_ms,
    "cold": lambda each, _: each.cold_ms,
    "rate": lambda each, _: each.queries_per_core,
    "recall": lambda each, _: each.recall100,
    "usd": lambda each, _: each.usd,
    "usd-nodes": lambda each, _: each.usd_nodes,
}


def _fill(page: Page, workload: Workload, node: Node, prices: Prices | None) -> None:
    asked = {**dataclasses.asdict(workload), **dataclasses.asdict(node)}
    asked |= {f"price_{name}": value for name, value in (dataclasses.asdict(prices) if prices else {}).items()}
    for name in page.locator(".calculator input").evaluate_all("all => all.map((one) => one.id)"):
        value = asked.get(name.removeprefix("calc-"))
        page.locator(f"#{name}").fill("" if value is None else str(value))
    page.locator("#calc-datatype").select_option(workload.datatype)
    page.locator("#calc-navigation_bits").select_option(f"{workload.navigation_bits:g}")
    page.locator("#calc-navigation_datatype").select_option(workload.navigation_datatype)


def _shown(page: Page) -> list[dict[str, tuple[float | None, str]]]:
    rows: list[dict[str, tuple[float | None, str]]] = []
    for row in page.locator(".plan tbody tr").all():
        cells = row.locator("td").evaluate_all(
            "all => all.map((one) => [one.dataset.key, one.dataset.value, one.textContent])"
        )
        rows.append({key: (float(value) if value else None, text) for key, value, text in cells})
    return rows


def _rounded(text: str) -> float:
    """Parse a displayed number with its unit."""
    number, _, unit = text.replace(",", "").removeprefix("$").partition(" ")
    return float(number) * {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}.get(unit, 1.0)


@pytest.mark.parametrize(("workload", "node", "prices"), CATALOGS)
def test_the_calculator_agrees_with_plan(opened: Opened, workload: Workload, node: Node, prices: Prices | None) -> None:
    page = opened.page
    _fill(page, workload, node, prices)
    wanted: list[Estimate] = plan(workload, load_constants(), node, prices)
    names = page.locator(".plan tbody th").all_text_contents()
    assert names == [each.name for each in wanted]
    for each, cells in zip(wanted, _shown(page), strict=True):
        assert set(cells) == set(KEYS) - (set() if prices else {"usd", "usd-nodes"})
        for key, (value, text) in cells.items():
            exact = KEYS[key](each, workload.items)
            assert value == (None if exact is None else pytest.approx(exact, rel=1e-9))
            if key == "shards":
                assert text == f"{each.shards:,} × {each.replicas:,}"
            elif exact is not None:
                assert _rounded(text) == pytest.approx(
                    exact, rel=5.1e-3, abs=0.51 if key in ("item", "disk-item", "usd") else 5e-4
                )
    said = str(page.locator("#calc-summary").text_content())
    assert said.startswith(f"{workload.items:,} items of {workload.dim} dimensions: ")
    times = wanted[-1].replicas * wanted[-1].resident_bytes / (wanted[0].replicas * wanted[0].resident_bytes)
    assert wanted[-1].name.startswith("dense float32")
    assert float(re.findall(r"([\d.,]+) times less", said)[0].replace(",", "")) == pytest.approx(times, rel=5e-3)
    assert opened.complaints == []


def test_the_calculator_starts_with_this_catalog_and_refuses_invalid_numbers(opened: Opened) -> None:
    page = opened.page
    asked = Workload(**_data(page)["planner"]["workload"])
    memory = page.locator(".plan [data-key=memory]").first
    start = str(memory.text_content())
    exact = plan(asked, load_constants())[0]
    assert float(str(memory.get_attribute("data-value"))) == pytest.approx(exact.resident_bytes)
    items, problem = page.get_by_label("Items", exact=True), page.get_by_role("alert")
    expect(problem).to_be_hidden()
    for nonsense, complaint in (
        ("many", "is not a whole number of at least 1"),
        ("0", "of at least 1"),
        ("1.5", "whole"),
    ):
        items.fill(nonsense)
        expect(problem).to_contain_text(complaint)
        expect(items).to_have_attribute("aria-invalid", "true")
        assert memory.text_content() == start
    items.fill("2.5M")
    expect(problem).to_be_hidden()
    expect(page.locator("#calc-summary")).to_contain_text("2,500,000 items")
    items.blur()
    expect(items).to_have_value("2,500,000")
    page.get_by_label("Non-zeros of a code, k").fill("97")
    expect(problem).to_have_text("k is 97 but there are 96 latents.")
    page.get_by_role("button", name="Reset to this catalog").click()
    expect(problem).to_be_hidden()
    assert memory.text_content() == start
    assert opened.complaints == []


def test_charts_say_their_values_to_the_keyboard_and_the_pointer(opened: Opened) -> None:
    page = opened.page
    for figure in page.locator("figure").all():
        marks = figure.locator("[role=img]")
        assert marks.count() >= 2
        assert figure.locator("[role=img][tabindex='0']").count() == 1
        marks.first.focus()
        expect(figure.locator(".tip")).to_be_visible()
        first = figure.locator(".tip").text_content()
        page.keyboard.press("ArrowRight")
        expect(marks.nth(1)).to_be_focused()
        assert figure.locator(".tip").text_content() != first
        page.keyboard.press("End")
        expect(marks.last).to_be_focused()
        name = str(marks.last.get_attribute("aria-label"))
        assert str(figure.locator(".tip b").text_content()) in name
        page.keyboard.press("Escape")
        expect(figure.locator(".tip")).to_be_hidden()
    point = page.locator("[data-show=by-bytes] [role=img]").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("[data-show=by-bytes] .tip")).to_be_visible()
    expect(page.locator("[data-show=by-bytes] .tip")).to_contain_text("recall@100")


def test_named_concepts_and_planned_baselines(
    browser: Browser, tmp_path: Path, embeddings: FloatArray, model: CompresSAE
) -> None:
    """A report without a benchmark, of a model whose concepts have names."""
    named = CompresSAE(model.config)
    named.load_state_dict(model.state_dict())
    strong = (StrongItem(1, "X", 0.5, 0.9),)
    every = [
        Concept(n, 1, f"{HOSTILE} {n}", "concept", ("term",), 600 - n, 1, 0.4, strong, n) for n in range(model.latents)
    ]
    named.concepts = Concepts(named.fingerprint, 600, tuple(every))
    rows = Rows(embeddings, [{"title": f"thing {i}"} for i in range(600)])
    page, _ = build_report(rows, named, ReportSettings("Things", queries=30, other_k=(12,)))
    file = tmp_path / "named.html"
    file.write_text(page, encoding="utf-8")
    opened = Opened(browser.new_page(), file.as_uri())
    expect(opened.page.get_by_label("Order").locator("option").first).to_have_text("main concept of most items")
    share = f"{100 * (model.latents - 1) / 600:.1f}%"
    expect(opened.page.locator(".concepts > li").first).to_contain_text(f"main concept of {share}")
    shown = opened.page.locator(".hits-why")
    expect(shown).to_have_count(10)
    for text in shown.all_text_contents():
        assert text.startswith("</script><script>alert(1)</script>")
        assert re.search(r" \d+%$", text)
    expect(opened.page.locator(".query-concepts")).to_contain_text("<script>alert(1)</script>")
    expect(opened.page.locator("[data-show=by-time]")).to_have_count(0)
    table = opened.page.locator("[data-show=by-bytes] details table tbody th")
    names = table.all_text_contents()
    assert {"codes k=6, default plan", "codes k=12, default plan", "scalar int8"} <= set(names)
    assert opened.page.locator("main script, main img").count() == 0
    assert opened.complaints == []
    opened.page.close()


def test_tables_behind_charts_hold_what_the_charts_show(opened: Opened) -> None:
    page = opened.page
    table = page.locator("[data-show=by-bytes] details table")
    assert table.locator("tbody tr").count() == len(RESULTS)
    shown = [row.locator("th, td").all_text_contents() for row in table.locator("tbody tr").all()]
    wanted = [
        [row.name, row.family, f"{row.resident:,.0f}", f"{row.recall10:.3f}", f"{row.recall100:.3f}",
         f"{row.timing.p50_ms:.1f}"]
        for row in RESULTS
        if row.timing
    ]  # fmt: skip
    assert sorted(shown) == sorted(wanted)


def test_the_pareto_front_is_one(opened: Opened) -> None:
    label = str(opened.page.locator("[data-show=by-bytes] svg[role=group]").get_attribute("aria-label"))
    shown = label.split("on the Pareto front: ")[1].split(". Use the arrow keys")[0].split(", ")
    wanted = [
        row.name
        for row in RESULTS
        if all(row.recall100 > other.recall100 for other in RESULTS if other.resident < row.resident)
        and row.recall100 == max(o.recall100 for o in RESULTS if o.resident == row.resident)
    ]
    assert sorted(shown) == sorted(wanted)
    assert wanted == [f"ours originals on disk {n}" for n in range(4)]


def test_everything_is_reached_by_the_keyboard(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    reached = []
    for _ in range(200):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("(({id, role, tagName}) => id || role || tagName)(document.activeElement)"))
        if reached[-1] == "BODY":
            break
    assert reached[-1] == "BODY"
    assert reached.count("img") == page.locator("figure").count()
    assert {"query", "concept-filter", "calc-items", "calc-price_vcpu", "concept-order", "SUMMARY", "BUTTON"} <= set(
        reached
    )


@pytest.mark.parametrize("opened", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_the_theme_follows_the_system_until_it_is_chosen(opened: Opened) -> None:
    page = opened.page
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    shade = "getComputedStyle(document.documentElement).backgroundColor"
    before = page.evaluate(shade)
    assert (sum(map(int, re.findall(r"\d+", before))) < 200) == dark
    page.get_by_role("button", name=f"Switch to {'light' if dark else 'dark'} colours").click()
    after = page.evaluate(shade)
    assert (sum(map(int, re.findall(r"\d+", after))) < 200) != dark
    page.reload()
    assert page.evaluate(shade) == after
    assert opened.complaints == []


def test_it_prints(opened: Opened) -> None:
    page = opened.page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper')") == "#fcfbf8"
    for hidden in ("nav", "#theme", "details.data", ".more", "#concept-filter"):
        expect(page.locator(hidden).first).to_be_hidden()
    pdf = page.pdf(format="A4")
    assert 3 <= len(re.findall(rb"/Type /Page\b", pdf)) <= 14
    assert opened.complaints == []


def _data(page: Page) -> Any:
    return json.loads(str(page.locator("#data").text_content()))
