"""A `Knowledge` held to its laws: shapes, purity, normalisation, and gradients for every parameter."""

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


def check_knowledge(knowledge: Knowledge, z: Tensor, samples: int = 3, tolerance: float = 1e-6) -> None:
    """The five distributions of a `Knowledge` have the right shapes, are finite, pure, normalised, and train.

    Pure: the same noise gives the same answer, no random number is drawn, no buffer changes, and neither the
    samples of a batch nor the `samples` characteristics of one z influence each other. Normalised: p(κ) and
    p(κ given z) sum to 1, and each density that is sampled by standard Gaussian noise is the density of what
    is sampled, by the Jacobian of the sample in the noise. Where C has finitely many values, its probabilities sum to 1
    over the `support`, and what is sampled is in it. `z` is (batch, *latent_shape), few and small;
    `tolerance` is in nats.
    """
    name = type(knowledge).__name__
    knowledge = copy.deepcopy(knowledge).double().train()  # in which batch normalisation and dropout show
    z = z.detach().double()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(z), samples, knowledge.characteristics, generator=generator, dtype=torch.float64)
    latent_noise = knowledge.latent.noise((len(z),), generator).double()

    state = {key: value.clone() for key, value in knowledge.state_dict().items()}
    random_state = torch.get_rng_state()
    values = _distributions(knowledge, z, noise, latent_noise)
    again = _distributions(knowledge, z, noise, latent_noise)
    first = _distributions(knowledge, z[:1], noise[:1, :1], latent_noise[:1])
    changed = [key for key, value in knowledge.state_dict().items() if not torch.equal(value, state[key])]
    expect(not changed, f"{name}: evaluating it should change no state; it changes {', '.join(changed)}")
    expect(torch.equal(random_state, torch.get_rng_state()), f"{name}: draws random numbers of its own")

    for what, (value, shape) in values.items():
        expect_shape(f"{name}: {what}", value, shape)
        expect_finite(f"{name}: {what}", value)
        expect_equal(f"{name}: {what} for the same noise again", again[what][0], value, 0.0)
        part = value[tuple(slice(size) for size in first[what][1])]
        expect_equal(f"{name}: {what} of the first sample by itself", first[what][0], part, tolerance)
    for what in ("log p(κ)", "log p(κ given z)"):
        total = torch.logaddexp(values[f"{what}, κ=0"][0], values[f"{what}, κ=1"][0])
        expect_equal(f"{name}: log of the sum of {what}", total, torch.zeros_like(total), tolerance)
    _check_densities(name, knowledge, z[:1], noise[:1, 0], latent_noise[:1], tolerance)
    expect_gradients(name, knowledge, *(value for value, _ in values.values()))


def _distributions(
    knowledge: Knowledge, z: Tensor, noise: Tensor, latent_noise: Tensor
) -> dict[str, tuple[Tensor, tuple[int, ...]]]:
    """All that a knowledge type computes, each with its right shape. `noise` is (batch, samples, c)."""
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
    name: str, knowledge: Knowledge, z: Tensor, noise: Tensor, latent_noise: Tensor, tolerance: float
) -> None:
    """For x = x(noise), noise standard Gaussian: log p(x) = log N(noise) - log abs det dx/dnoise."""
    C = knowledge.encode(z, noise).detach()
    laws: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor]] = {}
    if (support := knowledge.support()) is not None:
        _check_finite(name, knowledge, z, noise, support)
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
    for what, (sample, log_prob, draw) in laws.items():
        gaussian = -0.5 * (draw.square() + math.log(2 * math.pi)).sum()
        expected = gaussian - torch.linalg.slogdet(jacobian(sample, draw)).logabsdet
        expect_equal(
            f"{name}: {what}: the log-density of a sample", log_prob(sample(draw))[0], expected, tolerance
        )


def _check_finite(name: str, knowledge: Knowledge, z: Tensor, noise: Tensor, support: Tensor) -> None:
    """The support is (m, c); p(C) and p(C given z) sum to 1 over it, and both give no other values."""
    expect_shape(f"{name}: support", support, (len(support), knowledge.characteristics))
    every = support.expand(len(z), *support.shape)
    for what, log_prob in (
        ("p(C)", knowledge.log_prob_characteristics(every)),
        ("p(C given z)", knowledge.log_prob_characteristics_given(every, z)),
    ):
        total = log_prob.logsumexp(1)
        expect_equal(f"{name}: log of the sum of {what} over its support", total, torch.zeros_like(total), 1e-6)
    for what, drawn in (("imagine", knowledge.imagine(noise)), ("encode", knowledge.encode(z, noise))):
        expect(
            bool((drawn.unsqueeze(-2) == support).all(-1).any(-1).all()),
            f"{name}: {what} should give one of the {len(support)} values of its support; it gives {drawn.tolist()}",
        )
