"""Latents of a flow, or of one knowledge type in it, from noise and C."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.inputs import characteristics_rows
from tzk_core.knowledge.base import Knowledge
from tzk_core.model.flow import SharedFlow
from tzk_core.random_streams import stream
from tzk_core.tensors import like_of, mapped


def latents(
    flow: SharedFlow,
    knowledge: tuple[str, Knowledge] | None,
    C: Tensor | None,
    *,
    n: int,
    seed: int | None,
    temperature: float = 1.0,
) -> Tensor:
    """Sample z, (n, *latent_shape), of the prior or of a knowledge type.

    Args:
        knowledge: its name, which the noise derives from, and itself; None for the prior.
        C: (c,) or (n, c); None samples it from its prior.
        seed: None takes one from torch's generator.
        temperature: scales the noise of z.
    """
    name, like = knowledge[0] if knowledge else "", like_of(flow, *((knowledge[1],) if knowledge else ()))
    generator = stream(int(torch.randint(2**62, ()))) if seed is None else stream(seed, "sample", name)
    if knowledge is None:
        return flow.base.from_noise(temperature * flow.base.noise((n,), generator).to(like))
    member = knowledge[1]
    if C is None:
        C = member.imagine(member.characteristics_prior.noise((n,), generator).to(like))
    else:
        C = fixed_rows(C, n, member, name=name, like=like)
    return member.decode(C, temperature * member.latent.noise((n,), generator).to(like))


def fixed_rows(C: Tensor, n: int, knowledge: Knowledge, *, name: str, like: Tensor) -> Tensor:
    """C of a knowledge type, (n, c), from (c,) or (n, c).

    It is checked as `characteristics_rows` does.

    Within `torch.func.vmap` only its form is checked.
    """
    length = knowledge.characteristics
    if not mapped():
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
