"""What conditionals and marginals need of a model: densities and samples by knowledge type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from tzk_core.knowledge.base import Knowledge
from tzk_core.model.composition import Names


class Densities(Protocol):
    """p(T) and p(T given K) of a model, which `TzK` documents."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def like(self) -> Tensor: ...

    def find(self, name: str) -> Knowledge: ...

    def log_prob(
        self,
        T: Tensor,
        knowledge: Names = None,
        characteristics: Tensor | Mapping[str, Tensor] | None = None,
        *,
        importance_samples: int = 64,
        seed: int = 0,
        without: Names = (),
    ) -> Tensor: ...

    def sample(
        self,
        n: int,
        knowledge: Names = None,
        characteristics: Tensor | Mapping[str, Tensor] | None = None,
        *,
        temperature: float = 1.0,
        seed: int | None = None,
        without: Names = (),
    ) -> Tensor: ...

    def rsample(
        self,
        n: int,
        knowledge: Names = None,
        characteristics: Tensor | Mapping[str, Tensor] | None = None,
        *,
        temperature: float = 1.0,
        seed: int | None = None,
    ) -> Tensor: ...
