"""Where the particles of a composition start: densities of z that can be sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tzk_core.knowledge.base import Knowledge
from tzk_core.knowledge.importance import log_prob_present
from tzk_core.model.flow import SharedFlow
from tzk_core.random_streams import stream


class Lead(Protocol):
    """A density of z, and how noise becomes its samples.

    dims: of the noise of a sample beside that of z.
    """

    dims: int

    def latent(self, noise: Tensor, more: Tensor, temperature: float) -> Tensor:
        """z, (n, *latent_shape), from standard Gaussian noise, (n, *latent_shape), and more of it, (n, dims)."""

    def log_ratio(self, z: Tensor, log_prior: Tensor, *, samples: int, seed: int) -> Tensor:
        """log of its ratio to p(z), (batch,), in nats.

        Args:
            log_prior: log p(z), (batch,).
            samples: of an integral over C.
        """


class PriorLead:
    """p(z) of the shared flow."""

    dims = 0

    def __init__(self, flow: SharedFlow) -> None:
        self.flow = flow

    def latent(self, noise: Tensor, more: Tensor, temperature: float) -> Tensor:
        base = self.flow.base
        return base.from_noise(temperature * base.from_gaussian(noise))

    def log_ratio(self, z: Tensor, log_prior: Tensor, *, samples: int, seed: int) -> Tensor:
        return torch.zeros_like(log_prior)


class MemberLead:
    """p(z given κ=1[, C]) of one knowledge type.

    Args:
        name: of `knowledge`, which its random numbers depend on.
        C: (1, c); None integrates it out.
    """

    def __init__(self, name: str, knowledge: Knowledge, C: Tensor | None = None) -> None:
        self.name, self.knowledge, self.C = name, knowledge, C
        self.dims = knowledge.characteristics if C is None else 0

    def latent(self, noise: Tensor, more: Tensor, temperature: float) -> Tensor:
        C = self.knowledge.imagine(more[:, : self.dims]) if self.C is None else self.C.expand(len(noise), -1)
        return self.knowledge.decode(C, temperature * self.knowledge.latent.from_gaussian(noise))

    def log_ratio(self, z: Tensor, log_prior: Tensor, *, samples: int, seed: int) -> Tensor:
        if self.C is not None:
            return self.knowledge.log_prob_latent(z, self.C.expand(len(z), -1)) - log_prior
        generator = stream(seed, "importance", self.name)
        return log_prob_present(self.knowledge, z, samples, generator=generator) - log_prior


class MixtureLead:
    """Knowledge types of which exactly one is present, mixed by p(κ=1).

    The density is Σ p(κ=1) p(z given κ=1) / Σ p(κ=1). In a consistent model that is p(z) wherever one of them is. The
    last number of a sample's noise chooses which.
    """

    def __init__(self, members: Sequence[MemberLead]) -> None:
        self.members = members
        self.dims = max(member.dims for member in members) + 1

    def _log_shares(self) -> Tensor:
        """log p(κ=1) / Σ p(κ=1), (members,)."""
        logs = torch.stack([member.knowledge.log_prob_presence().present for member in self.members])
        return logs.log_softmax(0)

    def latent(self, noise: Tensor, more: Tensor, temperature: float) -> Tensor:
        edges = self._log_shares().exp().cumsum(0)[:-1].contiguous()
        chosen = torch.bucketize(torch.special.ndtr(more[:, -1]), edges)
        z = torch.empty_like(noise)
        for number, member in enumerate(self.members):
            rows = chosen == number
            if rows.any():
                z[rows] = member.latent(noise[rows], more[rows], temperature)
        return z

    def log_ratio(self, z: Tensor, log_prior: Tensor, *, samples: int, seed: int) -> Tensor:
        each = [member.log_ratio(z, log_prior, samples=samples, seed=seed) for member in self.members]
        return (torch.stack(each, 1) + self._log_shares()).logsumexp(1)
