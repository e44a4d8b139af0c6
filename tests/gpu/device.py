"""What the tests on a GPU share. Without one they are all skipped; each names its twin on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dist_trainer.cli import compose_train
from dist_trainer.distributed import connect
from dist_trainer.learner import Learner, make_learner, warm_up_normalizer

DEVICE = torch.device("cuda", 0)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

CARTPOLE = ("env=cartpole", "env.params.max_steps=20")  # episodes that are truncated and episodes that fall
SIZES = [
    *("policy.hidden_size=32", "torch_threads=1", "env_threads=1", "diagnostics_every=0"),
    *("horizon=24", "total_envs=64", "ppo.minibatches=4", "normalize.warmup_steps=8"),
]


def learner_for(*settings: str, env: tuple[str, ...] = CARTPOLE) -> Learner:
    """As the trainer has it before its first iteration."""
    device = DEVICE.type
    learner = make_learner(compose_train([*SIZES, *env, *settings, f"device={device}"])[0], connect(device, 60))
    warm_up_normalizer(learner)
    return learner


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, by the largest of the expected numbers; in float64 on the CPU."""
    a, b = (x.detach().to("cpu", torch.float64) for x in (actual, expected))
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) if a.numel() else 0.0


def functions_behind(tensor: Tensor) -> set[str]:
    """Names of the functions of the autograd graph that leads to it."""
    names: set[str] = set()
    seen: set[Any] = set()
    left: list[Any] = [tensor.grad_fn]
    while left:
        function = left.pop()
        if function is not None and function not in seen:
            seen.add(function)
            names.add(function.name())
            left += [before for before, _ in function.next_functions]
    return names


class Operators(TorchDispatchMode):
    """Notes the types of all tensors that each operator is given and returns, after autocast has had its say."""

    def __init__(self) -> None:
        super().__init__()
        self.types: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        found = self.types.setdefault(func._schema.name.removeprefix("aten::"), set())
        found |= {tensor.dtype for tensor in tensors_in((args, kwargs, result))}
        return result


def tensors_in(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from tensors_in(part)
    elif isinstance(tree, dict):
        yield from tensors_in(list(tree.values()))
