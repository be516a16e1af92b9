"""Every map inverts, has the log-determinant of autograd's Jacobian and does what its formula says."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from layers import perturbed
from nflows.transforms.base import CompositeTransform, Transform
from torch import Tensor
from torch.func import functional_call, vmap

from tzk_core.distributions.standard import StandardGaussian
from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow
from tzk_core.recipes.paper import flow_steps, paper, start_steps
from tzk_core.testing import check_transform
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.bounds import soft_bound, soft_bound_inverse
from tzk_core.transforms.logit import Logit
from tzk_core.transforms.reshape import Flatten, Rearrangement
from tzk_core.transforms.squeeze import Squeeze, Unsqueeze
from tzk_core.transforms.standardise import Standardise
from tzk_core.transforms.symlog import SymLog
from tzk_core.transforms.tiled_convolution import TiledConvolution

IMAGE = (2, 4, 4)


# name -> constructor and shape of one input; another line is another transform held to the laws
TRANSFORMS: dict[str, tuple[Callable[[], Transform], tuple[int, ...]]] = {
    "symlog": (lambda: SymLog(IMAGE), IMAGE),
    "symlog of a vector": (lambda: SymLog((5,)), (5,)),
    "symlog with a knee": (lambda: SymLog(IMAGE, knee=0.5), IMAGE),
    "symlog of a vector with a knee": (lambda: SymLog((5,), knee=1.5), (5,)),
    "affine": (lambda: Affine(IMAGE), IMAGE),
    "affine of a vector": (lambda: Affine((5,)), (5,)),
    "logit": (lambda: Logit(IMAGE, 1e-6), IMAGE),
    "logit of Real NVP": (lambda: Logit((5,), 0.05), (5,)),
    "standardise": (lambda: Standardise(IMAGE), IMAGE),
    "standardise, bounded": (lambda: Standardise((4,), ["(0, inf)", "(-1, 2)", "real", "(-inf, 3)"]), (4,)),
    "flatten": (lambda: Flatten(IMAGE), IMAGE),
    "squeeze": (lambda: Squeeze(IMAGE), IMAGE),
    "squeeze into blocks": (lambda: Squeeze(IMAGE, 2, "blocks"), IMAGE),
    "squeeze by 4": (lambda: Squeeze(IMAGE, 4), IMAGE),
    "unsqueeze": (lambda: Unsqueeze((8, 2, 2)), (8, 2, 2)),
    "unsqueeze from blocks": (lambda: Unsqueeze((8, 2, 2), 2, "blocks"), (8, 2, 2)),
    "blocks to strides": (
        lambda: Rearrangement((8, 2, 2), [Unsqueeze((8, 2, 2), 2, "blocks"), Squeeze(IMAGE)]),
        (8, 2, 2),
    ),
    "1x1 tiles": (lambda: TiledConvolution((4, 2, 2)), (4, 2, 2)),
    "1x1 tiles, orthogonal": (lambda: TiledConvolution((4, 2, 2), initialisation="orthogonal"), (4, 2, 2)),
    "2x2 tiles of a channel": (lambda: TiledConvolution(IMAGE, 2, 1), IMAGE),
    "2x2 tiles, orthogonal": (lambda: TiledConvolution(IMAGE, 2, 1, initialisation="orthogonal"), IMAGE),
    "2x2 tiles of all channels": (lambda: TiledConvolution(IMAGE, 2, initialisation="orthogonal"), IMAGE),
    "one tile": (lambda: TiledConvolution(IMAGE, 4, initialisation="orthogonal"), IMAGE),
    "a matrix": (lambda: TiledConvolution((5,), initialisation="orthogonal"), (5,)),
    "paper": (lambda: paper(IMAGE, steps=2, tile=2), IMAGE),
    "paper, orthogonal": (lambda: paper(IMAGE, steps=2, tile=2, initialisation="orthogonal"), IMAGE),
    "flow steps of a vector": (lambda: flow_steps((5,), 3, 1), (5,)),
}
EVERY = pytest.mark.parametrize("name", TRANSFORMS)
UNIT = {"standardise, bounded", "logit", "logit of Real NVP", "paper", "paper, orthogonal"}


def inputs_of(name: str, batch: int = 3, seed: int = 0) -> Tensor:
    """Inputs in the domain of a transform."""
    shape = TRANSFORMS[name][1]
    generator = torch.Generator().manual_seed(seed)
    if name in UNIT:
        return torch.rand(batch, *shape, generator=generator)
    return 2 * torch.randn(batch, *shape, generator=generator)


@EVERY
def test_it_inverts_and_its_logabsdet_is_that_of_the_jacobian(name: str) -> None:
    check_transform(perturbed(TRANSFORMS[name][0](), 0.1), inputs_of(name))


@EVERY
def test_it_inverts_the_other_way_round(name: str) -> None:
    transform = perturbed(TRANSFORMS[name][0](), 0.1).double()
    outputs = transform(inputs_of(name, seed=2).double())[0]
    y = outputs + (0.0 if name in UNIT else 0.1)
    x, logabsdet = transform.inverse(y)
    again, forward_logabsdet = transform(x)
    torch.testing.assert_close(again, y, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(forward_logabsdet, -logabsdet, rtol=1e-8, atol=1e-8)


@EVERY
def test_few_samples_and_many_give_the_same(name: str) -> None:
    """A tiled convolution multiplies few rows in another order than many."""
    transform = perturbed(TRANSFORMS[name][0](), 0.1).double()
    x = inputs_of(name, batch=40).double()
    outputs, logabsdet = transform(x)
    for row in (0, 39):
        one, its_logabsdet = transform(x[row : row + 1])
        torch.testing.assert_close(one[0], outputs[row])
        torch.testing.assert_close(its_logabsdet[0], logabsdet[row])


@EVERY
@pytest.mark.parametrize("batch", [3, 40])
def test_several_stacked_are_each_alone_with_their_gradients(name: str, batch: int) -> None:
    """As knowledge types of one structure are evaluated: parameters stacked, `torch.func.vmap` over them."""
    several = [perturbed(TRANSFORMS[name][0](), scale).double() for scale in (0.1, 0.2, 0.05)]
    x = torch.stack([inputs_of(name, batch, seed) for seed in range(3)]).double()
    states = [dict(layer.named_parameters()) | dict(layer.named_buffers()) for layer in several]
    stacked = {key: torch.stack([state[key] for state in states]).detach() for key in states[0]}
    trained = {key: stacked[key].requires_grad_() for key, _ in several[0].named_parameters()}

    together = vmap(lambda state, own: functional_call(several[0], state, (own,)))(stacked, x.requires_grad_())
    weights = [torch.linspace(-1, 1, value[0].numel(), dtype=torch.float64).view(value[0].shape) for value in together]
    loss = sum((values * weight).sum() for values, weight in zip(together, weights, strict=True))
    gradients = torch.autograd.grad(loss, [x, *trained.values()])
    for number, layer in enumerate(several):
        own = x[number].detach().requires_grad_()
        alone = layer(own)
        for values, one in zip(together, alone, strict=True):
            torch.testing.assert_close(values[number], one)
        loss = sum((values * weight).sum() for values, weight in zip(alone, weights, strict=True))
        expected = torch.autograd.grad(loss, [own, *(dict(layer.named_parameters())[key] for key in trained)])
        for gradient, one in zip(gradients, expected, strict=True):
            torch.testing.assert_close(gradient[number], one)


@pytest.mark.parametrize("name", ["symlog", "blocks to strides", "2x2 tiles, orthogonal", "a matrix", "paper"])
def test_second_derivatives(name: str) -> None:
    """The hand-written gradients can be differentiated again."""
    transform = perturbed(TRANSFORMS[name][0](), 0.1).double()
    parameters = dict(transform.named_parameters())

    def outputs(x: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        return functional_call(transform, dict(zip(parameters, values, strict=True)), (x,))

    x = inputs_of(name, batch=2).double().requires_grad_()
    assert torch.autograd.gradgradcheck(outputs, (x, *parameters.values()), atol=1e-4, fast_mode=True)


@EVERY
def test_outputs_have_the_shape_that_it_says(name: str) -> None:
    transform = TRANSFORMS[name][0]()
    outputs, logabsdet = transform(inputs_of(name))
    assert logabsdet.shape == (3,)
    if not isinstance(transform, CompositeTransform):
        assert tuple(outputs.shape[1:]) == transform.output_shape


@EVERY
def test_save_and_load(name: str) -> None:
    transform, fresh = perturbed(TRANSFORMS[name][0]()), TRANSFORMS[name][0]()
    fresh.load_state_dict(transform.state_dict())
    x = inputs_of(name)
    assert torch.equal(transform(x)[0], fresh(x)[0])


@EVERY
def test_it_trains_after_an_evaluation_in_inference_mode(name: str) -> None:
    transform = TRANSFORMS[name][0]()
    x = inputs_of(name)
    with torch.inference_mode():
        transform(x)
    outputs, logabsdet = transform(x.clone().requires_grad_())
    (outputs.sum() + logabsdet.sum()).backward()


def test_what_starts_at_the_identity() -> None:
    x = torch.randn(3, *IMAGE)
    for transform in (Affine(IMAGE), TiledConvolution(IMAGE, 2, 1), TiledConvolution(IMAGE)):
        outputs, logabsdet = transform(x)
        assert torch.equal(outputs, x) and torch.equal(logabsdet, torch.zeros(3))


# Affine


def test_affine_initialised_from_data_standardises_it_once() -> None:
    affine = Affine((3,))
    data = torch.randn(500, 3) * torch.tensor([0.01, 1.0, 30.0]) + torch.tensor([5.0, 0.0, -7.0])
    affine.initialise(data)
    outputs, _ = affine(data)
    torch.testing.assert_close(outputs.mean(0), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(outputs.std(0, unbiased=False), torch.ones(3), rtol=1e-3, atol=0)
    before = copy.deepcopy(affine.state_dict())
    affine.initialise(100 * data)
    loaded = Affine((3,))
    loaded.load_state_dict(before)
    loaded.initialise(100 * data)
    for key, value in before.items():
        assert torch.equal(affine.state_dict()[key], value) and torch.equal(loaded.state_dict()[key], value)


@pytest.mark.parametrize("batch", [1, 64])
def test_affine_survives_constant_dimensions(batch: int) -> None:
    affine = Affine((2,))
    affine.initialise(torch.full((batch, 2), 0.5))
    outputs, logabsdet = affine(torch.full((3, 2), 0.5))
    torch.testing.assert_close(outputs, torch.zeros(3, 2), rtol=0, atol=1e-3)
    assert torch.equal(logabsdet, torch.zeros(3)), "what is constant says nothing of its scale"


@pytest.mark.parametrize("knee", [0.0, 1.0])
def test_a_flow_that_starts_from_constant_dimensions_is_finite_where_a_sample_deviates(knee: float) -> None:
    """Ten layers that each scaled a constant dimension by 1,000 would leave floating point at the first deviation."""
    flow = SharedFlow((4,), paper((4,), steps=10, knee=knee), StandardGaussian((4,)))
    images = torch.rand(64, 4, generator=torch.Generator().manual_seed(0)).mul(0.9).add(0.05)
    images[:, 1:] = 0.5
    flow.initialise(images)
    deviating = torch.rand(16, 4, generator=torch.Generator().manual_seed(1)).mul(0.9).add(0.05)
    z, logabsdet = flow.encode(deviating)
    assert torch.isfinite(z).all() and torch.isfinite(logabsdet).all()
    assert torch.isfinite(flow.base.log_prob(z)).all()


def test_a_flow_is_initialised_layer_by_layer() -> None:
    flow = SharedFlow((4,), CompositeTransform([Affine((4,)), SymLog((4,)), Affine((4,))]), StandardGaussian((4,)))
    data = 40 * torch.rand(300, 4) - 3
    flow.initialise(data)
    z, _ = flow.encode(data)
    torch.testing.assert_close(z.mean(0), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.std(0, unbiased=False), torch.ones(4), rtol=1e-4, atol=0)


# bounds


def test_soft_bound_is_the_identity_at_zero_and_bounded() -> None:
    values = torch.linspace(-1e4, 1e4, 101, dtype=torch.float64, requires_grad=True)
    bounded = soft_bound(values, 8.0)
    assert bounded.abs().max() <= 8.0 and bounded[50] == 0
    assert torch.autograd.grad(bounded.sum(), values)[0][50] == 1
    inside = torch.linspace(-7.5, 7.5, 31, dtype=torch.float64)
    torch.testing.assert_close(soft_bound(soft_bound_inverse(inside, 8.0), 8.0), inside)
    assert soft_bound_inverse(torch.tensor([-1e9, 1e9]), 8.0).isfinite().all()


def test_log_scales_stay_within_their_bounds_whatever_training_does() -> None:
    affine, tiled = Affine((3,), bound=2.0), TiledConvolution((3,), bound=2.0)
    with torch.no_grad():
        affine.raw_log_scale.copy_(torch.tensor([-1e6, 0.0, 1e6]))
        tiled.raw_log_diagonal.copy_(torch.tensor([-1e6, 0.0, 1e6]))
    for log_scale in (affine.log_scale, tiled.log_diagonal):
        torch.testing.assert_close(log_scale, torch.tensor([-2.0, 0.0, 2.0]))


# Logit


@pytest.mark.parametrize("alpha", [1e-7, 1e-6, 0.05])
def test_logit_at_the_extremes_in_float32(alpha: float) -> None:
    """Pixels of 0, just above it, just below 1 and 1 stay finite, and come back to 1e-3 grey levels."""
    x = torch.tensor([[0.0, 1e-9, 1 / 512, 0.5, 255 / 256, 1 - 2.0**-24, 1.0]])
    layer = Logit((7,), alpha)
    outputs, logabsdet = layer(x)
    assert outputs.isfinite().all() and logabsdet.isfinite().all()
    back, _ = layer.inverse(outputs)
    assert (back - x).abs().max() * 256 < 1e-3
    exact, exact_logabsdet = layer(x.double())
    # at 1 the rounding of 1 - alpha shows: half a unit of 2^-24 in alpha
    tolerance = 2.0**-24 / alpha
    torch.testing.assert_close(outputs.double(), exact, rtol=1e-5, atol=tolerance)
    torch.testing.assert_close(logabsdet.double(), exact_logabsdet, rtol=1e-5, atol=3 * tolerance)


def test_the_inverse_of_logit_far_out() -> None:
    """Samples of a heavy-tailed base land beyond the interval by alpha at most; their logabsdet is finite."""
    x, logabsdet = Logit((4,), 1e-6).inverse(torch.tensor([[-80.0, 80.0, -1e3, 1e3]]))
    assert x.min() > -2e-6 and x.max() < 1 + 2e-6
    assert logabsdet.item() == pytest.approx(-2160, rel=1e-5)


# what is refused


@pytest.mark.parametrize(
    ("construct", "words"),
    [
        (lambda: Logit((2,), 0.0), "expects 1e-7 <= alpha < 0.5"),
        (lambda: Logit((2,), 0.5), "got 0.5"),
        (lambda: Squeeze((1, 3, 4)), r"sides divisible by 2; got \(1, 3, 4\)"),
        (lambda: Squeeze((4,)), "expects"),
        (lambda: Squeeze((1, 4, 4), 0), "factor of at least 1; got 0"),
        (lambda: Squeeze((1, 4, 4), 2, "diagonal"), "'strided' or 'blocks'; got 'diagonal'"),
        (lambda: Unsqueeze((6, 2, 2)), "channels divisible by 4"),
        (
            lambda: TiledConvolution((1, 28, 28), 16),
            r"divisible by its tile \(1, 16, 16\); got \(1, 28, 28\)",
        ),
        (lambda: TiledConvolution((1, 4, 4), 0), "spans at least 1 pixel"),
        (lambda: TiledConvolution((4, 4), 2), "expects"),
        (lambda: TiledConvolution((4,), initialisation="random"), "'identity' or 'orthogonal'; got 'random'"),
        (lambda: flow_steps((4,), 0, 1), "at least one step"),
    ],
)
def test_what_cannot_be_built_is_refused(construct: Callable[[], Transform], words: str) -> None:
    with pytest.raises(TzkError, match=words):
        construct()


def test_whitening_a_tile_leaves_no_correlation() -> None:
    """Over all tiles together, whose covariance is then a multiple of the identity, the volume being kept in mind."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    tiles = torch.randn(8000, 4, 4, generator=generator, dtype=torch.float64) @ factors + 3
    convolution = TiledConvolution((1, 4, 4), 2, 1, initialisation="orthogonal").double()
    z = convolution.from_tiles(tiles.reshape(-1, 4), torch.empty(8000, 1, 4, 4))
    convolution.whiten(z)
    outputs = convolution.to_tiles(convolution(z)[0] - convolution(z.mean(0, keepdim=True))[0])
    covariance = outputs.T @ outputs / len(outputs)
    variance = covariance.diagonal().mean()
    torch.testing.assert_close(covariance, variance * torch.eye(4).double(), rtol=0, atol=0.02 * variance.item())
    weight = convolution.weight()
    torch.testing.assert_close(weight, weight.T, msg="the symmetric one")


def test_flow_steps_start_from_data_as_gaussians() -> None:
    """From latents far from N(0, I) and correlated, held-out likelihood comes close to that of the Gaussian that made
    them; a constant dimension leaves it finite."""
    generator = torch.Generator().manual_seed(0)
    root = torch.eye(4) + 0.5 * torch.randn(4, 4, generator=generator)
    z = 3 + torch.randn(4000, 4, generator=generator) @ root.T
    truth = torch.distributions.MultivariateNormal(torch.full((4,), 3.0), root @ root.T)
    flow, held = flow_steps((4,), 4, 1), z[2000:]

    def log_prob(z: Tensor) -> Tensor:
        y, logabsdet = flow(z)
        return StandardGaussian((4,)).log_prob(y) + logabsdet

    before = log_prob(held).mean().item()
    start_steps(flow, z[:2000])
    after = log_prob(held).mean().item()
    assert after - before > 5
    assert after == pytest.approx(truth.log_prob(held).mean().item(), abs=0.05)
    z[:, 2] = 1.0
    start_steps(flow, z)
    assert log_prob(z).isfinite().all()


@pytest.mark.parametrize("far", [3.0, 30.0, 1e4])
def test_samples_of_the_paper_are_finite_and_in_range_however_far_out(far: float) -> None:
    flow = perturbed(paper(IMAGE, steps=10, tile=2), 0.3)
    images, logabsdet = flow.inverse(far * torch.randn(64, *IMAGE, generator=torch.Generator().manual_seed(3)))
    assert images.isfinite().all() and logabsdet.isfinite().all()
    assert ((images >= -2e-6) & (images <= 1 + 2e-6)).all()
