"""Samples of a flow, or of one knowledge type in it, from noise and C."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tzk_core.errors import TzkError
from tzk_core.inputs import characteristics_rows
from tzk_core.knowledge.base import Knowledge
from tzk_core.model.flow import SharedFlow
from tzk_core.random_streams import stream
from tzk_core.tensors import like_of, mapped


class Noise(NamedTuple):
    """What a sample is made of.

    z: as the density of z takes it, (n, *latent_shape).
    C: (n, c), standard Gaussian; None where C is fixed, or there is none.
    """

    z: Tensor
    C: Tensor | None = None


class SampleFromNoise(nn.Module):
    """Samples of the prior or of one knowledge type, T = f(noise).

    `noise` draws, which no compiler traces; calling the module does the rest. That is one graph:

        sample = model.sample_from_noise("digit-3")
        compiled = torch.compile(sample, fullgraph=True)
        T = compiled(sample.noise(64, seed=0))  # model.sample(64, "digit-3", seed=0)

    Args:
        knowledge: its name, which the noise derives from, and itself; None for the prior.
        C: (c,) or (n, c); None samples it from its prior.
        temperature: scales the noise of z.
    """

    def __init__(
        self,
        flow: SharedFlow,
        knowledge: tuple[str, Knowledge] | None = None,
        C: Tensor | None = None,
        *,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.flow, self.C, self.temperature = flow, C, temperature
        self.name = knowledge[0] if knowledge else ""
        self.knowledge = knowledge[1] if knowledge else None

    def noise(self, n: int, seed: int | None = None) -> Noise:
        """The noise of n samples, of the model's type and on its device.

        Args:
            seed: None takes one from torch's generator.
        """
        like = like_of(self.flow, *(() if self.knowledge is None else (self.knowledge,)))
        generator = stream(int(torch.randint(2**62, ()))) if seed is None else stream(seed, "sample", self.name)
        if self.knowledge is None:
            return Noise(self.flow.base.noise((n,), generator).to(like))
        prior = self.knowledge.characteristics_prior
        C = prior.noise((n,), generator).to(like) if self.C is None else None
        return Noise(self.knowledge.latent.noise((n,), generator).to(like), C)

    def latents(self, noise: Noise) -> Tensor:
        """z, (n, *latent_shape)."""
        z, knowledge = self.temperature * noise.z, self.knowledge
        if knowledge is None:
            return self.flow.base.from_noise(z)
        if noise.C is not None:
            return knowledge.decode(knowledge.imagine(noise.C), z)
        assert self.C is not None
        return knowledge.decode(fixed_rows(self.C, len(z), knowledge, name=self.name, like=z), z)

    def forward(self, noise: Noise) -> Tensor:
        """T, (n, *shape), differentiable in all parameters, in C and in the noise."""
        T: Tensor = self.flow.transform.inverse(self.latents(noise))[0]
        return T


def fixed_rows(C: Tensor, n: int, knowledge: Knowledge, *, name: str, like: Tensor) -> Tensor:
    """C of a knowledge type, (n, c), from (c,) or (n, c).

    It is checked as `characteristics_rows` does.

    Within `torch.func.vmap`, and in what is compiled, only its form is checked.
    """
    length = knowledge.characteristics
    if torch.compiler.is_compiling() or not mapped():
        return characteristics_rows(C, n, length, name=name, like=like)
    C = torch.as_tensor(C)
    characteristics_rows(torch.zeros(C.shape), n, length, name=name, like=torch.zeros(()))
    return C.to(like).expand(n, length)


def check_sampling(n: int, temperature: float) -> None:
    """Raise `TzkError` for no samples, or a temperature that is none."""
    if n < 1:
        raise TzkError(f"the number of samples is at least 1; got {n}")
    if not 0 <= temperature < math.inf:
        raise TzkError(f"the temperature is finite and at least 0; got {temperature}")
