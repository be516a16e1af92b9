"""A trained model gets the kernels by installing the plugin: nothing of it changes, and the results are the same."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import kernels_cases as cases
import pytest
import torch
from commands import output_of, tzk
from tzk_plugin_kernels import choice

import tzk_core
from tzk_core import TzK, TzkError, build_flow, build_knowledge
from tzk_core.agreement import agreement, as_it_is
from tzk_core.implementations import offers, places
from tzk_core.testing import check_plugin
from tzk_core.transforms.composite import Composite

CPU = torch.device("cpu")


@pytest.fixture
def operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators in plain torch take the place of the layers."""
    monkeypatch.setenv("TZK_KERNELS", "torch")


def flow_of(recipe: str, knee: float = 1.0) -> TzK:
    torch.manual_seed(0)
    paper = {"steps": 3, "tile": 2, "initialisation": "orthogonal", "knee": knee}
    more = {"paper": paper, "glow": {"steps": [1, 1], "width": 4}}
    model = TzK(build_flow((1, 8, 8), recipe, **more[recipe]))
    if recipe == "paper":
        for name in ("a", "b"):
            model.add(name, build_knowledge("flow", model.latent_shape, name=name, steps=2, tile=2, knee=knee))
    model.flow.initialise(torch.rand(64, 1, 8, 8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.double()


def both(recipe: str, monkeypatch: pytest.MonkeyPatch, knee: float = 1.0) -> tuple[TzK, TzK]:
    """A model with its layers as they are, and with the operators."""
    monkeypatch.setenv("TZK_KERNELS", "auto")
    plain = flow_of(recipe, knee)
    monkeypatch.setenv("TZK_KERNELS", "torch")
    return plain, copy.deepcopy(plain).to("cpu")


def test_the_plugin_is_one() -> None:
    assert {spec.device for spec in check_plugin("tzk_plugin_kernels")} == {"cpu", "cuda"}


@pytest.mark.parametrize(
    ("recipe", "knee", "expected"),
    [
        *[("paper", knee, {"kernels/tiled-affine-symlog-cpu": 3 + 2 * 2}) for knee in cases.KNEES],
        ("glow", 0.0, {"kernels/mixture-coupling-cpu": 4}),
    ],
)
def test_a_model_takes_the_operators_and_computes_the_same(
    recipe: str, knee: float, expected: dict[str, int], *, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, fused = both(recipe, monkeypatch, knee)
    found = places(fused, "cpu")
    assert found.keys() == expected.keys() and (recipe == "glow" or found == expected)
    assert not places(plain, "cpu")
    assert list(fused.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in fused.state_dict().items())
    assert max(agreement(plain, fused, 4).values()) < 1e-9
    assert max(agreement(as_it_is(plain, CPU, torch.float32), fused.float(), 4).values()) < 1e-4


def test_stacked_knowledge_is_evaluated_with_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    from tzk_core.knowledge.stacking import Stack

    found = []
    for model in both("paper", monkeypatch):
        kinds = dict(model.named_knowledge())
        states = [dict(kind.named_parameters()) | dict(kind.named_buffers()) for kind in kinds.values()]
        z = torch.randn(2, 5, *model.latent_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        stack = Stack(kinds, states)
        (log_prob,) = stack(lambda kind, z: (kind.log_prob_latent(z, z.flatten(1)[:, :2]),), z)
        log_prob.sum().backward()
        gradients = [parameter.grad for kind in kinds.values() for parameter in kind.parameters()]
        found.append([log_prob, *(each for each in gradients if each is not None)])
    assert len(found[0]) == len(found[1]) > 5
    for mine, its in zip(*found, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_the_shared_flow_compiles_as_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = both("paper", monkeypatch)
    T = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    compiled = torch.compile(fused.flow.transform, fullgraph=True, backend="aot_eager")
    for mine, its in zip(compiled(T), plain.flow.transform(T), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("knee", cases.KNEES)
def test_nothing_but_the_last_outputs_needs_to_be_kept(knee: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZK_KERNELS_KEEP", "last")
    plain, fused = both("paper", monkeypatch, knee)
    assert isinstance(fused.flow.transform, Composite) and len(fused.flow.transform.runs) == 1
    assert places(fused, "cpu") == {"kernels/tiled-affine-symlog-cpu": 3 + 2 * 2}
    assert max(agreement(plain, fused, 4).values()) < 1e-9
    monkeypatch.setenv("TZK_KERNELS_KEEP", "some")
    with pytest.raises(TzkError, match="TZK_KERNELS_KEEP should be one of outputs, last; got 'some'"):
        fused.to("cpu")


def test_a_run_says_whether_it_agrees(operators: None, tmp_path: Path) -> None:
    tzk_core.save(flow_of("paper").float(), tmp_path / "checkpoint")
    done = tzk("doctor", tmp_path / "checkpoint", "--device", "cpu", "-n", 8, "--json")
    assert done.exit_code in (0, 1), done.output
    found = json.loads(done.stdout)["agreement"]
    assert found["places"] and max(found["differences"]["float64"].values()) < 1e-9
    assert found["differences"]["float32"]["log p(T)"] < 1e-5
    assert found["agree"] == (done.exit_code == 0)


def test_why_the_kernels_are_not_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "without_triton", lambda: "Triton cannot be imported")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("TZK_KERNELS", "auto")
    reasons = {offer.part.name: offer.reason for offer in offers() if offer.part.plugin == "kernels"}
    assert reasons["affine-symlog-cuda"] == "Triton cannot be imported"
    assert reasons["affine-symlog-cpu"] == "a CPU uses the layers themselves, unless TZK_KERNELS=torch"
    monkeypatch.setenv("TZK_KERNELS", "triton")
    with pytest.raises(TzkError, match="TZK_KERNELS=triton, and Triton cannot be used: Triton cannot be imported"):
        choice.unusable("cuda")
    monkeypatch.setenv("TZK_KERNELS", "cuda")
    assert all(
        "one of auto, torch, triton; got 'cuda'" in offer.reason
        for offer in offers()
        if offer.part.plugin == "kernels" and "-cpu" in offer.part.name
    )
    assert "got 'cuda'" in output_of("doctor")
