"""C with finitely many values, such as a class: exact sums, Bayes' decision, and labels as observed C."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from knowledge_tables import typed
from models import NO_TABLES
from two_sided import TwoSided, exact, world

from tzk_core.data.annotation import annotate
from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError
from tzk_core.evaluation.results import evaluate
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.knowledge.importance import log_joint
from tzk_core.testing import NotConforming, check_knowledge


def test_it_conforms_and_a_wrong_sum_does_not() -> None:
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
    check_knowledge(TwoSided(), z)
    with pytest.raises(NotConforming, match=r"p\(C\) over its support"):
        check_knowledge(TwoSided(excess=0.01), z)


def test_the_integral_over_C_is_the_sum_whatever_the_samples() -> None:
    model, held = world()
    for samples in (1, 5):
        torch.testing.assert_close(model.log_prob(held.T, "side", importance_samples=samples), exact(held.T))


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
