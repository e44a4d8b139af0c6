"""Pictures of TensorBoard's pages for the documentation.

python -m tests.browser.pictures FOLDER OUT      # FOLDER has `runs` in it, with finished runs of several learners
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from tests.browser.opened import WINDOW, tensorboard, turn_to, window

SETTLED_MS = 3000  # charts are drawn in steps
COLORS = 64


def custom_scalars(page: Page) -> None:
    page.get_by_text("Matches (").first.wait_for()


def learners(page: Page) -> None:
    custom_scalars(page)
    title = page.get_by_text("learners: mean, least, most", exact=True)
    title.evaluate("title => { title.style.scrollMarginTop = '20px'; title.scrollIntoView() }")


def hparams(page: Page) -> None:
    page.locator("tf-hparams-table-view vaadin-grid-cell-content").first.wait_for()


def parallel(page: Page) -> None:
    page.get_by_text("Parallel Coordinates View").click()


def replay(page: Page) -> None:
    page.locator("tf-image-loader img").first.wait_for()


def histograms(page: Page) -> None:
    page.locator("tf-histogram-loader").first.wait_for()


# Tab, what to do there, and the height of what is worth a look.
PAGES = {
    "custom_scalars": ("custom_scalars", custom_scalars, 860),
    "learners": ("custom_scalars", learners, 720),
    "sweep": ("hparams", hparams, 310),
    "sweep_parallel": ("hparams", parallel, 620),
    "images": ("images", replay, 540),
    "histograms": ("histograms", histograms, 720),
}


def main(folder: Path, out: Path) -> None:
    with tensorboard(folder) as address, window() as (page, _):
        for name, (tab, show, height) in PAGES.items():
            turn_to(page, address, tab)
            show(page)
            page.wait_for_timeout(SETTLED_MS)
            path = out / f"tensorboard_{name}.png"
            page.screenshot(path=path, clip={"x": 0, "y": 0, "width": WINDOW["width"], "height": height})
            with Image.open(path) as picture:
                few = picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
            few.save(path, optimize=True)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
