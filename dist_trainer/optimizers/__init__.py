"""heavyball's optimizers, driven so that all learners hold the same weights and state, and resume exactly.

heavyball 3.2.1 draws random numbers from torch's global generator inside `step()` (probes, initial factors, stochastic
rounding), which differ between learners: replicas then drift apart. Here every step runs under a generator keyed by
(seed, optimizer_step). Its `load_state_dict` casts state to the weights' type and loses group entries whose names begin
with an underscore; `capture` and `restore` copy the raw tensors instead.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import heavyball
import torch
from torch import Tensor, nn

from dist_trainer.keyed import keyed_generators, keyed_seed
from dist_trainer.optimizers.newton import Newton
from dist_trainer.optimizers.transforms import CautiousStep, Mars
from dist_trainer.target import make

# Compiling takes 24 to 90 s at the first step on a CPU, and the mode that heavyball asks for may choose different
# kernels on different learners.
heavyball.utils.compile_mode = None

# Said of every schedule, every fixed scale and every default rank; all are meant.
for _message in (
    "Learning rate changed between",
    "It's recommended to use precond_init_scale",
    "rank=None",
    "rank was",
):
    warnings.filterwarnings("ignore", message=_message, category=UserWarning)

NOT_COMPARED = "Q_cache"  # in a name: heavyball may leave it uninitialized
_SET = "__set__"


@dataclass
class Optimizer:
    """A heavyball (or torch) optimizer and what dist_trainer adds around its step."""

    inner: torch.optim.Optimizer
    mars: Mars | None
    caution: bool
    newton: Newton | None
    precond_lr: float | None  # before the schedule; None where the optimizer has no such rate

    @property
    def device(self) -> torch.device:
        return self.inner.param_groups[0]["params"][0].device


def make_optimizer(config: dict[str, Any], policy: nn.Module) -> Optimizer:
    """The optimizer that `config` describes (`_target_` and its arguments) over all parameters of the policy.

    `mars*`, `caution` and `newton_*` are handled here, whatever heavyball's flags for these do. A setting that is null
    is left out: the optimizer's own default holds.

    Raises ConfigError if there is no such class or it does not take the settings.
    """
    settings = {name: value for name, value in config.items() if value is not None}
    mars_gamma = settings.pop("mars_gamma", 0.0)
    beta1 = settings["betas"][0] if "betas" in settings else settings.get("beta", 0.0)
    mars = Mars(mars_gamma, beta1) if settings.pop("mars", False) else None
    caution = settings.pop("caution", False)
    newton_settings = {name: settings.pop(name) for name in list(settings) if name.startswith("newton_")}
    newton = Newton.from_settings(newton_settings) if newton_settings else None
    parameters: list[Any] = list(policy.parameters())
    if newton and "rank" not in config:
        # heavyball stacks equally shaped parameters of a group, and a pair must find its own. A low-rank preconditioner
        # is one for all weights, and takes them as they are.
        parameters = [{"params": [parameter]} for parameter in parameters]
    inner = make("optimizer", settings.pop("_target_"), parameters, **settings)
    if isinstance(inner, heavyball.utils.StatefulOptimizer):
        inner.consume_grad = False  # gradients are views of one bucket and stay where they are
    if newton:
        newton.attach(inner)
    return Optimizer(inner, mars, caution, newton, inner.param_groups[0].get("precond_lr"))


def correct_gradient_(optimizer: Optimizer, gradient: Tensor) -> None:
    """MARS's correction of the reduced, flat gradient, in place; before it is clipped. Nothing if MARS is off."""
    if optimizer.mars:
        optimizer.mars.correct_(gradient)


def step(optimizer: Optimizer, *, lr: float, seed: int, optimizer_step: int, precond_factor: float = 1.0) -> None:
    """One update from the parameters' gradients; the same bits on every learner if the gradients are the same.

    `precond_factor` scales the rate at which a PSGD preconditioner is fitted.
    """
    for group in optimizer.inner.param_groups:
        group["lr"] = lr
        if optimizer.precond_lr is not None:
            group["precond_lr"] = optimizer.precond_lr * precond_factor
    before = CautiousStep(optimizer.inner) if optimizer.caution else None
    with keyed_generators(keyed_seed(seed, "optimizer", optimizer_step), optimizer.device):
        optimizer.inner.step()
    if before:
        before.mask_update_()
    if optimizer.newton:
        optimizer.newton.check_consumed(optimizer.inner)


def capture(wrapped: Optimizer) -> dict[str, Any]:
    """A copy of everything that the optimizer remembers, made of tensors, numbers, strings, lists and dicts alone."""
    optimizer, mars = wrapped.inner, wrapped.mars
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        "state": [_encode(optimizer.state.get(p, {})) for p in parameters],
        "groups": [
            {key: _encode(value) for key, value in group.items() if key != "params" and _is_plain(value)}
            for group in optimizer.param_groups
        ],
        "inner_group": _encode(getattr(optimizer, "inner_group", {})),
        "previous_gradient": _encode(mars.previous if mars else None),
    }


def restore(wrapped: Optimizer, captured: dict[str, Any]) -> None:
    """Puts back what `capture` copied, bit for bit, onto the parameters' devices.

    Raises ValueError if it was captured from an optimizer of other parameters.
    """
    optimizer = wrapped.inner
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
    if wrapped.mars:
        wrapped.mars.previous = _decode(captured["previous_gradient"], parameters[0].device)


def named_tensors(optimizer: Optimizer, policy: nn.Module) -> dict[str, Tensor]:
    """Every tensor of the optimizer's state that must be the same on all learners, by parameter name and key."""
    tensors: dict[str, Tensor] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, dict):
            for key, item in value.items():
                if NOT_COMPARED not in str(key):
                    walk(f"{name}/{key}", item)
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                walk(f"{name}/{index}", item)

    for name, parameter in policy.named_parameters():
        walk(f"optimizer/{name}", optimizer.inner.state.get(parameter, {}))
    if optimizer.mars and optimizer.mars.previous is not None:
        tensors["optimizer/previous_gradient"] = optimizer.mars.previous
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
