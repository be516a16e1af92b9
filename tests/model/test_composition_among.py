"""A composition that is led by a mixture of what excludes one another: against quadrature and the model itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from known_gaussians import A, B, C, Known, latents, model_of
from torch import Tensor
from worlds import World, grid

from tzk_core.errors import TzkError
from tzk_core.model.smc import Tempering
from tzk_core.random_streams import stream


def log_mixture(z: Tensor, *members: Known) -> Tensor:
    """log Σ p(κ) p(z given κ=1) / Σ p(κ), by hand."""
    shares = torch.tensor([1 / (1 + math.exp(-member.odds)) for member in members], dtype=torch.float64)
    each = [torch.distributions.MultivariateNormal(*member.conditional()).log_prob(z) for member in members]
    return (torch.stack(each, -1) + (shares / shares.sum()).log()).logsumexp(-1)


@pytest.mark.parametrize(
    ("names", "without", "guidance"),
    [(["c"], [], 1.0), ([], ["c"], 1.0), (["c"], [], 3.0), (["c"], ["d"], 1.0), ([], ["b"], 2.0)],
)
def test_samples_and_normaliser_against_quadrature(names: list[str], without: list[str], guidance: float) -> None:
    known = {"a": A, "b": B, "c": C, "d": Known([0.0, 0.0], [1.0, 0.5], [0.1, 0.2], lean=2.0)}
    composition = model_of(**known).compose(*names, without=without, among=["a", "b"], guidance=guidance)
    nodes, weights = grid(-8, 8, 401)
    z = torch.cartesian_prod(nodes, nodes)
    density = log_mixture(z, A, B) + torch.outer(weights, weights).flatten().log()
    for name in names:
        density = density + guidance * known[name].log_prob_present(z)
    for name in without:
        density = density + guidance * known[name].log_prob_absent(z)
    log_normaliser = density.logsumexp(0).item()
    share = (density - log_normaliser).exp()
    mean = share @ z
    covariance = (z - mean).T @ (share[:, None] * (z - mean))
    population = composition.populate(settings=Tempering(2048))
    assert abs(population.log_normaliser - log_normaliser) < 4 * population.standard_error + 1e-9
    actual = latents(composition, population)
    assert ((actual.mean(0) - mean).abs() < 4.5 * (covariance.diagonal() / population.ess).sqrt()).all()
    assert ((torch.cov(actual.T) - covariance).abs() < 0.15).all()
    led = torch.distributions.MultivariateNormal(*A.conditional()).mean
    assert (mean - led).norm() > 0.1, "or one of the mixture is all that leads"


def test_scores_integrate_to_one() -> None:
    a, b = Known([0.9], [0.6], [0.3]), Known([-0.7], [0.5], [0.3], odds=0.5)
    composition = model_of(a=a, b=b, c=Known([0.1], [0.7], [0.3], lean=1.5)).compose("c", among=("a", "b"))
    z, weights = grid(-6, 6, 601)
    jacobian = 0.5 * torch.log1p(torch.sinh(z).square())
    scores = composition.score(torch.sinh(z)[:, None], importance_samples=256)
    total = ((scores.log_prob + jacobian).exp() * weights).sum().log().item()
    assert abs(total) < 4 * scores.standard_error + 0.01


def test_in_a_consistent_model_it_is_the_composition_without() -> None:
    """p(z) of this world is the mixture of `it` and of the rest."""
    world = World()
    deviation = math.sqrt(1 - 0.6**2)
    odds = math.log((1 - world.share) / world.share)
    model = world.model()
    model.add("rest", Known([world.absent], [deviation], [0.6], odds=odds).knowledge())
    model.add("other", Known([0.5], [0.7], [0.3], lean=1.2, odds=-1.0).knowledge())
    z = torch.randn(6, 1, generator=stream(0), dtype=torch.float64)
    with_choice = model.compose(without="other", among=("it", "rest"))
    both = (with_choice, model.compose(without="other"))
    ratios = [each.log_ratio(z, importance_samples=200_000) for each in both]
    torch.testing.assert_close(*ratios, rtol=0, atol=0.01)
    assert ratios[0].std() > 0.1, "or absence says nothing"


def test_every_knowledge_type_is_drawn_by_its_probability() -> None:
    """`c` says the same of all z, so that nothing is weighed."""
    far = {name: Known([at], [0.1], [0.0], odds=odds) for name, at, odds in (("a", -5.0, 0.0), ("b", 5.0, -1.5))}
    model = model_of(**far, c=Known([0.0], [1.0], [0.0]))
    z = latents(model.compose("c", among=("a", "b")), model.compose("c", among=("a", "b")).populate(n=4000))
    share = 0.5 / (0.5 + 1 / (1 + math.exp(1.5)))
    found = (z < 0).double().mean().item()
    assert abs(found - share) < 4.5 * math.sqrt(share * (1 - share) / 4000)


def test_rejection_has_a_bound() -> None:
    model = model_of(a=A, b=B, c=C)
    composition = model.compose("c", among=("a", "b"))
    smc, exact = composition.populate(settings=Tempering(4096)), composition.populate(n=2000, sampler="rejection")
    assert abs(smc.log_normaliser - exact.log_normaliser) < 4 * math.hypot(smc.standard_error, exact.standard_error)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"among": "a"}, "among takes two knowledge types or more, of which one is present; got 'a' alone"),
        ({"among": ["a", "a"]}, "got 'a' alone"),
        ({"among": ["a", "c"]}, "'c' is present, which leaves no choice among a, c"),
        ({"among": ["a", "B"]}, "no knowledge type 'B'"),
        ({"among": ["a", "b"], "side": "decoder"}, "by the ratios of encoders: leave out side"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(TzkError, match=words):
        model_of(a=A, b=B, c=C).compose("c", **asked)
