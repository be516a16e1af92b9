"""Checks that the densities of a `Knowledge` are those of its samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.testing.expectations import expect, expect_equal, expect_shape, jacobian
from tzk_plugin_kit.draws import DRAWS, expect_same_distribution, expect_sampler
from tzk_plugin_kit.values import Inputs

LAWS = {"p(z given C)": "decode", "p(C given z)": "encode", "p(C)": "imagine"}
"""Densities, and the methods that sample from them."""


@dataclass(frozen=True)
class Law:
    """A density and its sampler, at one z or one C.

    sample: (1, n, *shape) noise to (1, n, *shape). log_prob: (1, n, *shape) to (1, n), in nats.
    noise: Gaussian, (1, 1, *shape). draw: noise of a number of samples, (1, n, *shape).
    """

    sample: Callable[[Tensor], Tensor]
    log_prob: Callable[[Tensor], Tensor]
    noise: Tensor
    draw: Callable[[int], Tensor]


def check_densities(
    name: str, knowledge: Knowledge, inputs: Inputs, *, many_to_one: Collection[str], tolerance: float
) -> None:
    """Check each density of a knowledge type against its samples.

    log p(x) = log N(noise) - log |det dx/dnoise| for x = x(noise), where that is one-to-one; else over many draws.
    """
    generator = torch.Generator().manual_seed(1)
    gaussian = _gaussian(knowledge, inputs.z[:1], generator)
    by_draws = {*many_to_one, *(["p(z given C)"] if gaussian is None else [])}
    convert = _unchanged if gaussian is None or "p(z given C)" in by_draws else gaussian  # draws have their own noise
    support = knowledge.support()
    for row in range(min(len(inputs.z), 2)):
        here = inputs.row(row)
        if support is not None:
            _check_finite(name, knowledge, here.z, noise=inputs.noise[row : row + 1], support=support)
        for law, its in _laws(knowledge, here, convert).items():
            what = f"{name}: {law} and {LAWS[law]}"
            if support is not None and law != "p(z given C)":
                continue
            if law not in by_draws:
                _check_jacobian(what, its, tolerance)
            elif row == 0:
                expect_sampler(what, its.sample(its.draw(DRAWS))[0], partial(_log_prob_of_rows, its))


def _log_prob_of_rows(law: Law, values: Tensor) -> Tensor:
    return law.log_prob(values[None])[0]


def _unchanged(noise: Tensor) -> Tensor:
    return noise


def _laws(knowledge: Knowledge, here: Inputs, convert: Callable[[Tensor], Tensor]) -> dict[str, Law]:
    """The densities at one z and one C.

    Args:
        convert: the noise of a law for z, (n, *latent_shape), to what `decode` takes.
    """
    z, noise = here.z, here.noise
    C = knowledge.encode(z, noise[:, 0]).detach()

    def decode(noise: Tensor) -> Tensor:
        flat = convert(noise[0])
        return knowledge.decode(C.expand(len(flat), -1), flat)[None]

    def log_prob_latent(z: Tensor) -> Tensor:
        return knowledge.log_prob_latent(z[0], C.expand(z.shape[1], -1))[None]

    def of_latent(count: int) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        return knowledge.latent.noise((count,), generator).to(z)[None]

    def of_characteristics(count: int) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        return torch.randn(1, count, noise.shape[-1], generator=generator, dtype=noise.dtype)

    generator = torch.Generator().manual_seed(4)
    latent = torch.randn(here.latent_noise.shape, generator=generator, dtype=z.dtype)[None]
    return {
        "p(C given z)": Law(
            lambda noise: knowledge.encode(z, noise),
            lambda C: knowledge.log_prob_characteristics_given(C, z),
            noise,
            of_characteristics,
        ),
        "p(C)": Law(knowledge.imagine, knowledge.log_prob_characteristics, noise, of_characteristics),
        "p(z given C)": Law(decode, log_prob_latent, latent, of_latent),
    }


def _check_jacobian(what: str, law: Law, tolerance: float) -> None:
    gaussian = law.noise
    log_gaussian = -0.5 * (gaussian.square() + math.log(2 * math.pi)).sum()
    expected = log_gaussian - torch.linalg.slogdet(jacobian(law.sample, gaussian)).logabsdet
    expect_equal(
        f"{what}: the log-density of a sample",
        law.log_prob(law.sample(gaussian))[0, 0],
        expected,
        "a sample x(noise) has log N(noise) - log |det ∂x/∂noise|; pass many_to_one where several noises give one x",
        tolerance=tolerance,
        relative=tolerance,
    )


def _gaussian(knowledge: Knowledge, z: Tensor, generator: torch.Generator) -> Callable[[Tensor], Tensor] | None:
    """The latent's `from_gaussian`, once it is checked against its `noise`; None where there is none."""
    latent = knowledge.latent
    noise = latent.noise((2,), torch.Generator().manual_seed(0)).double()
    standard = torch.randn(2, *latent.shape, generator=torch.Generator().manual_seed(0)).double()
    if torch.equal(noise, standard):
        return latent.from_gaussian
    drawn = latent.noise((DRAWS,), generator).to(z)
    try:
        converted = latent.from_gaussian(torch.randn(drawn.shape, generator=generator, dtype=z.dtype))
    except TzkError:
        return None  # samples cannot be composed, and are checked over draws
    what = f"{type(knowledge).__name__}: `noise` and `from_gaussian` of Gaussian noise"
    expect_same_distribution(what, converted, drawn)
    return latent.from_gaussian


def _check_finite(name: str, knowledge: Knowledge, z: Tensor, *, noise: Tensor, support: Tensor) -> None:
    """Check a C of finitely many values.

    p(C) and p(C given z) have to sum to 1 over the support, (m, c), and samples have to be in it.
    """
    expect_shape(f"{name}: support", support, (len(support), knowledge.characteristics))
    values = support.expand(len(z), *support.shape)
    for what, log_prob in (
        ("p(C)", knowledge.log_prob_characteristics(values)),
        ("p(C given z)", knowledge.log_prob_characteristics_given(values, z)),
    ):
        total = log_prob.logsumexp(1)
        what = f"{name}: log of the sum of {what} over its support"
        expect_equal(what, total, torch.zeros_like(total), tolerance=1e-6)
    for what, C in (("imagine", knowledge.imagine(noise)), ("encode", knowledge.encode(z, noise))):
        expect(
            bool((C.unsqueeze(-2) == support).all(-1).any(-1).all()),
            f"{name}: {what} should give one of the {len(support)} values of its support; it gives {C.tolist()}",
        )
