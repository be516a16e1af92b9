"""Mixed precision leaves the objective as it is, or training does not begin."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from nflows.transforms import BatchNorm
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core import Observations, SharedFlow, TzK, TzkError, build_flow, build_knowledge
from tzk_core.random_streams import stream
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer


class Vectors:
    """One batch of correlated vectors, half of them with the knowledge "a"."""

    def __init__(self, dims: int, size: int = 64) -> None:
        source = stream(0, "vectors")
        self.T = torch.randn(size, dims, generator=source) @ torch.randn(dims, dims, generator=source)
        self.presence = (torch.arange(size) % 2).float()[:, None]

    def batch(self, step: int) -> Observations:
        return Observations(self.T, self.presence, ("a",))

    def sources(self, step: int) -> Mapping[str, slice]:
        return {"all": slice(0, len(self.T))}


def model(batches: Vectors, *layers: Mapping[str, Any]) -> TzK:
    """A flow of these layers, with a Gaussian as knowledge."""
    made = TzK(build_flow(batches.T.shape[1:], layers=list(layers)))
    made.add("a", build_knowledge("gaussian", made.latent_shape, name="a", hidden=16, layers=3))
    made.flow.initialise(batches.T)
    return made


def trainer(made: TzK, batches: Vectors, mixed_precision: str | None = "bfloat16") -> Trainer:
    settings = Settings(steps=100, mixed_precision=mixed_precision, learning_rate=1e-2)
    return Trainer(made, batches, settings, levels=None)


def test_products_are_of_the_other_type_and_what_is_trained_is_not() -> None:
    batches = Vectors(16)
    plain = model(batches, {"type": "affine"}, {"type": "tiled-convolution"})
    mixed = copy.deepcopy(plain)
    of_plain, of_mixed = trainer(plain, batches, None), trainer(mixed, batches)
    for _ in range(5):
        expected, actual = of_plain.advance(), of_mixed.advance()
        bits = abs(float(actual.value.detach() - expected.value.detach())) / (16 * math.log(2))
        assert 0 < bits < 1e-2, "close, and not the same"
    assert all(parameter.dtype == parameter.grad.dtype == torch.float32 for parameter in mixed.flow.parameters())


@pytest.mark.parametrize("emphasis", [0.0, 10.0])
def test_knowledge_types_stay_in_float32(emphasis: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the flow's last product leaves z in the other type."""
    batches = Vectors(16)
    batches.T /= 16
    made = TzK(SharedFlow((16,), Product(16)))
    knowledge = build_knowledge("low-rank", made.latent_shape, name="a", dims=4, hidden=4)
    made.add("a", knowledge)
    seen = set()

    def features(z: Tensor) -> Tensor:
        seen.add((z.dtype, torch.is_autocast_enabled("cpu")))
        return z[:, :4]

    monkeypatch.setattr(knowledge, "features", features)
    settings = Settings(steps=100, mixed_precision="bfloat16", emphasis=emphasis)
    Trainer(made, batches, settings, levels=None).advance()
    assert seen == {(torch.float32, False)}


def test_another_objective_is_refused_before_anything_is_trained() -> None:
    batches = Vectors(16)
    made = model(batches, {"type": "affine"}, {"type": "tiled-convolution"})
    with torch.no_grad():  # far from zero, where 8 bits are coarse
        made.flow.transform._transforms[0].shift.add_(30)
    before = copy.deepcopy(made.state_dict())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = made.log_prob(batches.T).mean()
    with torch.no_grad():
        bits = abs(float(mixed - made.log_prob(batches.T).mean())) / (16 * math.log(2))
    assert bits > 1e-3, "the case is one"
    with pytest.raises(TzkError, match="bfloat16 changes the objective of the first batch by .* at most 0.001"):
        trainer(made, batches).advance()
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


class Product(Transform):
    """A product with a matrix of determinant 1."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(dims))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs @ self.weight, inputs.new_zeros(len(inputs))


class Strict(Transform):
    """A product of two tensors that does not take two types."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(dims))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs = torch.zeros_like(inputs)
        return outputs.index_add(1, torch.arange(inputs.shape[1]), inputs @ self.weight), inputs.new_zeros(len(inputs))


def test_a_layer_that_cannot_is_a_reason() -> None:
    batches = Vectors(4)
    made = TzK(SharedFlow((4,), Strict(4)))
    made.add("a", build_knowledge("gaussian", made.latent_shape, name="a", hidden=4, layers=2))
    with pytest.raises(TzkError, match="no objective in bfloat16: .* Leave mixed_precision out"):
        trainer(made, batches).advance()


def test_the_check_counts_no_batch() -> None:
    batches = Vectors(4)
    made = TzK(SharedFlow((4,), BatchNorm(4)))
    made.add("a", build_knowledge("gaussian", made.latent_shape, name="a", hidden=4, layers=2))
    plain = copy.deepcopy(made)
    trainer(made, batches).advance()
    trainer(plain, batches, None).advance()
    for (key, actual), expected in zip(made.flow.named_buffers(), plain.flow.buffers(), strict=True):
        assert torch.equal(actual, expected), key


def test_what_does_not_go_with_it_is_said() -> None:
    batches = Vectors(4)
    with pytest.raises(TzkError, match="mixed_precision: is for steps that are not compiled"):
        Settings(steps=1, mixed_precision="bfloat16", compile=True)
    with pytest.raises(TzkError, match="mixed_precision: is for one process"):
        Settings(steps=1, mixed_precision="bfloat16", processes=2)
    with pytest.raises(TzkError, match="mixed_precision"):
        Settings(steps=1, mixed_precision="float8")
    assert not Settings(steps=10**6, mixed_precision="bfloat16").compiles("cuda", 2)
    made = model(batches, {"type": "affine"}).double()
    with pytest.raises(TzkError, match='mixed_precision is for dtype = "float32", and the model is of float64'):
        trainer(made, batches)
