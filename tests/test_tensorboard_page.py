"""What TensorBoard is given besides curves; that every tag is explained; and that no run depends on any of it."""

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_file import list_checkpoints
from dist_trainer.cli import compose_train
from dist_trainer.config import ViewConfig
from dist_trainer.tensorboard_page import histograms, moving_picture, settings

GLOSSARY = Path(__file__).parents[1] / "CONTRIBUTING.md"
ITERATIONS = 4
SETTINGS = [
    *("env=cartpole", "device=cpu", "torch_threads=1", "env_threads=1", "total_envs=32", "horizon=16"),
    *("ppo.minibatches=4", "policy.hidden_size=16", f"total_env_steps={ITERATIONS * 32 * 16}", "seed=5"),
    *("optimizer=psgd_kron", "diagnostics_every=2", "adaptive_rate.target_kl=0.01", "env.workers=processes"),
]
PICTURES = ["histograms_every=2", "replay_minutes=1e-6", "replay_steps=30"]


def train(learners: int, run_dir: Path, *own: str) -> Path:
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={learners}", "-m"]
    command = [sys.executable, "-m", *(torchrun if learners > 1 else []), "dist_trainer", "train"]
    done = subprocess.run(
        [*command, *SETTINGS, *own, f"run_dir={run_dir}"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return run_dir


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(2, tmp_path_factory.mktemp("page") / "run", *PICTURES)


@pytest.fixture(scope="module")
def shown(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "histograms": 0})
    accumulator.Reload()
    return accumulator


def explained() -> list[re.Pattern[str]]:
    rows = re.findall(r"^\| ([a-z]+/[^|]*) \|", GLOSSARY.read_text(), re.MULTILINE)
    tags = [tag for row in rows for tag in row.split(", ")]
    return [re.compile(re.sub(r"&lt;\w+&gt;", ".+", tag)) for tag in tags]


def test_every_tag_is_explained(shown: EventAccumulator) -> None:
    tags = shown.Tags()["scalars"]
    assert len(tags) > 50
    assert [tag for tag in tags if not any(pattern.fullmatch(tag) for pattern in explained())] == []


def test_the_page_of_charts_names_tags_that_exist(shown: EventAccumulator) -> None:
    [event] = shown.Tensors("custom_scalars__config__")
    pages = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    tags = shown.Tags()["scalars"]
    assert pages.category[0].title == "score" and len(pages.category) == 6
    for category in pages.category:
        for chart in category.chart:
            series = [(one.value, one.lower, one.upper) for one in chart.margin.series]
            for name in (*chart.multiline.tag, *(tag for three in series for tag in three)):
                assert any(re.match(name, tag) for tag in tags), name


def test_the_row_of_a_sweep(shown: EventAccumulator) -> None:
    content = shown.summary_metadata
    start, end, experiment = (
        plugin_data_pb2.HParamsPluginData.FromString(content[f"_hparams_/{name}"].plugin_data.content)
        for name in ("session_start_info", "session_end_info", "experiment")
    )
    values = start.session_start_info.hparams
    assert values["optimizer.lr"].number_value == compose_train(SETTINGS)[0].optimizer["lr"]
    assert values["env.name"].string_value == "cartpole" and values["learners"].number_value == 2
    assert values["normalize.returns"].string_value == "true"
    assert not any(name.startswith(("run_dir", "device", "env.view")) for name in values)
    assert end.session_end_info.status == 1  # success
    metrics = [info.name.tag for info in experiment.experiment.metric_infos]
    assert "env/episode_return" in metrics and set(metrics) <= set(shown.Tags()["scalars"])


def test_what_a_sweep_varies_is_in_its_table() -> None:
    for setting in (
        "optimizer.lr=0.123",
        "ppo.gamma=0.9",
        "policy.hidden_size=24",
        "env.params.max_steps=77",
        "seed=9",
    ):
        before, after = (settings(compose_train([*SETTINGS, *own])[0], 2) for own in ([], [setting]))
        name, _, value = setting.partition("=")
        assert {key for key in after if after[key] != before.get(key)} == {name}
        assert after[name] == float(value)


def test_histograms_count_every_weight(run: Path, shown: EventAccumulator) -> None:
    policy = load_file(list_checkpoints(run)[-1])["policy"]
    for name, weight in policy.items():
        if f"weights/{name}" not in shown.Tags()["histograms"]:
            assert not weight.is_floating_point() or "fixed" in name, name
            continue
        last = shown.Histograms(f"weights/{name}")[-1]
        assert last.step == ITERATIONS * 32 * 16
        assert last.histogram_value.num == weight.numel()
        assert last.histogram_value.sum == pytest.approx(float(weight.double().sum()), rel=1e-4, abs=1e-4)
        assert f"gradients/{name}" in shown.Tags()["histograms"]
    assert [event.step for event in shown.Histograms("weights/lstm.weight_hh")] == [2 * 512, 4 * 512]


def test_histograms_of_what_cannot_be_counted() -> None:
    layer = torch.nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([torch.nan, 1.0])
        layer.bias[:] = torch.inf
    [found] = histograms(layer)
    assert found.value[0].tag == "weights/weight" and found.value[0].histo.num == 1


def length(film: Image.Image) -> int:
    return sum(1 for _ in ImageSequence.Iterator(film))


def test_replays_are_games_of_the_policy(shown: EventAccumulator) -> None:
    replays = shown.Images("replay")
    assert [event.step for event in replays] == [512 * (i + 1) for i in range(ITERATIONS)]
    films = [Image.open(io.BytesIO(event.encoded_image_string)) for event in replays]
    assert all(length(film) == 31 and film.size == (320, 240) for film in films)
    assert films[0].info["duration"] == 20  # ms: CartPole's clock
    assert len({event.encoded_image_string for event in replays}) == ITERATIONS


def test_a_replay_shows_what_was_drawn_in_time() -> None:
    def colour(value: int) -> NDArray[np.uint8]:
        return np.full((6, 8, 3), value, np.uint8)

    drawn = [colour(10 * index) for index in range(12)]
    for fps, kept in ((25.0, drawn), (100.0, drawn[::2]), (8.0, drawn)):
        film = Image.open(io.BytesIO(moving_picture("x", drawn, fps).value[0].image.encoded_image_string))
        assert length(film) == len(kept)
        seconds = 0.0
        for index, picture in enumerate(kept):
            film.seek(index)
            seconds += film.info["duration"] / 1000
            assert np.abs(np.asarray(film.convert("RGB")).astype(int) - picture).max() < 60
        assert seconds == pytest.approx(12 / fps, rel=0.05)


def test_the_speed_of_a_replay() -> None:
    assert ViewConfig().steps_per_second == 8
    assert ViewConfig(seconds_per_step=0.05).steps_per_second == 20
    assert ViewConfig(seconds_per_step=0.05, fps=2).steps_per_second == 2


def test_no_run_depends_on_what_is_shown(run: Path, tmp_path: Path) -> None:
    plain = train(2, tmp_path / "plain", "histograms_every=0", "replay_minutes=0")
    ours, theirs = (load_file(list_checkpoints(folder)[-1]) for folder in (run, plain))
    assert ours.keys() == theirs.keys()
    for name, weight in theirs["policy"].items():
        assert torch.equal(ours["policy"][name], weight), name
    accumulator = EventAccumulator(str(plain / "tensorboard"))
    accumulator.Reload()
    assert not accumulator.Tags()["images"] and not accumulator.Tags()["histograms"]
