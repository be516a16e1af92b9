"""Contracts of densities: nflows' `Distribution`, and one that samples by a pure function of noise."""

from __future__ import annotations

import torch
from nflows.distributions.base import Distribution
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.tensors import like_of


class Batched(Distribution):
    """nflows' `Distribution`, with samples of one shape whatever the batch size.

    nflows joins batches along the first dimension, which belongs to the context where there is one.
    """

    def sample(self, num_samples: int, context: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        """Sample, at most `batch_size` at a time.

        Returns:
            (num_samples, *shape), or (context, num_samples, *shape).

        Raises:
            TypeError: unless both numbers are positive integers, as in nflows.
        """
        if context is None or batch_size is None or not 0 < batch_size < num_samples:
            return super().sample(num_samples, context, batch_size)
        sizes = [min(batch_size, num_samples - start) for start in range(0, num_samples, batch_size)]
        return torch.cat([super(Batched, self).sample(size, context) for size in sizes], 1)


class Reparametrised(Batched):
    """A density over one event of shape `shape`, with or without a context.

    Subclasses MUST implement `_log_prob(inputs, context)` and `from_noise(noise, context)`. They CAN override
    `noise`, which is standard Gaussian here, and with it `from_gaussian`.

    Inputs are (batch, *shape). A context is (batch, c), or (batch, samples, c); then the result is (batch, samples).
    Each input is evaluated at several contexts, and terms of the input alone are computed once.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def noise(self, size: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Sample noise for `from_noise`, (*size, *shape), on the CPU."""
        return torch.randn(*size, *self.shape, generator=generator)

    def from_gaussian(self, noise: Tensor) -> Tensor:
        """Convert standard Gaussian noise to noise of this density, element by element.

        Markov chains move in Gaussian noise, whatever the noise of a density.

        Args:
            noise: (batch, *shape).

        Raises:
            TzkError: if a subclass overrides `noise` without this method.
        """
        if type(self).noise is not Reparametrised.noise:
            raise TzkError(
                f"{type(self).__name__} cannot be composed: it overrides `noise`, and is expected to override "
                "`from_gaussian` too"
            )
        return noise

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        """The sample of this noise, (batch, *shape); differentiable in noise, context and parameters."""
        raise NotImplementedError

    def _sample(self, num_samples: int, context: Tensor | None) -> Tensor:
        if context is None:
            return self.from_noise(self.noise((num_samples,)).to(like_of(self)))
        rows = context.repeat_interleave(num_samples, 0)
        samples = self.from_noise(self.noise((rows.shape[0],)).to(rows), rows)
        return samples.view(context.shape[0], num_samples, *self.shape)
