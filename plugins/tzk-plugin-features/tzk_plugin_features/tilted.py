"""The shared prior, tilted towards a class.

The tilt is a ratio of Gaussians in features of the observation.
"""

from __future__ import annotations

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.conditional import required
from tzk_core.distributions.standard import StandardGaussian
from tzk_plugin_features.features import Features
from tzk_plugin_features.mixture import Components, quantile, select


class Tilted(Reparametrised):
    """p(z given C) = p(z) N(y; mean_C, S_C) / N(y; 0, I).

    Here y are the features of T = f_T(z).

    The shared flow is held outside of parameters and buffers, as it is frozen and belongs to the model. Without one,
    z itself is what the features see, and p(z) is N(0, I).

    Exact: the ratio. The density integrates to 1 where y is N(0, I) under p(z), which whitening makes true of its first
    two moments; elsewhere to a number that nobody computes. Samples are one of `candidates` samples of p(z), drawn by
    their ratios: exact as their number grows. A chosen candidate is no smooth function of its noise, so that such
    knowledge cannot lead a composition, which moves in noise.
    """

    def __init__(self, shape: tuple[int, ...], features: Features, components: int, *, candidates: int) -> None:
        super().__init__(shape)
        self.seen = features
        self.components = Components(components, features.dims)
        self.candidates = candidates
        self._flow: tuple[Transform | None, Reparametrised] = (None, StandardGaussian(shape))

    def attach(self, transform: Transform, base: Reparametrised) -> None:
        """Take the shared flow, f_T^{-1} and p(z)."""
        self._flow = (transform, base)

    @property
    def base(self) -> Reparametrised:
        """The density p(z) of the shared flow."""
        return self._flow[1]

    def observe(self, z: Tensor) -> Tensor:
        """T = f_T(z), (batch, *shape), in the type of z."""
        transform = self._flow[0]
        if transform is None:
            return z
        like = next(transform.parameters(), z)
        return transform.inverse(z.to(like.dtype))[0].to(z.dtype)

    def see(self, z: Tensor) -> Tensor:
        """y, (batch, dims)."""
        return self.seen(self.observe(z))

    def log_ratios(self, z: Tensor) -> Tensor:
        """log p(z given C) - log p(z) of all components, (batch, components), in nats."""
        return self.components(self.see(z))

    def noise(self, size: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Noise of the candidates and, in the last row, of the choice.

        Returns:
            (*size, candidates + 1, *shape).
        """
        return torch.randn(*size, self.candidates + 1, *self.shape, generator=generator)

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        context = required(context)
        z = self.base.from_noise(noise[:, :-1].flatten(0, 1))
        ratios = self.log_ratios(z).unflatten(0, (len(noise), self.candidates))
        shares = select(ratios, context.unsqueeze(1)).softmax(1)
        chosen = quantile(noise[:, -1].flatten(1)[:, :1], shares).long()
        one_hot = (chosen == torch.arange(self.candidates, device=z.device)).to(z)
        return torch.einsum("bs,bs...->b...", one_hot, z.unflatten(0, (len(noise), self.candidates)))

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        C = required(context)
        ratios, log_prior = self.log_ratios(inputs), self.base.log_prob(inputs)
        if C.dim() == 3:
            ratios, log_prior = ratios.unsqueeze(1), log_prior.unsqueeze(1)
        return log_prior + select(ratios, C)
