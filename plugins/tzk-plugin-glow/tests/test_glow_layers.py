"""Every layer inverts, has autograd's log-determinant, starts as it says and compiles as one graph."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from nflows.transforms.base import Transform
from torch import Tensor
from torch.nn import functional
from tzk_plugin_glow import mixture
from tzk_plugin_glow.actnorm import ActNorm
from tzk_plugin_glow.convolution import PointwiseConvolution
from tzk_plugin_glow.coupling import Coupling
from tzk_plugin_glow.dequantisation import Dequantisation
from tzk_plugin_glow.glow import glow
from tzk_plugin_glow.lattice import GreyLevels, Lattice
from tzk_plugin_glow.split import Split

from tzk_core.errors import TzkError
from tzk_core.testing import check_transform
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.reshape import Flatten

IMAGE = (3, 4, 2)
SMALL = {"components": 2, "width": 6}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def split(map: str = "mixture-of-logistics") -> Split:
    inner = Composite([ActNorm((2, 4, 2)), Coupling((2, 4, 2), "affine", **SMALL), Flatten((2, 4, 2))])
    return Split(IMAGE, inner, map, **SMALL)


def lattice(shape: tuple[int, ...]) -> Lattice:
    half = (shape[0], shape[1] // 2, shape[2] // 2)
    inner = GreyLevels(half, 6, density="quadratic-spline")
    return Lattice(shape, inner, 6, width=6, blocks=1, density="quadratic-spline")


# name -> constructor and shape of one input; another line is another layer held to the laws
LAYERS: dict[str, tuple[Callable[[], Transform], tuple[int, ...]]] = {
    "actnorm": (lambda: ActNorm(IMAGE), IMAGE),
    "actnorm of a vector": (lambda: ActNorm((5,)), (5,)),
    "convolution": (lambda: PointwiseConvolution(IMAGE), IMAGE),
    "convolution from the identity": (lambda: PointwiseConvolution(IMAGE, "identity"), IMAGE),
    "affine coupling": (lambda: Coupling(IMAGE, "affine", **SMALL), IMAGE),
    "mixture coupling": (lambda: Coupling(IMAGE, **SMALL), IMAGE),
    "spline coupling": (lambda: Coupling(IMAGE, "rational-quadratic", **SMALL), IMAGE),
    "swapped coupling": (lambda: Coupling(IMAGE, swap=True, **SMALL), IMAGE),
    "checkerboard": (lambda: Coupling(IMAGE, mask="checkerboard", **SMALL), IMAGE),
    "other squares": (lambda: Coupling(IMAGE, mask="checkerboard", swap=True, **SMALL), IMAGE),
    "plain network": (lambda: Coupling(IMAGE, blocks=0, **SMALL), IMAGE),
    "split": (split, IMAGE),
    "affine split": (lambda: split("affine"), IMAGE),
    "dequantisation": (lambda: Dequantisation((1, 4, 4), width=6), (1, 4, 4)),
    "dequantisation by mixtures": (lambda: Dequantisation((1, 4, 4), 16, "mixture-of-logistics", width=6), (1, 4, 4)),
    "pixels by splines": (lambda: GreyLevels(IMAGE, 6, density="quadratic-spline"), IMAGE),
    "pixels by splines, in a lattice": (lambda: lattice((1, 4, 4)), (1, 4, 4)),
    "glow": (lambda: glow((1, 4, 4), 6, (1, 2), components=2), (1, 4, 4)),
    "glow of splines": (lambda: glow((1, 4, 4), 6, (1, 1), components=2, coupling="rational-quadratic"), (1, 4, 4)),
    "glow of affine maps": (lambda: glow((3, 2, 2), 6, (1,), coupling="affine", dequantisation=False), (3, 2, 2)),
}
IN_CELLS = ("dequantisation", "glow", "pixels")


def made(name: str, *, trained: bool = True, dtype: torch.dtype = torch.float64) -> Transform:
    """A layer with parameters some way from its start, as after training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = LAYERS[name][0]().to(dtype)
        if trained:
            with torch.no_grad():
                for parameter in layer.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return layer.eval()


def inputs_of(name: str, batch: int = 3, dtype: torch.dtype = torch.float64, *, seed: int = 0) -> Tensor:
    """Any values; grey levels with noise well within their cells where a layer expects those."""
    source = torch.Generator().manual_seed(seed)
    shape = (batch, *LAYERS[name][1])
    if not name.startswith(IN_CELLS):
        return torch.randn(shape, generator=source, dtype=dtype)
    levels = 16 if "mixtures" in name else 256
    grey = torch.randint(levels, shape, generator=source)
    return (grey + 0.02 + 0.96 * torch.rand(shape, generator=source, dtype=dtype)) / levels


@pytest.mark.parametrize("name", LAYERS)
def test_laws(name: str) -> None:
    layer, inputs = made(name), inputs_of(name, 2)  # of mixtures and splines, whose inverse is a search
    check_transform(layer, inputs, tolerance=1e-6, perturbation=0.03, large=3 if inputs.min() < 0 else 1)


@pytest.mark.parametrize("name", LAYERS)
def test_round_trips(name: str) -> None:
    in_grey_levels = name.startswith("glow")  # all rounding adds up, to less than one of them
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1 / 256 if in_grey_levels else 1e-3)):
        layer, inputs = made(name, dtype=dtype), inputs_of(name, 20, dtype)
        outputs, logabsdet = layer(inputs)
        restored, negative = layer.inverse(outputs)
        torch.testing.assert_close(restored, inputs, rtol=0, atol=tolerance)
        if dtype == torch.float64 or not in_grey_levels:
            torch.testing.assert_close(negative, -logabsdet, rtol=0, atol=100 * tolerance)
        assert outputs.dtype == logabsdet.dtype == dtype


@pytest.mark.parametrize("name", LAYERS)
def test_says_its_shape_and_takes_batches_of_one_and_none(name: str) -> None:
    layer = made(name, dtype=torch.float32)
    for batch in (1,) if name.startswith("glow") else (1, 0):  # the core's logit wants one sample
        outputs, logabsdet = layer(inputs_of(name, batch, torch.float32))
        assert logabsdet.shape == (batch,)
        assert layer.inverse(outputs)[0].shape == (batch, *LAYERS[name][1])
        if hasattr(layer, "output_shape"):
            assert outputs.shape == (batch, *layer.output_shape)


@pytest.mark.parametrize("name", LAYERS)
def test_state_goes_through_a_file(name: str) -> None:
    layer, other = made(name), made(name, trained=False)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    inputs = inputs_of(name)
    assert torch.equal(layer(inputs)[0], other(inputs)[0])


@pytest.mark.parametrize(
    "name", ["convolution", "spline coupling", "checkerboard", "affine split", "pixels by splines"]
)
def test_compiles_as_one_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward, backward and inverse, with no compiler but the tracer, and the results of the eager layer; the layers
    that are not here are in the whole recipe."""
    monkeypatch.setattr(mixture, "ITERATIONS", 6)  # a graph has them all: fewer trace faster
    layer, inputs = made(name), inputs_of(name)
    torch.compiler.reset()
    compiled = torch.compile(lambda x: layer(x), backend="eager", fullgraph=True)
    inverted = torch.compile(lambda z: layer.inverse(z), backend="eager", fullgraph=True)
    gradients = []
    for function in (layer, compiled):
        outputs, logabsdet = function(inputs)
        layer.zero_grad()
        (outputs.square().sum() - logabsdet.sum()).backward()
        gradients.append([parameter.grad.clone() for parameter in layer.parameters()])
    for eager, graph in zip(*gradients, strict=True):
        torch.testing.assert_close(graph, eager)
    for eager, graph in zip(layer.inverse(outputs.detach()), inverted(outputs.detach()), strict=True):
        torch.testing.assert_close(graph, eager)


# ActNorm


@pytest.mark.parametrize("batch", [1, 256])
def test_actnorm_starts_channels_at_mean_0_and_deviation_1(batch: int) -> None:
    layer = ActNorm((3, 8, 8))
    inputs = torch.randn(batch, 3, 8, 8) * torch.tensor([0.01, 1, 30])[:, None, None] + 5
    layer.initialise(inputs)
    values = layer(inputs)[0].transpose(0, 1).flatten(1)
    torch.testing.assert_close(values.mean(1), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(values.std(1, unbiased=False), torch.ones(3), rtol=0, atol=1e-3)


def test_actnorm_centres_constant_channels_and_keeps_their_scale() -> None:
    for shape, batch in (((2, 4, 4), 8), ((2,), 1), ((2, 1, 1), 1)):
        layer = ActNorm(shape)
        inputs = torch.full((batch, *shape), 3.0)
        layer.initialise(inputs)
        outputs, logabsdet = layer(inputs)
        assert not outputs.any() and not logabsdet.any()


def test_actnorm_starts_once_and_not_from_nothing() -> None:
    layer = ActNorm(IMAGE)
    layer.initialise(torch.empty(0, *IMAGE))
    assert not layer.initialised
    layer.initialise(torch.randn(4, *IMAGE))
    assert layer.initialised
    before = copy.deepcopy(layer.state_dict())
    other = ActNorm(IMAGE)
    other.load_state_dict(before)
    other.initialise(9 * torch.randn(4, *IMAGE))
    assert all(torch.equal(before[key], value) for key, value in other.state_dict().items())


def test_actnorm_is_bounded() -> None:
    layer = ActNorm((1, 2, 2), bound=2.0)
    layer.initialise(1e-3 * torch.randn(50, 1, 2, 2))
    assert layer.log_scale.max() <= 2


# 1x1 convolution


def test_convolution_starts_at_a_rotation_of_its_seed_or_at_the_identity() -> None:
    weight = PointwiseConvolution((6, 2, 2), seed=3).weight()
    torch.testing.assert_close(weight @ weight.T, torch.eye(6), rtol=0, atol=1e-5)
    assert torch.equal(weight, PointwiseConvolution((6, 2, 2), seed=3).weight())
    assert not torch.allclose(weight, PointwiseConvolution((6, 2, 2), seed=4).weight())
    assert torch.equal(PointwiseConvolution((6, 2, 2), "identity").weight(), torch.eye(6))


def test_convolution_multiplies_every_place_by_its_matrix() -> None:
    layer = made("convolution")
    inputs = inputs_of("convolution")
    expected = torch.einsum("ij,bjhw->bihw", layer.weight(), inputs)
    torch.testing.assert_close(layer(inputs)[0], expected)


# Couplings


@pytest.mark.parametrize("swap", [False, True])
def test_couplings_leave_alone_what_they_read(*, swap: bool) -> None:
    inputs = torch.randn(2, *IMAGE)
    changed = Coupling(IMAGE, "affine", swap=swap, width=6)
    with torch.no_grad():
        changed.net.last.bias.add_(1.0)
    outputs, _ = changed(inputs)
    assert torch.equal((outputs == inputs).flatten(2).all(2).all(0), torch.tensor([not swap, not swap, swap]))
    changed = Coupling(IMAGE, "affine", mask="checkerboard", swap=swap, width=6)
    with torch.no_grad():
        changed.net.last.bias.add_(1.0)
    white = (torch.arange(4)[:, None] + torch.arange(2)) % 2 == 1
    assert torch.equal((changed(inputs)[0] == inputs).all(0).all(0), white if swap else ~white)


def test_couplings_read_their_context() -> None:
    for mask in ("channels", "checkerboard", "context"):
        layer = Coupling(IMAGE, mask=mask, context_channels=2, **SMALL).double()
        with torch.no_grad():
            layer.net.last.weight.normal_(std=0.2)
        context = torch.randn(2, 2, 4, 2, dtype=torch.float64)
        inputs = torch.randn(2, *IMAGE, dtype=torch.float64)
        check_transform(layer, inputs, context, perturbation=0.03, large=3)
        assert not torch.equal(layer(inputs, context)[0], layer(inputs, -context)[0])


def test_layers_start_at_the_identity_or_close_to_it() -> None:
    for name in ("affine coupling", "mixture coupling", "spline coupling", "checkerboard", "dequantisation"):
        layer, inputs = made(name, trained=False), inputs_of(name)
        assert (layer(inputs)[0] - inputs).abs().max() < (1e-6 if "spline" in name or "aff" in name else 0.3)
    inputs = inputs_of("dequantisation")
    torch.testing.assert_close(made("dequantisation", trained=False)(inputs)[0], inputs)


# Dequantisation


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("map", ["affine", "mixture-of-logistics"])
def test_no_value_leaves_its_cell(dtype: torch.dtype, map: str) -> None:
    """At the edges of cells, at 0 and at 1, and with parameters that push everything against one edge."""
    layer = Dequantisation((1, 16, 16), map=map, width=6).to(dtype)
    grey = torch.arange(256, dtype=dtype).view(1, 1, 16, 16)
    edge = 2.0**-16
    for push in (0.0, 30.0, -30.0):
        with torch.no_grad():
            for coupling in layer.couplings._transforms:
                coupling.net.last.weight.normal_(std=0.3)
                coupling.net.last.bias.add_(push)
        for noise in (0.0, edge, 0.5, 1 - edge):
            for function in (layer, layer.inverse):
                outputs, logabsdet = function((grey + noise) / 256)
                assert torch.equal((256 * outputs).floor(), grey)
                assert logabsdet.isfinite().all()
        outputs, logabsdet = layer(torch.ones(1, 1, 16, 16, dtype=dtype))
        assert ((256 * outputs).floor() == 255).all() and logabsdet.isfinite().all()
        assert (layer(torch.zeros(1, 1, 16, 16, dtype=dtype))[0] < 1 / 256).all()


def test_the_density_of_the_noise_integrates_to_one_over_a_cell() -> None:
    """q(u | x), the derivative of the inverse, over the four elements of an image: the trapezoid rule in logit(u)."""
    layer = Dequantisation((1, 2, 2), 16, width=4, blocks=0).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    line = torch.linspace(-16, 16, 23, dtype=torch.float64)
    logits = torch.cartesian_prod(line, line, line, line).view(-1, 1, 2, 2)
    grey = torch.tensor([[3.0, 0.0], [15.0, 7.0]], dtype=torch.float64)
    with torch.no_grad():
        log_q = layer.inverse((grey + torch.sigmoid(logits)) / 16)[1]
    log_slope = (functional.logsigmoid(logits) + functional.logsigmoid(-logits)).flatten(1).sum(1)
    total = (log_q + log_slope).exp().sum() * (line[1] - line[0]) ** 4
    assert abs(total - 1) < 1e-3
    assert log_q.std() > 0.1  # not the uniform one


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Dequantisation((1, 4, 4), 10), "power of two; got 10"),
        (lambda: Dequantisation((1, 5, 4)), "even sides"),
        (lambda: Coupling((1, 4, 4)), "two channels or more"),
        (lambda: Coupling(IMAGE, "afine"), "did you mean 'affine'"),
        (lambda: Coupling(IMAGE, mask="chanels"), "did you mean 'channels'"),
        (lambda: Coupling(IMAGE, mask="context"), "needs context_channels"),
        (lambda: Coupling(IMAGE, components=0), "at least one component"),
        (lambda: PointwiseConvolution((4,)), "expects .channels, height, width."),
        (lambda: PointwiseConvolution(IMAGE, "zero"), "got 'zero'"),
    ],
)
def test_bad_arguments_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(TzkError, match=message):
        build()
