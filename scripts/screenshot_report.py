"""Take a screenshot of an HTML report.

    python scripts/screenshot_report.py report.html report.png

The picture shows the top of the report in light colours and, beside it, the queries on a phone in dark colours.
Needs Chromium (on Debian: apt install chromium) and the test extras.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

HEIGHT, MARGIN = 1740, 24
COLOURS = 256


def screenshot(
    browser: Browser, page: Path, width: int, scheme: Literal["light", "dark"], section: str | None = None
) -> Image.Image:
    """Take a picture of the page from its top, or from the start of a section."""
    context = browser.new_context(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto(page.resolve().as_uri())
    opened.locator("html[data-ready=yes]").wait_for()
    if section is not None:
        opened.locator(f"#{section}").evaluate("(part) => scrollTo({top: part.offsetTop, behavior: 'instant'})")
    image = Image.open(io.BytesIO(opened.screenshot()))
    context.close()
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="HTML report to open")
    parser.add_argument("out", type=Path, help="PNG file to write")
    args = parser.parse_args()
    page, out = args.report, args.out
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=arguments)
        parts = [screenshot(browser, page, 1060, "light"), screenshot(browser, page, 420, "dark", "queries")]
        browser.close()
    whole = Image.new("RGB", (sum(part.width for part in parts) + MARGIN, HEIGHT), "white")
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width + MARGIN
    # MAXCOVERAGE keeps the colours of small marks in charts, which a median cut would drop.
    whole.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
