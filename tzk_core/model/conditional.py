"""Conditionals of a model as densities of nflows and of `torch.distributions`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from tzk_core.distributions.base import Batched
from tzk_core.errors import TzkError
from tzk_core.model.densities import Densities


class Conditional(Batched):
    """p(T given κ=1[, C]) of one knowledge type as an nflows `Distribution`; `context` is C."""

    def __init__(self, model: Densities, name: str) -> None:
        super().__init__()
        self.model = model
        self.name = name

    def rsample(self, num_samples: int, context: Tensor | None = None) -> Tensor:
        """Sample with gradients in all parameters and in C.

        Returns:
            (num_samples, *shape), or (context, num_samples, *shape).
        """
        if context is None:
            return self.model.rsample(num_samples, self.name)
        rows = context.repeat_interleave(num_samples, 0)
        samples = self.model.rsample(len(rows), self.name, rows)
        return samples.view(context.shape[0], num_samples, *self.model.shape)

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return self.model.log_prob(inputs, self.name, context)

    @torch.no_grad()
    def _sample(self, num_samples: int, context: Tensor | None) -> Tensor:
        return self.rsample(num_samples, context)


class ConditionalDistribution(Distribution):
    """p(T), or p(T given K), of a model as a `torch.distributions.Distribution` over events T.

    `model.distribution("digit-7", C)` makes one. It looks at the model's parameters at every call.

    Args:
        model: the model.
        knowledge: names of present knowledge; () is the prior.
        characteristics: C, (*batch, c), of the one present knowledge type; None integrates over C.
        without: names of absent knowledge.
        importance_samples: for the integral over C.
        seed: of the noise of this integral, and of a composition's normaliser.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(
        self,
        model: Densities,
        knowledge: Sequence[str] = (),
        characteristics: Tensor | None = None,
        *,
        without: Sequence[str] = (),
        importance_samples: int = 64,
        seed: int = 0,
    ) -> None:
        self.model, self.knowledge, self.without = model, tuple(knowledge), tuple(without)
        self.importance_samples, self.seed = importance_samples, seed
        self.characteristics = None if characteristics is None else torch.as_tensor(characteristics).to(model.like)
        if self.characteristics is not None:
            self._check_characteristics(self.characteristics)
        self.has_rsample = not self._composed
        batch = torch.Size() if self.characteristics is None else self.characteristics.shape[:-1]
        super().__init__(batch, torch.Size(model.shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Real events of this shape; where the model's domain is smaller, `log_prob` raises outside it."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def estimate(self) -> str:
        """What `log_prob` is where it is no exact density; "" where it is one."""
        if self._composed:
            return "log_prob has an estimated normaliser, whose error all values share"
        if not self.knowledge or self.characteristics is not None:
            return ""
        if self.model.find(self.knowledge[0]).support() is not None:
            return ""
        samples = self.importance_samples
        return f"log_prob integrates over C by {samples} importance samples: a lower bound on average"

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of events, (*samples, *batch): `value` is (*samples, *batch, *event), or broadcasts to it.

        Raises:
            TzkError: for events of another shape, and outside the domain of the model.
        """
        events = len(self.event_shape)
        if value.shape[value.dim() - events :] != self.event_shape or value.dim() < events:
            raise TzkError(f"events are expected as {tuple(self.event_shape)}; got values of {tuple(value.shape)}")
        leading = torch.broadcast_shapes(value.shape[: value.dim() - events], self.batch_shape)
        T = value.expand(*leading, *self.event_shape).reshape(-1, *self.event_shape)
        log_prob = self.model.log_prob(
            T,
            self.knowledge,
            self._rows(leading),
            importance_samples=self.importance_samples,
            seed=self.seed,
            without=self.without,
        )
        return log_prob.view(leading)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Sample with gradients in all parameters and in C, (*sample_shape, *batch, *event).

        Raises:
            TzkError: for a composition, see `has_rsample`.
        """
        leading = torch.Size(sample_shape) + self.batch_shape
        if not leading.numel():
            return self.model.like.new_zeros((*leading, *self.event_shape))
        samples = self.model.rsample(leading.numel(), self.knowledge, self._rows(leading))
        return samples.view(*leading, *self.event_shape)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Sample, (*sample_shape, *batch, *event), seeded by torch's generator."""
        leading = torch.Size(sample_shape) + self.batch_shape
        if not self._composed or not leading.numel():
            return self.rsample(sample_shape)
        samples = self.model.sample(leading.numel(), self.knowledge, without=self.without)
        return samples.view(*leading, *self.event_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ConditionalDistribution:
        """The same distribution, of a larger batch shape."""
        batch_shape = torch.Size(batch_shape)
        C = self.characteristics
        expanded = ConditionalDistribution(
            self.model,
            self.knowledge,
            None if C is None else C.expand(*batch_shape, C.shape[-1]),
            without=self.without,
            importance_samples=self.importance_samples,
            seed=self.seed,
        )
        expanded._batch_shape = batch_shape
        return expanded

    def __repr__(self) -> str:
        absent = [f"not {name}" for name in self.without]
        what = f" given {' and '.join([*self.knowledge, *absent])}" if self.knowledge or absent else ""
        fixed = "" if self.characteristics is None else ", C"
        note = f"; {self.estimate}" if self.estimate else ""
        shapes = f"batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}"
        return f"<p(T{what}{fixed}), {shapes}{note}>"

    @property
    def _composed(self) -> bool:
        return len(self.knowledge) > 1 or bool(self.without)

    def _rows(self, leading: torch.Size) -> Tensor | None:
        """C of every event of these leading dimensions, (events, c); None without C."""
        C = self.characteristics
        return None if C is None else C.expand(*leading, C.shape[-1]).reshape(-1, C.shape[-1])

    def _check_characteristics(self, C: Tensor) -> None:
        """Raise `TzkError` unless C, (*batch, c), is of one present knowledge type."""
        if len(self.knowledge) != 1 or self.without:
            raise TzkError("characteristics of a distribution are those of one present knowledge type, and no other")
        length = self.model.find(self.knowledge[0]).characteristics
        if not C.dim() or C.shape[-1] != length:
            name = self.knowledge[0]
            raise TzkError(f"characteristics of {name!r} are expected as (*batch, {length}); got {tuple(C.shape)}")
