"""What TensorBoard shows of a run besides its points: a page of charts, the settings for the table of a sweep,
histograms, replays. All are summaries, for metrics.EventWriter."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import nn
from torch.utils.tensorboard.summary import custom_scalars, histogram, hparams

from dist_trainer.config import TrainConfig
from dist_trainer.phase_times import PHASES

# Settings that a sweep would vary. The others say where and how a run is computed, not what it learns.
SWEPT = (
    *("env.name", "env.id", "env.params", "policy", "optimizer", "ppo", "schedule", "normalize"),
    *("seed", "total_env_steps", "total_envs", "horizon", "precision", "reduce_dtype"),
)
NOT_SWEPT = ("policy.action_kinds",)
# The page of hparams opens with five columns.
SWEPT_FIRST = ("optimizer._target_", "optimizer.lr", "policy.hidden_size", "ppo.gamma", "seed")
MOST_GIF_RATE = 50.0  # pictures per second: browsers take a faster one for a mistake
COLORS, PALETTE_FROM = 128, 16  # so many pictures, at least
BINS = 40


def layout(metrics: Sequence[str], learners: int) -> Summary:
    """The page "custom scalars": what one wants to see first. `metrics`: names of the episode statistics."""
    scores = {name.replace("_", " "): ["Multiline", [f"env/{name}$"]] for name in metrics}
    where = [f"perf/{name}_seconds" for name in (*PHASES, "other")]
    pages = {
        "score": scores,
        "learning": {
            "losses": ["Multiline", ["losses/policy", "losses/value"]],
            "entropy": ["Multiline", ["losses/entropy"]],
            "how far a policy moves": ["Multiline", ["losses/approx_kl", "losses/clip_fraction"]],
            "explained variance": ["Multiline", ["losses/explained_variance"]],
        },
        "optimizer": {
            "learning rate": ["Multiline", ["optimizer/learning_rate"]],
            "gradient": ["Multiline", ["optimizer/grad_norm", "optimizer/clipped_steps"]],
        },
        "speed": {
            "steps per second": ["Multiline", ["perf/env_steps_per_second"]],
            "seconds of an iteration": ["Multiline", where],
        },
    }
    if learners > 1:
        pages["learners: mean, least, most"] = {  # TensorBoard shows the last of such charts first
            name: ["Margin", [f"perf/{name}_seconds", f"learners/{name}_min", f"learners/{name}_max"]]
            for name in reversed(PHASES)
        }
        pages["learners: the slowest"] = {
            "rank": ["Multiline", ["learners/slowest$"]],
            "longer than the mean by": ["Multiline", ["learners/slowest_excess"]],
        }
    return custom_scalars(pages)


def settings(config: TrainConfig, learners: int) -> dict[str, float | str]:
    """What a sweep would vary, by its name on the command line; of groups that can be off, only if they are on."""
    swept = list(SWEPT)
    if config.adaptive_rate.target_kl is not None:
        swept.append("adaptive_rate")
    if config.precond_schedule.kind != "constant":
        swept.append("precond_schedule")
    found: dict[str, float | str] = {"learners": learners}
    for name in swept:
        value: Any = asdict(config)
        for part in name.split("."):
            value = value[part]
        found |= {key: leaf for key, leaf in _leaves(name, value) if not key.startswith(NOT_SWEPT)}
    return found


def _leaves(name: str, value: Any) -> Iterable[tuple[str, float | str]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(f"{name}.{key}", below)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value
    else:
        yield name, str(value).lower() if value is None or isinstance(value, bool) else str(value)


def session_start(config: TrainConfig, learners: int, metrics: Sequence[str]) -> list[Summary]:
    """A row of the page "hparams". `metrics`: tags that are its results."""
    experiment, start, _ = hparams(settings(config, learners), dict.fromkeys(metrics, 0.0))
    # TensorBoard believes what the first run says of the sweep, and shows the columns that differ first.
    metadata = experiment.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(metadata.content)
    for column in content.experiment.hparam_infos:
        column.differs = column.name in SWEPT_FIRST
    metadata.content = content.SerializeToString()
    return [experiment, start]


def session_end() -> Summary:
    """Of a run that came to its end."""
    return hparams({}, {})[2]


def histograms(policy: nn.Module) -> list[Summary]:
    """Of weights, and of the gradient of the latest optimizer step, by parameter. Waits for the device."""
    found = []
    for name, parameter in policy.named_parameters():
        found.append(_histogram(f"weights/{name}", parameter.detach().float().cpu().numpy()))
        if parameter.grad is not None:
            found.append(_histogram(f"gradients/{name}", parameter.grad.float().cpu().numpy()))
    return [summary for summary in found if summary is not None]


def _histogram(tag: str, values: NDArray[np.float32]) -> Summary | None:
    """None if there is nothing to count."""
    values = values[np.isfinite(values)]
    return histogram(tag, values, BINS) if values.size else None


def moving_picture(tag: str, pictures: Sequence[NDArray[np.uint8]], fps: float) -> Summary:
    """`pictures`: (height, width, 3) each, of one size. As a GIF of one palette; of more than 50 in a second, some."""
    every = max(1, -int(-fps // MOST_GIF_RATE))
    samples = pictures[:: max(1, len(pictures) // PALETTE_FROM)]
    palette = Image.fromarray(np.concatenate(samples)).quantize(COLORS)
    frames = [Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    frames = frames[::every]
    file = io.BytesIO()
    frames[0].save(
        file, format="GIF", save_all=True, append_images=frames[1:], duration=round(1000 * every / fps), loop=0
    )
    height, width, _ = pictures[0].shape
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=file.getvalue())
    return Summary(value=[Summary.Value(tag=tag, image=image)])


def years_of_play(env_steps: int, seconds_per_step: float) -> float:
    return env_steps * seconds_per_step / (365.25 * 24 * 3600)
