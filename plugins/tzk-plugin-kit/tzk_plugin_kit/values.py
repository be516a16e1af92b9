"""All that a knowledge type computes, with the shapes that it should have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.knowledge import Knowledge

Values = dict[str, tuple[Tensor, tuple[int, ...]]]
"""Values and their expected shapes, by what they are."""


@dataclass(frozen=True)
class Inputs:
    """What a knowledge type computes from.

    z: (batch, *latent_shape). noise: of C, (batch, samples, c). latent_noise: of z, (batch, *latent_shape).
    """

    z: Tensor
    noise: Tensor
    latent_noise: Tensor

    @classmethod
    def drawn(cls, knowledge: Knowledge, z: Tensor, *, samples: int) -> Inputs:
        """Noise beside z, in float64."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(len(z), samples, knowledge.characteristics, generator=generator, dtype=torch.float64)
        return cls(z.detach().double(), noise, knowledge.latent.noise((len(z),), generator).double())

    def row(self, row: int) -> Inputs:
        """One sample with one C."""
        rows = slice(row, row + 1)
        return Inputs(self.z[rows], self.noise[rows, :1], self.latent_noise[rows])

    def float(self) -> Inputs:
        """The same in float32."""
        return self._mapped(Tensor.float)

    def double(self) -> Inputs:
        """The same in float64."""
        return self._mapped(Tensor.double)

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> Inputs:
        return Inputs(function(self.z), function(self.noise), function(self.latent_noise))


def distributions(knowledge: Knowledge, inputs: Inputs) -> Values:
    """All values that a knowledge type computes, with their expected shapes."""
    z, noise = inputs.z, inputs.noise
    batch, samples, c = noise.shape
    one, several = knowledge.encode(z, noise[:, 0]), knowledge.encode(z, noise)
    values = {
        "encode": (one, (batch, c)),
        "encode of several": (several, (batch, samples, c)),
        "imagine": (knowledge.imagine(noise[:, 0]), (batch, c)),
        "decode": (knowledge.decode(one, inputs.latent_noise), (batch, *knowledge.latent_shape)),
    }
    pairs = zip(knowledge.log_prob_presence(), knowledge.log_prob_presence_given(z), strict=True)
    for present, (log_prior, log_given) in enumerate(pairs):
        values[f"log p(κ), κ={present}"] = log_prior, ()
        values[f"log p(κ given z), κ={present}"] = log_given, (batch,)
    for what, C, shape in (("", one, (batch,)), (" of several", several, (batch, samples))):
        values[f"log p(C){what}"] = knowledge.log_prob_characteristics(C), shape
        values[f"log p(C given z){what}"] = knowledge.log_prob_characteristics_given(C, z), shape
        values[f"log p(z given C){what}"] = knowledge.log_prob_latent(z, C), shape
    return values
