"""Pictures into a file: NAME.gif or NAME.mp4."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from numpy.typing import NDArray

MOST_GIF_RATE = 50.0  # per second: its clock has hundredths, and browsers take one for a mistake


def write_video(file: Path, pictures: Iterable[NDArray[np.uint8]], fps: float) -> int:
    """`pictures`: (height, width, 3) each, of one size. Returns how many were written: of a GIF with more than 50 in a
    second only some, so that it plays in time."""
    every = 1
    if file.suffix == ".mp4":
        # Of even sizes, which the players' common pixel format needs.
        writer: Any = imageio.get_writer(file, fps=fps, codec="libx264", quality=8, macro_block_size=1)
        pictures = map(_even, pictures)
    else:
        every = max(1, -int(-fps // MOST_GIF_RATE))
        hundredths = max(2, round(100 * every / fps))
        writer = imageio.get_writer(file, mode="I", duration=10 * hundredths, loop=0)
    written = 0
    with writer:
        for index, picture in enumerate(pictures):
            if index % every == 0:
                writer.append_data(picture)
                written += 1
    return written


def _even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With one more row or column of the last one's colours where there is an odd number."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
