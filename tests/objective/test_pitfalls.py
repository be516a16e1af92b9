"""What the formulas hide: bounds, initialisation and numbers that would stall or break a training run."""

from __future__ import annotations

import pytest
import torch
from models import NAN, WORDINGS, gradients, small, steady
from torch import Tensor

from tzk_core.build import build_flow, build_knowledge
from tzk_core.distributions.conditional import ConditionalGaussian
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.model import SharedFlow, TzK
from tzk_core.objective import Objective, Wording, mental_capacity
from tzk_core.observations import Observations
from tzk_core.training.fit import fit
from tzk_core.transforms.affine import Affine


@pytest.mark.parametrize(
    ("knowledge", "spread", "more"),
    [("gaussian", 30.0, {}), ("flow", 30.0, {"knee": 0.0}), ("flow", 1.0, {})],
    ids=["gaussian", "flow without a knee", "flow"],
)
@pytest.mark.parametrize("wording", WORDINGS, ids=str)
def test_huge_inputs_and_weights_give_finite_values_and_gradients(
    knowledge: str, spread: float, more: dict[str, float], wording: Wording
) -> None:
    """Pitfall 3: log-scales and what regressors emit are bounded on both sides.

    A flow whose SymLog has a knee is linear far out. Weights of 30 in each of its steps multiply huge inputs until
    their squares are beyond float32, where the plain SymLog takes logarithms; weights of 1 do not.
    """
    model = small([knowledge], spread=spread, **more).float()
    huge = [[1e6, -1e6, 1e6], [-1e4, 0.0, 1e5], [0.0, 0.0, 0.0], [1e-30, 1e6, -1e-30]]
    seen = Observations(torch.tensor(huge), torch.tensor([[1.0], [0.0], [NAN], [1.0]]), ("k0",))
    capacity = mental_capacity(model, seen, steady(30.0), multipliers={"k0": 0.3}, objective=Objective(wording=wording))
    assert torch.isfinite(capacity.log_capacity).all()
    for name, gradient in gradients(capacity.value, model).items():
        assert torch.isfinite(gradient).all(), name


def test_what_a_conditional_gaussian_emits_is_bounded() -> None:
    density = ConditionalGaussian((4,), 2, mean_bound=6.0, log_scale_bound=5.0)
    density.regressor.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in density.parameters():
            parameter += 10 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    mean, log_scale = density.parameters_of(1e6 * torch.randn(50, 2, generator=torch.Generator().manual_seed(2)))
    assert mean.abs().max() <= 6 and log_scale.abs().max() <= 5
    assert mean.abs().max() > 5.9, "the bound is reached, or this tests nothing"


def test_presence_never_reaches_certainty() -> None:
    """A discriminator that is sure of a falsehood costs at most its bound of 20 nats."""
    model = small(spread=30.0)
    z = 1e3 * torch.randn(50, 3, dtype=torch.float64)
    for log_prob in model.find("k0").log_prob_presence_given(z):
        assert -20 - 1e-6 <= log_prob.min() <= log_prob.max() < 0


def test_data_dependent_initialisation_leaves_conditional_flows_alone() -> None:
    """Pitfall 5: they start at the identity whatever the data; the shared flow remembers its own.

    Of a type whose C nobody observes, the encoder of C does start from the data.
    """
    T = 3 + 5 * torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    model = TzK(build_flow((3,), layers=[{"type": "affine"}, {"type": "symlog"}, {"type": "affine"}]))
    model.add("k0", build_knowledge("flow", (3,), name="k0"))
    before = {key: value.clone() for key, value in model.find("k0").state_dict().items()}
    model.flow.initialise(T)
    fit(model, T, {"k0": torch.ones(64)}, steps=1, batch_size=64, learning_rate=1e-9)
    changed = {
        key
        for key, value in model.find("k0").state_dict().items()
        if not torch.allclose(value, before[key], rtol=0, atol=1e-6)
    }
    assert changed == {"log_odds", "characteristics_encoder.regressor.0.weight"}

    layers = [part for part in model.modules() if isinstance(part, Affine)]
    inner = {id(part) for part in model.find("k0").modules()}
    assert {bool(layer.initialised) for layer in layers if id(layer) in inner} == {False}
    shared = [layer for layer in layers if id(layer) not in inner]
    assert {bool(layer.initialised) for layer in shared} == {True}
    assert all(model.state_dict()[f"flow.transform._transforms.{i}.initialised"] for i in (0, 2))
    z, _ = model.flow.encode(T)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(0, unbiased=False), torch.ones(3), atol=1e-5, rtol=0)
    scales = [layer.raw_log_scale.clone() for layer in shared]
    model.flow.initialise(100 * T)
    assert all(torch.equal(layer.raw_log_scale, scale) for layer, scale in zip(shared, scales, strict=True))


def test_training_flushes_denormal_numbers_and_afterwards_they_are_back() -> None:
    """Pitfall 6: they make a step ten times slower on a CPU."""
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush denormal numbers")
    products: list[float] = []

    class Layer(Affine):
        def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            products.append((torch.tensor([1e-30]) * 1e-10).item())
            return super().forward(inputs, context)

    model = TzK(SharedFlow((2,), Layer((2,)), StandardGaussian((2,))))
    fit(model, torch.randn(8, 2), steps=1, batch_size=8)
    assert products[-1] == 0 and (torch.tensor([1e-30]) * 1e-10).item() != 0
