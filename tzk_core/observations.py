"""One batch of observations: T, and the presence and characteristics of knowledge, any part missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor


def partly_missing(T: Tensor) -> Tensor:
    """Rows of T, (batch,) bool, of which some but not all values are nan."""
    missing = T.flatten(1).isnan()
    return missing.any(1) & ~missing.all(1)


@dataclass(frozen=True)
class Observations:
    """T, κ̄ and C̄ of a batch (paper, Section 2).

    T: (batch, *shape), in the scale of the model (images: dequantised, in [0, 1]); a row of nan was not observed.
    presence: (batch, knowledge) in {0, 1}, or nan where κ was not observed; column i belongs to `knowledge[i]`.
    characteristics: by knowledge name, (batch, c), nan in the rows where C was not observed; a name that is left
        out was not observed at all.
    exclusive: groups of knowledge types of which every sample has exactly one, such as the ten digits. It matters where
        nobody said which.
    hidden: (batch,) bool, rows of T that count as missing whatever they hold; None for none. See `hiding`.
    log_q: (batch,), the log-density of what took the place of single missing values of T; None where none did.
    """

    T: Tensor
    presence: Tensor
    knowledge: tuple[str, ...] = ()
    characteristics: Mapping[str, Tensor] = field(default_factory=dict)
    exclusive: tuple[tuple[str, ...], ...] = ()
    hidden: Tensor | None = None
    log_q: Tensor | None = None

    def __len__(self) -> int:
        return self.T.shape[0]

    def present(self, name: str) -> Tensor:
        """Indices, (n,), of the samples in which the knowledge was seen to be present."""
        return torch.nonzero(self._column(name) == 1).squeeze(1)

    def absent(self, name: str) -> Tensor:
        """Indices, (n,), of the samples in which the knowledge was seen to be absent."""
        return torch.nonzero(self._column(name) == 0).squeeze(1)

    def unobserved(self, name: str) -> Tensor:
        """Indices, (n,), of the samples for which nobody said whether the knowledge is present."""
        return torch.nonzero(self._column(name).isnan()).squeeze(1)

    def take(self, rows: Tensor) -> Observations:
        """The samples at these positions, (n,), in their order."""
        return Observations(
            self.T[rows],
            self.presence[rows],
            self.knowledge,
            {name: C[rows] for name, C in self.characteristics.items()},
            self.exclusive,
            log_q=None if self.log_q is None else self.log_q[rows],
        )

    def without_presence(self) -> Observations:
        """The same observations without κ, which may be far larger than the rest."""
        return replace(self, presence=self.presence[:, :0], knowledge=())

    def missing(self) -> Tensor | None:
        """Where T was not observed, (batch,) bool; None if it was everywhere."""
        return self._missing

    @cached_property
    def _missing(self) -> Tensor | None:
        missing = self.T.flatten(1).isnan().all(1)
        if self.hidden is not None:
            missing = missing | self.hidden
        return missing if missing.any() else None

    def partly_missing(self) -> Tensor | None:
        """Where T is partly missing, (batch,) bool.

        Some but not all of T was observed there. None if it is nowhere so.
        """
        partly = partly_missing(self.T)
        if self.hidden is not None:
            partly = partly & ~self.hidden
        return partly if partly.any() else None

    def hiding(self, rows: Tensor) -> Observations:
        """The same observations with T missing in these rows too, (n,) positions in the batch."""
        hidden = torch.zeros(len(self), dtype=torch.bool, device=self.T.device).index_fill(0, rows, value=True)
        return replace(self, hidden=hidden if self.hidden is None else hidden | self.hidden)

    def _column(self, name: str) -> Tensor:
        return self.presence[:, self.knowledge.index(name)]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Observations:
        return Observations(
            self.T.to(device, dtype),
            self.presence.to(device),
            self.knowledge,
            {name: value.to(device, dtype) for name, value in self.characteristics.items()},
            self.exclusive,
            None if self.hidden is None else self.hidden.to(device),
            None if self.log_q is None else self.log_q.to(device, dtype),
        )

    @classmethod
    def only(cls, T: Tensor) -> Observations:
        """Observations without any knowledge: the objective is then maximum likelihood of the flow."""
        return cls(T, T.new_zeros(T.shape[0], 0))
