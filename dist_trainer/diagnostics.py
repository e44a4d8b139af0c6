"""What is measured every `diagnostics_every` iterations: noise of the gradient, preconditioners, sizes of the steps.

Nothing here changes weights, optimizer or random numbers. While an update runs, everything stays on the device; it is
read once, after the last optimizer step.

Legend: W learners, M minibatches of an epoch, K trainable parameters of the policy, N numbers in all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dist_trainer.config import TrainConfig
from dist_trainer.learner import Learner
from dist_trainer.optimizers.state import unit_tensors
from dist_trainer.optimizers.units import Unit

MATRIX_STATE = re.compile("_(Q|GG|U|V|d)_[0-9]+$")  # the end of a name in heavyball's state


def is_due(config: TrainConfig, iteration: int) -> bool:
    """Of the iteration that is in progress, if `iteration` are complete."""
    return config.diagnostics_every > 0 and (iteration + 1) % config.diagnostics_every == 0


class Watch:
    """Looks at one update. Every learner has one: its end is a collective."""

    def __init__(self, learner: Learner, global_samples: int):
        """`global_samples`: of a minibatch, all learners together."""
        self.learner, self.samples = learner, global_samples
        self.names = [name for name, p in learner.policy.named_parameters() if p.requires_grad]
        self.weights = [p.detach() for p in learner.policy.parameters() if p.requires_grad]
        self.before: list[Tensor] = []
        device = learner.world.device
        self.squares = torch.zeros(2, dtype=torch.float64, device=device)  # of gradients: small batches', big ones'
        self.ratios = torch.zeros(2, len(self.weights), dtype=torch.float64, device=device)  # sum, number of terms
        self.epoch_sum = torch.zeros_like(learner.gradients.flat)
        self.minibatches = 0

    def own_gradient(self, flat: Tensor) -> None:
        """(N,) of this learner's part of a minibatch, before it is reduced."""
        if self.learner.world.size > 1:
            self.squares[0] += _square_norm(flat)

    def before_step(self, gradient: Tensor) -> None:
        """(N,) reduced, before anything corrects or clips it; the weights are those that it was taken at."""
        if self.learner.world.size > 1:
            self.squares[1] += _square_norm(gradient)
        else:
            self.squares[0] += _square_norm(gradient)
            self.epoch_sum += gradient
        self.before = [weight.clone() for weight in self.weights]

    def after_step(self) -> None:
        """Takes in how far the weights have moved; at the end of an epoch also its mean gradient."""
        pairs = zip(self.weights, self.before, strict=True)
        moved = torch.stack([_norm(weight - old) for weight, old in pairs])  # (K,)
        size = torch.stack([_norm(old) for old in self.before])  # (K,)
        counts = size > 0  # a step away from zero has no ratio
        self.ratios += torch.stack([torch.where(counts, moved / size, 0), counts])
        self.minibatches += 1
        per_epoch = self.learner.config.ppo.minibatches
        if self.learner.world.size == 1 and self.minibatches % per_epoch == 0:
            self.squares[1] += _square_norm(self.epoch_sum / per_epoch)
            self.epoch_sum.zero_()

    def read(self) -> dict[str, float]:
        """On the first learner everything measured, by name; elsewhere nothing. What is not finite is left out."""
        world = self.learner.world
        if world.size > 1:
            # A part's gradient is its sum over the samples of all: times W it is the mean of its own. The mean over
            # the W parts leaves one W; the big batch is the same on every learner.
            self.squares[0] = world.sum_(self.squares[0].clone()) * world.size
        of_units = self._preconditioners()
        if not world.is_first:
            return {}
        values = self._gradient_noise()
        totals, counts = self.ratios.tolist()
        for name, total, count in zip(self.names, totals, counts, strict=True):
            values[f"update_ratio/{name}"] = total / count if count else math.nan
        values |= of_units
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _preconditioners(self) -> dict[str, float]:
        """Of all units on the first learner; the first group's learners have a part of them each, if sharded."""
        optimizer, rank = self.learner.optimizer, self.learner.world.rank
        group = optimizer.shards.group if optimizer.shards else None
        own = preconditioners(optimizer.own_units) if rank < (group.size if group else 1) else {}
        parts = group.gather_values(own) if group else [own]
        return {name: value for part in parts or [] for name, value in part.items()}

    def _gradient_noise(self) -> dict[str, float]:
        """By two sizes of batch: a learner's part and the whole minibatch, or, with one learner, the minibatch and
        the mean of an epoch's.

        The latter is slightly biased, for the weights move from one of them to the next. Samples of one segment
        depend on each other; batches are made of whole segments, and it is their noise that is measured, counted in
        samples. With one learner and one minibatch there is nothing to compare.
        """
        size, per_epoch = self.learner.world.size, self.learner.config.ppo.minibatches
        small, big = self.squares.tolist()
        small /= self.minibatches
        if size > 1:
            sizes = (self.samples / size, float(self.samples))
            big /= self.minibatches
        else:
            sizes = (float(self.samples), float(self.samples * per_epoch))
            big /= self.minibatches / per_epoch
        ragged = size > 1 and self.learner.config.preemption.fraction is not None
        if sizes[0] == sizes[1] or ragged:  # parts of different sizes
            return {}
        signal, noise = signal_and_noise(small, big, *sizes)
        values = {"gradient_signal": signal, "gradient_noise": noise}
        return values | {"noise_scale": noise / signal} if signal > 0 else values


def signal_and_noise(small: float, big: float, small_size: float, big_size: float) -> tuple[float, float]:
    """|G|^2 of the true gradient and the trace of one sample's covariance, without bias (McCandlish et al., arXiv
    1812.06162, appendix A.1). Either estimate can be negative. Their quotient is the noise scale B_simple, in samples;
    one that is less noisy is had by averaging both over many iterations before dividing.

    `small`, `big`: mean squared norms of gradients that are means over so many samples.
    """
    signal = (big_size * big - small_size * small) / (big_size - small_size)
    noise = (small - big) / (1 / small_size - 1 / big_size)
    return signal, noise


def preconditioners(units: list[Unit]) -> dict[str, float]:
    """Largest eigenvalue (`precond_norm/`) and condition number of every unit that has matrices in its state.

    PSGD and LATHER: P = Q^T Q, the inverse of a curvature where large. PSGD multiplies the gradient by P, QSGD by its
    square root (Q is nearly symmetric there), LATHER takes only P's eigenvectors. SOAP: the factors' moments GG,
    large where gradients are; Adam runs in their eigenvectors. GG is semidefinite and rounded: a factor's smallest
    eigenvalue counts as at least eps of its type times the largest.

    A Kronecker product has the products of its factors' eigenvalues; a dimension without a factor is the identity.
    Where one unit has several such products, they are the blocks of one matrix.
    """
    values = {}
    for unit in units:
        if not all(tensor.isfinite().all() for tensor in unit_tensors(unit).values()):
            continue  # a decomposition would raise an error
        spectra = list(_spectra(unit))
        if spectra:
            largest = torch.cat([high for high, _ in spectra]).max().item()
            smallest = torch.cat([low for _, low in spectra]).min().item()
            values[f"precond_norm/{unit.name}"] = largest
            values[f"precond_condition/{unit.name}"] = largest / smallest if smallest > 0 else math.inf
    return values


def _spectra(unit: Unit) -> Iterator[tuple[Tensor, Tensor]]:
    """Largest and smallest eigenvalues (blocks,) of the unit's blocks, float64."""
    low_rank = []  # (d, U, V) of each weight: together, one matrix
    for weight in unit.weights:
        for view in unit.inner.state.get(weight, {}).values():  # heavyball's state of each part of a weight
            if not isinstance(view, dict):  # of an optimizer of torch's
                continue
            found = {match[1]: state for name, state in view.items() if (match := MATRIX_STATE.search(name))}
            if "GG" in found:  # its Q is a basis, not a factor
                factors = [_gram_extremes(gram) for gram in found["GG"] if gram is not None]
            elif "Q" in found:
                factors = [_triangular_extremes(q) for q in found["Q"]]
            else:
                factors = []
            if factors:
                largest, smallest = (torch.stack(extremes).prod(0) for extremes in zip(*factors, strict=True))
                yield largest, smallest
            if "U" in found:
                u, v = (found[name].double().reshape(-1, found[name].shape[-1]) for name in "UV")  # (n, rank)
                low_rank.append((found["d"].double().flatten(), u, v))
    if low_rank:
        d, u, v = (torch.cat(parts) for parts in zip(*low_rank, strict=True))
        yield low_rank_extremes(d, u, v)


def _gram_extremes(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Of SOAP's factor (blocks, k, k)."""
    eigenvalues = torch.linalg.eigvalsh(gram.double())  # (blocks, k), ascending
    largest = eigenvalues[:, -1]
    return largest, torch.maximum(eigenvalues[:, 0], torch.finfo(gram.dtype).eps * largest)


def _triangular_extremes(stored: Any) -> tuple[Tensor, Tensor]:
    """Of Q^T Q from a factor Q of PSGD: a matrix (blocks, k, k), or the diagonal of one (blocks, k) or (blocks,), or
    (shape, what is stored): of an upper triangle its rows (blocks, k (k + 1) / 2), or without a shape as above."""
    shape, q = (None, stored) if isinstance(stored, Tensor) else stored
    q = q.double()
    if shape is not None:
        rows, columns = torch.triu_indices(*shape[-2:], device=q.device)
        matrix = q.new_zeros(*shape)
        matrix[..., rows, columns] = q
        q = matrix
    singular = torch.linalg.svdvals(q) if q.dim() == 3 else q.abs().reshape(len(q), -1)  # (blocks, k)
    return singular.amax(1).square(), singular.amin(1).square()


def low_rank_extremes(d: Tensor, u: Tensor, v: Tensor, tolerance: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Largest and smallest eigenvalue (1,) of P = Q^T Q, Q = (I + U V^T) diag(d), to a relative `tolerance`; one
    below 1e-30 of the bound on the largest counts as that.

    P - x = (D^2 - x) + C S C^T, with C = D [U, V] and S = [[0, I], [I, U^T U]]. So many eigenvalues of P are below x
    as of D^2 and of the small matrix -S^-1 - C^T (D^2 - x)^-1 C are negative, less the R of -S^-1 (inertia adds up
    over Schur complements, from either side). Counts like this bisect the interval in which they must lie.

    Args:
        d: (N,) float64.
        u, v: (N, R) float64.
    """
    rank, d_squared = u.shape[1], d.square()
    both = torch.cat([u, v], 1)  # (N, 2R)
    c = d[:, None] * both
    eye = torch.eye(rank, dtype=d.dtype, device=d.device)
    corner = torch.cat([torch.cat([u.T @ u, -eye], 1), torch.cat([-eye, torch.zeros_like(eye)], 1)])  # (2R, 2R)
    reduced = torch.linalg.qr(both, mode="r").R
    inside = torch.eye(len(reduced), dtype=d.dtype, device=d.device) + reduced[:, :rank] @ reduced[:, rank:].T
    singular = torch.linalg.svdvals(inside)  # of I + U V^T where it is not the identity
    highest = (d_squared.max() * singular.max().clamp(min=1).square()).item() * (1 + tolerance)
    lowest = (d_squared.min() * singular.min().clamp(max=1).square()).item() * (1 - tolerance)
    lowest = max(lowest, 1e-30 * highest)

    def count_below(x: float) -> int:
        gap = d_squared - x
        gap = torch.where(gap.abs() < 1e-15 * x, 1e-15 * x, gap)
        small = corner - c.T @ (c / gap[:, None])
        return int((gap < 0).sum() + (torch.linalg.eigvalsh(small) < 0).sum()) - rank

    def find(position: int) -> Tensor:
        """The eigenvalue that so many, itself included, do not exceed."""
        low, high = lowest, highest
        while high > low * (1 + tolerance):
            middle = math.sqrt(low * high)
            low, high = (low, middle) if count_below(middle) >= position else (middle, high)
        return d.new_full((1,), math.sqrt(low * high))

    return find(len(d)), find(1)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dtype=torch.float64)


def _square_norm(x: Tensor) -> Tensor:
    return _norm(x).square()
