"""What is reported about a model: the whole of results.json."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import NO_TABLES, held_out, small
from torch import Tensor, nn
from weights import same, state

from tzk_core.build import build_flow, build_knowledge
from tzk_core.data.dequantise import dequantise
from tzk_core.errors import TzkError
from tzk_core.evaluation.baseline import histogram_bits
from tzk_core.evaluation.likelihood import (
    EvaluationSplit,
)
from tzk_core.evaluation.results import evaluate
from tzk_core.evaluation.scoring import invertibility
from tzk_core.model import TzK
from tzk_core.random_streams import stream

ROW = {
    *("name", "kind", "knowledge", "dataset", "split", "count", "bits_per_image", "bits_per_dim"),
    *("bits_per_pixel", "estimate", "importance_samples", "standard_error", "inconsistency_nats"),
    *("one_draw_bits_per_dim", "gain_bits_per_dim", "gain_standard_error", "log_prob_nats"),
}
KNOWLEDGE = {
    *("name", "mutual_information", "entropy", "conditional_entropy", "discriminator_accuracy", "multiplier"),
    *("inconsistency_nats", "discriminator_balanced_accuracy", "presence_prior", "gap_nats"),
    "characteristics_kl_nats",
}
CLASSIFICATION = {
    *("partition", "dataset", "split", "count", "bayes_accuracy", "discriminator_accuracy", "disagreement"),
}
SHAPE = (1, 2, 2)
NAMES = ["digits", "letters", "digit-0", "digit-1"]


def images(count: int, name: str) -> Tensor:
    return torch.randint(0, 256, (count, *SHAPE), generator=stream(0, name), dtype=torch.uint8)


@pytest.fixture(scope="module")
def parts() -> tuple[TzK, list[EvaluationSplit], dict[str, Tensor]]:
    """A small untrained model of two data sets, one of them with two classes."""
    model = TzK(build_flow(SHAPE, layers=[{"type": "logit"}, {"type": "affine"}]))
    for name, share in zip(NAMES, (0.6, 0.4, 0.2, 0.4), strict=True):
        model.add(name, build_knowledge("gaussian", SHAPE, name=name, hidden=6))
        model.find(name).log_odds.fill_(math.log(share / (1 - share)))
        model.find(name).fit_characteristics(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    model.flow.initialise(dequantise(images(100, "start"), stream(0, "noise")))
    held = []
    for dataset, count, share in (("digits", 12, 0.6), ("letters", 9, 0.4)):
        labels = torch.arange(count) % 2
        digit = float(dataset == "digits")
        presence = torch.stack([torch.full((count,), digit), torch.full((count,), 1 - digit)], 1)
        presence = torch.cat([presence, digit * nn.functional.one_hot(labels, 2)], 1)
        T = dequantise(images(count, dataset), stream(0, "noise", dataset))
        dims = 3 if dataset == "digits" else None
        held.append(held_out(T, presence, NAMES, dataset=dataset, levels=256, original_dims=dims, share=share))
    return model, held, {name: images(20, f"train {name}") for name in ("digits", "letters")}


def evaluated(parts: tuple[TzK, list[EvaluationSplit], dict[str, Tensor]], **changes: Any) -> dict[str, Any]:
    model, held, train = parts
    arguments: dict[str, Any] = {
        "partitions": {"data sets": NAMES[:2], "classes": NAMES[2:]},
        "means": {"mean class": NAMES[2:]},
        "published": [
            {
                "name": "X",
                "dataset": "digits",
                "bits_per_dim": 5.14,
                "bits_per_pixel": None,
                "source": "a paper",
            }
        ],
        "multipliers": {"digits": 0.2},
        "importance_samples": 4,
    }
    return evaluate(model, held, train, **{**arguments, **changes})


def test_results_have_the_format_of_the_design(parts: tuple[TzK, list[EvaluationSplit], dict[str, Tensor]]) -> None:
    results = evaluated(parts)
    assert results == json.loads(json.dumps(results, allow_nan=False))
    assert set(results) == {"format", "rows", "knowledge", "classification", "invertibility"}
    assert results["format"] == 1
    assert all(set(each) == ROW for each in results["rows"])
    assert {each["kind"] for each in results["rows"]} == {
        "prior",
        "knowledge",
        "mixture",
        "baseline",
        "published",
    }
    assert [each["name"] for each in results["knowledge"]] == NAMES
    assert all(set(each) == KNOWLEDGE for each in results["knowledge"])
    assert all(set(each) == CLASSIFICATION for each in results["classification"])
    assert set(results["invertibility"]) == {
        *("max_abs_error", "max_abs_error_without_float64", "unit", "dtype"),
    }
    assert [each["multiplier"] for each in results["knowledge"]] == [0.2, None, None, None]
    shares = [each["presence_prior"] for each in results["knowledge"]]
    assert shares == pytest.approx([0.6, 0.4, 0.2, 0.4])


def test_results_have_a_row_for_everything(parts: tuple[TzK, list[EvaluationSplit], dict[str, Tensor]]) -> None:
    rows = [(each["dataset"], each["kind"], each["name"]) for each in evaluated(parts)["rows"]]
    assert rows == [
        ("digits", "prior", "prior"),
        ("digits", "knowledge", "digits"),
        ("digits", "knowledge", "digit-0"),
        ("digits", "knowledge", "digit-1"),
        ("digits", "knowledge", "mean class"),
        ("digits", "mixture", "data sets"),
        ("digits", "mixture", "classes"),
        ("digits", "baseline", "per-pixel histogram"),
        ("letters", "prior", "prior"),
        ("letters", "knowledge", "letters"),
        ("letters", "mixture", "data sets"),
        ("letters", "baseline", "per-pixel histogram"),
        ("digits", "published", "X"),
    ]


def test_rows_have_their_estimate_and_their_units(parts: tuple[TzK, list[EvaluationSplit], dict[str, Tensor]]) -> None:
    results = evaluated(parts)
    for each in results["rows"]:
        bound = each["kind"] in ("knowledge", "mixture")
        assert (each["importance_samples"] == 4) is bound
        if each["kind"] == "published":
            assert each["estimate"] == "published: a paper" and each["bits_per_dim"] == 5.14
            assert each["bits_per_image"] is None and each["bits_per_pixel"] is None
            continue
        one_draw = {"prior": "one dequantisation (one draw)", "baseline": "exact"}
        assert each["estimate"] == one_draw.get(each["kind"], "importance-weighted bound, one draw")
        assert (each["gain_bits_per_dim"] is None) is (each["kind"] == "prior")
        assert each["one_draw_bits_per_dim"] is None
        assert each["bits_per_dim"] == pytest.approx(each["bits_per_image"] / 4)
        if each["dataset"] == "digits":
            assert each["bits_per_pixel"] == pytest.approx(each["bits_per_image"] / 3)
        else:
            assert each["bits_per_pixel"] is None
        assert each["standard_error"] > 0
        single = each["kind"] == "knowledge" and each["name"] != "mean class"
        assert (each["inconsistency_nats"] is not None) is single
    assert [(each["partition"], each["dataset"]) for each in results["classification"]] == [("classes", "digits")]
    assert results["invertibility"]["unit"] == "grey levels" and results["invertibility"]["dtype"] == "float32"
    assert results["invertibility"]["max_abs_error"] < 1e-2


def test_results_agree_with_the_model(parts: tuple[TzK, list[EvaluationSplit], dict[str, Tensor]]) -> None:
    """Prior, histogram, mixture weights and gap from their definitions."""
    model, held, train = parts
    results = evaluated(parts)
    rows = {(each["dataset"], each["name"]): each for each in results["rows"]}
    with torch.no_grad():
        prior = model.log_prob(held[0].T).double()
    bits = 4 * 8 - prior.mean().item() / math.log(2)
    assert rows["digits", "prior"]["bits_per_image"] == pytest.approx(bits)
    histogram = histogram_bits(train["digits"], images(12, "digits")).mean().item()
    assert rows["digits", "per-pixel histogram"]["bits_per_image"] == pytest.approx(histogram)
    # Untrained, p(T given C) does not depend on C nor on the class: every conditional is the same, and so is
    # any mixture of them whose weights sum to 1.
    for name in ("digits", "mean class", "data sets", "classes"):
        assert rows["digits", name]["bits_per_image"] == pytest.approx(bits, abs=1e-4), name
    assert results["knowledge"][0]["gap_nats"] == pytest.approx(0, abs=1e-4)


def test_evaluation_repeats_and_leaves_the_model_as_it_was(
    parts: tuple[TzK, list[EvaluationSplit], dict[str, Tensor]],
) -> None:
    model = parts[0]
    before = state(model)
    random = torch.get_rng_state()
    model.train()
    assert evaluated(parts) == evaluated(parts)
    assert model.training
    assert torch.equal(random, torch.get_rng_state())
    assert same(model.state_dict(), before)


@pytest.mark.parametrize("members", [["digits"], ["digits", "digit-0"], ["letters", "digit-0"]])
def test_what_partitions_no_data_set_is_refused(
    parts: tuple[TzK, list[EvaluationSplit], dict[str, Tensor]], members: list[str]
) -> None:
    refused: Callable[[], Any] = lambda: evaluated(parts, partitions={"odd": members})  # noqa: E731
    if members == ["digits"]:  # one knowledge type is a partition of the data set that has it throughout
        assert any(each["name"] == "odd" for each in refused()["rows"])
    elif "letters" in members:  # and so it is beside others that never occur there
        assert [each["dataset"] for each in refused()["rows"] if each["name"] == "odd"] == ["letters"]
    else:
        with pytest.raises(TzkError, match="'odd' partitions no data set"):
            refused()


def test_data_without_grey_levels_have_no_histogram() -> None:
    model = small(["gaussian"])
    T = torch.randn(6, 3, dtype=torch.float64)
    results = evaluate(model, [held_out(T, torch.ones(6, 1), ["k0"])], {"toy": T}, **NO_TABLES, importance_samples=2)
    assert {each["name"] for each in results["rows"]} == {"prior", "k0", "full-covariance Gaussian"}
    assert results["invertibility"] == {
        "max_abs_error": invertibility(model, held_out(T))[0],
        "max_abs_error_without_float64": invertibility(model, held_out(T))[1],
        "unit": "the data's",
        "dtype": "float64",
    }
