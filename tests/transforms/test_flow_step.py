"""The flow step as one function is its layers one after the other: values, gradients, second ones, mapped or not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from layers import perturbed
from nflows.transforms.base import CompositeTransform, Transform
from torch import Tensor
from torch.func import functional_call, vmap

from tzk_core.recipes.paper import paper
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.flow_step import flow_step, is_step
from tzk_core.transforms.symlog import SymLog
from tzk_core.transforms.tiled_convolution import TiledConvolution
from tzk_core.transforms.triangles import LEAST, factors, few, gradients, through


def layers(shape: tuple[int, ...] = (2, 2, 2), *, knee: float = 0.5, **mixing: Any) -> list[Transform]:
    channels = {"tile": 2, "channels": 1} if len(shape) == 3 else {}
    parts = [TiledConvolution(shape, **{**channels, **mixing}), Affine(shape), SymLog(shape, knee=knee)]
    return [perturbed(part, 0.2).double() for part in parts]


def values_and_gradients(transform: Transform, x: Tensor) -> list[Tensor]:
    """Outputs and log|det| with the gradients of something that depends on all of both."""
    outputs, logabsdet = transform(x)
    weights = torch.linspace(-1, 2, outputs.numel(), dtype=outputs.dtype).view(outputs.shape)
    value = (weights * outputs).sum() + logabsdet.square().sum()
    return [outputs, logabsdet, *torch.autograd.grad(value, [x, *transform.parameters()])]


@pytest.mark.parametrize("batch", [1, 3, 9])  # with few rows the matrix is not formed
@pytest.mark.parametrize("knee", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(2, 2, 2), (5,)])
def test_it_is_its_layers_one_after_the_other(shape: tuple[int, ...], knee: float, batch: int) -> None:
    parts = layers(shape, knee=knee)
    x = torch.randn(batch, *shape, dtype=torch.float64, requires_grad=True)
    at_once, plain = values_and_gradients(Composite(parts), x), values_and_gradients(CompositeTransform(parts), x)
    assert is_step(parts)
    for a, b in zip(at_once, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("knee", [0.0, 0.5])
def test_its_gradients_and_second_gradients_are_those_of_finite_differences(knee: float) -> None:
    parts = layers((1, 2, 2), knee=knee)
    held = Composite(parts)
    names, parameters = zip(*held.named_parameters(), strict=True)
    x = torch.randn(3, 1, 2, 2, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, *own: Tensor) -> Any:
        return functional_call(held, dict(zip(names, own, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x, *parameters))
    assert torch.autograd.gradgradcheck(function, (x, *parameters))


def test_many_mapped_over_their_parameters_are_each_by_itself() -> None:
    several = [Composite(layers()) for _ in range(3)]
    for number, one in enumerate(several):
        perturbed(one, 0.1 * number)
    own_states = [dict(one.named_parameters()) for one in several]
    states = {key: torch.stack([own[key] for own in own_states]).detach().requires_grad_() for key in own_states[0]}
    x = torch.randn(3, 4, 2, 2, 2, dtype=torch.float64)
    outputs, logabsdet = vmap(lambda state, x: functional_call(several[0], state, (x,)))(states, x)
    mapped = torch.autograd.grad(outputs.sin().sum() + logabsdet.square().sum(), list(states.values()))
    for number, one in enumerate(several):
        own, own_logabsdet = one(x[number])
        torch.testing.assert_close((outputs[number], logabsdet[number]), (own, own_logabsdet))
        found = torch.autograd.grad(own.sin().sum() + own_logabsdet.square().sum(), list(one.parameters()))
        for a, b in zip(mapped, found, strict=True):
            torch.testing.assert_close(a[number], b)


def test_other_transforms_of_torch_take_the_layers() -> None:
    held = Composite(layers((5,)))
    x = torch.randn(5, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda x: held(x[None])[0][0])(x)
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, held(x[None])[1][0])


def test_a_step_is_one_where_its_layers_are_its_own() -> None:
    assert is_step(layers()) and is_step([*layers((5,)), Affine((5,))])
    assert not is_step(layers()[:2]) and not is_step(layers()[::-1])
    assert not is_step(layers(initialisation="orthogonal")), "rows leave in another order"
    assert not is_step(layers((2, 4, 4))), "tiles do not lie in memory one after the other"
    hooked = layers()
    hooked[1].register_forward_hook(lambda *_: None)
    assert not is_step(hooked), "a hook waits for a call"


def test_all_steps_of_the_paper_s_flow_are_taken_at_once() -> None:
    parts = list(paper((1, 8, 8), steps=3, tile=4)._transforms)
    assert sum(is_step(parts[start:]) for start in range(len(parts))) == 3


def test_no_gradient_of_inputs_that_need_none() -> None:
    parts = layers()
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64)
    outputs, _ = flow_step(parts, x)
    outputs.sum().backward()
    assert x.grad is None and all(p.grad is not None for part in parts for p in part.parameters())


@pytest.mark.parametrize("dims", [6, LEAST])
@pytest.mark.parametrize("rows", [4, 2 * LEAST])
def test_products_by_blocks_are_those_of_the_whole_matrix(rows: int, dims: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def make(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    matrix = (make(2, dims, dims) / math.sqrt(dims)).requires_grad_()
    diagonal = make(2, dims).requires_grad_()
    x = make(2, rows, dims).requires_grad_()
    lower = matrix.tril(-1) + torch.eye(dims, dtype=torch.float64)
    upper = matrix.triu(1) + torch.diag_embed(diagonal)
    expected = x @ (lower @ upper).mT
    grad = make(*expected.shape)
    both = factors(matrix.detach(), diagonal.detach())
    outputs, kept = through(x.detach(), both)
    assert few(x) == (kept.shape[-2] == rows != dims)
    torch.testing.assert_close(outputs, expected)
    found = gradients(grad, x.detach(), both, kept=kept)
    wanted = torch.autograd.grad(expected, (x, matrix, diagonal), grad)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
