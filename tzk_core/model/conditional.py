"""One knowledge type of a model as an nflows `Distribution` over T."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from tzk_core.distributions.base import Batched

if TYPE_CHECKING:
    from tzk_core.model.tzk import TzK


class Conditional(Batched):
    """p(T given κ=1[, C]) of one knowledge type as an nflows `Distribution`; `context` is C."""

    def __init__(self, model: TzK, name: str) -> None:
        super().__init__()
        self.model = model
        self.name = name

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return self.model.log_prob(inputs, self.name, context)

    def _sample(self, num_samples: int, context: Tensor | None) -> Tensor:
        if context is None:
            return self.model.sample(num_samples, self.name)
        samples = self.model.sample(
            num_samples * context.shape[0], self.name, context.repeat_interleave(num_samples, 0)
        )
        return samples.view(context.shape[0], num_samples, *self.model.shape)
