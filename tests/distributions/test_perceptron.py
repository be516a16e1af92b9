"""A regressor as one function is its layers: values, gradients, second ones, of one network or of many."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layers import perturbed
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from tzk_core.distributions.regressor import Regressor


def regressor(by: float = 1.0) -> Regressor:
    return perturbed(Regressor(4, 3, hidden=5, layers=3), by).double()  # type: ignore[return-value, arg-type]


def stacked(regressors: list[Regressor]) -> dict[str, Tensor]:
    states = [dict(one.named_parameters()) for one in regressors]
    return {key: torch.stack([state[key] for state in states]).detach().requires_grad_() for key in states[0]}


def layer_by_layer(one: Regressor, x: Tensor) -> Tensor:
    for part in one:
        x = part(x)
    return x


@pytest.mark.parametrize("shape", [(4,), (6, 4), (2, 3, 4)])
def test_it_is_its_layers_one_after_the_other(shape: tuple[int, ...]) -> None:
    one = regressor()
    x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    results = []
    for outputs in (one(x), layer_by_layer(one, x)):
        results.append([outputs, *torch.autograd.grad(outputs.sin().sum(), [x, *one.parameters()])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_its_gradients_and_second_gradients_are_those_of_finite_differences() -> None:
    one = regressor()
    names, parameters = zip(*one.named_parameters(), strict=True)

    def function(x: Tensor, *own: Tensor) -> Any:
        return functional_call(one, dict(zip(names, own, strict=True)), (x,))

    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x, *parameters))
    assert torch.autograd.gradgradcheck(function, (x, *parameters))


@pytest.mark.parametrize(("shape", "dim"), [((6, 4), None), ((2, 3, 4), None), ((3, 6, 4), 0), ((6, 3, 2, 4), 1)])
def test_many_mapped_over_their_parameters_are_each_by_itself(shape: tuple[int, ...], dim: int | None) -> None:
    several = [regressor(0.3 * (number + 1)) for number in range(3)]
    states = stacked(several)
    x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    outputs = vmap(lambda state, x: functional_call(several[0], state, (x,)), in_dims=(0, dim))(states, x)
    each = torch.stack([layer_by_layer(one, x if dim is None else x.select(dim, i)) for i, one in enumerate(several)])
    torch.testing.assert_close(outputs, each)
    of_x = [torch.autograd.grad(values.sin().sum(), x, retain_graph=True)[0] for values in (outputs, each)]
    torch.testing.assert_close(*of_x)
    found = torch.autograd.grad(outputs.sin().sum(), list(states.values()))
    for i, one in enumerate(several):
        wanted = torch.autograd.grad(each[i].sin().sum(), list(one.parameters()), retain_graph=True)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a[i], b)


def test_it_is_mapped_over_samples_and_within_another_map() -> None:
    several = [regressor(0.3 * (number + 1)) for number in range(3)]
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    torch.testing.assert_close(vmap(several[0])(x), layer_by_layer(several[0], x))
    of_many = vmap(lambda state, x: functional_call(several[0], state, (x,)), in_dims=(0, None))
    nested = vmap(of_many, in_dims=(None, 0))(stacked(several), x)
    torch.testing.assert_close(nested, torch.stack([layer_by_layer(one, x) for one in several], 1))
    torch.testing.assert_close(jacrev(several[0])(x[0, 0]), torch.autograd.functional.jacobian(several[0], x[0, 0]))


def test_hooks_and_other_layers_are_called() -> None:
    one, calls = regressor(), []
    one[1].register_forward_hook(lambda *_: calls.append(1))
    one(torch.zeros(2, 4, dtype=torch.float64))
    assert calls == [1]
    one = regressor()
    one[1] = nn.ReLU()
    x = torch.randn(2, 4, dtype=torch.float64)
    torch.testing.assert_close(one(x), layer_by_layer(one, x))
