"""heavyball's optimizers, driven so that all learners hold the same weights and state, and resume exactly.

heavyball 3.2.1 draws random numbers from torch's global generator inside `step()` (probes, initial factors, stochastic
rounding), which differ between learners: replicas then drift apart. Here every step runs under a generator keyed by
(seed, optimizer_step). Its `load_state_dict` casts state to the weights' type and loses group entries whose names begin
with an underscore; `capture` and `restore` copy the raw tensors instead.
"""

from __future__ import annotations

import warnings
from typing import Any

import heavyball
import torch
from torch import Tensor, nn

from dist_trainer.keyed import keyed_generators, keyed_seed
from dist_trainer.target import make

# Compiling takes 24 to 90 s at the first step on a CPU, and the mode that heavyball asks for may choose different
# kernels on different learners.
heavyball.utils.compile_mode = None

# Said of every schedule and of every fixed scale; both are meant.
for _message in ("Learning rate changed between steps", "It's recommended to use precond_init_scale=None"):
    warnings.filterwarnings("ignore", message=_message, category=UserWarning)

NOT_COMPARED = ("Q_cache",)  # heavyball may leave it uninitialized
_SET = "__set__"


def make_optimizer(config: dict[str, Any], policy: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that `config` describes (`_target_` and its arguments) over all parameters of the policy.

    Raises ConfigError if there is no such class or it does not take the settings.
    """
    settings = dict(config)
    optimizer = make("optimizer", settings.pop("_target_"), list(policy.parameters()), **settings)
    if isinstance(optimizer, heavyball.utils.StatefulOptimizer):
        optimizer.consume_grad = False  # gradients are views of one bucket and stay where they are
    return optimizer


def step(optimizer: torch.optim.Optimizer, *, lr: float, seed: int, optimizer_step: int) -> None:
    """One update from the parameters' gradients; the same bits on every learner if the gradients are the same."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    device = optimizer.param_groups[0]["params"][0].device
    with keyed_generators(keyed_seed(seed, "optimizer", optimizer_step), device):
        optimizer.step()


def capture(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A copy of everything that the optimizer remembers, made of tensors, numbers, strings, lists and dicts alone."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        "state": [_encode(optimizer.state.get(p, {})) for p in parameters],
        "groups": [
            {key: _encode(value) for key, value in group.items() if key != "params" and _is_plain(value)}
            for group in optimizer.param_groups
        ],
        "inner_group": _encode(getattr(optimizer, "inner_group", {})),
    }


def restore(optimizer: torch.optim.Optimizer, captured: dict[str, Any]) -> None:
    """Puts back what `capture` copied, bit for bit, onto the parameters' devices.

    Raises ValueError if it was captured from an optimizer of other parameters.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if len(parameters) != len(captured["state"]) or len(optimizer.param_groups) != len(captured["groups"]):
        raise ValueError("the saved optimizer state belongs to other parameters")
    for parameter, state in zip(parameters, captured["state"], strict=True):
        optimizer.state[parameter] = _decode(state, parameter.device)
    for group, saved in zip(optimizer.param_groups, captured["groups"], strict=True):
        for key in [key for key in group if key != "params" and key not in saved and _is_plain(group[key])]:
            del group[key]  # heavyball's first step adds some, its step counter among them
        group.update({key: _decode(value, group["params"][0].device) for key, value in saved.items()})
    if hasattr(optimizer, "inner_group"):
        optimizer.inner_group = _decode(captured["inner_group"], parameters[0].device)


def named_tensors(optimizer: torch.optim.Optimizer, policy: nn.Module) -> dict[str, Tensor]:
    """Every tensor of the optimizer's state that must be the same on all learners, by parameter name and key."""
    tensors: dict[str, Tensor] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, dict):
            for key, item in value.items():
                if key not in NOT_COMPARED:
                    walk(f"{name}/{key}", item)
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                walk(f"{name}/{index}", item)

    for name, parameter in policy.named_parameters():
        walk(f"optimizer/{name}", optimizer.state.get(parameter, {}))
    return tensors


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, Tensor | bool | int | float | str)


def _encode(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return {_SET: sorted(value)}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value] if isinstance(value, list) else tuple(map(_encode, value))
    if _is_plain(value):
        return value
    raise TypeError(f"optimizer state of type {type(value).__name__} cannot be saved")


def _decode(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        # 0-dimensional counters stay on the host if that is where they were.
        return value.clone() if value.dim() == 0 and value.device.type == "cpu" else value.to(device, copy=True)
    if isinstance(value, dict):
        return set(value[_SET]) if set(value) == {_SET} else {k: _decode(item, device) for k, item in value.items()}
    if isinstance(value, list):
        return [_decode(item, device) for item in value]
    return tuple(_decode(item, device) for item in value) if isinstance(value, tuple) else value
