"""Conditionals in Python: gradients through samples, `torch.func`, and `torch.distributions`."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from models import small
from nflows.transforms import AffineCouplingTransform, CompositeTransform, LULinear
from torch import Tensor
from torch.distributions import Independent, MixtureSameFamily, kl_divergence
from torch.func import grad, jacrev, vmap

from tzk_core import SharedFlow, TzK, TzkError
from tzk_core.build import build_knowledge
from tzk_core.distributions.regressor import Regressor


def central(function: Callable[[], Tensor], value: Tensor, step: float = 1e-6) -> Tensor:
    """The derivative of a scalar function in every element of `value`, by central differences."""
    slopes = torch.zeros_like(value)
    with torch.no_grad():
        for at in range(value.numel()):
            flat, kept = value.view(-1), value.view(-1)[at].item()
            flat[at] = kept + step
            above = function()
            flat[at] = kept - step
            slopes.view(-1)[at] = (above - function()) / (2 * step)
            flat[at] = kept
    return slopes


# samples with gradients


@pytest.mark.parametrize(("name", "fixed"), [(None, False), ("k0", False), ("k0", True), ("k1", False), ("k1", True)])
def test_gradients_go_through_samples(model: TzK, name: str | None, fixed: bool) -> None:
    C = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True) if fixed else None

    def value() -> Tensor:
        samples = model.rsample(4, name, C, temperature=0.1, seed=1)
        return (samples.arcsinh() * torch.arange(1, 4)).sum()

    wanted = [model.flow.transform._transforms[1].shift, *([] if C is None else [C])]
    if name is not None:
        wanted += [p for key, p in model.find(name).latent.named_parameters() if key.endswith("regressor.4.bias")]
    assert len(wanted) == 1 + fixed + (name is not None)
    for tensor, slope in zip(wanted, torch.autograd.grad(value(), wanted), strict=True):
        assert slope.abs().max() > 0
        torch.testing.assert_close(slope, central(value, tensor.data), rtol=1e-6, atol=1e-7)


def test_samples_with_and_without_gradients_are_the_same(model: TzK) -> None:
    C = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    assert torch.equal(model.rsample(4, "k0", C, seed=1), model.sample(4, "k0", C, seed=1))
    assert model.rsample(4, "k0", C).requires_grad and not model.sample(4, "k0", C).requires_grad
    conditional = model.conditional("k0")
    assert conditional.rsample(3, C[None]).shape == (1, 3, 3) and conditional.rsample(3).requires_grad
    assert not conditional.sample(3, C[None]).requires_grad
    with pytest.raises(TzkError, match="samples of a composition have no gradient"):
        model.rsample(4, ["k0", "k1"])


# torch.func


@pytest.mark.parametrize("name", [None, "k0", "k1"])
def test_log_prob_can_be_mapped_and_differentiated(model: TzK, T: Tensor, name: str | None) -> None:
    C = None if name is None else torch.tensor([0.3, -0.7], dtype=torch.float64)

    def one(x: Tensor) -> Tensor:
        return model.log_prob(x[None], name, C)[0]

    torch.testing.assert_close(vmap(one)(T), model.log_prob(T, name, C))
    score = vmap(grad(one))(T)
    leaf = T.clone().requires_grad_()
    torch.testing.assert_close(score, torch.autograd.grad(model.log_prob(leaf, name, C).sum(), leaf)[0])
    torch.testing.assert_close(score, central(lambda: model.log_prob(T, name, C).sum(), T), rtol=1e-5, atol=1e-7)
    assert vmap(jacrev(grad(one)))(T).shape == (5, 3, 3)
    stacked = T.expand(2, 5, 3)
    torch.testing.assert_close(vmap(lambda rows: model.log_prob(rows, name, C))(stacked)[1], model.log_prob(T, name, C))


def test_c_is_mapped_too_and_integrated_with_the_same_noise(model: TzK, T: Tensor) -> None:
    C = torch.randn(5, 2, dtype=torch.float64)
    mapped = vmap(lambda x, c: model.log_prob(x[None], "k0", c)[0])(T, C)
    torch.testing.assert_close(mapped, model.log_prob(T, "k0", C))
    mapped = vmap(lambda x: model.log_prob(x[None], "k0")[0])(T)
    torch.testing.assert_close(mapped, torch.cat([model.log_prob(row[None], "k0") for row in T]))


def test_the_form_of_what_is_mapped_is_checked(model: TzK) -> None:
    with pytest.raises(TzkError, match=r"expected as \(batch, 3\); got \(1, 4\)"):
        vmap(lambda x: model.log_prob(x[None])[0])(torch.zeros(5, 4, dtype=torch.float64))
    with pytest.raises(TzkError, match="float32"):
        vmap(lambda x: model.log_prob(x[None])[0])(torch.zeros(5, 3))
    with pytest.raises(TzkError, match="nan or infinity, first in row 2"):  # outside of it values are checked
        model.log_prob(torch.full((5, 3), 1.0, dtype=torch.float64).index_fill(0, torch.tensor([2]), math.nan))


def test_a_flow_of_nflows_can_be_mapped(T: Tensor) -> None:
    layers = [LULinear(3), AffineCouplingTransform([1, 0, 1], lambda i, o: Network(i, o))]
    model = TzK(SharedFlow(CompositeTransform(layers))).double()
    torch.testing.assert_close(vmap(lambda x: model.log_prob(x[None])[0])(T), model.log_prob(T))


class Network(Regressor):
    """A regressor that takes the context which nflows passes."""

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(inputs)


# torch.distributions


def test_a_conditional_is_a_distribution_of_torch(model: TzK, T: Tensor) -> None:
    C = torch.randn(5, 2, dtype=torch.float64)
    given = model.distribution("k0", C)
    assert given.batch_shape == (5,) and given.event_shape == (3,) and given.has_rsample and not given.estimate
    torch.testing.assert_close(given.log_prob(T), model.log_prob(T, "k0", C))
    assert given.log_prob(T.expand(4, 5, 3)).shape == (4, 5) and given.log_prob(T[0]).shape == (5,)
    torch.testing.assert_close(given.log_prob(T[:1]), model.log_prob(T[:1].expand(5, 3), "k0", C))
    assert given.sample().shape == (5, 3) and given.rsample((2, 4)).shape == (2, 4, 5, 3)
    assert given.rsample((2,)).requires_grad and not given.sample((2,)).requires_grad
    assert given.sample((0,)).shape == (0, 5, 3)
    torch.manual_seed(1)
    first = given.sample((3,))
    torch.manual_seed(1)
    assert torch.equal(given.sample((3,)), first)
    assert given.support.check(T).all()


def test_samples_belong_to_their_batch(model: TzK) -> None:
    with torch.no_grad():
        model.find("k0").latent.regressor[-1].bias[3:] = -30.0  # next to no noise
        model.find("k0").latent.regressor[-1].weight[3:] = 0.0
    C = torch.tensor([[2.0, 0.0], [-2.0, 1.0]], dtype=torch.float64)
    samples = model.distribution("k0", C).sample((3,))
    for row in range(2):
        alone = model.sample(3, "k0", C[row])
        torch.testing.assert_close(samples[:, row], alone, rtol=0, atol=0.2)


def test_it_expands_and_takes_part_in_mixtures(model: TzK, T: Tensor) -> None:
    C = torch.randn(2, 2, dtype=torch.float64)
    given = model.distribution("k0", C)
    assert given.expand((4, 2)).sample().shape == (4, 2, 3)
    torch.testing.assert_close(given.expand((4, 2)).log_prob(T[0]), given.log_prob(T[0]).expand(4, 2))
    assert Independent(given, 1).log_prob(T[:2]).shape == ()
    mixture = MixtureSameFamily(torch.distributions.Categorical(torch.tensor([0.25, 0.75]).double()), given)
    shares = torch.tensor([0.25, 0.75], dtype=torch.float64)
    expected = (shares * torch.stack([model.log_prob(T, "k0", c) for c in C], 1).exp()).sum(1).log()
    torch.testing.assert_close(mixture.log_prob(T), expected)
    assert mixture.sample((6,)).shape == (6, 3)
    prior = model.distribution().expand((2,))
    assert prior.batch_shape == (2,) and prior.sample((3,)).shape == (3, 2, 3)
    torch.testing.assert_close(prior.log_prob(T[0]), model.log_prob(T[:1]).expand(2))
    with pytest.raises(NotImplementedError):
        kl_divergence(given, prior)


def test_what_is_an_estimate_is_called_one(model: TzK, T: Tensor) -> None:
    integrated = model.distribution("k0", importance_samples=8, seed=2)
    assert "over C by 8 importance samples: a lower bound" in integrated.estimate and integrated.estimate in repr(
        integrated
    )
    torch.testing.assert_close(integrated.log_prob(T), model.log_prob(T, "k0", importance_samples=8, seed=2))
    both = model.distribution(["k0", "k1"])
    assert "estimated normaliser" in both.estimate and not both.has_rsample
    torch.testing.assert_close(both.log_prob(T), model.log_prob(T, ["k0", "k1"]))
    assert both.sample((3,)).shape == (3, 3)
    with pytest.raises(TzkError, match="have no gradient"):
        both.rsample((3,))
    assert repr(model.distribution()) == "<p(T), batch_shape=(), event_shape=(3,)>"


def test_a_finite_c_is_summed_exactly() -> None:
    model = small(())
    pytest.importorskip("tzk_plugin_baselines")
    knowledge = build_knowledge("class-conditional", (3,), architecture="maf", classes=2, steps=1, hidden=4)
    model.add("classes", knowledge.double())
    assert model.distribution("classes").estimate == ""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: m.distribution("k9"), "k9"),
        (lambda m: m.distribution("k0", torch.zeros(5, 3)), r"expected as \(\*batch, 2\); got \(5, 3\)"),
        (lambda m: m.distribution(["k0", "k1"], torch.zeros(2)), "one present knowledge type"),
        (lambda m: m.distribution().log_prob(torch.zeros(5, 4).double()), r"events are expected as \(3,\)"),
    ],
)
def test_what_is_no_distribution_is_one_sentence(model: TzK, make: Callable[[TzK], object], message: str) -> None:
    with pytest.raises(TzkError, match=message):
        make(model)
