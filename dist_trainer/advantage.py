"""Advantages and value targets of a rollout.

Legend: T steps, N agent rows. Alignment: obs[t] -> action[t] -> reward[t], terminated[t], truncated[t]; `done` says
that the episode ended with action[t] and that obs[t+1] begins the next one.

Tensors in main memory go through C++ (cpp_envs/advantage.h), which gives the same bits as the torch expressions here.
These serve other devices, and wherever a gradient is wanted.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_trainer import _cpp_envs, advantage_cuda


def next_values(values: Tensor, last_values: Tensor, done: Tensor, final_values: Tensor) -> Tensor:
    """What each step bootstraps from.

    The next step's value; after a truncation that of the truncated episode's own final observation (Pardo et al.,
    "Time limits in reinforcement learning", arXiv 1712.00378); after a termination 0.

    Args:
        values: (T, N) values of obs[t].
        last_values: (N,) values of obs[T].
        done: (T, N) bool.
        final_values: (T, N) values of final observations where truncated, 0 elsewhere.
    """
    following = torch.cat([values[1:], last_values[None]])  # (T, N)
    return torch.where(done, final_values, following)


def gae(
    rewards: Tensor, values: Tensor, bootstrap: Tensor, done: Tensor, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation (Schulman et al., arXiv 1506.02438, equations 11, 12 and 16).

    delta[t] = r[t] + gamma * bootstrap[t] - V[t];  A[t] = sum over l >= 0 of (gamma * lambda)^l * delta[t + l], where
    the sum ends with the episode or with the rollout.

    Args:
        rewards, values, bootstrap, done: (T, N); `bootstrap` from next_values.

    Returns:
        advantages (T, N) and value targets A + V (T, N).
    """
    if _for_cpp(rewards, values, bootstrap):
        advantages = torch.empty(values.shape, dtype=values.dtype)
        r, v, following, ends = (_array(x) for x in (rewards, values, bootstrap, done))
        _cpp_envs.gae(r, v, following, ends, gamma, gae_lambda, advantages.numpy())
        return advantages, advantages + values
    return vtrace(rewards, values, bootstrap, done, torch.zeros_like(values), gamma, gae_lambda, 1.0, 1.0)


def vtrace(
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    done: Tensor,
    log_ratio: Tensor,
    gamma: float,
    vtrace_lambda: float,
    rho_clip: float,
    c_clip: float,
) -> tuple[Tensor, Tensor]:
    """V-trace (Espeholt et al., arXiv 1802.01561, equation 1 and section 4.2), with the lambda of their remark 2.

    vs[t] - V[t] = rho[t] * delta[t] + gamma * c[t] * (vs[t+1] - V[t+1]), with rho = min(rho_clip, ratio),
    c = lambda * min(c_clip, ratio). The advantage is the importance-weighted lambda-return error itself, vs - V, so
    that with ratio 1 it is exactly GAE(lambda).

    Args:
        rewards, values, bootstrap, done: (T, N) as in gae.
        log_ratio: (T, N) log-probability of the action under the learner's policy less that of the acting policy.

    Returns:
        advantages vs - V (T, N) and value targets vs (T, N).
    """
    ratio = log_ratio.exp()
    delta = ratio.clamp(max=rho_clip) * (rewards + gamma * bootstrap - values)  # (T, N)
    decay = gamma * vtrace_lambda * ratio.clamp(max=c_clip) * (~done).to(values.dtype)  # (T, N)
    advantages = _decayed_sums(delta, decay)
    return advantages, advantages + values


def _decayed_sums(terms: Tensor, decay: Tensor) -> Tensor:
    """sums[t] = terms[t] + decay[t] * sums[t + 1], and 0 after the last step: (T, N)."""
    if _for_cpp(terms, decay):
        sums = torch.empty(terms.shape, dtype=terms.dtype)
        _cpp_envs.decayed_sums(_array(terms), _array(decay), sums.numpy())
        return sums
    if terms.is_cuda and advantage_cuda.missing(terms.device) is None:
        return advantage_cuda.backward_sums(terms, decay)
    later = torch.zeros_like(terms[0])  # (N,)
    rows = []
    for t in reversed(range(len(terms))):
        later = terms[t] + decay[t] * later  # two roundings, as in C++: an addcmul has one or two, by the processor
        rows.append(later)
    return torch.stack(rows[::-1])


def _for_cpp(*tensors: Tensor) -> bool:
    """All in main memory, of one type that C++ knows, and none of them wants a gradient."""
    dtype = tensors[0].dtype
    return dtype in (torch.float32, torch.float64) and all(
        x.device.type == "cpu" and x.dtype == dtype and not (x.requires_grad and torch.is_grad_enabled())
        for x in tensors
    )


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().contiguous().numpy()
