"""The functions of a model that are exported.

They are modules that are functions of tensors alone, with any batch size.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tzk_core import TzK
from tzk_core.knowledge import Knowledge


class Function(NamedTuple):
    """A module with example inputs, each (batch, …).

    `inputs` and `outputs` are their names in the program.
    """

    module: nn.Module
    examples: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class LogProb(nn.Module):
    """log p(T), or log p(T given C, κ=1) of one knowledge type; (batch,) in nats."""

    def __init__(self, model: TzK, knowledge: Knowledge | None) -> None:
        super().__init__()
        self.flow, self.knowledge = model.flow, knowledge

    def forward(self, T: Tensor, C: Tensor | None = None) -> Tensor:
        z, logabsdet = self.flow.encode(T)
        if self.knowledge is None or C is None:
            return self.flow.base.log_prob(z) + logabsdet
        return self.knowledge.log_prob_latent(z, C) + logabsdet


class Encode(nn.Module):
    """z, (batch, *latent_shape), in the model's own type."""

    def __init__(self, model: TzK) -> None:
        super().__init__()
        self.flow = model.flow

    def forward(self, T: Tensor) -> Tensor:
        return self.flow.encode(T)[0]


class SampleFromNoise(nn.Module):
    """T, (batch, *shape), from the noise of z; of a knowledge type given C."""

    def __init__(self, model: TzK, knowledge: Knowledge | None) -> None:
        super().__init__()
        self.flow, self.knowledge = model.flow, knowledge

    def forward(self, noise: Tensor, C: Tensor | None = None) -> Tensor:
        known = self.knowledge
        z = self.flow.base.from_noise(noise) if known is None or C is None else known.decode(C, noise)
        return self.flow.transform.inverse(z)[0]


class InDouble(nn.Module):
    """A module computed in float64, between inputs and outputs of its own type.

    Another runtime adds in another order, and an inverse by products of triangles magnifies what that rounds.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).double()

    def forward(self, inputs: Tensor, C: Tensor | None = None) -> Any:
        given = () if C is None else (C.double(),)
        outputs = self.module(inputs.double(), *given)
        if isinstance(outputs, Tensor):
            return outputs.to(inputs.dtype)
        return tuple(values.to(inputs.dtype) for values in outputs)


@torch.no_grad()
def functions(model: TzK, name: str | None = None, *, batch: int = 3) -> dict[str, Function]:
    """The functions of a model by name, with examples that it sampled.

    Args:
        name: of a knowledge type whose conditional is exported. C is an input: the integral over C is an estimate, and
            no function of T alone.
        batch: of the examples.

    Raises:
        TzkError: if there is no such knowledge.
    """
    knowledge = None if name is None else model.find(name)
    T, like = model.sample(batch, name, seed=0), model.like
    density = model.flow.base if knowledge is None else knowledge.latent
    noise = density.noise((batch,), torch.Generator().manual_seed(0)).to(like)
    C: tuple[Tensor, ...] = ()
    if knowledge is not None:
        prior = knowledge.characteristics_prior
        C = (knowledge.imagine(prior.noise((batch,), torch.Generator().manual_seed(1)).to(like)),)
    given = ("C",) if C else ()
    return {
        "log_prob": Function(LogProb(model, knowledge), (T, *C), ("T", *given), ("log_prob",)),
        "encode": Function(Encode(model), (T,), ("T",), ("z",)),
        "sample_from_noise": Function(SampleFromNoise(model, knowledge), (noise, *C), ("noise", *given), ("T",)),
    }
