"""One of a group is present and nobody said which: enumerated by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from models import NAN, assert_equal_gradients, batch, gradients, sides, small, steady
from torch import Tensor

from tzk_core.config import config_from
from tzk_core.config.problems import ConfigError
from tzk_core.model import TzK
from tzk_core.objective import Objective, Wording, mental_capacity
from tzk_core.observations import Observations
from tzk_core.runs.experiment import Experiment

NAMES = ("k0", "k1", "k2")


def exclusive(presence: list[list[float]], **more: object) -> Observations:
    return replace(batch(presence, **more), exclusive=(NAMES,))  # type: ignore[arg-type]


def enumerated(model: TzK, seen: Observations, *, prior: str, row: int, candidates: list[str]) -> tuple[Tensor, Tensor]:
    """By candidate: log p(i given z) of the encoder, and log w_i p(T given K^i) / p(T), an ELBO in C, of one sample."""
    z, logabsdet = model.flow.encode(seen.T[row : row + 1])
    log_prob_z = model.flow.base.log_prob(z)
    divisor = log_prob_z if prior == "paper" else (log_prob_z + logabsdet).detach() - logabsdet
    odds, weighted, weights = [], [], []
    for name in candidates:
        knowledge = model.find(name)
        C = knowledge.encode(z, torch.full((1, 2), 0.5, dtype=torch.float64))
        log_q = knowledge.log_prob_characteristics_given(C, z)
        _, decoder = sides(knowledge, z, C, log_ratio=knowledge.log_prob_latent(z, C) - divisor, log_q=log_q)
        no, yes = knowledge.log_prob_presence_given(z.detach())  # a guess may not bend the flow towards itself
        odds.append((yes - no).squeeze())
        weighted.append(decoder.squeeze())
        weights.append(knowledge.log_prob_presence().present.exp())
    shares = torch.stack(odds).exp()
    return (shares / shares.sum()).log(), torch.stack(weighted) - torch.stack(weights).sum().log()


@pytest.mark.parametrize("prior", ["full", "paper"])
@pytest.mark.parametrize(
    ("presence", "candidates"),
    [([NAN, NAN, NAN], ["k0", "k1", "k2"]), ([NAN, 0, NAN], ["k0", "k2"]), ([NAN, 0, 0], ["k0"])],
    ids=["three candidates", "two", "one"],
)
def test_both_sides_are_summed_over_which_one_it_is(presence: list[float], candidates: list[str], prior: str) -> None:
    model, seen = small(["gaussian", "flow", "gaussian"]), exclusive([presence])
    multipliers = {"k0": 0.1, "k1": 0.3, "k2": 0.4}
    capacity = mental_capacity(
        model, seen, steady(), multipliers=multipliers, objective=Objective(wording=Wording(prior=prior))
    )
    encoder, decoder = enumerated(model, seen, prior=prior, row=0, candidates=candidates)
    torch.testing.assert_close(encoder.exp().sum(), torch.ones((), dtype=torch.float64))
    known = model.flow.log_prob(seen.T)[0]
    z, _ = model.flow.encode(seen.T)
    for name in set(NAMES) - set(candidates):
        # absent knowledge is the same on both sides, and the discriminator's to learn once
        log_absent = model.find(name).log_prob_presence_given(z).absent[0]
        known = known + log_absent
    torch.testing.assert_close(capacity.log_capacity[0], known + 0.5 * decoder.exp().sum().log())
    shares = (decoder.exp() / decoder.exp().sum()).detach()
    factors = torch.tensor([multipliers[name] for name in candidates], dtype=torch.float64)
    penalty = (shares * factors * (decoder - encoder).abs()).sum()
    torch.testing.assert_close(capacity.value, capacity.log_capacity.mean() - penalty)
    if len(candidates) == 3:
        assert_equal_gradients(capacity.value, known + 0.5 * decoder.exp().sum().log() - penalty, model)
    if prior == "paper":
        signs = (decoder - encoder).detach().sign()
        torch.testing.assert_close(capacity.prior_weight, 1 - (shares * (0.5 - factors * signs)).sum())


def test_samples_that_say_which_one_it_is_are_as_they_are_without_the_group() -> None:
    model = small(["gaussian", "flow", "gaussian"])
    seen = exclusive([[1, 0, 0], [NAN, 1, NAN], [NAN, NAN, NAN], [0, 0, 0]])
    grouped = mental_capacity(model, seen, steady(), multipliers={"k0": 0.2})
    plain = mental_capacity(model, replace(seen, exclusive=()), steady(), multipliers={"k0": 0.2})
    decided = torch.tensor([0, 1, 3])
    torch.testing.assert_close(grouped.log_capacity[decided], plain.log_capacity[decided])
    assert not torch.allclose(grouped.log_capacity[2], plain.log_capacity[2])


def test_a_sample_teaches_each_conditional_by_its_share_of_the_mixture() -> None:
    """The pitfall that this is for: where every conditional beats the prior, independent sums teach all of them the
    whole sample; a mixture divides among them what one labelled sample teaches."""
    model, unlabelled = small(["gaussian"] * 3, spread=0.01), exclusive([[NAN, NAN, NAN]])
    z, _ = model.flow.encode(unlabelled.T)
    with torch.no_grad():
        for number, (_, knowledge) in enumerate(model.named_knowledge()):
            bias = knowledge.latent.regressor[
                -1
            ].bias  # means, then log-scales: each sits on the sample, narrower than p(z)
            bias[:3], bias[3:] = z[0], -2.0
            knowledge.log_odds.fill_(-1.0 - 0.2 * number)

    def pulls(seen: Observations) -> Tensor:
        """By knowledge type, d value / d log-scales."""
        value = mental_capacity(model, seen, steady()).value
        biases = [model.find(name).latent.regressor[-1].bias for name in NAMES]
        actual = torch.autograd.grad(value, biases, allow_unused=True)
        return torch.stack([torch.zeros(()).double() if item is None else item[3:].sum() for item in actual])

    labelled = sum(pulls(replace(unlabelled, presence=row[None])) for row in torch.eye(3, dtype=torch.float64))
    divided = pulls(unlabelled) / labelled
    assert divided.sum().item() == pytest.approx(1.0, rel=0.02)
    assert (divided[:-1] > divided[1:]).all(), "the more frequent one has the larger share"
    assert (pulls(replace(unlabelled, exclusive=())) / labelled).sum() > 2.5


def test_the_constraint_teaches_discriminators_without_labels() -> None:
    """With λ = 0 nothing reaches them; with λ they move towards the share that the mixture gives."""
    model, seen = small(["gaussian"] * 3), exclusive([[NAN, NAN, NAN]] * 6)
    free = mental_capacity(model, seen, steady())
    bound = mental_capacity(model, seen, steady(), multipliers=dict.fromkeys(NAMES, 0.3))
    for name in NAMES:
        part = model.find(name).discriminator
        assert all((g == 0).all() for g in gradients(free.value, part).values())
        assert any((g != 0).any() for g in gradients(bound.value, part).values())


def test_a_config_says_which_knowledge_is_exclusive_and_how_often_labelled_samples_come() -> None:
    table = {"name": "digit-{label}", "present": {"dataset": "digits", "label": "each"}, "type": "gaussian"}
    sizes = {"train": 200, "validation": 20, "test": 20, "size": 8}
    tables = {
        "name": "few",
        "flow": {"layers": [{"type": "logit"}, {"type": "affine"}]},
        "datasets": [{"name": "digits", "type": "glyph-digits", **sizes}],
        "knowledge": [{**table, "labelled": 20, "exclusive": True}],
        "training": {"steps": 1, "batch_size": 40, "labelled_share": 0.3},
    }
    experiment = Experiment(config_from(tables))
    seen = experiment.batches.batch(0)
    assert seen.exclusive == (tuple(f"digit-{i}" for i in range(10)),)
    assert int((~seen.presence.isnan().any(1)).sum()) == 12
    assert experiment.batches.population().tolist() == pytest.approx([0.1] * 10)


def test_labelled_samples_are_found_where_the_model_lacks_knowledge_of_the_config() -> None:
    """As after `tzk knowledge remove`: columns of presence are the config's, whatever the model still has."""
    table = {"name": "digit-{label}", "present": {"dataset": "digits", "label": "each"}, "type": "gaussian"}
    sizes = {"train": 200, "validation": 20, "test": 20, "size": 8}
    tables = {
        "name": "few",
        "flow": {"layers": [{"type": "logit"}, {"type": "affine"}]},
        "datasets": [{"name": "digits", "type": "glyph-digits", **sizes}],
        "knowledge": [{"name": "digits", "present": {"dataset": "digits"}, "type": "gaussian"}]
        + [{**table, "labelled": 20}],
        "training": {"steps": 1, "batch_size": 40, "labelled_share": 0.3},
    }
    whole, less = Experiment(config_from(tables)), Experiment(config_from(tables))
    del less.model.knowledge["digits"], less.model.knowledge["digit-3"]
    for step in range(3):
        assert torch.equal(less.batches.positions(step)["digits"], whole.batches.positions(step)["digits"])


def test_one_knowledge_type_excludes_nothing() -> None:
    lone = {"name": "digits", "present": {"dataset": "digits"}, "exclusive": True}
    data = [{"name": "digits", "type": "glyph-digits"}]
    with pytest.raises(ConfigError, match="'digits' is one knowledge type"):
        config_from({"name": "few", "datasets": data, "knowledge": [lone], "training": {"steps": 1}})


def test_literal_and_skipped_samples_know_no_groups() -> None:
    model, seen = small(["gaussian"] * 3), exclusive([[NAN, NAN, NAN], [1, 0, 0]])
    for wording in (Wording("literal"), Wording(unlabelled="skip")):
        one = mental_capacity(model, seen, steady(), objective=Objective(wording=wording))
        other = mental_capacity(model, replace(seen, exclusive=()), steady(), objective=Objective(wording=wording))
        assert torch.equal(one.value, other.value)


def test_missing_T_is_undecided_as_any_sample_and_owes_no_constraint() -> None:
    model = small(["gaussian"] * 3, spread=0.05)
    seen = exclusive([[NAN, NAN, NAN]] * 2)
    seen.T[1] = NAN

    def noise(name: str, count: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(count, 0), torch.full((count, 3), 0.3, dtype=torch.float64)

    free = mental_capacity(model, seen, steady(), latent_noise=noise)
    bound = mental_capacity(model, seen, steady(), multipliers=dict.fromkeys(NAMES, 0.3), latent_noise=noise)
    first = exclusive([[NAN, NAN, NAN]] * 2)
    alone = Observations(first.T[:1], first.presence[:1], NAMES, {}, (NAMES,))
    owed = [mental_capacity(model, alone, steady(), multipliers=dict.fromkeys(NAMES, l)).value for l in (0.0, 0.3)]  # noqa: E741
    torch.testing.assert_close(free.value - bound.value, (owed[0] - owed[1]) / 2)
