"""The laws of the type `features`: ratios are Gaussian, classes leave each other alone, in any order."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor
from tzk_plugin_features.features import PatchFeatures
from tzk_plugin_features.knowledge import FeatureKnowledge
from tzk_plugin_features.mixture import Components

import tzk_core
from tzk_core.errors import TzkError
from tzk_core.random_streams import stream
from tzk_core.testing import NotConforming, check_knowledge, check_plugin

SHAPE = (1, 12, 12)
SIZES = {"filters": 6, "patch": 5, "channels": 3, "grid": 2, "components": 2, "candidates": 4}


def images(count: int, *, kind: int = 0) -> Tensor:
    """Bars of three directions, with noise, in (0, 1)."""
    source = torch.Generator().manual_seed(kind)
    noise = 0.2 * torch.rand(count, *SHAPE, generator=source) + 0.05
    places = torch.randint(2, 9, (count,), generator=source)
    for image, place in zip(noise, places.tolist(), strict=True):
        if kind == 0:
            image[0, place : place + 2] += 0.6
        elif kind == 1:
            image[0, :, place : place + 2] += 0.6
        else:
            image[0] += 0.6 * torch.eye(12)
    return noise


def reference() -> Tensor:
    return torch.cat([images(60, kind=kind) for kind in range(3)])


@pytest.fixture(scope="module")
def seen() -> PatchFeatures:
    features = PatchFeatures(SHAPE, filters=6, patch=5, channels=3, grid=2)
    features.fit(reference(), stream(0, "reference"))
    return features


def knowledge_of(seen: PatchFeatures, examples: Tensor) -> FeatureKnowledge:
    knowledge = FeatureKnowledge(SHAPE, **SIZES)
    knowledge.share(seen)
    knowledge.condition(examples, reference())
    return knowledge


def test_all_but_the_scale_of_its_density_conforms(seen: PatchFeatures) -> None:
    """The ratio integrates to an unknown number, as its documentation says, and the kit says so too."""
    with pytest.raises(NotConforming, match="is not that of log_prob, by its integral"):
        check_knowledge(knowledge_of(seen, images(60)), images(4, kind=1))


def test_its_registration_conforms() -> None:
    assert [spec.name for spec in check_plugin("tzk_plugin_features")] == ["features"]


def test_the_log_ratio_is_that_of_torchs_gaussians() -> None:
    source = torch.Generator().manual_seed(0)
    y = torch.randn(200, 4, generator=source, dtype=torch.float64) @ torch.randn(4, 4, generator=source).double() + 1
    components = Components(1, 4).double()
    weights = components.fit(y, shrinkage=0.1, trust=5.0, generator=source)
    centred = y - y.mean(0)
    covariance = centred.T @ centred / 200
    identity = torch.eye(4, dtype=torch.float64)
    covariance = 0.9 * covariance + 0.1 * covariance.diagonal().mean() * identity
    covariance = (200 * covariance + 5 * identity) / 205
    normal = torch.distributions.MultivariateNormal
    x = torch.randn(7, 4, generator=source, dtype=torch.float64)
    own = normal(y.mean(0), covariance).log_prob(x)
    expected = own - normal(torch.zeros(4).double(), identity).log_prob(x)
    torch.testing.assert_close(components(x)[:, 0], expected, rtol=1e-9, atol=1e-9)
    assert weights.tolist() == [1.0]


def test_a_mixture_sums_to_the_density_that_its_components_have(seen: PatchFeatures) -> None:
    knowledge, z = knowledge_of(seen, images(60)).double(), images(5, kind=1).double()
    C = knowledge.support().expand(5, 2, 1)
    joint = knowledge.log_prob_latent(z, C) + knowledge.log_prob_characteristics(C)
    prior = knowledge.latent.base.log_prob(z)
    torch.testing.assert_close(joint.logsumexp(1) - prior, knowledge.log_ratio(z), rtol=1e-9, atol=1e-9)


def test_the_reference_is_whitened(seen: PatchFeatures) -> None:
    y = seen(reference()).double()
    torch.testing.assert_close(y.mean(0), torch.zeros(12).double(), atol=1e-3, rtol=0)
    off = y.T.cov() - y.T.cov().diagonal().diag()
    assert off.abs().max() < 1e-2
    assert y.var(0).max() <= 1.001  # less where the ridge matters


def test_adding_changes_nothing_older_and_the_order_is_of_no_matter(seen: PatchFeatures) -> None:
    shown = images(6, kind=1)
    results = []
    for order in permutations(range(3)):
        model = tzk_core.TzK(tzk_core.build_flow(SHAPE, steps=2, tile=3))
        older: dict[str, tuple[dict[str, Tensor], Tensor]] = {}
        for kind in order:
            model.add(f"bars-{kind}", knowledge_of(seen, images(60, kind=kind)))
            for name, (state, answer) in older.items():
                now = model.find(name)
                assert all(torch.equal(value, state[key]) for key, value in now.state_dict().items())
                assert torch.equal(model.log_prob(shown, name), answer)
            state = {key: value.clone() for key, value in model.find(f"bars-{kind}").state_dict().items()}
            older[f"bars-{kind}"] = state, model.log_prob(shown, f"bars-{kind}")
        results.append(torch.stack([model.log_prob(shown, f"bars-{kind}") for kind in range(3)]))
    assert all(torch.equal(result, results[0]) for result in results)


def test_it_tells_the_classes_by_bayes_and_by_its_discriminators_through_the_flow(seen: PatchFeatures) -> None:
    model = tzk_core.TzK(tzk_core.build_flow(SHAPE, steps=2, tile=3))
    for kind in range(3):
        model.add(f"bars-{kind}", knowledge_of(seen, images(60, kind=kind)))
    fresh = torch.cat([images(70, kind=kind)[60:] for kind in range(3)])
    answers = torch.arange(3).repeat_interleave(10)
    bayes = torch.stack([model.log_prob(fresh, f"bars-{kind}") for kind in range(3)]).argmax(0)
    assert (bayes == answers).float().mean() > 0.9
    presence = torch.stack([model.posterior(fresh)[f"bars-{kind}"].presence for kind in range(3)])
    assert not model.not_vmappable
    assert (presence.argmax(0) == answers).float().mean() > 0.9


def test_it_sees_the_observation_and_not_the_latent(seen: PatchFeatures) -> None:
    model = tzk_core.TzK(tzk_core.build_flow(SHAPE, steps=2, tile=3, initialisation="orthogonal"))
    knowledge = knowledge_of(seen, images(60))
    model.add("bars", knowledge)
    T = images(4, kind=1)
    through = model.log_prob(T, "bars") - model.log_prob(T)
    torch.testing.assert_close(through, knowledge.log_ratio_of(seen(T)), rtol=1e-3, atol=1e-2)


def test_a_sample_is_the_candidate_that_its_ratio_prefers(seen: PatchFeatures) -> None:
    """Among equal candidates but one that is of the class, that one."""
    knowledge = knowledge_of(seen, images(60))
    noise = images(1, kind=2).expand(1, 5, *SHAPE).clone()
    noise[0, 2] = images(1)
    noise[0, -1] = 0.0  # the median of the choice
    component, _ = knowledge.characteristics_given(images(1))
    ratios = knowledge.latent.log_ratios(torch.cat([images(1), images(1, kind=2)]))[:, int(component)]
    assert ratios[0] > ratios[1] + 10  # so that the others have a share below 1e-3
    drawn = knowledge.latent.from_noise(noise, component)
    assert torch.equal(drawn, images(1))


def test_types_added_one_after_the_other_see_the_same() -> None:
    model = tzk_core.TzK(tzk_core.build_flow(SHAPE, steps=2, tile=3))
    for kind in range(2):
        T = torch.cat([images(40, kind=kind), images(40, kind=2)])
        new = FeatureKnowledge(SHAPE, **SIZES)
        tzk_core.add(model, {f"k{kind}": new}, T, {f"k{kind}": (torch.arange(80) < 40).float()}, steps=1, batch_size=16)
    first, second = (model.find(f"k{kind}").latent.seen.state_dict() for kind in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_few_samples_are_enough_and_none_is_an_error(seen: PatchFeatures) -> None:
    one = knowledge_of(seen, images(1))
    assert torch.isfinite(one.log_ratio(reference())).all()
    torch.testing.assert_close(one.characteristics_prior.weights.sum(), torch.tensor(1.0))
    with pytest.raises(TzkError, match="at least one of its images"):
        one.condition(images(1)[:0], reference())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"components": 0}, "components"),
        ({"characteristics": 2}, "characteristics = 1"),
        ({"shrinkage": 2.0}, "shrinkage"),
        ({"patch": 12}, "at least 18 pixels"),
        ({"channels": 7, "filters": 6, "patch": 5}, "1 to filters = 6"),
    ],
)
def test_what_cannot_be_is_said(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(TzkError, match=words):
        FeatureKnowledge(SHAPE, **arguments)  # type: ignore[arg-type]


def test_features_of_other_sizes_are_not_shared(seen: PatchFeatures) -> None:
    with pytest.raises(TzkError, match="same sort"):
        FeatureKnowledge(SHAPE, **{**SIZES, "filters": 7}).share(seen)


def test_flat_references_are_an_error() -> None:
    features = PatchFeatures(SHAPE, filters=6, patch=5, channels=3, grid=2)
    with pytest.raises(TzkError, match="contrast"):
        features.fit(torch.zeros(4, *SHAPE), torch.Generator())


def test_of_a_vector_the_features_are_its_whitened_entries() -> None:
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.tensor([1, 2, 3])
    knowledge = FeatureKnowledge((3,), components=1).double()
    knowledge.latent.seen.fit(x, torch.Generator())
    y = knowledge.latent.see(x)
    values = (x - x.mean(0)).T.cov()
    expected = torch.linalg.inv(values + 0.01 * values.diagonal().mean() * torch.eye(3))  # with the ridge
    centred = x - x.mean(0)
    torch.testing.assert_close(y.square().sum(1), ((centred @ expected) * centred).sum(1), rtol=1e-6, atol=1e-6)


def test_weights_of_one_are_no_weights_to_the_bit(seen: PatchFeatures) -> None:
    examples = images(60)
    plain, weighted = (FeatureKnowledge(SHAPE, **SIZES) for _ in range(2))
    for knowledge, weights in ((plain, None), (weighted, torch.ones(60))):
        knowledge.share(seen)
        knowledge.condition(examples, reference(), weights=weights)
    assert all(torch.equal(value, weighted.state_dict()[key]) for key, value in plain.state_dict().items())


def test_a_sample_of_weight_two_thirds_is_two_samples_of_three() -> None:
    """One Gaussian of weighted samples is that of samples in these multiples, and what weighs nothing is not there."""
    source = torch.Generator().manual_seed(0)
    y = torch.randn(90, 3, generator=source, dtype=torch.float64)
    times = torch.randint(0, 4, (90,), generator=source)
    weighted, repeated = (Components(1, 3).double() for _ in range(2))
    weighted.fit(y, shrinkage=0.1, trust=5.0 / 3, generator=source, weights=times.double() / 3)
    repeated.fit(y.repeat_interleave(times, 0), shrinkage=0.1, trust=5.0, generator=source)
    for name, value in weighted.state_dict().items():
        torch.testing.assert_close(value, repeated.state_dict()[name], rtol=1e-9, atol=1e-9)


def test_a_step_of_em_does_not_lower_the_likelihood() -> None:
    """Classes of one Gaussian each, which no prior shrinks, weighed by Bayes: the law of EM."""
    source = torch.Generator().manual_seed(0)
    y = torch.cat([torch.randn(150, 2, generator=source) + 3 * number for number in range(2)]).double()
    weights, likelihoods = 0.2 + 0.6 * (torch.arange(300) < 150).double(), []
    types = [FeatureKnowledge((2,), components=1, shrinkage=0.0, trust=1e-9).double() for _ in range(2)]
    for _ in range(12):
        shares = torch.stack([weights, 1 - weights], 1)
        for knowledge, own in zip(types, shares.T, strict=True):
            knowledge.condition_on(y, y, weights=own)
        joint = torch.stack([knowledge.log_ratio_of(y) for knowledge in types], 1) + shares.mean(0).log()
        likelihoods.append(float(joint.logsumexp(1).mean()))
        weights = joint.softmax(1)[:, 0]
    assert all(later >= earlier - 1e-6 for earlier, later in zip(likelihoods, likelihoods[1:], strict=False))
    assert likelihoods[-1] > likelihoods[0] + 0.1


@pytest.mark.parametrize("weights", [torch.zeros(4), -torch.ones(4), torch.ones(3)])
def test_weights_that_cannot_be_are_an_error(weights: Tensor) -> None:
    with pytest.raises(TzkError, match="4 weights of at least 0"):
        FeatureKnowledge((2,)).condition_on(torch.randn(4, 2), torch.randn(4, 2), weights=weights)
