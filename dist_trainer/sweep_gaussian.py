"""A Gaussian process in a few lines: Matern 5/2 with a length scale for each dimension, fitted by maximum a posteriori.

Rasmussen and Williams, "Gaussian Processes for Machine Learning", algorithm 2.1 and section 5.4.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

STEPS = 60  # of L-BFGS
JITTER = 1e-6


class GaussianProcess:
    """Of y (N,) over points x (N, D) of the unit cube, float64. Outputs are standardized inside."""

    def __init__(self, x: Tensor, y: Tensor):
        self._x, self._mean = x, y.mean()
        self._scale = y.std(unbiased=False).clamp(min=1e-9)
        self._y = (y - self._mean) / self._scale
        self._log = torch.cat([torch.full((x.shape[1],), math.log(0.5)), torch.tensor([0.0, math.log(0.1)])]).double()
        self._fit()
        with torch.no_grad():
            self._factor = torch.linalg.cholesky(self._covariance(self._log))
            self._weights = torch.cholesky_solve(self._y[:, None], self._factor)  # (N, 1)

    def _fit(self) -> None:
        """Length scales, signal and noise (standard deviations), in the logarithm; log-normal priors keep few points
        from being explained by noise alone, or by nothing but it."""
        log = self._log.requires_grad_()
        centre, width = self._log.detach().clone(), torch.full_like(self._log, 1.0)
        optimizer = torch.optim.LBFGS([log], max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            factor = torch.linalg.cholesky(self._covariance(log))
            fit = torch.cholesky_solve(self._y[:, None], factor)[:, 0] @ self._y
            value = 0.5 * fit + factor.diagonal().log().sum() + (((log - centre) / width) ** 2).sum() / 2
            value.backward()
            return value

        try:
            optimizer.step(loss)
        except RuntimeError:  # a step too far: what was there before will do
            log = centre
        self._log = (log if torch.isfinite(log).all() else centre).detach().clamp(-6, 4)

    def _covariance(self, log: Tensor) -> Tensor:
        noise = (2 * log[-1]).exp() + JITTER
        return self._kernel(self._x, self._x, log) + noise * torch.eye(len(self._x), dtype=torch.float64)

    @staticmethod
    def _kernel(a: Tensor, b: Tensor, log: Tensor) -> Tensor:
        scaled = (a[:, None] - b[None]) / log[:-2].exp()
        distance = (5 * (scaled**2).sum(-1) + 1e-12).sqrt()  # (N, M)
        return (2 * log[-2]).exp() * (1 + distance + distance**2 / 3) * (-distance).exp()

    @torch.no_grad()
    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (M,) of the function, without the noise."""
        across = self._kernel(x, self._x, self._log)  # (M, N)
        mean = (across @ self._weights)[:, 0]
        explained = torch.linalg.solve_triangular(self._factor, across.T, upper=False)  # (N, M)
        variance = ((2 * self._log[-2]).exp() - (explained**2).sum(0)).clamp(min=1e-12)
        return self._mean + self._scale * mean, self._scale * variance.sqrt()
