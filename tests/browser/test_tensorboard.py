"""TensorBoard on finished runs, one of them of two learners, opened in Chromium: what a person finds there."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytest.importorskip("playwright.sync_api", reason="playwright (pip install -e .[dev]) drives the browser")

from playwright.sync_api import Page

from tests.browser.opened import chromium, custom_charts, sweep_table, tensorboard, turn_to, window

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium is installed (Debian: apt install chromium)")

STEPS = 10 * 32 * 16
SETTINGS = [
    *("env=cartpole", "device=cpu", "torch_threads=1", "env_threads=1", "total_envs=32", "horizon=16"),
    *("ppo.minibatches=4", "policy.hidden_size=16", f"total_env_steps={STEPS}", "histograms_every=5"),
    *("replay_minutes=1e-6", "replay_steps=30"),
]
Opened = tuple[Page, str]


def train(learners: int, run_dir: Path, *own: str) -> None:
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={learners}", "-m"]
    command = [sys.executable, "-m", *(torchrun if learners > 1 else []), "dist_trainer", "train", *SETTINGS, *own]
    done = subprocess.run([*command, f"run_dir={run_dir}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That in which somebody trained: `runs` is in it."""
    folder = tmp_path_factory.mktemp("browser")
    train(2, folder / "runs" / "two", "optimizer.lr=0.0123", "seed=7")
    train(1, folder / "runs" / "one", "optimizer.lr=0.0456", "seed=8")
    return folder


@pytest.fixture(scope="module")
def opened(folder: Path) -> Iterator[Opened]:
    with tensorboard(folder) as address, window() as (page, complaints):
        yield page, address
        assert complaints == []


def test_scalars(opened: Opened, folder: Path) -> None:
    page, address = opened
    events = EventAccumulator(str(folder / "runs" / "two" / "tensorboard"))
    events.Reload()
    for tag in ("charts/iteration", "env/episode_return", "losses/entropy"):
        turn_to(page, address, "timeseries", tag)
        row = page.locator("card-view tr, card-view tb-data-table-content-row").filter(has_text="two/tensorboard").first
        row.wait_for()
        cells = row.inner_text().split()
        last = events.Scalars(tag)[-1]
        assert f"{STEPS:,}" in cells, cells
        values = [float(cell) for cell in cells if cell.replace(".", "").replace("-", "").isdigit()]
        assert any(value == pytest.approx(last.value, rel=1e-3) for value in values), (tag, cells, last.value)


def test_the_page_of_charts(opened: Opened) -> None:
    page, address = opened
    turn_to(page, address, "custom_scalars")
    charts = custom_charts(page)
    assert list(charts) == [
        *("score", "learning", "optimizer", "speed"),
        *("learners: mean, least, most", "learners: the slowest"),
    ]
    assert all(counts and all(counts) for counts in charts.values()), charts
    for title in ("episode return", "entropy", "learning rate", "steps per second", "rank"):
        assert page.get_by_text(title, exact=True).count() == 1, title


def test_the_table_of_a_sweep(opened: Opened) -> None:
    page, address = opened
    turn_to(page, address, "hparams")
    page.get_by_text("two/tensorboard").first.wait_for()
    cells = sweep_table(page)
    assert {"optimizer.lr", "optimizer._target_", "seed", "env/episode_return", "perf/env_steps_per_second"} <= {*cells}
    assert {"0.012300", "0.045600", "7.0000", "8.0000"} <= {*cells}, cells
    page.get_by_text("Parallel Coordinates View").click()
    axes = page.locator("tf-hparams-parallel-coords-plot .axis-title, tf-hparams-parallel-coords-plot text")
    axes.filter(has_text="optimizer.lr").first.wait_for()


def test_the_configuration(opened: Opened) -> None:
    page, address = opened
    turn_to(page, address, "text")
    text = page.locator("tf-markdown-view").first
    text.get_by_text("name: cartpole").wait_for()
    assert f"total_env_steps: {STEPS:.1f}" in page.locator("tf-markdown-view code").first.inner_text()


def test_the_replay(opened: Opened) -> None:
    page, address = opened
    turn_to(page, address, "images")
    picture = page.locator("tf-image-loader img").first
    picture.wait_for()
    page.wait_for_function("picture => picture.complete && picture.naturalWidth > 0", arg=picture.element_handle())
    assert picture.evaluate("picture => [picture.naturalWidth, picture.naturalHeight]") == [320, 240]
    sent = page.request.get(str(picture.evaluate("picture => picture.src")))
    with Image.open(io.BytesIO(sent.body())) as film:
        assert film.format == "GIF" and getattr(film, "n_frames", 1) == 31


def test_histograms(opened: Opened) -> None:
    page, address = opened
    turn_to(page, address, "histograms")
    page.get_by_text("gradients/encoder.0.weight", exact=True).first.wait_for()
    assert page.locator("tf-histogram-loader").count() > 0
