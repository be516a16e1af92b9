"""Guidance takes all ratios to a power: against quadrature, and refused where they have no bound."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from known_gaussians import A, B, C, Known, latents, model_of
from worlds import grid

from tzk_core.errors import TzkError
from tzk_core.model.smc import Tempering


def test_guidance_against_quadrature() -> None:
    """The leader's own samples, times the power of every ratio; of the leader's the power less 1."""
    known = {"a": A, "b": B}
    composition = model_of(a=A, b=B, c=C).compose("a", "b", without="c", guidance=3.0)
    lead, follower = (known[name] for name in composition.present)
    nodes, weights = grid(-16, 16, 401)
    z = torch.cartesian_prod(nodes, nodes)
    density = torch.distributions.MultivariateNormal(*lead.conditional()).log_prob(z)
    density = density + 2 * lead.log_prob_present(z) + 3 * follower.log_prob_present(z) + 3 * C.log_prob_absent(z)
    density = density + torch.outer(weights, weights).flatten().log()
    log_normaliser = torch.logsumexp(density, 0).item()
    mean = (density - log_normaliser).exp() @ z
    population = composition.populate(settings=Tempering(2048))
    assert abs(population.log_normaliser - log_normaliser) < 4 * population.standard_error < 0.4
    actual = latents(composition, population)
    error = actual.std(0) / math.sqrt(population.ess)
    assert ((actual.mean(0) - mean).abs() < 4.5 * error).all()
    plain = composition_mean(guidance=1.0)
    assert ((mean - plain).abs() > 9 * error).any(), "or guidance moves nothing"


def composition_mean(guidance: float) -> torch.Tensor:
    """Mean of the particles of the same composition."""
    composition = model_of(a=A, b=B, c=C).compose("a", "b", without="c", guidance=guidance)
    return latents(composition, composition.populate(settings=Tempering(2048))).mean(0)


def test_rejection_and_sequential_monte_carlo_sample_the_same() -> None:
    """The bound of the weight holds for guided ratios, or rejection would cut off their peak."""
    model = model_of(a=Known([0.9], [0.6], [0.3], lean=1.0), b=Known([-0.1], [0.7], [0.3], lean=1.0))
    composition = model.compose("a", without="b", guidance=2.0)
    rejection = composition.populate(sampler="rejection", n=2000)
    tempered = composition.populate(settings=Tempering(2048))
    difference = abs(rejection.log_normaliser - tempered.log_normaliser)
    assert difference < 4.5 * math.hypot(rejection.standard_error, tempered.standard_error) < 0.5
    means = [latents(composition, population).mean(0) for population in (rejection, tempered)]
    spread = latents(composition, rejection).std(0)
    assert ((means[0] - means[1]).abs() < 4.5 * spread * math.sqrt(1 / rejection.ess + 1 / tempered.ess)).all()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"guidance": 0.5}, "the power of all ratios, expected as 1 or more; got 0.5"),
        ({"guidance": math.nan}, "expected as 1 or more; got nan"),
        ({"guidance": 2.0, "side": "decoder"}, "guidance needs ratios that have a bound"),
    ],
)
def test_a_guidance_that_has_no_density_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(TzkError, match=words):
        model_of(a=A, b=B).compose("a", "b", **asked)


def test_guided_compositions_have_no_scores() -> None:
    composition = model_of(a=A, b=B).compose("a", "b", guidance=2.0)
    with pytest.raises(TzkError, match="scores are those of guidance 1; this composition is of 2.0"):
        composition.score(torch.zeros(2, 2).double())


def test_a_guidance_of_1_is_the_composition() -> None:
    model = model_of(a=A, b=B)
    samples = [model.compose("a", "b", **guided).sample(8, seed=3) for guided in ({}, {"guidance": 1.0})]
    assert torch.equal(*samples)
