"""C with finitely many values, such as a class: exact sums, Bayes' decision, and labels as observed C."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from knowledge_tables import typed
from models import NO_TABLES
from torch import Tensor, nn

from tzk_core.data.annotation import annotate
from tzk_core.data.protocol import Samples
from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.errors import TzkError
from tzk_core.evaluation.evidence import evidence
from tzk_core.evaluation.likelihood import EvaluationSplit
from tzk_core.evaluation.results import evaluate
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.knowledge.importance import log_joint
from tzk_core.model import SharedFlow, TzK
from tzk_core.testing import NotConforming, check_knowledge
from tzk_core.transforms.affine import Affine

SHARES = torch.tensor([0.25, 0.75])
CENTRES = torch.tensor([-2.0, 2.0])


class Around(Reparametrised):
    """N(the centre of C, 1) in each of two dimensions."""

    def __init__(self) -> None:
        super().__init__((2,))
        self.centres = nn.Parameter(CENTRES.clone())

    def _centre(self, context: Tensor) -> Tensor:
        return (torch.cat([1 - context, context], -1) * self.centres).sum(-1, keepdim=True)

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        inputs = inputs.unsqueeze(1) if context.dim() == 3 else inputs
        return -0.5 * ((inputs - self._centre(context)) ** 2 + math.log(2 * math.pi)).sum(-1)

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is not None
        return noise + self._centre(context)


class TwoSided(Knowledge):
    """C is 0 or 1, with known shares and an encoder that looks at the first dimension."""

    def __init__(self, excess: float = 0.0) -> None:
        super().__init__((2,), Around(), characteristics=1, hidden=4)
        del self.characteristics_encoder
        self.slope = nn.Parameter(torch.tensor(0.5))
        self.excess = excess

    def support(self) -> Tensor:
        return torch.tensor([[0.0], [1.0]], dtype=self.log_odds.dtype)

    def log_prob_characteristics(self, C: Tensor) -> Tensor:
        zero, one = SHARES.to(C).log()
        return torch.where(C.squeeze(-1) > 0.5, one, zero) + self.excess

    def log_prob_characteristics_given(self, C: Tensor, z: Tensor) -> Tensor:
        logit = self.slope * z[:, 0]
        logit = logit.unsqueeze(1) if C.dim() == 3 else logit
        return nn.functional.logsigmoid(torch.where(C.squeeze(-1) > 0.5, logit, -logit))

    def encode(self, z: Tensor, noise: Tensor) -> Tensor:
        share = torch.sigmoid(self.slope * z[:, :1])
        return (torch.special.ndtr(noise) < (share.unsqueeze(1) if noise.dim() == 3 else share)).to(z)

    def imagine(self, noise: Tensor) -> Tensor:
        return (torch.special.ndtr(noise) < SHARES[1]).to(noise)


def exact(z: Tensor) -> Tensor:
    """log Σ_C p(C) N(z; centre of C, 1), (n,), written out."""
    log_prob = [
        math.log(share) - 0.5 * ((z - centre) ** 2 + math.log(2 * math.pi)).sum(1)
        for share, centre in zip(SHARES.tolist(), CENTRES.tolist(), strict=True)
    ]
    return torch.stack(log_prob).logsumexp(0)


def world(n: int = 400) -> tuple[TzK, EvaluationSplit]:
    generator = torch.Generator().manual_seed(0)
    side = (torch.rand(n, 1, generator=generator) < SHARES[1]).float()
    T = torch.randn(n, 2, generator=generator) + torch.where(side > 0.5, *CENTRES.flip(0))
    side[: n // 4] = torch.nan
    model = TzK(SharedFlow((2,), Affine((2,)), StandardGaussian((2,))), {"side": TwoSided()})
    return model, EvaluationSplit(
        dataset="world",
        split="test",
        T=T,
        presence=torch.ones(n, 1),
        knowledge=("side",),
        characteristics={"side": side},
        levels=None,
        original_dims=2,
        share=1.0,
    )


def test_it_conforms_and_a_wrong_sum_does_not() -> None:
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
    check_knowledge(TwoSided(), z)
    with pytest.raises(NotConforming, match=r"p\(C\) over its support"):
        check_knowledge(TwoSided(excess=0.01), z)


def test_the_integral_over_C_is_the_sum_whatever_the_samples() -> None:
    model, held = world()
    for samples in (1, 5):
        torch.testing.assert_close(model.log_prob(held.T, "side", importance_samples=samples), exact(held.T))
    estimate = evidence(model, held.T, importance_samples=1)
    torch.testing.assert_close(estimate.log_ratio[:, 0] + estimate.log_prob, exact(held.T))


def test_without_a_support_there_is_no_sum() -> None:
    with pytest.raises(TzkError, match="finitely many"):
        log_joint(GaussianKnowledge((2,), hidden=4), torch.zeros(1, 2))


def results() -> dict[str, Any]:
    model, held = world()
    return evaluate(model, [held], {"world": held.T}, **NO_TABLES, importance_samples=7)


def test_the_row_says_that_it_is_exact() -> None:
    _, held = world()
    row = next(result for result in results()["rows"] if result["kind"] == "knowledge")
    assert row["estimate"] == "exact sum over C" and row["importance_samples"] is None
    assert row["bits_per_image"] == pytest.approx(-exact(held.T).mean().item() / math.log(2), rel=1e-5)


def test_classification_is_bayes_where_C_was_observed() -> None:
    _, held = world()
    known = ~held.characteristics["side"].isnan().squeeze(1)
    truth, T = held.characteristics["side"][known, 0] == 1, held.T[known]
    odds = math.log(3) + 4 * T.sum(1)  # log p(C=1)/p(C=0) + log N(T; 2)/N(T; -2)
    bayes, encoder = odds > 0, T[:, 0] > 0
    assert results()["classification"] == [
        {
            "partition": "C of side",
            "dataset": "world",
            "split": "test",
            "count": int(known.sum()),
            "bayes_accuracy": pytest.approx((bayes == truth).double().mean().item()),
            "discriminator_accuracy": pytest.approx((encoder == truth).double().mean().item()),
            "disagreement": pytest.approx((bayes != encoder).double().mean().item()),
        }
    ]


def labelled(labels: list[str]) -> Samples:
    return Samples(torch.zeros(len(labels), 1), {"label": np.array(labels, dtype=np.str_)})


def test_a_label_column_is_observed_as_the_position_of_its_value() -> None:
    """In natural order, of the values that the training split has; an empty or unseen label is not known."""
    table = {"name": "letter", "present": {"dataset": "a"}, "observed": ["label"]}
    annotation = annotate(typed([table]), {"a": labelled(["10", "9", "", "b", "9"]), "other": labelled(["9"])})
    nan = torch.nan
    C = annotation.characteristics
    torch.testing.assert_close(C["a"]["letter"][:, 0], torch.tensor([1.0, 0.0, nan, 2.0, 0.0]), equal_nan=True)
    assert C["other"]["letter"].isnan().all(), "absent there"
    test = annotation.of({"a": labelled(["b", "c"])}).characteristics["a"]["letter"][:, 0]
    torch.testing.assert_close(test, torch.tensor([2.0, nan]), equal_nan=True)


def test_an_unknown_name_lists_characteristics_and_columns() -> None:
    table = {"name": "letter", "present": {"dataset": "a"}, "observed": ["lable"]}
    with pytest.raises(TzkError, match="a characteristic or a label column 'lable'.*'label'"):
        annotate(typed([table]), {"a": labelled(["1", "2"])})
