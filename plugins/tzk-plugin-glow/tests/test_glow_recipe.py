"""The recipe `glow`: shapes, order of the latents, start, and what it cannot cut; the plugin as others see it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from tzk_plugin_glow import mixture
from tzk_plugin_glow.glow import glow

from tzk_core.build import build_flow
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow
from tzk_core.testing import check_plugin


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def grey(shape: tuple[int, ...], batch: int = 4, seed: int = 0) -> Tensor:
    """Images of grey levels with noise in their cells, half of them dark."""
    source = torch.Generator().manual_seed(seed)
    levels = torch.randint(-255, 256, (batch, *shape), generator=source).clamp_min(0)
    return (levels + 0.02 + 0.96 * torch.rand(levels.shape, generator=source)) / 256


def flow_of(shape: tuple[int, ...], steps: tuple[int, ...], **arguments: object) -> SharedFlow:
    transform = glow(shape, 6, steps, components=2, **arguments)  # type: ignore[arg-type]
    return SharedFlow(shape, transform, StandardGaussian((torch.Size(shape).numel(),)))


@pytest.mark.parametrize(
    ("shape", "steps"),
    [((1, 28, 28), (1, 1)), ((1, 32, 32), (1, 1, 1)), ((3, 32, 32), (1, 1, 1)), ((2, 6, 10), (1,)), ((1, 2, 2), (2,))],
)
def test_cuts_and_inverts_images(shape: tuple[int, ...], steps: tuple[int, ...]) -> None:
    flow = flow_of(shape, steps)
    T = grey(shape)
    flow.initialise(T)
    z, logabsdet = flow.encode(T)
    assert z.shape == (4, torch.Size(shape).numel()) and z.isfinite().all() and logabsdet.isfinite().all()
    torch.testing.assert_close(flow.transform.inverse(z)[0], T, rtol=0, atol=1e-4)
    double = flow.double()
    torch.testing.assert_close(double.transform.inverse(double.encode(T.double())[0])[0], T.double(), rtol=0, atol=1e-9)


def test_refuses_what_it_cannot_cut() -> None:
    with pytest.raises(TzkError, match=r"divisible by 8; got 28x28: give steps for 2 scales, such as steps = \[8, 8\]"):
        glow((1, 28, 28))
    with pytest.raises(TzkError, match=r"divisible by 2; got 5x4: pad the images"):
        glow((1, 5, 4), steps=(1,))
    with pytest.raises(TzkError, match="for images"):
        glow((784,))
    for steps in ((), (2, 0)):
        with pytest.raises(TzkError, match="at least one scale, each 1 or more"):
            glow((1, 28, 28), steps=steps)


def test_the_coarsest_latents_come_first() -> None:
    """What leaves at the first split reaches no later scale: its place in z is behind all that depends on them."""
    flow = flow_of((1, 8, 8), (1, 1, 1), dequantisation=False, coupling="affine", prior="affine").double()
    T = grey((1, 8, 8), 1).double()
    z = flow.encode(T)[0]
    fine = z.clone()
    fine[:, 32:] += 1  # the finest scale has half of all dimensions
    coarse = z.clone()
    coarse[:, :16] += 1
    changed = [(flow.transform.inverse(each)[0] - T).abs() for each in (fine, coarse)]
    assert all(each.max() > 1e-3 for each in changed)
    again = flow.encode(flow.transform.inverse(fine)[0])[0]
    torch.testing.assert_close(again[:, :32], z[:, :32], rtol=0, atol=1e-7)


def test_starts_near_a_standard_gaussian_at_every_scale() -> None:
    shape = (1, 8, 8)
    flow = flow_of(shape, (2, 2))
    T = grey(shape, 512)
    flow.initialise(T)
    z = flow.encode(T)[0]
    assert z.mean().abs() < 0.1
    assert all(0.8 < part.std() < 1.25 for part in (z[:, :32], z[:, 32:]))
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    flow.initialise(T.flip(0) ** 2)
    assert all(torch.equal(before[key], value) for key, value in flow.state_dict().items())


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_images_are_encoded(value: float) -> None:
    shape = (1, 8, 8)
    flow = flow_of(shape, (1, 1))
    flow.initialise(torch.full((1, *shape), value))
    T = torch.full((2, *shape), value)
    log_prob = flow.log_prob(T)
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    assert all(each.grad is None or each.grad.isfinite().all() for each in flow.parameters())


def test_samples_of_wild_latents_are_images() -> None:
    flow = flow_of((1, 8, 8), (1, 1))
    flow.initialise(grey((1, 8, 8), 64))
    for scale in (0.0, 1.0, 30.0, 1e4):
        samples = flow.transform.inverse(scale * torch.randn(8, 64))[0]
        assert samples.isfinite().all() and samples.min() >= 0 and samples.max() <= 1


def test_learns_and_every_parameter_takes_part() -> None:
    shape = (1, 4, 4)
    flow = flow_of(shape, (2, 1))
    T = grey(shape, 64)
    flow.initialise(T)
    optimiser = torch.optim.Adam(flow.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        loss = -flow.log_prob(T).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 3
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in flow.parameters())


@pytest.mark.slow
def test_the_whole_recipe_compiles_as_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "ITERATIONS", 4)  # a graph has them all: fewer trace faster
    torch.compiler.reset()
    flow = flow_of((1, 4, 4), (1,), coupling="affine", blocks=0)
    T = grey((1, 4, 4))
    compiled = torch.compile(lambda x: flow.encode(x), backend="aot_eager", fullgraph=True)
    z, logabsdet = compiled(T)
    (z.square().sum() - logabsdet.sum()).backward()
    torch.testing.assert_close(z, flow.encode(T)[0])
    inverse = torch.compile(lambda z: flow.transform.inverse(z), backend="eager", fullgraph=True)
    torch.testing.assert_close(inverse(z.detach())[0], T, rtol=0, atol=1e-5)


def test_the_plugin_conforms() -> None:
    names = {spec.name for spec in check_plugin("tzk_plugin_glow")}
    assert {"glow", "actnorm", "pointwise-convolution", "image-coupling", "variational-dequantisation"} <= names


def test_a_config_can_name_recipe_and_layers() -> None:
    flow = build_flow((1, 4, 4), "glow", steps=[1], width=4)
    assert flow.latent_shape == (16,) and build_flow((1, 4, 4), "glow", steps=[1], width=4, seed=0).parts == flow.parts
    layers = [
        {"type": "variational-dequantisation", "width": 4},
        {"type": "logit"},
        {"type": "squeeze"},
        {"type": "actnorm"},
        {"type": "pointwise-convolution", "seed": 1},
        {"type": "image-coupling", "map": "rational-quadratic", "width": 4},
        {"type": "flatten"},
    ]
    flow = build_flow((1, 4, 4), layers=layers)
    T = grey((1, 4, 4))
    flow.initialise(T)
    torch.testing.assert_close(flow.transform.inverse(flow.encode(T)[0])[0], T, rtol=0, atol=1e-5)
