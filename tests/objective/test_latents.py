"""Missing T: drawn by the knowledge that is present, with the discriminators frozen in exactly these terms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from models import NAN, WORDINGS, assert_equal_gradients, batch, gradients, sides, small, steady
from torch import Tensor

import tzk_core
from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.model import TzK
from tzk_core.objective import Objective, Wording, mental_capacity
from tzk_core.objective.latents import encodable
from tzk_core.observations import Observations
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer


def hiding(seen: Observations, *rows: int) -> Observations:
    """The same observations with these rows of T missing."""
    return replace(seen, T=seen.T.index_fill(0, torch.tensor(rows), NAN))


def numbered(name: str, count: int) -> tuple[Tensor, Tensor]:
    """Noise for C and z that depends on the name, and on the number of the sample under it."""
    generator = torch.Generator().manual_seed(len(name) + (int(name[1:]) if name else 7))
    z = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return torch.randn(count, 2 if name else 0, generator=generator, dtype=torch.float64), z


def frozen_presence(knowledge: Knowledge, z: Tensor) -> tuple[Tensor, Tensor]:
    state = {name: value.detach() for name, value in knowledge.named_parameters()}
    return torch.func.functional_call(knowledge, state, (Knowledge.log_prob_presence_given, z))


# In value and gradient


@pytest.mark.parametrize("observed", [False, True], ids=["C missing too", "C observed"])
@pytest.mark.parametrize("prior", ["full", "paper"])
def test_a_missing_T_adds_log_M_less_log_q(prior: str, observed: bool) -> None:
    """½ (log p_enc + log p_dec) - log q at a T that the decoder draws; every Jacobian in it cancels."""
    model, seen = small(), hiding(batch([[1]] * 4, observed=["k0"] if observed else []), 0, 1, 2, 3)
    knowledge = model.find("k0")
    C_noise, z_noise = numbered("k0", 4)
    C = seen.characteristics["k0"] if observed else knowledge.imagine(C_noise)
    z = knowledge.decode(C, z_noise)
    log_prob_z, log_latent = model.flow.base.log_prob(z), knowledge.log_prob_latent(z, C)
    encoder, decoder = sides(knowledge, z, C, log_ratio=log_latent - log_prob_z, log_q=0.0)
    encoder = encoder - knowledge.log_prob_presence_given(z).present + frozen_presence(knowledge, z)[1]
    log_q = log_latent + (0.0 if observed else knowledge.log_prob_characteristics(C))
    expected = log_prob_z + 0.5 * (encoder + decoder) - log_q
    capacity = mental_capacity(
        model,
        seen,
        steady(),
        multipliers={"k0": 0.3},
        latent_noise=numbered,
        objective=Objective(wording=Wording(prior=prior)),
    )
    torch.testing.assert_close(capacity.log_capacity, expected)
    assert_equal_gradients(capacity.value, expected.mean(), model)
    assert capacity.log_prob_T.isnan().all()
    assert not capacity.inconsistency and not capacity.conditional, "the constraint is one on data"


@pytest.mark.parametrize("prior", ["full", "paper"])
def test_frozen_is_frozen_and_the_sample_is_not(prior: str) -> None:
    """Without, present, absent and unknown: no gradient in any discriminator or in f_T, one in all that draws."""
    model = small(["gaussian", "flow", "gaussian"], spread=0.05)
    seen = hiding(batch([[1, 0, NAN], [1, 1, 0], [0, 1, 1], [NAN, 1, 1]]), 0, 1, 2, 3)
    value = mental_capacity(
        model, seen, steady(), latent_noise=numbered, objective=Objective(wording=Wording(prior=prior))
    ).value
    for name, gradient in gradients(value, model).items():
        silent = "discriminator" in name or name.startswith("flow.")
        assert bool((gradient == 0).all()) is silent, name
    # the discriminators' values matter all the same: what is drawn is to convince them
    with torch.no_grad():
        model.find("k1").discriminator[-1].bias += 1.0
    other = mental_capacity(
        model, seen, steady(), latent_noise=numbered, objective=Objective(wording=Wording(prior=prior))
    ).value
    assert not torch.allclose(value, other)


def test_only_the_terms_of_a_sampled_T_are_frozen() -> None:
    """Of two samples with T the discriminators learn as if no third had been sampled."""
    model, seen = small(["gaussian", "gaussian"]), batch([[1, 0], [0, 1], [1, NAN]])
    both = Observations(seen.T[:2], seen.presence[:2], seen.knowledge)
    without = gradients(mental_capacity(model, both, steady(), multipliers={"k0": 0.2}).value * 2, model)
    whole = mental_capacity(model, hiding(seen, 2), steady(), multipliers={"k0": 0.2}, latent_noise=numbered)
    for name, gradient in gradients(whole.value * 3, model).items():
        if "discriminator" in name or name.startswith("flow."):
            torch.testing.assert_close(gradient, without[name])
    torch.testing.assert_close(whole.log_prob_T[:2], model.flow.log_prob(seen.T[:2]))
    assert whole.log_prob_T[2].isnan()


@pytest.mark.parametrize("wording", WORDINGS, ids=str)
def test_samples_that_were_observed_are_as_they_are_without_missing_ones(wording: Wording) -> None:
    model, seen = small(["gaussian", "flow"]), batch([[1, 0], [NAN, 1], [1, 1], [0, 0]], observed=["k0"])
    plain = mental_capacity(
        model, seen, steady(), multipliers={"k0": 0.2, "k1": 0.4}, objective=Objective(wording=wording)
    )
    mixed = mental_capacity(
        model,
        hiding(seen, 1),
        steady(),
        multipliers={"k0": 0.2, "k1": 0.4},
        latent_noise=numbered,
        objective=Objective(wording=wording),
    )
    others = torch.tensor([0, 2, 3])
    torch.testing.assert_close(mixed.log_capacity[others], plain.log_capacity[others])
    assert not torch.allclose(mixed.log_capacity[1], plain.log_capacity[1])


def test_the_paper_s_literal_wording_keeps_log_q_and_its_jacobian() -> None:
    model, seen = small(spread=0.05), hiding(batch([[1]] * 3), 0, 1, 2)
    knowledge = model.find("k0")
    C_noise, z_noise = numbered("k0", 3)
    C = knowledge.imagine(C_noise)
    z = knowledge.decode(C, z_noise)
    T, logabsdet = model.flow.transform.inverse(z)
    log_prob_T = model.flow.log_prob(T)
    torch.testing.assert_close(log_prob_T, model.flow.base.log_prob(z) - logabsdet)
    encoder, decoder = sides(
        knowledge, z, C, log_ratio=knowledge.log_prob_latent(z, C) - model.flow.base.log_prob(z), log_q=0.0
    )
    capacity = mental_capacity(
        model, seen, steady(), latent_noise=numbered, objective=Objective(wording=Wording("literal"))
    )
    torch.testing.assert_close(capacity.log_capacity, log_prob_T + 0.5 * (encoder + decoder))


# What it is drawn from


def sampled_from(model: TzK, presence: list[list[float]]) -> list[str]:
    """For each row of presence, T missing: the knowledge type that it was drawn from."""
    seen = hiding(batch(presence), *range(len(presence)))
    asked: dict[str, int] = {}

    def noise(name: str, count: int) -> tuple[Tensor, Tensor]:
        asked[name] = count
        return numbered(name, count)

    columns = dict(zip(seen.knowledge, seen.presence.T, strict=True))
    actual = encodable(model, seen, columns, latent_noise=noise).encoded(model.flow)
    sources = [""] * len(presence)
    for name, C in actual.characteristics.items():
        for row in torch.nonzero(~C.isnan().any(1)).squeeze(1).tolist():
            sources[row] = name
    assert asked == {name: sources.count(name) for name in sorted(set(sources), key=sources.index)}
    for name in asked:
        rows = [row for row, source in enumerate(sources) if source == name]
        C_noise, z_noise = numbered(name, len(rows))
        z = model.find(name).decode(model.find(name).imagine(C_noise), z_noise) if name else z_noise
        torch.testing.assert_close(actual.z[rows], z)
    return sources


def test_it_is_sampled_from_the_most_specific_knowledge_that_is_present_and_else_from_the_prior() -> None:
    model = small(["gaussian"] * 3)
    model.find("k1").describe_as(implies=("k0",))
    presence = [[1, 1, 0], [1, 0, 0], [0, 0, 0], [NAN, NAN, 0], [1, NAN, 0]]
    assert sampled_from(model, presence) == ["k1", "k0", "", "", "k0"]


def test_several_that_do_not_contain_each_other_take_turns() -> None:
    assert sampled_from(small(["gaussian"] * 2), [[1, 1]] * 4) == ["k0", "k1", "k0", "k1"]


def test_without_knowledge_it_is_the_prior_s() -> None:
    seen = Observations.only(torch.full((5, 3), NAN, dtype=torch.float64))
    capacity = mental_capacity(small([]), seen, steady(), latent_noise=numbered)
    torch.testing.assert_close(capacity.log_capacity, torch.zeros(5, dtype=torch.float64))  # log p(T) - log q


def test_a_missing_T_without_noise_to_draw_it_by_is_an_error() -> None:
    with pytest.raises(TzkError, match="T is missing in 2 samples"):
        mental_capacity(small(), hiding(batch([[1]] * 3), 0, 2), steady())


# In training


def test_a_share_of_every_batch_is_hidden() -> None:
    hidden: list[int] = []

    class Recorded:
        def batch(self, step: int) -> Observations:
            return Observations(torch.zeros(10, 3), torch.ones(10, 1), ("k0",))

        def sources(self, step: int) -> dict[str, slice]:
            return {"a": slice(0, 10)}

    trainer = Trainer(small().float(), Recorded(), Settings(steps=8, hidden_share=0.25), levels=None)
    for trainer.step in range(8):
        missing = trainer._hiding(trainer.batches.batch(trainer.step)).missing()
        hidden.append(0 if missing is None else int(missing.sum()))
    assert hidden == [2, 3] * 4
    trainer.step = 0
    assert trainer.advance().log_prob_T.isnan().sum() == 2


def test_hidden_rows_are_missing_whatever_T_holds() -> None:
    """Hidden or nan, T is sampled by the same noise; hidden twice, and moved, it stays hidden."""
    model, seen = small(["gaussian", "flow"]), batch([[1, 0], [NAN, 1], [1, 1], [0, 0]], observed=["k0"])
    whole = seen.hiding(torch.tensor([1])).hiding(torch.tensor([3])).to("cpu", torch.float64)
    assert torch.equal(whole.T, seen.T) and seen.missing() is None
    missing = whole.missing()
    assert missing is not None and missing.tolist() == [False, True, False, True]
    actual, expected = (
        mental_capacity(model, value, steady(), multipliers={"k0": 0.2}, latent_noise=numbered)
        for value in (whole, hiding(seen, 1, 3))
    )
    assert torch.equal(actual.log_capacity, expected.log_capacity)
    wanted = gradients(expected.value, model)
    assert all(torch.equal(gradient, wanted[name]) for name, gradient in gradients(actual.value, model).items())


def test_a_batch_without_any_T_leaves_the_log_whole() -> None:
    model, empty = small().float(), hiding(batch([[1]] * 4), 0, 1, 2, 3).to("cpu", torch.float32)

    class Dreams:
        def batch(self, step: int) -> Observations:
            return empty

        def sources(self, step: int) -> dict[str, slice]:
            return {"a": slice(0, 4)}

    trainer = Trainer(model, Dreams(), Settings(steps=1), levels=None)
    assert trainer.advance().prior_weight.isnan()
    assert list(trainer.metrics.sums) == ["objective"]


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_shares_that_make_no_sense_are_refused(share: float) -> None:
    with pytest.raises(TzkError, match="hidden_share"):
        Settings(steps=1, hidden_share=share)


def test_fit_takes_the_old_name_of_a_setting_with_a_warning() -> None:
    model = TzK(tzk_core.build_flow((3,), layers=[{"type": "affine"}]))
    with pytest.warns(FutureWarning, match="dreams is now called hidden_share"):
        history = tzk_core.fit(model, torch.randn(8, 3), steps=1, batch_size=8, dreams=0.5)
    assert history.trainer.settings.hidden_share == 0.5
    with pytest.raises(TzkError, match="dreams is the old name of hidden_share, and both"):
        tzk_core.fit(model, torch.randn(8, 3), steps=1, dreams=0.5, hidden_share=0.5)


def test_fit_takes_rows_of_nan_for_missing_T() -> None:
    """Half of T missing, all of its knowledge there: training goes on and is finite; a T that is infinite is not."""
    flow = tzk_core.build_flow((3,), layers=[{"type": "affine"}])
    model = TzK(flow, {"k0": tzk_core.build_knowledge("gaussian", (3,), name="k0", hidden=6, layers=3)})
    T = torch.randn(64, 3) + 2
    T[::2] = NAN
    presence = {"k0": (torch.arange(64) % 4 < 2).float()}
    trainer = tzk_core.fit(model, T, presence, steps=3, batch_size=16)
    assert trainer.step == 3
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    T[1, 0] = torch.inf
    with pytest.raises(TzkError, match="nan or infinity"):
        tzk_core.fit(model, T, presence, steps=3)


# Two more switches


def test_skipped_samples_without_a_label_teach_knowledge_nothing() -> None:
    """unlabelled = "skip": the knowledge types learn as if these samples were not there; the flow learns of them."""
    model, seen = small(["gaussian"]), batch([[1], [NAN], [0], [NAN]])
    capacity = mental_capacity(
        model, seen, steady(), multipliers={"k0": 0.2}, objective=Objective(wording=Wording(unlabelled="skip"))
    )
    labelled = Observations(seen.T[[0, 2]], seen.presence[[0, 2]], seen.knowledge)
    alone = mental_capacity(model, labelled, steady(), multipliers={"k0": 0.2})
    torch.testing.assert_close(capacity.log_capacity[[0, 2]], alone.log_capacity)
    torch.testing.assert_close(capacity.log_capacity[[1, 3]], model.flow.log_prob(seen.T[[1, 3]]))
    torch.testing.assert_close(capacity.inconsistency, alone.inconsistency)
    assert_equal_gradients(4 * capacity.value, 2 * alone.value, model.find("k0"))


@pytest.mark.parametrize("prior", ["full", "paper"])
def test_a_fixed_flow_is_left_out_of_the_gradient_and_of_nothing_else(prior: str) -> None:
    model, seen = small(["flow", "gaussian"]), batch([[1, 0], [NAN, 1], [0, 0]], observed=["k1"])
    free = mental_capacity(
        model, seen, steady(), multipliers={"k0": 0.3}, objective=Objective(wording=Wording(prior=prior))
    )
    fixed = mental_capacity(
        model,
        seen,
        steady(),
        multipliers={"k0": 0.3},
        objective=Objective(wording=Wording(prior=prior), fixed_flow=True),
    )
    assert torch.equal(free.value, fixed.value)
    assert_equal_gradients(fixed.value, free.value, model.knowledge)
    assert all((gradient == 0).all() for gradient in gradients(fixed.value, model.flow).values())
