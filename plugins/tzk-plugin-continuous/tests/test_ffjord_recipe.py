"""The recipe `ffjord`: a density that integrates to one, knowledge as of any flow, rows and columns that say how."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from commands import output_of
from tzk_plugin_continuous.evaluations import FunctionEvaluations
from tzk_plugin_continuous.ffjord import Ffjord
from tzk_plugin_continuous.recipe import ffjord
from tzk_plugin_continuous.solver_metric import SolverMetric

import tzk_core
from tzk_core import TzK, fit
from tzk_core.build import build_knowledge
from tzk_core.data.toys import TwoMoons
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.errors import TzkError
from tzk_core.evaluation.likelihood import EvaluationSplit, knowledge_row, prior_row
from tzk_core.evaluation.metrics import Evaluated
from tzk_core.evaluation.scoring import score
from tzk_core.model import SharedFlow
from tzk_core.objective.extra import TermBatch, WeightedTerm
from tzk_core.testing import check_metric, check_objective_term, check_plugin


def model_of(shape: tuple[int, ...], **arguments: object) -> TzK:
    """A model whose flow is not at its start."""
    torch.manual_seed(0)
    transform = ffjord(shape, hidden=8, depth=1, **arguments)  # type: ignore[arg-type]
    model = TzK(SharedFlow(shape, transform, StandardGaussian((torch.Size(shape).numel(),))))
    for part in model.modules():
        if isinstance(part, Ffjord):
            for parameter in part.parameters():
                parameter.data += 0.5 * torch.randn(parameter.shape)
    return model


def test_the_plugin_conforms() -> None:
    names = {spec.name for spec in check_plugin("tzk_plugin_continuous")}
    assert names == {"ffjord", "function-evaluations", "solver"}
    model = model_of((2,))
    z, logabsdet = model.flow.encode(torch.randn(4, 2))
    check_objective_term(FunctionEvaluations(), TermBatch(torch.randn(4, 2), z, logabsdet, {}, {}, model))
    check_metric(SolverMetric())


def test_a_density_in_the_plane_integrates_to_one() -> None:
    T = TwoMoons(noise=0.2, train=500).split("train").T
    model = model_of((2,))
    fit(model, T, steps=5, batch_size=128, learning_rate=1e-2)
    axis = torch.linspace(-8, 8, 241)
    with torch.no_grad():
        density = model.log_prob(torch.cartesian_prod(axis, axis)).double().exp().view(241, 241)
    total = torch.trapezoid(torch.trapezoid(density, axis), axis)
    assert total.item() == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize(("shape", "scales"), [((3,), 1), ((1, 4, 4), 2)])
def test_samples_come_back(shape: tuple[int, ...], scales: int) -> None:
    model = model_of(shape, scales=scales)
    T = torch.rand(4, *shape) if len(shape) == 3 else torch.randn(4, *shape)
    torch.testing.assert_close(model.decode(model.encode(T)), T, rtol=0, atol=1e-5)
    assert model.latent_shape == (torch.Size(shape).numel(),)


def test_added_knowledge_leaves_older_types_and_the_flow_as_they_are(tmp_path: Path) -> None:
    samples = TwoMoons(train=300).split("train")
    upper = torch.as_tensor(samples.labels["label"] == "upper").float()
    model = TzK(tzk_core.build_flow((2,), "ffjord", hidden=8, depth=1, steps=2, trace="hutchinson"))
    model.add("upper", build_knowledge("gaussian", model.latent_shape, name="upper", hidden=8))
    fit(model, samples.T, {"upper": upper}, steps=3, batch_size=64)
    before = model.log_prob(samples.T[:20]), model.log_prob(samples.T[:20], knowledge="upper", importance_samples=4)
    lower = {"lower": build_knowledge("gaussian", model.latent_shape, name="lower", hidden=8)}
    tzk_core.add(model, lower, samples.T, {"lower": 1 - upper}, steps=3, batch_size=64)
    after = model.log_prob(samples.T[:20]), model.log_prob(samples.T[:20], knowledge="upper", importance_samples=4)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    tzk_core.save(model, tmp_path / "model")
    again = tzk_core.load(tmp_path / "model")
    assert torch.equal(again.log_prob(samples.T[:20]), after[0])
    assert torch.equal(again.sample(5, "lower", seed=1), model.sample(5, "lower", seed=1))


def test_training_by_an_estimate_repeats() -> None:
    def trained() -> TzK:
        model = TzK(tzk_core.build_flow((9,), "ffjord", hidden=8, steps=2, seed=0))
        fit(model, torch.randn(100, 9, generator=torch.Generator().manual_seed(0)), steps=3, batch_size=20)
        return model

    first, second = trained(), trained()
    assert not next(p for p in first.modules() if isinstance(p, Ffjord)).exact_in_training
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_gradients_of_a_score_under_vmap_are_those_without() -> None:
    model = model_of((2,), steps=16)
    T = torch.randn(3, 2)
    mapped = torch.func.vmap(lambda each: model.log_prob(each[None])[0])(T)
    torch.testing.assert_close(mapped, model.log_prob(T), rtol=0, atol=1e-4)


def split_of(T: torch.Tensor, levels: int | None) -> EvaluationSplit:
    return EvaluationSplit(
        dataset="data",
        split="test",
        T=T,
        presence=torch.ones(len(T), 1),
        knowledge=("known",),
        characteristics={},
        levels=levels,
        original_dims=T[0].numel(),
        share=1.0,
    )


@pytest.mark.parametrize(("trace", "words"), [("auto", "exact trace"), ("hutchinson", "Hutchinson's trace, 2 probes")])
def test_rows_say_how_the_trace_was_taken(trace: str, words: str) -> None:
    model = model_of((1, 2, 2), evaluation_trace=trace, probes=2)
    model.add("known", build_knowledge("gaussian", model.latent_shape, name="known", hidden=4))
    for levels, first in ((None, words), (256, f"one dequantisation (one draw), {words}")):
        scores = score(model, split_of(torch.rand(6, 1, 2, 2), levels), 3)
        assert prior_row(scores)["estimate"] == first
        draw = ", one draw" if levels else ""
        assert knowledge_row(scores, "known", None)["estimate"] == f"importance-weighted bound{draw}, {words}"


def test_rows_of_other_flows_say_what_they_said() -> None:
    model = TzK(tzk_core.build_flow((2,), layers=[{"type": "affine"}]))
    model.add("known", build_knowledge("gaussian", (2,), name="known", hidden=4))
    scores = score(model, split_of(torch.randn(6, 2), None), 3)
    assert prior_row(scores)["estimate"] == "exact"
    assert knowledge_row(scores, "known", None)["estimate"] == "importance-weighted bound"


def evaluated(model: TzK) -> Evaluated:
    model.add("known", build_knowledge("gaussian", model.latent_shape, name="known", hidden=4))
    shape = model.flow.shape
    return Evaluated(model, score(model, split_of(torch.rand(8, *shape), None), 2), {}, 2)


@torch.no_grad()
def test_the_metric_has_the_error_of_a_solver() -> None:
    """Of a linear equation with the known solution, by Euler's method in training: 2 steps of dx/dt = a x."""
    model = TzK(SharedFlow((1,), Ffjord((1,), 1, 1, solver="euler", steps=2), StandardGaussian((1,))))
    layer = model.flow.transform
    last = layer.dynamics.squashed[-1]
    last.gate.weight.zero_()
    last.linear.bias.fill_(2.0)  # a constant velocity of 2 σ(g₀), which every method solves exactly
    good, also = SolverMetric().rows(evaluated(model))
    assert (good["evaluations"], also["evaluations"]) == (4 * (2 + 4), 2)
    assert good["largest error"] < 1e-5 and also["largest error"] < 1e-5 and good["deviation"] is None
    last.shift.weight.fill_(4.0)  # and a velocity 4 t beside it, which Euler's two steps have as 1 instead of 2
    case = evaluated(TzK(model.flow))
    good, coarse = SolverMetric().rows(case)
    z = model.flow.encode(case.held_out.T)[0]
    expected = (0.5 * ((z - 1).square() - z.square())).abs().mean().item()
    assert good["mean error"] < 1e-5
    assert coarse["mean error"] == pytest.approx(expected, rel=1e-3)


def test_the_metric_has_the_deviation_of_an_estimate_and_nothing_of_other_flows() -> None:
    rows = list(SolverMetric().rows(evaluated(model_of((2,), evaluation_trace="hutchinson"))))
    assert rows[0]["deviation"] > 0 and rows[0]["mean error"] is None
    assert not list(SolverMetric().rows(evaluated(TzK(tzk_core.build_flow((2,), layers=[{"type": "affine"}])))))


def test_counting_evaluations_changes_no_step() -> None:
    T = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    models = [TzK(tzk_core.build_flow((2,), "ffjord", hidden=8, steps=3, seed=0)) for _ in range(2)]
    histories = [
        fit(model, T, steps=3, batch_size=20, terms=terms)
        for model, terms in zip(models, ([], [{"type": "function-evaluations", "weight": 0.0}]), strict=True)
    ]
    assert histories[1].trainer.terms and isinstance(histories[1].trainer.terms[0], WeightedTerm)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_a_run_leaves_the_column_the_table_and_the_estimate(tmp_path: Path) -> None:
    config = Path(__file__).parents[3] / "examples/continuous/two-moons.toml"
    short = ["training.steps=4", "training.validate_every=2", "training.log_every=1", "flow.hidden=8"]
    short += ["datasets.0.test=20", "datasets.0.validation=20", "evaluation.importance_samples=2", "pictures.draw=[]"]
    output_of("run", config, *short, "--out", tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run/metrics.csv").open()))
    assert float(rows[0]["term/function-evaluations"]) == 16  # four steps of rk4
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["rows"][0]["estimate"] == "exact trace"
    assert [row["solver"] for row in results["metrics"][0]["rows"]] == ["evaluation, rk4", "training, rk4"]


@pytest.mark.parametrize(
    ("shape", "arguments", "words"),
    [
        ((3,), {"scales": 2}, "both sides have to be divisible by 2"),
        ((1, 6, 6), {"scales": 3}, "divisible by 4"),
        ((3,), {"flows": 0}, "flows and scales of at least 1"),
    ],
)
def test_what_cannot_be_cut_is_refused(shape: tuple[int, ...], arguments: dict[str, int], words: str) -> None:
    with pytest.raises(TzkError, match=words):
        ffjord(shape, **arguments)  # type: ignore[arg-type]
