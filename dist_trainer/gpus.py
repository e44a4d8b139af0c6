"""GPUs of this machine, shared out over processes."""

from __future__ import annotations

import os
from collections.abc import Sequence

VISIBLE = "CUDA_VISIBLE_DEVICES"


def share_devices(visible: Sequence[str], workers: int, learners: int) -> list[list[str]]:
    """Each worker's GPUs, one for each learner, in turn; nothing where there are none."""
    if not visible:
        return [[] for _ in range(workers)]
    return [
        list(dict.fromkeys(visible[(worker * learners + learner) % len(visible)] for learner in range(learners)))
        for worker in range(workers)
    ]


def visible_devices(device: str) -> list[str]:
    """Their names, as CUDA_VISIBLE_DEVICES has them. `device`: auto | cpu | cuda."""
    if device == "cpu":
        return []
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name]
    import torch  # not before the settings were checked

    return [str(index) for index in range(torch.cuda.device_count())]
