"""The operators on the CPU: against the layers and autograd's Jacobian in float64, torch's own checks, one graph."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import kernels_cases as cases
import pytest
import torch
from torch import Tensor
from tzk_plugin_glow.mixture import MixtureMap
from tzk_plugin_kernels.affine_symlog import (
    affine_symlog,
    affine_symlog_backward,
    affine_symlog_inverse,
    affine_symlog_inverse_backward,
)
from tzk_plugin_kernels.mixture import mixture, mixture_backward, mixture_inverse
from tzk_plugin_kernels.tiled import tiled_affine_symlog

from tzk_core.transforms.affine import Affine
from tzk_core.transforms.symlog import SymLog

X, RAW, SHIFT = cases.affine((2, 4, 5))
OUTPUTS = {knee: affine_symlog(X, RAW, SHIFT, cases.BOUND, knee) for knee in cases.KNEES}
ROWS = cases.tiled((2, 2, 3, 4))
VALUES, PARAMETERS = cases.mixture(3, 3, 4)

FORWARD: dict[str, tuple[Any, tuple[Any, ...], tuple[Any, ...]]] = {
    "mixture": (mixture, (VALUES, PARAMETERS), (6.0,)),
    "mixture inverse": (mixture_inverse, (VALUES, PARAMETERS), (6.0,)),
}
"""Operator, tensors, and what else it takes."""
BACKWARD: dict[str, tuple[Any, tuple[Any, ...], tuple[Any, ...]]] = {
    "mixture": (mixture_backward, (VALUES, VALUES, VALUES, PARAMETERS), (6.0,)),
}
for knee, (Y, MINUS) in OUTPUTS.items():
    forward, inverse = (cases.BOUND, knee), (cases.BOUND, cases.LIMIT, knee)
    FORWARD |= {
        f"affine-symlog, knee {knee}": (affine_symlog, (X, RAW, SHIFT), forward),
        f"affine-symlog inverse, knee {knee}": (affine_symlog_inverse, (X, RAW, SHIFT), inverse),
        f"tiled, knee {knee}": (tiled_affine_symlog, ROWS, forward),
    }
    BACKWARD |= {
        f"affine-symlog, knee {knee}": (affine_symlog_backward, (X, MINUS, Y, RAW, SHIFT), forward),
        f"affine-symlog inverse, knee {knee}": (affine_symlog_inverse_backward, (X, MINUS, X, RAW, SHIFT), inverse),
    }


def layers(size: tuple[int, ...], knee: float) -> tuple[Affine, SymLog]:
    affine, symlog = Affine(size, cases.BOUND).double(), SymLog(size, cases.LIMIT, knee)
    with torch.no_grad():
        for parameter in affine.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(size))))
    return affine, symlog


@pytest.mark.parametrize("knee", cases.KNEES[1:])
def test_the_cases_lie_on_both_sides_of_the_knee(knee: float) -> None:
    for values in (X, OUTPUTS[knee][0]):
        beyond = values.abs() > math.log1p(knee)
        assert 0.1 < beyond.double().mean() < 0.9


@pytest.mark.parametrize("knee", cases.KNEES)
@pytest.mark.parametrize("inverted", [False, True], ids=["forward", "inverse"])
def test_the_map_is_that_of_the_layers_and_its_volume_that_of_autograds_jacobian(
    *, inverted: bool, knee: float
) -> None:
    affine, symlog = layers((6,), knee)
    x = cases.affine((1, 5, 6))[0][0]
    raw, shift = affine.raw_log_scale[None], affine.shift[None]
    if inverted:
        between, volume = symlog.inverse(x)
        expected, more = affine.inverse(between)
        found, logabsdet = affine_symlog_inverse(x[None], raw, shift, cases.BOUND, cases.LIMIT, knee)
    else:
        between, volume = affine(x)
        expected, more = symlog(between)
        found, logabsdet = affine_symlog(x[None], raw, shift, cases.BOUND, knee)
        jacobian = torch.autograd.functional.jacobian(
            lambda each: affine_symlog(each[None], raw, shift, cases.BOUND, knee)[0].sum(1)[0], x
        )
        slopes = jacobian.diagonal(dim1=0, dim2=2)
        torch.testing.assert_close(logabsdet[0], slopes.log().sum(-1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[0], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logabsdet[0], volume + more, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("knee", cases.KNEES)
def test_the_tiled_map_has_the_volume_of_autograds_jacobian(knee: float) -> None:
    rows, weight, raw, shift = cases.tiled((1, 1, 2, 3))
    _, logabsdet = tiled_affine_symlog(rows, weight, raw, shift, cases.BOUND, knee)
    jacobian = torch.autograd.functional.jacobian(
        lambda each: tiled_affine_symlog(each, weight, raw, shift, cases.BOUND, knee)[0], rows
    ).reshape(6, 6)
    volume = torch.linalg.slogdet(jacobian).logabsdet - 2 * torch.linalg.slogdet(weight[0]).logabsdet
    torch.testing.assert_close(logabsdet.squeeze(), volume, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("inverted", [False, True], ids=["forward", "inverse"])
def test_the_mixture_and_its_gradients_are_those_of_autograd(*, inverted: bool) -> None:
    map = MixtureMap(3, 6.0)
    arguments = VALUES.clone().requires_grad_(), PARAMETERS.clone().requires_grad_()
    operator, plain = (mixture_inverse, map.inverse) if inverted else (mixture, map.forward)
    found, expected = operator(*arguments, 6.0), plain(*arguments)
    weights = [torch.randn_like(VALUES) for _ in found]
    gradients = [torch.autograd.grad(each, arguments, weights) for each in (found, expected)]
    assert max(cases.differences((*found, *gradients[0]), (*expected, *gradients[1]))) < 1e-9


@pytest.mark.parametrize("name", FORWARD)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    operator, tensors, more = FORWARD[name]
    tensors = tuple(each.clone().requires_grad_() for each in tensors)
    assert torch.autograd.gradcheck(lambda *each: operator(*each, *more), tensors, atol=1e-5)


@pytest.mark.parametrize("name", [*FORWARD, *(f"{name}, backward" for name in BACKWARD)])
def test_torchs_own_checks_of_operators(name: str) -> None:
    if name in FORWARD:
        operator, tensors, more = FORWARD[name]
        tensors = tuple(each.clone().requires_grad_() for each in tensors)
    else:
        operator, tensors, more = BACKWARD[name.removesuffix(", backward")]
    torch.library.opcheck(operator, (*tensors, *more))
    torch.library.opcheck(operator, (*(cases.strided(each.detach()) for each in tensors), *more))


@pytest.mark.parametrize("name", [*FORWARD, *(f"{name}, backward" for name in BACKWARD)])
def test_mapping_over_operators_is_a_loop(name: str) -> None:
    operator, tensors, more = FORWARD[name] if name in FORWARD else BACKWARD[name.removesuffix(", backward")]
    stacked = [torch.stack([each, 0.5 * each, 2 * each]) for each in tensors]
    for mapped in itertools.islice(itertools.product([True, False], repeat=len(tensors)), 3):
        given = [stack if own else each for stack, each, own in zip(stacked, tensors, mapped, strict=True)]
        dims = tuple(0 if own else None for own in mapped)
        found = torch.vmap(lambda *each: operator(*each, *more), in_dims=dims)(*given)
        for at in range(3):
            alone = operator(*(each[at] if own else each for each, own in zip(given, mapped, strict=True)), *more)
            assert max(cases.differences(tuple(each[at] for each in found), alone)) < 1e-9


@pytest.mark.parametrize("name", FORWARD)
def test_operators_compile_as_one_graph(name: str) -> None:
    operator, tensors, more = FORWARD[name]
    tensors = tuple(each.clone().requires_grad_() for each in tensors)

    def function(*each: Tensor) -> Tensor:
        outputs, logabsdet = operator(*each, *more)
        return (outputs.sin().flatten(1).sum(1) + logabsdet.flatten(1).sum(1)).sum()

    torch.compiler.reset()  # each case compiles the same function anew, and there is a limit to that
    compiled: Callable[..., Tensor] = torch.compile(function, fullgraph=True, backend="aot_eager")
    expected, found = (torch.autograd.grad(each(*tensors), tensors) for each in (function, compiled))
    assert max(cases.differences(found, expected)) < 1e-12


@pytest.mark.parametrize("knee", cases.KNEES)
def test_huge_and_tiny_values_stay_finite_and_keep_their_precision(knee: float) -> None:
    most = 3e38 if torch.__version__ >= "2.7" else 1e38  # torch 2.6 has log1p(3e38) = inf
    x = torch.tensor([1e-30, -1e-20, 1e-8, 1e4, -1e20, most, 0.0]).repeat(1, 1, 1)
    raw, shift = torch.zeros(1, 7), torch.zeros(1, 7)
    y, logabsdet = affine_symlog(x, raw, shift, 8.0, knee)
    inside = x.double().abs().clamp_max(knee or math.inf)
    exact = torch.copysign(inside.log1p() + (x.double().abs() - inside) / (1 + knee), x.double())
    torch.testing.assert_close(y.double(), exact, rtol=2e-7, atol=0)
    torch.testing.assert_close(logabsdet.double(), -inside.log1p().sum(-1), rtol=2e-7, atol=0)
    grad, grads = affine_symlog_backward(torch.ones_like(x), torch.ones(1, 1), y, raw, shift, 8.0, knee)
    assert grad.isfinite().all() and grads.isfinite().all()
    back, _ = affine_symlog_inverse(y[..., :4], raw[:, :4], shift[:, :4], 8.0, 80.0, knee)
    torch.testing.assert_close(back, x[..., :4], rtol=1e-5, atol=0)
