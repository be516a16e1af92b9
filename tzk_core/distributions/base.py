"""The contracts of the densities here: nflows' `Distribution`, and one that samples by a pure function of noise."""

from __future__ import annotations

import torch
from nflows.distributions.base import Distribution
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.tensors import like_of


class Batched(Distribution):
    """nflows' `Distribution` whose samples in batches have the shape of samples at once.

    nflows joins batches along the first dimension, which with a context is that of the context.
    """

    def sample(self, num_samples: int, context: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        """(num_samples, *shape), or (context, num_samples, *shape); at most `batch_size` at a time.

        Raises `TypeError` unless both numbers are positive integers, as nflows does.
        """
        if context is None or batch_size is None or not 0 < batch_size < num_samples:
            return super().sample(num_samples, context, batch_size)
        sizes = [min(batch_size, num_samples - start) for start in range(0, num_samples, batch_size)]
        return torch.cat([super(Batched, self).sample(size, context) for size in sizes], 1)


class Reparametrised(Batched):
    """A density over one event of shape `shape`, perhaps given a context.

    Subclasses MUST implement `_log_prob(inputs, context)` and `from_noise(noise, context)`; they CAN override
    `noise`, which is standard Gaussian of shape `shape` here, and with it `from_gaussian`. Inputs are (batch, *shape);
    a context is (batch, c) or (batch, samples, c), and the result is then (batch, samples): every sample of a batch is
    evaluated at several contexts, and what depends on the input alone is computed once.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def noise(self, size: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Noise of shape (*size, *shape), on the CPU, for `from_noise`."""
        return torch.randn(*size, *self.shape, generator=generator)

    def from_gaussian(self, noise: Tensor) -> Tensor:
        """The noise of this density that standard Gaussian noise, (batch, *shape), stands for, element by element.

        Markov chains move in Gaussian noise, whatever that of a density is. Raises `TzkError` where a subclass has
        noise of its own and does not say.
        """
        if type(self).noise is not Reparametrised.noise:
            raise TzkError(
                f"{type(self).__name__} has noise of its own, so that it cannot be composed: expected it to override "
                "`from_gaussian` beside `noise`"
            )
        return noise

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        """The sample that `noise`, (batch, *shape), stands for; differentiable in everything."""
        raise NotImplementedError

    def _sample(self, num_samples: int, context: Tensor | None) -> Tensor:
        if context is None:
            return self.from_noise(self.noise((num_samples,)).to(like_of(self)))
        rows = context.repeat_interleave(num_samples, 0)
        samples = self.from_noise(self.noise((rows.shape[0],)).to(rows), rows)
        return samples.view(context.shape[0], num_samples, *self.shape)
