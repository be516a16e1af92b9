"""A shared flow from the objects of nflows: the same density as nflows' own flow, its shape inferred."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from nflows.distributions.normal import ConditionalDiagonalNormal, DiagonalNormal, StandardNormal
from nflows.flows.base import Flow
from nflows.nn.nets import ResidualNet
from nflows.transforms import (
    ActNorm,
    AffineCouplingTransform,
    CompositeTransform,
    InverseTransform,
    LULinear,
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    OneByOneConvolution,
    PiecewiseRationalQuadraticCDF,
    ReversePermutation,
    Sigmoid,
    SqueezeTransform,
)
from nflows.transforms.base import Transform
from nflows.transforms.standard import IdentityTransform

import tzk_core
from tzk_core import SharedFlow, TzK, TzkError
from tzk_core.transforms.affine import Affine

NET = partial(ResidualNet, hidden_features=8, num_blocks=1)

VECTORS: dict[str, Callable[[], Transform]] = {
    "coupling": lambda: CompositeTransform([AffineCouplingTransform([1, 0, 1, 0], NET), ReversePermutation(4)]),
    "linear": lambda: LULinear(4),
    "permutation": lambda: CompositeTransform([ReversePermutation(4), LULinear(4)]),
    "autoregressive": lambda: MaskedAffineAutoregressiveTransform(4, 8),
    "spline": lambda: MaskedPiecewiseRationalQuadraticAutoregressiveTransform(4, 8, tails="linear"),
    "behind elements": lambda: CompositeTransform([InverseTransform(Sigmoid()), LULinear(4)]),
    "elements": lambda: PiecewiseRationalQuadraticCDF([4], tails="linear"),
    "inverse": lambda: InverseTransform(CompositeTransform([IdentityTransform(), LULinear(4)])),
    "of this package": lambda: Affine((4,)),
}


@pytest.mark.parametrize("name", VECTORS)
def test_the_shape_is_inferred_and_the_density_is_that_of_nflows(name: str) -> None:
    torch.manual_seed(0)
    transform = VECTORS[name]().double()
    theirs = Flow(transform, StandardNormal([4])).double().eval()
    T = torch.rand(6, 4, dtype=torch.float64)
    for flow in (SharedFlow(transform), SharedFlow(transform, StandardNormal([4])), SharedFlow((4,), transform)):
        assert flow.shape == flow.latent_shape == (4,)
        torch.testing.assert_close(flow.log_prob(T), theirs.log_prob(T))
        assert flow.sample(3).shape == (3, 4)


def test_a_learned_base_of_nflows_has_its_parameters_and_its_density() -> None:
    base = DiagonalNormal([4])
    with torch.no_grad():
        base.mean_.normal_(generator=torch.Generator().manual_seed(0))
        base.log_std_.normal_(generator=torch.Generator().manual_seed(1))
    flow = SharedFlow(LULinear(4), base)
    T = torch.randn(5, 4)
    torch.testing.assert_close(flow.log_prob(T), Flow(flow.transform, base).log_prob(T))
    assert {id(base.mean_), id(base.log_std_)} <= {id(parameter) for parameter in flow.parameters()}
    torch.manual_seed(0)
    z = flow.transform(flow.sample(20_000))[0]
    torch.testing.assert_close(z.mean(0), base.mean_[0], atol=0.1, rtol=0.05)
    torch.testing.assert_close(z.std(0), base.log_std_[0].exp(), atol=0.05, rtol=0.05)


def test_a_base_tells_the_shape_of_images() -> None:
    images = CompositeTransform([SqueezeTransform(), OneByOneConvolution(4)])
    flow = SharedFlow(images, StandardNormal([4, 2, 2]))
    assert flow.shape == (1, 4, 4) and flow.latent_shape == (4, 2, 2)
    assert SharedFlow((1, 4, 4), images).latent_shape == (4, 2, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SharedFlow(IdentityTransform()), r"cannot be inferred .* write it first, as in SharedFlow\(\(3, 32"),
        (lambda: SharedFlow(OneByOneConvolution(4)), "cannot be inferred"),
        (lambda: SharedFlow(LULinear(4), StandardNormal([3])), r"takes \(4,\) to \(4,\), and the base is over \(3,\)"),
        (lambda: SharedFlow(LULinear(4), ConditionalDiagonalNormal([4])), "DiagonalNormal, .* got ConditionalDiag"),
        (lambda: SharedFlow((4,)), "an nflows Transform; got tuple"),
        (lambda: SharedFlow(), "an nflows Transform; got nothing"),
        (lambda: SharedFlow((3,), LULinear(4)), r"does not take inputs of shape \(3,\)"),
    ],
)
def test_what_is_no_flow_is_one_sentence(make: Callable[[], SharedFlow], message: str) -> None:
    with pytest.raises(TzkError, match=message):
        make()


def test_initialise_starts_the_layers_of_nflows_from_data() -> None:
    flow = SharedFlow(CompositeTransform([ActNorm(4), LULinear(4)]))
    T = 5 + 3 * torch.randn(512, 4)
    flow.initialise(T)
    assert not flow.training
    z = flow.encode(T)[0]
    torch.testing.assert_close(z.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(4), atol=1e-2, rtol=0)
    state = {key: value.clone() for key, value in flow.state_dict().items()}
    flow.initialise(T + 100)
    assert all(torch.equal(value, state[key]) for key, value in flow.state_dict().items())


def test_an_nflows_model_trains_is_saved_and_opens_with_the_flow_built_again(tmp_path) -> None:  # type: ignore[no-untyped-def]
    def flow() -> SharedFlow:
        torch.manual_seed(0)
        return SharedFlow(VECTORS["coupling"]())

    model = TzK(flow())
    T = torch.randn(64, 4) * torch.tensor([1.0, 2.0, 3.0, 4.0])
    before = model.log_prob(T).mean()
    history = tzk_core.fit(model, T, steps=30, batch_size=64, learning_rate=1e-2)
    assert history.step[-1] == 30 and model.log_prob(T).mean() > before
    tzk_core.save(model, tmp_path / "saved")
    opened = tzk_core.load(tmp_path / "saved", flow())
    assert torch.equal(opened.log_prob(T), model.log_prob(T))
