"""Exchangeable knowledge against brute force, and as knowledge types that are added, saved and composed."""

from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal
from tzk_plugin_few_shot.exchangeable import ClassesKnowledge, ExchangeableKnowledge, shares_between
from tzk_plugin_few_shot.predictive import log_ratio, predictive

import tzk_core
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.errors import TzkError
from tzk_core.knowledge.importance import log_prob_present
from tzk_core.testing import check_knowledge

QUICK: dict[str, Any] = {"steps": 1, "batch_size": 8, "learning_rate": 1e-9}
BETWEEN = torch.tensor([0.3, 0.6, 0.9, 0.95], dtype=torch.float64)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def joint(x: Tensor) -> Tensor:
    """log p of samples of one class together, (n, 4): their covariance is b everywhere, and 1 on the diagonal."""
    n = len(x)
    covariance = BETWEEN[:, None, None] + torch.eye(n, dtype=torch.float64) * (1 - BETWEEN)[:, None, None]
    return MultivariateNormal(torch.zeros(4, n, dtype=torch.float64), covariance).log_prob(x.T).sum()


def ratio_by_hand(x: Tensor, support: Tensor) -> Tensor:
    """log p(x given support) - log p(x) of the joint Gaussians, (n,)."""
    together = torch.stack([joint(torch.cat([support, row[None]])) for row in x])
    return together - joint(support) - Normal(0.0, 1.0).log_prob(x).sum(1)


@pytest.mark.parametrize("samples", [[], [1.3], [0.4, -2.0], [1.0, 2.5, 0.5, 1.7, 2.0]])
def test_the_predictive_density_is_that_of_numerical_integration(samples: list[float]) -> None:
    """Over the mean m of the class, on a grid."""
    m = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    y, x = torch.tensor(samples, dtype=torch.float64), torch.linspace(-3, 3, 7, dtype=torch.float64)
    for between in BETWEEN:
        deviation = (1 - between).sqrt()
        log = Normal(0.0, between.sqrt()).log_prob(m) + Normal(m, deviation).log_prob(y[:, None]).sum(0)
        expected = (log + Normal(m, deviation).log_prob(x[:, None])).logsumexp(1) - log.logsumexp(0)
        mean, variance = predictive(y.sum()[None], len(y), between[None])
        torch.testing.assert_close(Normal(mean, variance.sqrt()).log_prob(x), expected)


@pytest.mark.parametrize("shots", [1, 5])
def test_the_ratio_is_that_of_the_joint_densities(shots: int) -> None:
    support, x = draw(3, shots, 4), draw(6, 4, seed=1)
    expected = torch.stack([ratio_by_hand(x, own) for own in support], 1)
    torch.testing.assert_close(log_ratio(x, *predictive(support.sum(1), shots, BETWEEN)), expected)


def test_samples_of_a_class_are_exchangeable() -> None:
    """Predicted one after the other, in any order, they have one joint density."""
    x = draw(4, 4)
    for order in permutations(range(4)):
        y = x[list(order)]
        total = torch.zeros((), dtype=torch.float64)
        for n in range(4):
            mean, variance = predictive(y[:n].sum(0), n, BETWEEN)
            total = total + Normal(mean, variance.sqrt()).log_prob(y[n]).sum()
        torch.testing.assert_close(total, joint(x))


def started(z: Tensor, **arguments: Any) -> ExchangeableKnowledge:
    knowledge = ExchangeableKnowledge(tuple(z.shape[1:]), features=4, **arguments).double()
    knowledge.initialise(torch.Generator().manual_seed(0))
    knowledge.between.copy_(BETWEEN)
    knowledge.start(z, z[:0])
    return knowledge


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("shape", [(6,), (1, 2, 3)], ids=["vector", "image"])
def test_the_type_has_the_ratio_of_its_features(shots: int, shape: tuple[int, ...]) -> None:
    """By itself, by its density, and by the core's sampling of C, whose encoder is exact."""
    support, z = draw(shots, *shape), draw(5, *shape, seed=1)
    knowledge = started(support)
    expected = ratio_by_hand(z.flatten(1)[:, :4], support.flatten(1)[:, :4])
    log_prior = StandardGaussian(shape).log_prob(z)
    torch.testing.assert_close(knowledge.log_ratio(z).detach(), expected)
    torch.testing.assert_close(knowledge.log_prob_present(z).detach() - log_prior, expected)
    sampled = log_prob_present(knowledge, z, 4000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sampled.detach() - log_prior, expected, rtol=0, atol=0.05)


def test_the_order_of_samples_does_not_matter() -> None:
    support = draw(5, 6)
    one, other = started(support), started(support.flip(0))
    z = draw(3, 6, seed=1)
    torch.testing.assert_close(one.log_prob_present(z), other.log_prob_present(z), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_presence_is_bayes_of_the_class_against_unknown_ones(share: float) -> None:
    z = draw(5, 6, seed=1)
    knowledge = started(draw(2, 6))
    knowledge.log_odds.fill_(math.log(share / (1 - share)))
    present = share * knowledge.log_prob_present(z).exp()
    absent = (1 - share) * StandardGaussian((6,)).log_prob(z).exp()
    actual = knowledge.log_prob_presence_given(z)
    torch.testing.assert_close(actual.present.exp(), present / (present + absent))
    torch.testing.assert_close(actual.absent.exp(), absent / (present + absent))


@pytest.mark.parametrize("made", [ExchangeableKnowledge, ClassesKnowledge])
def test_the_types_conform(made: type[ExchangeableKnowledge]) -> None:
    knowledge = made((6,), features=4, hidden=6).double()
    knowledge.initialise(torch.Generator().manual_seed(0))
    knowledge.start(draw(3, 6), draw(0, 6))
    knowledge.log_odds.fill_(-1.3)
    check_knowledge(knowledge, draw(4, 6))


def test_any_class_is_the_shared_prior() -> None:
    classes = ClassesKnowledge((6,), features=4).double()
    classes.start(draw(3, 6), draw(0, 6))
    torch.testing.assert_close(classes.log_ratio(draw(5, 6)).detach(), torch.zeros(5, dtype=torch.float64))


def test_the_shares_are_found_again_from_groups() -> None:
    groups = torch.arange(800).repeat_interleave(5)
    features = BETWEEN.sqrt() * draw(800, 4)[groups] + (1 - BETWEEN).sqrt() * draw(4000, 4, seed=1)
    torch.testing.assert_close(shares_between(features, groups), BETWEEN, rtol=0, atol=0.03)
    knowledge = ExchangeableKnowledge((4,), features=4).double()
    knowledge.start(features[:2], features, groups)
    torch.testing.assert_close(knowledge.between, shares_between(features, groups))


def model() -> tzk_core.TzK:
    """Over images of 8 x 8 pixels, with a network of random weights and what its classes have in common."""
    flow = tzk_core.build_flow((1, 8, 8), layers=[{"type": "feature-coupling", "features": 4, "channels": 2}])
    made = tzk_core.TzK(flow)
    classes = tzk_core.build_knowledge("exchangeable-classes", made.latent_shape, name="classes", features=4)
    classes.between.copy_(BETWEEN)
    made.add("classes", classes)
    return made


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def add(to: tzk_core.TzK, name: str, T: Tensor) -> ExchangeableKnowledge:
    knowledge = tzk_core.build_knowledge("exchangeable", to.latent_shape, name=name, features=4)
    knowledge.describe_as(implies=["classes"])
    tzk_core.add(to, {name: knowledge}, T, {name: torch.ones(len(T))}, start={name: "classes"}, **QUICK)
    assert isinstance(knowledge, ExchangeableKnowledge)
    return knowledge


@pytest.mark.parametrize("shots", [1, 5])
def test_added_from_samples_it_is_the_closed_form(shots: int) -> None:
    to, T, held_out = model(), images(shots, 1), images(4, 2)
    knowledge = add(to, "new", T)
    with torch.no_grad():
        features = [knowledge.features(to.flow.encode(x)[0]).double() for x in (T, held_out)]
        actual = knowledge.log_ratio(to.flow.encode(held_out)[0]).double()
    expected = ratio_by_hand(features[1], features[0])
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


def test_older_types_are_unchanged_to_the_bit() -> None:
    to, held_out = model(), images(4, 9)
    first = add(to, "first", images(1, 1))
    before = {key: value.clone() for key, value in first.state_dict().items()}
    with torch.no_grad():
        value = first.log_prob_present(to.flow.encode(held_out)[0])
    for number in range(2):
        add(to, f"more-{number}", images(2, 10 + number))
    assert all(torch.equal(value, before[key]) for key, value in to.find("first").state_dict().items())
    with torch.no_grad():
        assert torch.equal(value, to.find("first").log_prob_present(to.flow.encode(held_out)[0]))


def test_it_is_saved_and_opened(tmp_path: Path) -> None:
    to, T = model(), images(3, 4)
    add(to, "new", images(2, 1))
    tzk_core.save(to, tmp_path / "model")
    opened = tzk_core.load(tmp_path / "model")
    with torch.no_grad():
        expected, actual = (m.find("new").log_prob_present(m.flow.encode(T)[0]) for m in (to, opened))  # type: ignore[operator]
    assert torch.equal(actual, expected)
    assert torch.equal(opened.find("classes").between, BETWEEN.float())


def test_it_can_be_sampled_and_composed() -> None:
    """Samples of a class have its features, and so have those of `all of` that class alone."""
    to = model()
    knowledge = add(to, "new", images(5, 1))
    with torch.no_grad():
        own = knowledge.log_ratio(to.flow.encode(to.sample(200, "new", seed=0))[0])
        prior = knowledge.log_ratio(to.flow.encode(to.sample(200, seed=0))[0])
    assert own.median() > prior.median() + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": 7}, "the first dimensions of a latent of .6,., at least one; got 7"),
        ({"share": 1.0}, "share in .0, 1. and unexplained"),
        ({"unexplained": 0.0}, "share in .0, 1. and unexplained"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TzkError, match=message):
        ExchangeableKnowledge((6,), **arguments)


def test_a_start_without_samples_or_from_others_is_refused() -> None:
    knowledge = ExchangeableKnowledge((6,), features=4)
    with pytest.raises(TzkError, match="at least one latent"):
        knowledge.start(torch.zeros(0, 6), torch.zeros(0, 6))
    with pytest.raises(TzkError, match="with 4 features; got ClassesKnowledge with 3 features"):
        knowledge.build_on(ClassesKnowledge((6,), features=3))
    with pytest.raises(TzkError, match="got GaussianKnowledge with no features"):
        knowledge.build_on(tzk_core.build_knowledge("gaussian", (6,)))
