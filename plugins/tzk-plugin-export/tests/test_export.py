"""Exported programs compute what the model does, for any batch size; what has no program is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from nflows.transforms import CompositeTransform, LULinear
from nflows.transforms.base import Transform
from torch import Tensor
from tzk_plugin_export import programs
from tzk_plugin_export.command import command
from tzk_plugin_export.decompositions import copysign, prelu, solve
from tzk_plugin_export.functions import functions

import tzk_core
from tzk_core import SharedFlow, TzK, TzkError, build_flow, build_knowledge
from tzk_core.testing import check_plugin


def model() -> TzK:
    """The paper's flow over images, with a Gaussian and a flow as knowledge."""
    made = TzK(build_flow((1, 4, 4), steps=2, tile=2))
    made.flow.initialise(torch.rand(64, 1, 4, 4))
    for kind in ("gaussian", "flow"):
        more = {"tile": 2, "steps": 1} if kind == "flow" else {}
        made.add(kind, build_knowledge(kind, made.latent_shape, name=kind, hidden=6, layers=3, **more))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return made


def test_the_plugin_is_one() -> None:
    assert [spec.name for spec in check_plugin("tzk_plugin_export")] == ["export"]


def test_the_functions_are_the_methods_of_the_model() -> None:
    made = model()
    prior, given = functions(made), functions(made, "flow")
    T = prior["log_prob"].examples[0]
    torch.testing.assert_close(prior["log_prob"].module(T), made.log_prob(T))
    torch.testing.assert_close(prior["encode"].module(T), made.encode(T), rtol=1e-4, atol=1e-4)
    T, C = given["log_prob"].examples
    torch.testing.assert_close(given["log_prob"].module(T, C), made.log_prob(T, "flow", C))
    noise, C = given["sample_from_noise"].examples
    z = made.find("flow").decode(C, noise)
    torch.testing.assert_close(given["sample_from_noise"].module(noise, C), made.flow.transform.inverse(z)[0])


@pytest.mark.slow
@pytest.mark.parametrize("knowledge", [None, "flow"])
@pytest.mark.parametrize("format", programs.FORMATS)
def test_programs_agree_for_any_batch_size(format: str, knowledge: str | None, tmp_path: Path) -> None:
    if format == "onnx":
        for library in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(library, reason=f"{library} is not installed")
    made = model()
    differences = programs.export(made, tmp_path, format=format, knowledge=knowledge)
    assert len(differences) == 3 and max(differences.values()) < 1e-5
    prefix = f"{knowledge}-" if knowledge else ""
    read = programs._read_pt2 if format == "pt2" else programs._read_onnx
    program = read(tmp_path / f"{prefix}log_prob.{format}")
    for batch in (1, 7):
        inputs = functions(made, knowledge, batch=batch)["log_prob"].examples
        expected = made.log_prob(inputs[0], knowledge, *inputs[1:])
        torch.testing.assert_close(program(*inputs), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("unitriangular", [False, True])
@pytest.mark.parametrize("n", [1, 2, 5, 16])
def test_triangular_systems_are_solved_by_products(n: int, upper: bool, left: bool, unitriangular: bool) -> None:
    A = torch.randn(n, n, dtype=torch.float64) + 3 * torch.eye(n, dtype=torch.float64)
    B = torch.randn((n, 7) if left else (7, n), dtype=torch.float64)
    more = {"upper": upper, "left": left, "unitriangular": unitriangular}
    triangle = A.triu() if upper else A.tril()
    torch.testing.assert_close(solve(A, B, **more), torch.linalg.solve_triangular(triangle, B, **more))


def test_signs_are_copied() -> None:
    magnitude, sign = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0]), torch.tensor([-0.5, 0.5, 2.0, -7.0, 0.0])
    assert torch.equal(copysign(magnitude, sign), torch.copysign(magnitude, sign))


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5)])
@pytest.mark.parametrize("weights", [1, 3])
def test_a_weight_is_of_what_is_negative(shape: tuple[int, ...], weights: int) -> None:
    inputs, weight = torch.randn(shape), torch.rand(weights)
    assert torch.equal(prelu(inputs, weight), torch.prelu(inputs, weight))


class DependsOnValues(Transform):
    """Looks at a value to decide what to compute, which a program cannot."""

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        sign = 1.0 if inputs.sum() > 0 else -1.0
        return sign * inputs, inputs.new_zeros(len(inputs))

    inverse = forward


@pytest.mark.slow
def test_the_layer_without_a_program_is_named(tmp_path: Path) -> None:
    made = TzK(SharedFlow((4,), CompositeTransform([LULinear(4), DependsOnValues()])))
    with pytest.raises(TzkError, match="log_prob cannot be exported to pt2: layer DependsOnValues has no program"):
        programs.export(made, tmp_path, format="pt2")


def test_results_that_differ_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_write_pt2", lambda function, file: None)
    monkeypatch.setattr(programs, "_read_pt2", lambda file: lambda T: made.log_prob(T) + 1e-2)
    made = model()
    with pytest.raises(
        TzkError, match="log_prob.pt2: its results differ from the model's by .* expected at most 1e-05"
    ):
        programs.export(made, tmp_path, format="pt2")


def test_what_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(TzkError, match="needs onnx .*pip install 'tzk-plugin-export"):
        programs.export(model(), tmp_path, format="onnx")
    with pytest.raises(TzkError, match="one of pt2, onnx; got 'tf'"):
        programs.export(model(), tmp_path, format="tf")


@pytest.mark.slow
def test_the_command_writes_three_files(tmp_path: Path) -> None:
    tzk_core.save(model(), tmp_path / "saved")
    done = CliRunner().invoke(command, [str(tmp_path / "saved"), "--knowledge", "gaussian", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    files = [f"gaussian-{name}.pt2" for name in ("log_prob", "encode", "sample_from_noise")]
    assert all((tmp_path / file).is_file() for file in files)
    assert done.output.count("differs by") == 3
