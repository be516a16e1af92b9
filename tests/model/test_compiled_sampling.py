"""Sampling from given noise is one graph for the compiler, and gives what the model samples."""

from __future__ import annotations

import pytest
import torch

from tzk_core import TzK, TzkError, build_flow, build_knowledge


@pytest.fixture(scope="module")
def model() -> TzK:
    steps = {"steps": 2, "tile": 2}
    model = TzK(build_flow((1, 4, 4), "paper", **steps))
    for name, kind, own in (("a", "flow", steps), ("b", "gaussian", {})):
        model.add(name, build_knowledge(kind, model.latent_shape, name=name, hidden=6, layers=2, **own))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.double()


@pytest.mark.parametrize("name", [None, "a", "b"])
def test_sampling_from_noise_is_one_graph_and_gives_what_the_model_samples(model: TzK, name: str | None) -> None:
    sample = model.sample_from_noise(name, temperature=0.7)
    compiled = torch.compile(sample, fullgraph=True, backend="eager")
    T = compiled(sample.noise(5, seed=3))
    torch.testing.assert_close(T, model.sample(5, name, temperature=0.7, seed=3))
    assert not torch.equal(T, compiled(sample.noise(5, seed=4)))


def test_so_it_is_with_c_given_whose_gradient_arrives(model: TzK) -> None:
    C = torch.tensor([0.3, -1.0], dtype=torch.float64, requires_grad=True)
    sample = model.sample_from_noise("a", C)
    noise = sample.noise(4, seed=1)
    assert noise.C is None
    T = torch.compile(sample, fullgraph=True, backend="eager")(noise)
    torch.testing.assert_close(T, model.sample(4, "a", C, seed=1))
    (found,) = torch.autograd.grad(T.sum(), C)
    (expected,) = torch.autograd.grad(model.rsample(4, "a", C, seed=1).sum(), C)
    torch.testing.assert_close(found, expected)


def test_a_composition_cannot_be_sampled_from_noise(model: TzK) -> None:
    with pytest.raises(TzkError, match="samples of a composition have no gradient"):
        model.sample_from_noise(["a", "b"])
