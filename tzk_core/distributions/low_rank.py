"""A conditional Gaussian in the leading dimensions: a diagonal plus a few directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.conditional import ConditionalGaussian, over_samples, required
from tzk_core.distributions.standard import LOG_2PI
from tzk_core.transforms.bounds import soft_bound, soft_bound_inverse


class LowRankGaussian(Reparametrised):
    """A Gaussian, low-rank plus diagonal, in the leading dimensions.

    There x = μ(C) + σ(C) ⊙ (I + U diag(eˢ − 1) Uᵀ) ε with ε ~ N(0, I). The other dimensions are N(0, I). The covariance
    is D + (D^½ U) diag(e²ˢ − 1) (D^½ U)ᵀ with D = diag σ², low-rank plus diagonal. A direction may be narrower than the
    diagonal (s < 0) or wider.

    The columns of U are orthonormal, as products of Householder reflections. Density and samples are therefore exact
    without factorising a matrix: the determinant is Π σ Π eˢ, and the inverse that of `s` negated. The context, (…, c),
    sets μ and log σ by regression; U and s do not depend on it.

    It starts as N(0, I), apart from the directions of `initialise`. |μ|, |log σ| and |s| stay below their bounds,
    smoothly.

    Args:
        context: c.
        dims: the number of leading dimensions of the flattened event; at most all of them.
        rank: the number of directions; at most `dims`.
        hidden, layers: of the regressor.
        mean_bound: of |μ|.
        log_scale_bound: of |log σ| and |s|.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        context: int,
        *,
        dims: int = 256,
        rank: int = 8,
        hidden: int = 16,
        layers: int = 3,
        mean_bound: float = 20.0,
        log_scale_bound: float = 5.0,
    ) -> None:
        super().__init__(shape)
        self.dims = min(dims, math.prod(shape))
        self.diagonal = ConditionalGaussian(
            (self.dims,),
            context,
            hidden=hidden,
            layers=layers,
            mean_bound=mean_bound,
            log_scale_bound=log_scale_bound,
        )
        self.log_scale_bound = log_scale_bound
        rank = min(rank, self.dims)
        self.reflections = nn.Parameter(torch.eye(self.dims, rank))
        self.raw_log_factor = nn.Parameter(torch.zeros(rank))

    def initialise(self, generator: torch.Generator) -> None:
        """Sample the directions, and factors within a few hundredths of 1.

        With factors of exactly 1 the directions would have no gradient and would stay at their axes.
        """
        with torch.no_grad():
            self.reflections.copy_(torch.randn(self.reflections.shape, generator=generator))
            self.raw_log_factor.copy_(0.02 * torch.randn(self.raw_log_factor.shape, generator=generator))

    def log_factor(self) -> Tensor:
        """s, (rank,): the log of the standard deviation along a direction, relative to the diagonal's."""
        return soft_bound(self.raw_log_factor, self.log_scale_bound)

    def directions(self) -> Tensor:
        """U, (dims, rank): the first columns of the identity, reflected by all reflections in turn.

        The product of all reflections is I - V T⁻¹ Vᵀ, where T is the upper triangle of VᵀV with half its diagonal
        (Joffrain et al. 2006). The columns of V are unit vectors, so that T is never singular.
        """
        rank = self.reflections.shape[1]
        V = self.reflections / self.reflections.square().sum(0).sqrt()
        identity = torch.eye(*V.shape, dtype=V.dtype, device=V.device)
        T = (V.T @ V).triu(1) + 0.5 * identity[:rank]
        return identity - V @ torch.linalg.solve_triangular(T, V[:rank].T, upper=True)

    @torch.no_grad()
    def set(self, mean: Tensor, covariance: Tensor) -> None:
        """Set the moments, whatever the context.

        This is extreme components analysis (Welling, Agakov and Williams 2003) of the correlations. The largest and the
        smallest variances have a direction, and all others have their mean; the numbers of each are those that fit
        best.

        Args:
            mean: (dims,).
            covariance: (dims, dims).
        """
        scale = covariance.diagonal().sqrt()
        roots, axes = torch.linalg.eigh(covariance / torch.outer(scale, scale))
        bulk, extreme = extremes(roots, self.raw_log_factor.shape[0])
        reflections, _ = torch.geqrf(axes[:, extreme])
        self.reflections.copy_(reflections.tril(-1) + torch.eye(*reflections.shape).to(reflections))
        self.raw_log_factor.copy_(soft_bound_inverse(0.5 * (roots[extreme] / bulk).log(), self.log_scale_bound))
        scale = scale * bulk.sqrt()
        last = self.diagonal.regressor[-1]
        assert isinstance(last, nn.Linear)
        last.weight.zero_()
        raw_mean = soft_bound_inverse(mean, self.diagonal.mean_bound)
        last.bias.copy_(torch.cat([raw_mean, soft_bound_inverse(scale.log(), self.log_scale_bound)]))

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        mean, log_scale = self.diagonal.parameters_of(required(context))
        flat = inputs.flatten(inputs.dim() - len(self.shape))
        first, rest = flat[..., : self.dims], flat[..., self.dims :]
        first, mean, log_scale = over_samples(first, mean), over_samples(mean, first), over_samples(log_scale, first)
        standard = (first - mean) * torch.exp(-log_scale)
        along, s = standard @ self.directions(), self.log_factor()
        squares = standard.square().sum(-1) + (along.square() * torch.expm1(-2 * s)).sum(-1)
        others = rest.square().sum(-1)
        squares = squares + (others.unsqueeze(1) if squares.dim() > others.dim() else others)
        return -0.5 * (squares + flat.shape[-1] * LOG_2PI) - log_scale.sum(-1) - s.sum()

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        mean, log_scale = self.diagonal.parameters_of(required(context))
        flat = noise.flatten(noise.dim() - len(self.shape))
        first, rest = flat[..., : self.dims], flat[..., self.dims :]
        U = self.directions()
        first = first + ((first @ U) * torch.expm1(self.log_factor())) @ U.T
        return torch.cat([torch.addcmul(mean, log_scale.exp(), first), rest], -1).view(noise.shape)


def extremes(roots: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Split variances into consecutive ones that are most alike and `rank` others.

    Args:
        roots: (dims,), in ascending order.

    Returns:
        The mean of those that are alike, a scalar, and the positions of the others, (rank,).
    """
    count = len(roots) - rank
    positions = torch.arange(len(roots), device=roots.device)
    if not count:
        return torch.ones_like(roots[0]), positions
    rows = roots.unfold(0, count, 1)
    means = rows.mean(1)
    first = (count * means.log() - rows.log().sum(1)).argmin()
    return means[first], positions[(positions < first) | (positions >= first + count)]
