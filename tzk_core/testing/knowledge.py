"""Checks of a `Knowledge`: shapes, purity, normalisation, and gradients for every parameter."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from tzk_core.distributions.base import Reparametrised
from tzk_core.knowledge import Knowledge
from tzk_core.testing.expectations import (
    expect,
    expect_equal,
    expect_finite,
    expect_gradients,
    expect_shape,
    jacobian,
)


def check_knowledge(knowledge: Knowledge, z: Tensor, *, samples: int = 3, tolerance: float = 1e-6) -> None:
    """Check that the five distributions of a `Knowledge` are finite, pure, normalised and trainable.

    Pure: the same noise gives the same result, no random numbers are used, and no buffer changes. Neither the samples
    of a batch nor several C of one z influence each other.

    Normalised: p(κ) and p(κ given z) sum to 1. A density with standard Gaussian noise is that of its samples, by the
    Jacobian of the sample with respect to the noise. Where C has finitely many values, its probabilities sum to 1 over
    the `support`, and samples are in it.

    Args:
        z: (batch, *latent_shape), few and small.
        samples: the number of C for one z.
        tolerance: in nats.

    Raises:
        NotConforming: with what was expected and what it got.
    """
    name = type(knowledge).__name__
    knowledge = copy.deepcopy(knowledge).double().train()  # so that batch normalisation and dropout show
    z = z.detach().double()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(z), samples, knowledge.characteristics, generator=generator, dtype=torch.float64)
    latent_noise = knowledge.latent.noise((len(z),), generator).double()

    state = {key: value.clone() for key, value in knowledge.state_dict().items()}
    random_state = torch.get_rng_state()
    values = _distributions(knowledge, z, noise=noise, latent_noise=latent_noise)
    again = _distributions(knowledge, z, noise=noise, latent_noise=latent_noise)
    first = _distributions(knowledge, z[:1], noise=noise[:1, :1], latent_noise=latent_noise[:1])
    changed = [key for key, value in knowledge.state_dict().items() if not torch.equal(value, state[key])]
    expect(not changed, f"{name}: evaluation should change no state; it changes {', '.join(changed)}")
    unchanged = torch.equal(random_state, torch.get_rng_state())
    expect(unchanged, f"{name}: should use no random numbers of its own; it does")

    for what, (value, shape) in values.items():
        expect_shape(f"{name}: {what}", value, shape)
        expect_finite(f"{name}: {what}", value)
        expect_equal(f"{name}: {what} for the same noise again", again[what][0], value, tolerance=0.0)
        part = value[tuple(slice(size) for size in first[what][1])]
        expect_equal(f"{name}: {what} of the first sample by itself", first[what][0], part, tolerance=tolerance)
    for what in ("log p(κ)", "log p(κ given z)"):
        total = torch.logaddexp(values[f"{what}, κ=0"][0], values[f"{what}, κ=1"][0])
        expect_equal(f"{name}: log of the sum of {what}", total, torch.zeros_like(total), tolerance=tolerance)
    _check_densities(name, knowledge, z[:1], noise=noise[:1, 0], latent_noise=latent_noise[:1], tolerance=tolerance)
    expect_gradients(name, knowledge, *(value for value, _ in values.values()))


def _distributions(
    knowledge: Knowledge, z: Tensor, *, noise: Tensor, latent_noise: Tensor
) -> dict[str, tuple[Tensor, tuple[int, ...]]]:
    """All values that a knowledge type computes, with their expected shapes.

    Args:
        z: (batch, *latent_shape).
        noise: of C, (batch, samples, c).
        latent_noise: of z, (batch, *latent_shape).
    """
    batch, samples, c = noise.shape
    one, several = knowledge.encode(z, noise[:, 0]), knowledge.encode(z, noise)
    values = {
        "encode": (one, (batch, c)),
        "encode of several": (several, (batch, samples, c)),
        "imagine": (knowledge.imagine(noise[:, 0]), (batch, c)),
        "decode": (knowledge.decode(one, latent_noise), (batch, *knowledge.latent_shape)),
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


def _check_densities(
    name: str, knowledge: Knowledge, z: Tensor, *, noise: Tensor, latent_noise: Tensor, tolerance: float
) -> None:
    """Check log p(x) = log N(noise) - log |det dx/dnoise| for x = x(noise)."""
    C = knowledge.encode(z, noise).detach()
    laws: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor]] = {}
    if (support := knowledge.support()) is not None:
        _check_finite(name, knowledge, z, noise=noise, support=support)
    else:
        laws["p(C given z) and encode"] = (
            lambda noise: knowledge.encode(z, noise),
            lambda C: knowledge.log_prob_characteristics_given(C, z),
            noise,
        )
        laws["p(C) and imagine"] = (knowledge.imagine, knowledge.log_prob_characteristics, noise)
    if type(knowledge.latent).noise is Reparametrised.noise:  # otherwise the noise is not Gaussian
        laws["p(z given C) and decode"] = (
            lambda noise: knowledge.decode(C, noise),
            lambda z: knowledge.log_prob_latent(z, C),
            latent_noise,
        )
    for what, (sample, log_prob, gaussian) in laws.items():
        log_gaussian = -0.5 * (gaussian.square() + math.log(2 * math.pi)).sum()
        expected = log_gaussian - torch.linalg.slogdet(jacobian(sample, gaussian)).logabsdet
        actual = log_prob(sample(gaussian))[0]
        expect_equal(f"{name}: {what}: the log-density of a sample", actual, expected, tolerance=tolerance)


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
