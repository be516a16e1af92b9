"""Every architecture inverts, has the log-determinant of autograd's Jacobian, and is a density over all it may see."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from nflows.transforms.base import Transform
from torch import Tensor
from tzk_plugin_baselines import architectures, splines
from tzk_plugin_baselines.made import AutoregressiveAffine, MixtureMade

from tzk_core.build import build_flow
from tzk_core.errors import TzkError
from tzk_core.testing import check_plugin, check_transform
from tzk_core.transforms.affine import ChannelAffine

CLASSES = 3
GRID = torch.linspace(-14, 14, 281, dtype=torch.float64)

# name -> constructor, which takes the shape of an observation and the length of the context
ARCHITECTURES: dict[str, Callable[..., Transform]] = {
    "nice": partial(architectures.nice, steps=3, hidden=8, blocks=1),
    "real-nvp": partial(architectures.real_nvp, steps=3, hidden=8, blocks=1),
    "maf": partial(architectures.maf, steps=2, hidden=8, blocks=1),
    "bounded maf": partial(architectures.maf, steps=2, hidden=8, blocks=1, activation="tanh"),
    "narrow maf": partial(architectures.maf, steps=2, hidden=3, blocks=0),
    "made-mog": partial(architectures.made_mog, hidden=8, blocks=1, components=3),
    "maf-mog": partial(architectures.maf_mog, steps=1, hidden=8, blocks=0, components=3),
    "rq-nsf-coupling": partial(splines.coupling, steps=2, hidden=8, blocks=1, bins=4),
}
IMAGES = {"glow": partial(architectures.glow, levels=2, steps=2, hidden=4, blocks=1)}
EVERY = pytest.mark.parametrize("name", [*ARCHITECTURES, *IMAGES])
CONTEXT = pytest.mark.parametrize("context", [None, CLASSES], ids=["alone", "given the class"])


def perturbed(name: str, shape: tuple[int, ...], context: int | None, *, by: float = 0.2) -> Transform:
    """An architecture with perturbed parameters, in float64."""
    torch.manual_seed(0)
    transform = (ARCHITECTURES | IMAGES)[name](shape, context=context)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter += by * torch.randn_like(parameter)
    return transform.double()


def one_hot(count: int) -> Tensor:
    return torch.eye(CLASSES, dtype=torch.float64)[torch.arange(count) % CLASSES]


@EVERY
@CONTEXT
def test_it_is_a_transform(name: str, context: int | None) -> None:
    shape = (1, 4, 4) if name in IMAGES else (1, 2, 2)
    inputs = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    classes = None if context is None else one_hot(3)
    check_transform(perturbed(name, shape, context), inputs, classes, perturbation=0.1, large=3)


@pytest.mark.parametrize("name", ARCHITECTURES)
@CONTEXT
def test_the_density_integrates_to_one(name: str, context: int | None) -> None:
    """In the plane by quadrature, for every class, whatever the parameters."""
    transform = perturbed(name, (2,), context)
    points = torch.cartesian_prod(GRID, GRID)
    for row in one_hot(CLASSES) if context else [None]:
        one_class = None if row is None else row.expand(len(points), CLASSES)
        with torch.no_grad():
            z, logabsdet = transform(points, one_class)
        log_prob = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + logabsdet
        total = torch.trapezoid(torch.trapezoid(log_prob.exp().view(281, 281), GRID), GRID)
        assert total.item() == pytest.approx(1, abs=2e-3)


LAYERS = [
    AutoregressiveAffine(7, hidden=4, blocks=1),
    MixtureMade(7, hidden=4, blocks=1, components=2),
    MixtureMade(7, hidden=40, blocks=0, components=2),
]


@pytest.mark.parametrize("layer", LAYERS)
def test_every_feature_depends_on_all_before_it_and_on_none_after(layer: Transform) -> None:
    """Also with fewer hidden units than features, where nflows' own degrees leave the last ones out."""
    reached = torch.zeros(7, 7, dtype=torch.bool)
    for seed in range(20):  # a unit may be off at one x and with one set of weights
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.normal_(generator=generator)
        x = torch.randn(1, 7, generator=generator)
        rows: Tensor = torch.autograd.functional.jacobian(lambda x: layer(x)[0][0], x)[:, 0]  # type: ignore[assignment]
        reached |= rows != 0
    assert not reached.triu(1).any()
    assert reached[-1, -4:].all() and reached.diagonal().all()


def test_the_masks_are_not_in_checkpoints() -> None:
    assert not [key for key in MixtureMade(5, hidden=4, blocks=1, components=2).state_dict() if key.endswith("mask")]


@EVERY
def test_in_float32_it_comes_back(name: str) -> None:
    shape = (1, 8, 8)
    transform = perturbed(name, shape, None, by=0.05).float()
    x = torch.randn(16, *shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        back = transform.inverse(transform(x)[0])[0]
    torch.testing.assert_close(back, x, rtol=0, atol=2e-3)


@pytest.mark.parametrize("recipe", ["nice", "real-nvp", "maf", "made-mog", "maf-mog", "glow-nflows", "logit"])
def test_a_recipe_is_a_flow_on_the_unit_interval_that_starts_from_data(recipe: str) -> None:
    """Samples come back, constant pixels do no harm, and what leaves is of scale 1."""
    flow = build_flow((1, 8, 8), recipe, **({} if recipe == "logit" else {"hidden": 16}))
    T = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    T[:, :, 0] = 0.25
    flow.initialise(T)
    with torch.no_grad():
        z, logabsdet = flow.encode(T)
        back = flow.transform.inverse(z)[0]
    assert z.isfinite().all() and logabsdet.isfinite().all()
    assert 0.5 < z.std().item() < 1.5
    torch.testing.assert_close(back, T, rtol=0, atol=1e-4)
    again = [parameter.clone() for parameter in flow.parameters()]
    flow.initialise(T[:8] ** 2)
    assert all(map(torch.equal, again, flow.parameters())), "a flow starts once"


def test_channels_leave_standardised_also_constant_ones_and_of_one_image() -> None:
    x = 3 + 2 * torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 5.0
    layer = ChannelAffine((3, 4, 4))
    layer.initialise(x)
    y = layer(x)[0].detach()
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(y.std((0, 2, 3), unbiased=False), torch.tensor([1.0, 0.0, 1.0]), rtol=0, atol=1e-4)
    check_transform(layer, x)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(TzkError, match="at least one step"):
        architectures.maf((4,), steps=0, hidden=8, blocks=0)
    with pytest.raises(TzkError, match="divisible by 2"):
        architectures.glow((1, 6, 6), levels=2, steps=1, hidden=4, blocks=1)
    with pytest.raises(TzkError, match="expects images"):
        architectures.glow((4,), levels=1, steps=1, hidden=4, blocks=1)


def test_the_plugin_conforms() -> None:
    names = {spec.name for spec in check_plugin("tzk_plugin_baselines")}
    flows = {"nice", "real-nvp", "maf", "made-mog", "maf-mog", "glow-nflows", "logit"}
    knowledge = {"class-conditional", "conditional-flow"}
    assert flows | knowledge | {"rq-nsf-coupling", "rq-nsf-autoregressive"} == names
