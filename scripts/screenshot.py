"""A picture of a report for the README: its top in light colours, and a phone's view of its queries in dark ones.

    python scripts/screenshot.py report.html scripts/figures/report.png

Needs a chromium (on Debian: apt install chromium) and the test extras.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

HEIGHT, MARGIN = 1740, 24
COLOURS = 256


def shot(
    browser: Browser, page: Path, width: int, scheme: Literal["light", "dark"], section: str | None = None
) -> Image.Image:
    """The page from its top, or from a section on."""
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
    page, out = map(Path, sys.argv[1:])
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=arguments)
        parts = [shot(browser, page, 1060, "light"), shot(browser, page, 420, "dark", "queries")]
        browser.close()
    whole = Image.new("RGB", (sum(part.width for part in parts) + MARGIN, HEIGHT), "white")
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width + MARGIN
    # By most different colours, not by most pixels: a chart's small marks keep theirs.
    whole.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
