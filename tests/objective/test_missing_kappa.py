"""A missing κ is summed over: in value and gradient against all 2^k patterns of presence, one by one."""

from __future__ import annotations

import itertools

import pytest
import torch
from models import NAN, absent, assert_equal_gradients, batch, gradients, sides, small, steady
from torch import Tensor

from tzk_core.model import TzK
from tzk_core.objective import Objective, Wording, mental_capacity
from tzk_core.observations import Observations

KINDS = ["gaussian", "flow", "gaussian"]


def every_pattern(k: int) -> Observations:
    """All 3^k rows of present, absent and missing for k knowledge types; C observed where it is present in every second
    row."""
    table = list(itertools.product([0.0, 1.0, NAN], repeat=k))
    seen = batch(table, observed=[f"k{i}" for i in range(k)])
    for column, name in enumerate(seen.knowledge):
        unseen = (seen.presence[:, column] != 1) | (torch.arange(len(table)) % 2 == 1)
        seen.characteristics[name][unseen] = NAN
    return seen


def enumerated(model: TzK, seen: Observations, prior: str) -> Tensor:
    """log M less log q, (batch,): p_enc and p_dec of every pattern of presence that the observations allow, summed."""
    z, logabsdet = model.flow.encode(seen.T)
    log_prob_z = model.flow.base.log_prob(z)
    log_prob_T = log_prob_z + logabsdet
    divisor = log_prob_z if prior == "paper" else log_prob_T.detach() - logabsdet
    branches = []
    for name, knowledge in model.named_knowledge():
        observed = seen.characteristics[name]
        filled_in = observed.isnan().any(1)
        C = torch.where(filled_in[:, None], knowledge.encode(z, torch.full_like(observed, 0.5)), observed)
        log_q = torch.where(filled_in, knowledge.log_prob_characteristics_given(C, z), 0.0)
        branches.append(
            (
                absent(knowledge, z, prior),
                sides(knowledge, z, C, log_ratio=knowledge.log_prob_latent(z, C) - divisor, log_q=log_q),
            )
        )
    encoders, decoders = [], []
    for pattern in itertools.product([0, 1], repeat=len(branches)):
        chosen = [branch[kappa] for branch, kappa in zip(branches, pattern, strict=True)]
        allowed = (seen.presence.isnan() | (seen.presence == torch.tensor(pattern))).all(1)
        encoder, decoder = (log_prob_T + sum(side) for side in zip(*chosen, strict=True))
        encoders.append(encoder.masked_fill(~allowed, -torch.inf))
        decoders.append(decoder.masked_fill(~allowed, -torch.inf))
    return 0.5 * (torch.stack(encoders).logsumexp(0) + torch.stack(decoders).logsumexp(0))


@pytest.mark.parametrize("prior", ["full", "paper"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_value_and_gradient_are_those_of_the_enumerated_sum(k: int, prior: str) -> None:
    model, seen = small(KINDS[:k]), every_pattern(k)
    expected = enumerated(model, seen, prior)
    capacity = mental_capacity(model, seen, steady(), objective=Objective(wording=Wording(prior=prior)))
    torch.testing.assert_close(capacity.log_capacity, expected, rtol=1e-10, atol=1e-10)
    assert_equal_gradients(capacity.value, expected.mean(), model)
    # also row by row, where nothing can cancel
    for row in torch.nonzero(seen.presence.isnan().any(1)).squeeze(1).tolist()[:: 2 * k - 1]:
        assert_equal_gradients(capacity.log_capacity[row], expected[row], model)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_literal_wording_is_not_that_sum(k: int) -> None:
    """So that the law above can be broken."""
    model, seen = small(KINDS[:k]), every_pattern(k)
    expected = gradients(enumerated(model, seen, "full").mean(), model)
    actual = gradients(
        mental_capacity(model, seen, steady(), objective=Objective(wording=Wording("literal"))).value, model
    )
    assert not all(torch.allclose(actual[name], gradient, rtol=1e-3) for name, gradient in expected.items())


@pytest.mark.parametrize("k", [2, 3])
def test_the_gap_of_each_is_summed_over_its_own_presence_only(k: int) -> None:
    """The multipliers weigh |Σ p_dec - Σ p_enc| of each knowledge type: what is missing of the others is none of its
    business."""
    model, seen = small(KINDS[:k]), every_pattern(k)
    free, bound = (mental_capacity(model, seen, steady(), multipliers=multipliers) for multipliers in ({}, {"k0": 0.3}))
    only = Observations(seen.T, seen.presence[:, :1], ("k0",), {"k0": seen.characteristics["k0"]})
    alone, held = (mental_capacity(model, only, steady(), multipliers=multipliers) for multipliers in ({}, {"k0": 0.3}))
    torch.testing.assert_close(free.value - bound.value, alone.value - held.value)
    assert_equal_gradients(free.value - bound.value, alone.value - held.value, model)
