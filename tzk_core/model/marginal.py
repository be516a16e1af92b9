"""T of which a part is missing: proposals, and the density of the rest.

log p(what was seen) comes by importance sampling from the proposals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from nflows.transforms.base import Transform
from torch import Generator, Tensor

from tzk_core.observations import partly_missing

DEFENSIVE = 0.1
"""The share of proposals from a Gaussian with `WIDER` times the variance: it bounds what a narrow kernel can cost."""

WIDER = 2.0
SHRINKAGE = 1e-3
"""The share of the variances that is added to the covariance, which few draws leave singular."""

CHUNK = 8192
"""So many whole T are evaluated at once."""

DISTANCES = 2**23
"""So many distances of proposals from kernels are in memory at once, 64 MiB."""


@dataclass(frozen=True)
class Marginal:
    """Log-densities of what was seen of T, (batch,) each.

    log_prob: in nats. Exact where nothing is missing. Elsewhere the logarithm of an unbiased estimate of the density,
        a lower bound in the mean.
    effective_samples: the effective size of the importance sample, from 1 to its number; where it is small the estimate
        is poor. Infinite where nothing is missing.
    samples: how many importance samples a row has.
    """

    log_prob: Tensor
    effective_samples: Tensor
    samples: int

    @property
    def estimate(self) -> str:
        """How the log-densities were had, in words."""
        if self.effective_samples.isinf().all():
            return "exact"
        return f"importance-weighted bound over what is missing, {self.samples} samples"


class Filled(NamedTuple):
    """T with what was missing proposed, and log q of the proposals.

    T: (batch, samples, *shape). log_q: (batch, samples).
    """

    T: Tensor
    log_q: Tensor


class Proposal:
    """q(missing T given seen T): the conditional of a kernel density estimate of draws.

    It is made on the real line, u(T) by an element-wise `entrance`. Kernels have the covariance of the draws and
    Silverman's bandwidth, so that every conditional is a mixture of Gaussians in closed form.

    Args:
        draws: (n, *shape), none missing.
        entrance: an element-wise transform of the domain of T to the real line; None for none.
    """

    @torch.no_grad()
    def __init__(self, draws: Tensor, entrance: Transform | None = None) -> None:
        self.entrance = entrance
        u = draws if entrance is None else entrance(draws)[0]
        u = u.flatten(1).double()
        self.u = u[u.isfinite().all(1)]
        count, dims = self.u.shape
        self.mean = self.u.mean(0)
        covariance = torch.atleast_2d(self.u.T.cov(correction=0))
        self.covariance = covariance + (SHRINKAGE * covariance.diagonal().clamp_min(1e-12)).diag()
        self.bandwidth = (4 / (count * (dims + 2))) ** (1 / (dims + 4))

    @torch.no_grad()
    def fill(self, T: Tensor, samples: int, generator: Generator) -> Filled:
        """Propose what is missing of T, (batch, *shape), `samples` times."""
        batch, shape = len(T), T.shape[1:]
        missing = T.flatten(1).isnan()
        seen_u = self._onto_reals(T)
        u = seen_u[:, None].expand(batch, samples, -1).clone()
        log_q = torch.zeros(batch, samples, dtype=torch.float64, device=T.device)
        patterns, of_row = missing.unique(dim=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            alike = torch.nonzero(of_row == number).squeeze(1)
            for rows in alike.split(max(1, DISTANCES // (samples * len(self.u)))) if pattern.any() else ():
                drawn, density = self._conditional(seen_u[rows], pattern, samples, generator=generator)
                u[rows[:, None], :, pattern.nonzero().squeeze(1)] = drawn.transpose(1, 2)
                log_q[rows] = density
        gone = missing[:, None].expand(batch, samples, -1)
        filled = self._back(u.flatten(0, 1), shape).to(T).view(batch, samples, -1)
        filled = torch.where(gone, filled, T.flatten(1)[:, None])
        slopes = self._log_slopes(filled.flatten(0, 1).view(-1, *shape)).view(batch, samples, -1)
        log_q = log_q + torch.where(gone, slopes, 0.0).sum(2)
        return Filled(filled.view(batch, samples, *shape), log_q.to(T))

    def _conditional(self, u: Tensor, pattern: Tensor, samples: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        """Samples of the missing u, and their log-density, from the seen u.

        Returns:
            u, (m, samples, missing), and log q, (m, samples).
        """
        seen, gone = torch.nonzero(~pattern).squeeze(1), torch.nonzero(pattern).squeeze(1)
        factor = torch.linalg.cholesky(self.covariance[seen][:, seen])
        slope = torch.cholesky_solve(self.covariance[seen][:, gone], factor).T  # (missing, seen)
        rest = torch.linalg.cholesky(self.covariance[gone][:, gone] - slope @ self.covariance[seen][:, gone])

        def whitened(values: Tensor) -> Tensor:
            return torch.linalg.solve_triangular(factor, values[:, seen].T, upper=False).T

        distance = torch.cdist(whitened(u), whitened(self.u)) if len(seen) else u.new_zeros(len(u), len(self.u))
        log_weights = (-0.5 * (distance / self.bandwidth) ** 2).log_softmax(1)
        kernels = self.u[:, gone] - self.u[:, seen] @ slope.T
        centre = self.mean[gone] - slope @ self.mean[seen]
        kernel = log_weights.exp().cpu().multinomial(samples, replacement=True, generator=generator).to(u.device)
        broad = (torch.rand(len(u), samples, generator=generator) < DEFENSIVE).to(u.device)[..., None]
        noise = torch.randn(len(u), samples, len(gone), generator=generator, dtype=torch.float64).to(u.device)
        spread = torch.where(broad, math.sqrt(WIDER), self.bandwidth)
        away = torch.where(broad, centre, kernels[kernel]) + spread * (noise @ rest.T)

        def standard(values: Tensor) -> Tensor:
            return torch.linalg.solve_triangular(rest, values.flatten(0, -2).T, upper=False).T.view(values.shape)

        z = standard(away)
        near = torch.cdist(z, standard(kernels).expand(len(u), -1, -1)) / self.bandwidth
        dims, log_rest = len(gone), rest.diagonal().log().sum()
        constant = -0.5 * dims * math.log(2 * math.pi) - log_rest
        narrow = (log_weights[:, None] - 0.5 * near**2).logsumexp(2) - dims * math.log(self.bandwidth)
        wide = -0.5 * (z - standard(centre[None])).square().sum(2) / WIDER - 0.5 * dims * math.log(WIDER)
        density = torch.logaddexp(narrow + math.log1p(-DEFENSIVE), wide + math.log(DEFENSIVE)) + constant
        return away + (u[:, seen] @ slope.T)[:, None], density

    def _onto_reals(self, T: Tensor) -> Tensor:
        """u, (batch, dims), nan where T is."""
        return (T if self.entrance is None else self.entrance(T)[0]).flatten(1).double()

    def _back(self, u: Tensor, shape: torch.Size) -> Tensor:
        if self.entrance is None:
            return u
        like = next(iter(self.entrance.buffers()), u)
        return self.entrance.inverse(u.view(-1, *shape).to(like.dtype if like.is_floating_point() else u.dtype))[0]

    def _log_slopes(self, T: Tensor) -> Tensor:
        """log du/dT, (n, dims), by autograd: u is element-wise."""
        if self.entrance is None:
            return torch.zeros_like(T.flatten(1), dtype=torch.float64)
        with torch.enable_grad():
            T = T.detach().requires_grad_()
            (slopes,) = torch.autograd.grad(self.entrance(T)[0].sum(), T)
        return slopes.flatten(1).double().abs().log()


def marginal(
    log_prob: Callable[[Tensor, Tensor], Tensor], T: Tensor, proposal: Proposal, *, samples: int, generator: Generator
) -> Marginal:
    """log p of what was seen of T.

    log (1/k) Σ p(T_seen, T_j) / q(T_j given T_seen), which is at most log p(T_seen) in the mean.

    Args:
        log_prob: of whole T, (n, *shape), and of the rows of the batch that these are, (n,).
        T: (batch, *shape), nan where missing.
    """
    partial = partly_missing(T)
    at, whole = torch.nonzero(partial).squeeze(1), torch.nonzero(~partial).squeeze(1)
    filled = proposal.fill(T[at], samples, generator)
    every, rows = torch.cat([T[whole], filled.T.flatten(0, 1)]), torch.cat([whole, at.repeat_interleave(samples)])
    parts = zip(every.split(CHUNK), rows.split(CHUNK), strict=True)
    values = torch.cat([log_prob(*part) for part in parts])
    log_weights = values[len(whole) :].view(len(at), samples) - filled.log_q
    log_weights = log_weights.nan_to_num(nan=-math.inf, posinf=-math.inf)  # outside the domain: no density
    effective = torch.exp(2 * log_weights.logsumexp(1) - (2 * log_weights).logsumexp(1)).detach()
    result = values.new_empty(len(T)).index_copy(0, whole, values[: len(whole)])
    result = result.index_copy(0, at, log_weights.logsumexp(1) - math.log(samples))
    counts = values.new_full((len(T),), math.inf).index_copy(0, at, effective.to(values))
    return Marginal(result, counts, samples)
