"""What takes the place of torch's backward and of calls of a network: in all orders, precisions and extremes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import tzk_plugin_fast_nflows.spline_gradient as spline_gradient
from fast_nflows_cases import CASES
from nflows.transforms.base import Transform
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import jacrev, vmap
from tzk_plugin_fast_nflows.couplings import AffineCoupling, SplineCoupling
from tzk_plugin_fast_nflows.elements import SplineCDF
from tzk_plugin_fast_nflows.spline import Spline
from tzk_plugin_fast_nflows.spline_gradient import spline_of

SPLINES = ("spline", "spline, without tails", "spline, other least sizes", "spline, all features", "elements")
FAST = {"spline": SplineCoupling, "elements": SplineCDF, "affine": AffineCoupling}


def both(name: str) -> tuple[Transform, Transform]:
    """An nflows layer of a case, and ours with a copy of its parameters."""
    plain = CASES[name].layer()
    return plain, FAST[name.split(",")[0]].from_layer(copy.deepcopy(plain))


def second(layer: Transform, direction: str, values: Tensor) -> list[Tensor]:
    """The gradients of the squared gradients of outputs and log-determinant."""
    leaf = values.clone().requires_grad_()
    outputs, logabsdet = (layer if direction == "forward" else layer.inverse)(leaf)
    wanted = [leaf, *layer.parameters()]
    total = (outputs * torch.linspace(1, 2, outputs.numel(), dtype=outputs.dtype).view_as(outputs)).sum()
    first = torch.autograd.grad(total + logabsdet.sum(), wanted, create_graph=True)
    found = torch.autograd.grad(sum(grad.square().sum() for grad in first), wanted, allow_unused=True)
    return [torch.zeros_like(w) if grad is None else grad for w, grad in zip(wanted, found, strict=True)]


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("name", [*SPLINES, "affine"])
def test_second_derivatives_are_those_of_nflows(name: str, direction: str) -> None:
    plain, fast = both(name)
    for mine, its in zip(*(second(layer, direction, CASES[name].inputs()) for layer in (fast, plain)), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("name", SPLINES)
def test_single_precision_is_as_close_to_double_as_that_of_nflows(name: str, direction: str) -> None:
    plain, fast = both(name)
    values = CASES[name].inputs(200)

    @torch.no_grad()
    def error(layer: Transform) -> float:
        exact = (plain if direction == "forward" else plain.inverse)(values)[1]
        single = copy.deepcopy(layer).float()
        log = (single if direction == "forward" else single.inverse)(values.float())[1].double()
        return float((log - exact).square().mean().sqrt())

    assert error(fast) < 2 * error(plain) + 1e-6


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("size", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("tails", ["linear", None])
def test_extreme_parameters_give_the_gradients_of_torch(
    monkeypatch: pytest.MonkeyPatch, tails: str | None, size: float, inverse: bool
) -> None:
    spline = Spline(4, tails, 2.0, (1e-3, 1e-2), 1e-3, scale=0.5)
    generator = torch.Generator().manual_seed(0)
    parameters = size * torch.randn(50, 11 if tails else 13, generator=generator, dtype=torch.float64)
    values = torch.rand(50, generator=generator, dtype=torch.float64)
    leaves = values.requires_grad_(), parameters.requires_grad_()

    def found() -> list[Tensor]:
        outputs, log_slope = spline_of(*leaves, spline, inverse=inverse)
        return [outputs, log_slope, *torch.autograd.grad((outputs + 2 * log_slope).sum(), leaves)]

    mine = found()
    monkeypatch.setattr(spline_gradient, "applies", lambda *tensors: False)
    for own, its in zip(mine, found(), strict=True):
        assert own.isfinite().all()
        torch.testing.assert_close(own, its, rtol=1e-6, atol=1e-9)


def test_one_sample_and_few_gradients() -> None:
    plain, fast = both("spline")
    for layer in (plain, fast):
        layer.requires_grad_(False).transform_net.final_layer.bias.requires_grad_()
        layer(CASES["spline"].inputs(1))[1].sum().backward()
    torch.testing.assert_close(fast.transform_net.final_layer.bias.grad, plain.transform_net.final_layer.bias.grad)


@pytest.mark.parametrize("name", ["spline", "affine"])
def test_other_ways_of_differentiation_see_the_same_function(name: str) -> None:
    plain, fast = both(name)
    x = CASES[name].inputs()

    def one(layer: Transform) -> Callable[[Tensor], Tensor]:
        return lambda row: layer(row[None])[0][0]

    expected = torch.stack([torch.autograd.functional.jacobian(one(plain), row) for row in x])
    torch.testing.assert_close(vmap(jacrev(one(fast)))(x), expected)
    torch.testing.assert_close(jacrev(one(fast))(x[0]), expected[0])
    with forward_ad.dual_level():
        along = forward_ad.unpack_dual(fast(forward_ad.make_dual(x, torch.ones_like(x)))[0]).tangent
    torch.testing.assert_close(along, expected.sum(-1))


def hook(network: nn.Module, where: str) -> None:
    network.get_submodule(where).register_forward_hook(lambda part, given, out: 2 * out)


CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "hook": lambda network: hook(network, ""),
    "hook on a block": lambda network: hook(network, "blocks.0"),
    "hook on a layer": lambda network: hook(network, "blocks.0.linear_layers.1"),
    "weight norm": lambda network: nn.utils.parametrizations.weight_norm(network.final_layer),
    "activation": lambda network: setattr(network.blocks[0], "activation", torch.tanh),
    "dropout": lambda network: setattr(network.train().blocks[0].dropout, "p", 0.5),
}


@pytest.mark.parametrize("change", CHANGES)
def test_networks_that_are_more_than_their_matrices_are_called(change: str) -> None:
    x, found = CASES["affine"].inputs(), []
    for layer in both("affine"):
        before = layer(x)[0]
        CHANGES[change](layer.transform_net)
        torch.manual_seed(0)
        found.append(layer(x)[0])
        assert not torch.equal(found[-1], before) or change == "weight norm"
    torch.testing.assert_close(*found)


def test_softplus_is_precise_for_slopes_near_zero() -> None:
    values = torch.linspace(-80, 80, 2001)
    expected = nn.functional.softplus(values.double()).float()
    torch.testing.assert_close(spline_gradient._softplus(values), expected, rtol=1e-6, atol=0)


@torch.no_grad()
def test_autocast_computes_what_it_does_in_nflows() -> None:
    plain, fast = (layer.float() for layer in both("spline"))
    x = CASES["spline"].inputs().float()
    with torch.autocast("cpu", torch.bfloat16):
        mine, its = fast(x), plain(x)
    for own, other in zip(mine, its, strict=True):
        torch.testing.assert_close(own.float(), other.float(), rtol=0.05, atol=0.05)
