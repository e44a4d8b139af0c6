"""TensorBoard as a person sees it: started as the README says, opened in a Chromium without a screen."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
WINDOW = {"width": 1440, "height": 900}
PATIENCE_S = 60.0  # for anything to appear


def chromium() -> str | None:
    """The program, if one is installed (Debian: `apt install chromium`)."""
    return next((path for name in CHROMIUMS if (path := shutil.which(name))), None)


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """`tensorboard --logdir runs` in `folder`, at a port that is free; its address."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("tensorboard", path=beside)
    assert program, "tensorboard is not installed"
    command = [program, "--logdir", "runs", "--host", "localhost", "--port", "0"]
    server = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    assert server.stderr
    try:
        said = ""
        for line in server.stderr:
            said += line
            if found := re.search(r"http://localhost:\d+/", line):
                threading.Thread(target=server.stderr.read, daemon=True).start()  # a full pipe would stop it
                yield found[0]
                return
        raise AssertionError(f"TensorBoard does not start: {said}")
    finally:
        server.kill()
        server.wait()


@contextmanager
def window() -> Iterator[tuple[Page, list[str]]]:
    """An empty page, and what its scripts complain about, which grows."""
    with sync_playwright() as playwright:
        # Chromium refuses to run as root, as in a container, with its sandbox; it sees only our own server.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium(), args=flags)
        page = browser.new_page(viewport={"width": WINDOW["width"], "height": WINDOW["height"]})
        page.set_default_timeout(1000 * PATIENCE_S)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        try:
            yield page, complaints
        finally:
            browser.close()


def turn_to(page: Page, address: str, tab: str, tag: str = "") -> None:
    """`tab`: custom_scalars, hparams, ...; `tag`: of the time series only those that match."""
    page.goto("about:blank")  # else a change after the # loads nothing
    page.goto(f"{address}?tagFilter={tag}#{tab}")


def custom_charts(page: Page) -> dict[str, list[int]]:
    """Of each category of the page "custom scalars", by title: how many tags each of its charts has found."""
    page.get_by_text("Matches (").first.wait_for()
    found: dict[str, list[int]] = {}
    for category in page.locator("tf-category-paginated-view").all():
        matches = category.get_by_text("Matches (").all_inner_texts()
        found[category.locator(".category-name").inner_text()] = [int(re.sub(r"\D", "", text)) for text in matches]
    return found


def sweep_table(page: Page) -> list[str]:
    """The cells of the page "hparams" that are not empty: first the columns' titles, then row by row."""
    cells = page.locator("tf-hparams-table-view vaadin-grid-cell-content")
    cells.first.wait_for()
    return [text.strip() for text in cells.all_inner_texts() if text.strip()]
