"""Recipes on real-valued vectors: they begin with the domain of the data, and their density is one in its unit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tzk_core import TzK, fit
from tzk_core.build import build_flow
from tzk_core.data.toys import TwoMoons
from tzk_core.errors import TzkError
from tzk_core.recipes.entrance import entrance_of
from tzk_core.transforms.logit import Logit
from tzk_core.transforms.standardise import Standardise

RECIPES = {
    "maf": {"hidden": 32, "steps": 3},
    "real-nvp": {"hidden": 32, "steps": 4},
    "rq-nsf-coupling": {"hidden": 16, "steps": 2, "blocks": 1},
    "rq-nsf-autoregressive": {"hidden": 16, "steps": 2, "blocks": 1},
    "paper": {"steps": 4},
}
SCALE = torch.tensor([1000.0, 0.01])
"""The unit of the data: two moons are two wide."""


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_density_of_a_fitted_flow_integrates_to_one_in_the_unit_of_the_data(recipe: str) -> None:
    T = TwoMoons(noise=0.2, train=1000).split("train").T * SCALE
    model = TzK(build_flow((2,), recipe, **RECIPES[recipe]))
    fit(model, T, steps=30, batch_size=128, learning_rate=1e-3)
    axis = torch.linspace(-7, 7, 401)
    points = torch.cartesian_prod(axis, axis) * SCALE
    with torch.no_grad():
        density = model.log_prob(points).double().exp().view(401, 401)
    total = torch.trapezoid(torch.trapezoid(density, axis * SCALE[1]), axis * SCALE[0])
    assert total.item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_unit_of_the_data_moves_the_density_by_its_logarithm(recipe: str) -> None:
    """log p of 1000 x is log p of x less log 1000: same seeds, same training."""
    T = TwoMoons(train=500).split("train").T

    def trained(T: Tensor) -> Tensor:
        model = TzK(build_flow((2,), recipe, **RECIPES[recipe])).double()
        fit(model, T.double(), steps=3, batch_size=100)
        return model.log_prob(T.double())

    shifted = trained(T * SCALE) + SCALE.double().log().sum()
    torch.testing.assert_close(shifted, trained(T), rtol=0, atol=1e-3)


@pytest.mark.parametrize("recipe", ["rq-nsf-coupling", "rq-nsf-autoregressive"])
def test_a_spline_flow_comes_back_and_reaches_every_dimension(recipe: str) -> None:
    flow = build_flow((5,), recipe, hidden=16, steps=3, domain="real").double()
    T = torch.randn(200, 5, dtype=torch.float64)
    flow.initialise(T)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        back = flow.transform.inverse(flow.encode(T)[0])[0]
    torch.testing.assert_close(back, T, rtol=0, atol=1e-6)
    jacobian = torch.autograd.functional.jacobian(lambda T: flow.encode(T[None])[0][0], T[0])
    assert (jacobian != 0).all()


@pytest.mark.slow
def test_an_autoregressive_spline_flow_learns_the_entropy_of_a_known_density() -> None:
    """A banana: x ~ N(0, 1), y = x² + N(0, 0.3²), of entropy 2 × 1.4189 + log 0.3 nats."""
    x = torch.randn(6000, 2, generator=torch.Generator().manual_seed(0))
    T = torch.stack([x[:, 0], x[:, 0] ** 2 + 0.3 * x[:, 1]], 1)
    model = TzK(build_flow((2,), "rq-nsf-autoregressive", hidden=32, steps=2, blocks=1))
    fit(model, T[:4000], steps=250, batch_size=256, learning_rate=5e-3)
    entropy = 1 + math.log(2 * math.pi) + math.log(0.3)
    with torch.no_grad():
        nats = -model.log_prob(T[4000:]).double()
    error = nats.std().item() / math.sqrt(len(nats))
    assert nats.mean().item() == pytest.approx(entropy, abs=0.06 + 3 * error)


@pytest.mark.parametrize(
    ("shape", "domain", "first"),
    [
        ((2,), "auto", Standardise),
        ((1, 4, 4), "auto", Logit),
        ((2,), "levels", Logit),
        ((1, 4, 4), "(0, inf)", Standardise),
        ((2,), ["(0, 1)", "real"], Standardise),
    ],
)
def test_the_first_layer_is_that_of_the_domain(shape: tuple[int, ...], domain: str | list[str], first: type) -> None:
    flow = build_flow(shape, "maf", hidden=8, domain=domain)
    assert isinstance(entrance_of(flow.transform), first)
    assert flow.parts is not None and flow.parts.recipe is not None
    assert flow.parts.recipe.arguments["domain"] != "auto", "a checkpoint says which it was"


def test_what_splines_cannot_do_is_said() -> None:
    with pytest.raises(TzkError, match="at least two dimensions"):
        build_flow((1,), "rq-nsf-coupling")
    with pytest.raises(TzkError, match="hidden = 9 or more"):
        build_flow((9,), "rq-nsf-autoregressive", hidden=8)
    with pytest.raises(TzkError, match="bins of at least 2"):
        build_flow((3,), "rq-nsf-coupling", bins=1)
