"""The closed forms of few-shot knowledge against brute force, and what its start is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models import LAYERS
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal
from tzk_plugin_few_shot.factors import FactorGaussian
from tzk_plugin_few_shot.hierarchy import Hierarchy, estimate, leave_one_out, predict
from tzk_plugin_few_shot.knowledge import FewShotKnowledge

import tzk_core
from tzk_core.errors import TzkError
from tzk_core.knowledge.flow import FlowKnowledge
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.knowledge.stacking import rectangles
from tzk_core.testing import check_knowledge


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(count: int, per_class: int, *, dims: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Latents, (count · each, dims), and their class: means differ along two directions, samples along all."""
    mixing = torch.eye(dims, dtype=torch.float64) + 0.15 * draw(dims, dims, seed=100)
    groups = torch.arange(count).repeat_interleave(per_class)
    means = torch.zeros(count, dims, dtype=torch.float64)
    means[:, :2] = 3 * draw(count, 2, seed=seed)
    return (means[groups] + draw(count * per_class, dims, seed=seed + 1)) @ mixing.T + 2, groups


def of_one(within: float, between: float | None) -> Hierarchy:
    one = torch.ones(1, 1, dtype=torch.float64)
    ratio = None if between is None else between * one[0]
    return Hierarchy(0 * one[0], one, one, within * one[0], ratio)


@pytest.mark.parametrize("samples", [[1.3], [0.4, -2.0], [3.0, 3.0, 3.0], [1.0, 2.5, 0.5, 1.7, 2.0]])
def test_the_predictive_moments_are_those_of_numerical_integration(samples: list[float]) -> None:
    """Over the mean m and the variance w of a class: w is inverse gamma, m given w normal (W 0.7, B/W 1.5)."""
    trust, within, between = 8.0, 0.7, 1.5
    w = torch.logspace(-2, 2, 400, dtype=torch.float64)[:, None]
    m = torch.linspace(-25, 25, 1001, dtype=torch.float64)[None]
    y = torch.tensor(samples, dtype=torch.float64)
    # mean of w is `within`: shape trust/2 + 1 and scale trust/2 · within; the last term is dw = w d log w
    log = -(trust / 2 + 2) * w.log() - trust / 2 * within / w + w.log()
    log = log + Normal(0.0, (between * w).sqrt()).log_prob(m)
    log = log + sum(Normal(m, w.sqrt()).log_prob(value) for value in y)
    weight = torch.softmax(log.flatten(), 0).view_as(log)
    mean = (weight * m).sum()
    variance = (weight * (w + (m - mean).square())).sum()
    actual = predict(of_one(within, between), y[:, None], trust=trust)
    torch.testing.assert_close(torch.cat(actual), torch.stack([mean, variance]), rtol=1e-3, atol=1e-3)


def test_leave_one_out_is_the_explicit_loop() -> None:
    """Each of y given the others by conditioning their joint Gaussian, dimension by dimension."""
    y, shares = draw(4, 3), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    for share, actual in zip(shares, leave_one_out(y, shares), strict=True):
        joint = (1 - share) * torch.eye(4, dtype=torch.float64) + share
        total = torch.zeros(())
        for out in range(4):
            rest = [i for i in range(4) if i != out]
            zero, every = torch.zeros(4, dtype=torch.float64), MultivariateNormal
            both = every(zero, joint).log_prob(y.T) - every(zero[rest], joint[rest][:, rest]).log_prob(y[rest].T)
            total = total + both.sum()
        assert actual.item() == pytest.approx(total.item())


def test_the_share_between_classes_is_found_from_the_samples() -> None:
    """Without groups, 8 samples that lie close together have a mean that is far from shrunk; scattered ones do not."""
    reference = draw(4000, 40)
    close, scattered = draw(1, 40, seed=1) + 0.3 * draw(8, 40, seed=2), draw(8, 40, seed=3)
    predictions = []
    for y in (close, scattered):
        hierarchy = estimate(reference)
        white = hierarchy.whiten(y)
        mean, variance = predict(hierarchy, white)
        predictions.append((float(mean @ white.mean(0) / white.mean(0).square().sum()), float(variance.mean())))
    (near, narrow), (far, wide) = predictions
    assert near > 0.95 and far < 0.5
    assert narrow < 0.3 and wide > 0.8


def factors(dims: int, count: int) -> FactorGaussian:
    made = FactorGaussian((dims,), count).double()
    made.set(draw(dims), 0.1 + draw(dims, seed=1).square(), draw(dims, count, seed=2))
    return made


@pytest.mark.parametrize("count", [1, 2])
def test_the_marginal_and_the_posterior_of_factors_are_those_of_quadrature(count: int) -> None:
    gaussian, x = factors(3, count), draw(4, 3, seed=5)
    axis = torch.linspace(-12, 12, 801, dtype=torch.float64)
    C = torch.cartesian_prod(*[axis] * count).view(-1, count)
    cell = (axis[1] - axis[0]) ** count
    with torch.no_grad():
        joint = gaussian.log_prob(x, C.expand(4, -1, -1)) + Normal(0.0, 1.0).log_prob(C).sum(-1)
        mean, root = gaussian.posterior(x)
        log_prob = gaussian.log_prob_marginal(x)
    torch.testing.assert_close(log_prob, joint.logsumexp(1) + cell.log())
    weights = joint.softmax(1)
    torch.testing.assert_close(mean, weights @ C)
    residual = C - mean[:, None]
    covariance = torch.einsum("ns,nsi,nsj->nij", weights, residual, residual)
    torch.testing.assert_close(covariance, torch.cholesky_inverse(root).detach().expand_as(covariance))


def test_the_hierarchy_is_found_again() -> None:
    """In its coordinates classes have variance 1 within, and between what they were made with; its matrices agree."""
    z, groups = classes(600, 20)
    hierarchy = estimate(z, groups, directions=2)
    torch.testing.assert_close(hierarchy.matrix @ hierarchy.inverse, torch.eye(6, dtype=torch.float64))
    y = hierarchy.whiten(z).view(600, 20, 6)
    within = (y - y.mean(1, keepdim=True)).flatten(0, 1)
    covariance = within.T @ within / (600 * 19)
    torch.testing.assert_close(covariance, torch.eye(6, dtype=torch.float64), rtol=0, atol=0.1)
    torch.testing.assert_close(hierarchy.between[:2], torch.full((2,), 9.0, dtype=torch.float64), rtol=0.15, atol=0)
    assert (hierarchy.between[2:] == 0.01).all()
    means = y.mean(1)
    torch.testing.assert_close((means.T @ means / 600).diagonal(), hierarchy.between + 1 / 20, rtol=0.15, atol=0.05)


def started(z: Tensor, reference: Tensor, groups: Tensor | None = None, **arguments: float) -> FewShotKnowledge:
    knowledge = FewShotKnowledge(tuple(z.shape[1:]), hidden=8, **arguments).double()  # type: ignore[arg-type]
    knowledge.initialise(torch.Generator().manual_seed(0))
    knowledge.start(z, reference, groups)
    return knowledge


def test_the_type_is_the_predictive_gaussian_whatever_c_explains() -> None:
    z, groups = classes(50, 10)
    new, held = classes(1, 30, seed=7)[0].split([5, 25])
    hierarchy = estimate(z, groups)
    mean, variance = predict(hierarchy, hierarchy.whiten(new))
    covariance = hierarchy.inverse * variance @ hierarchy.inverse.T
    expected = MultivariateNormal(hierarchy.centre + hierarchy.inverse @ mean, covariance).log_prob(held)
    for unexplained in (0.1, 0.9):
        knowledge = started(new, z, groups, unexplained=unexplained)
        torch.testing.assert_close(knowledge.log_prob_present(held).detach(), expected)
        C = draw(25, 2, seed=3)  # Bayes at any C
        by_bayes = knowledge.log_prob_latent(held, C) + knowledge.log_prob_characteristics(C)
        torch.testing.assert_close(
            by_bayes - knowledge.log_prob_characteristics_given(C, held), torch.as_tensor(expected)
        )


def test_the_started_type_conforms() -> None:
    z, groups = classes(50, 10)
    check_knowledge(started(z[:3], z, groups), z[:4])


def test_characteristics_given_are_the_moments_of_encode() -> None:
    z, groups = classes(50, 10)
    knowledge = started(z[:3], z, groups)
    with torch.no_grad():
        knowledge.characteristics_prior.fit(3 + 2 * draw(100, 2))
        C = knowledge.encode(z[:2], draw(2, 20000, 2))
        mean, deviation = knowledge.characteristics_given(z[:2])
    torch.testing.assert_close(C.mean(1), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(C.std(1), deviation, rtol=0.03, atol=0)


@pytest.mark.parametrize("n", [1, 2, 20])
@pytest.mark.parametrize("m", [0, 1, 2, 40])
@pytest.mark.parametrize("grouped", [True, False])
def test_any_number_of_samples_gives_finite_densities(n: int, m: int, grouped: bool) -> None:
    """With a dimension that is constant, and samples that are all the same."""
    z, groups = classes(20, 2)
    z[:, 3] = 1.0
    for new in (z[:n], z[:1].expand(n, -1)):
        knowledge = started(new, z[:m], groups[:m] if grouped else None)
        assert knowledge.log_prob_present(z).isfinite().all()
        assert knowledge.decode(draw(4, 2), draw(4, 6)).isfinite().all()


def test_nothing_to_start_from_is_an_error() -> None:
    z, groups = classes(5, 2)
    with pytest.raises(TzkError, match="at least one latent"):
        started(z[:0], z)
    with pytest.raises(TzkError, match="one class for each of the 10"):
        started(z, z, groups[:3])


def test_many_samples_are_their_own_moments() -> None:
    """In the hierarchy's coordinates, where p(z given κ=1) is diagonal, whatever the reference was."""
    z, groups = classes(40, 10)
    hierarchy = estimate(z, groups)
    new = 2 * draw(40000, 6, seed=9) + 4
    mean, variance = predict(hierarchy, new)
    torch.testing.assert_close(mean, new.mean(0), rtol=0.01, atol=0)
    torch.testing.assert_close(variance, new.var(0), rtol=0.02, atol=0)


@pytest.mark.parametrize("grouped", [True, False])
def test_the_start_beats_the_reference_on_new_classes(grouped: bool) -> None:
    """On average over classes, more samples being worth more; and with groups more than without from one sample."""
    z, groups = classes(200, 20)
    new, _ = classes(30, 40, seed=50)
    hierarchy, gain = estimate(z, groups if grouped else None), {}
    reference = MultivariateNormal(z.mean(0), z.T.cov())
    for shots in (1, 5, 10):
        total = 0.0
        for drawings in new.view(30, 40, 6):
            knowledge = FewShotKnowledge((6,), hidden=8).double()
            knowledge.condition(hierarchy, drawings[:shots])
            held = drawings[shots:]
            total += float((knowledge.log_prob_present(held).detach() - reference.log_prob(held)).mean()) / 30
        gain[shots] = total
    assert gain[10] > gain[5] > gain[1] > (1.0 if grouped else 0.0)


def test_gradient_steps_go_on_from_the_start() -> None:
    z, groups = classes(50, 10)
    new = classes(1, 200, seed=11)[0]
    knowledge = started(new[:3], z, groups)
    before = {key: value.clone() for key, value in knowledge.state_dict().items()}
    optimizer = torch.optim.Adam(knowledge.parameters(), lr=0.02)
    losses = []
    for _ in range(50):
        loss = -knowledge.log_prob_present(new).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.1
    fixed = [key for key, value in knowledge.state_dict().items() if key.startswith("latent.transform")]
    assert fixed and all(torch.equal(before[key], knowledge.state_dict()[key]) for key in fixed)


def flow_of(dims: int, **arguments: Any) -> FlowKnowledge:
    knowledge = FlowKnowledge((dims,), hidden=8, **arguments).double()
    with torch.no_grad():
        for parameter in knowledge.latent.transform.parameters():
            parameter += 0.2 * draw(*parameter.shape, seed=parameter.numel())
    return knowledge


def test_on_the_steps_of_a_flow_it_is_the_same_gaussian_of_what_these_make_of_z() -> None:
    z, groups = classes(50, 10)
    new, held = classes(1, 30, seed=7)[0].split([5, 25])
    flow = flow_of(z.shape[1], steps=2)
    with torch.no_grad():
        stepped = [flow.latent.transform(value) for value in (z, new, held)]
        plain = started(stepped[1][0], stepped[0][0], groups)
        expected = plain.log_prob_present(stepped[2][0]) + stepped[2][1]
        knowledge = FewShotKnowledge(tuple(z.shape[1:]), hidden=8, steps=2).double()
        knowledge.build_on(flow)
        assert not any(parameter.requires_grad for parameter in knowledge.latent.transform.parameters())
        knowledge.start(new, z, groups)
        torch.testing.assert_close(knowledge.log_prob_present(held), expected)
        C = draw(25, 2, seed=3)  # Bayes at any C
        by_bayes = knowledge.log_prob_latent(held, C) + knowledge.log_prob_characteristics(C)
        torch.testing.assert_close(by_bayes - knowledge.log_prob_characteristics_given(C, held), expected)
        sample = knowledge.decode(C, draw(*held.shape, seed=4))
        torch.testing.assert_close(knowledge.latent.transform(sample)[0].isfinite().all(), torch.tensor(True))
    check_knowledge(knowledge, z[:4])


@pytest.mark.parametrize(
    ("steps", "other", "words"),
    [
        (0, lambda d: flow_of(d, steps=2), "the same flow steps"),
        (1, lambda d: flow_of(d, steps=2), "the same flow steps"),
        (1, lambda d: GaussianKnowledge((d,)), "GaussianKnowledge, which has none"),
        (2, lambda d: flow_of(d, steps=2, knee=0.5), "the same flow steps; got FlowKnowledge, which has others"),
        (
            2,
            lambda d: tzk_core.build_knowledge("flow", (d,), steps=2, knee=0),
            "give it steps = 2, tile = 16, knee = 0",
        ),
    ],
    ids=["no steps of its own", "fewer steps", "no flow", "another knee", "another knee, by name"],
)
def test_steps_that_are_not_alike_are_refused(steps: int, other: object, words: str) -> None:
    knowledge = FewShotKnowledge((6,), hidden=8, steps=steps).double()
    with pytest.raises(TzkError, match=words):
        knowledge.build_on(other(6))  # type: ignore[operator]


def test_a_checkpoint_keeps_it(tmp_path: Path) -> None:
    model = tzk_core.TzK(tzk_core.build_flow((3,), layers=LAYERS))
    for name in ("a", "b"):
        model.add(name, tzk_core.build_knowledge("few-shot", (3,), name=name, hidden=6, directions=2))
        z, groups = classes(20, 5, dims=3, seed=len(model.knowledge))
        model.find(name).start(z[:2].float(), z.float(), groups)
    tzk_core.save(model, tmp_path / "model")
    again, T = tzk_core.load(tmp_path / "model"), draw(5, 3).float()
    assert again.find("a").directions == 2
    for name in ("a", "b"):
        assert torch.equal(model.log_prob(T, name, seed=1), again.log_prob(T, name, seed=1))
        assert torch.equal(model.sample(4, name, seed=1), again.sample(4, name, seed=1))


def test_started_types_stack() -> None:
    types = {}
    for seed, name in enumerate("ab"):
        types[name] = tzk_core.build_knowledge("few-shot", (6,), name=name, hidden=6).double()
        z, groups = classes(20, 5, seed=seed)
        types[name].start(z[: seed + 1], z, groups)
    (rectangle,) = rectangles(types, dict.fromkeys(types, torch.arange(4)))
    held, C = draw(2, 4, 6), draw(2, 4, 2)
    together = rectangle.stack(lambda kind, z, C: (kind.log_prob_latent(z, C), kind.encode(z, C)), held, C)
    for index, kind in enumerate(types.values()):
        torch.testing.assert_close(together[0][index], kind.log_prob_latent(held[index], C[index]))
        torch.testing.assert_close(together[1][index], kind.encode(held[index], C[index]))
