"""What does not fit a model is refused before anything is computed, and where a model computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nflows.transforms import IdentityTransform
from torch import Tensor

from tzk_core.build import build_flow, build_knowledge
from tzk_core.distributions.standard import StandardLogistic
from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow, TzK, tzk


def images(steps: int = 1, base: str = "gaussian") -> TzK:
    model = TzK(build_flow((1, 4, 4), steps=steps, tile=2, base=base))
    model.add("a", build_knowledge("flow", model.latent_shape, name="a", steps=1, tile=2))
    return model


def onto_the_unit_cube() -> TzK:
    return TzK(build_flow((2,), layers=[{"type": "inverse-transform", "transform": {"type": "logit"}}]))


# what is refused


def image_batch(**changes: Any) -> Tensor:
    T = torch.rand(3, 1, 4, 4)
    for place, value in changes.get("set", {}).items():
        T[place] = value
    return T


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda m: m.log_prob(torch.rand(3, 4, 4)), r"T is expected as \(batch, 1, 4, 4\); got \(3, 4, 4\)"),
        (lambda m: m.log_prob(torch.rand(1, 4, 4)), r"got \(1, 4, 4\)"),
        (lambda m: m.log_prob(torch.rand(3, 1, 8, 8)), r"got \(3, 1, 8, 8\)"),
        (lambda m: m.log_prob(torch.rand(0, 1, 4, 4)), "T is an empty batch"),
        (
            lambda m: m.log_prob(torch.zeros(3, 1, 4, 4, dtype=torch.uint8)),
            "floating point; got torch.uint8.*equantise",
        ),
        (lambda m: m.log_prob([[0.0]]), r"expected as a torch tensor \(batch, 1, 4, 4\); got list"),
        (
            lambda m: m.log_prob(torch.rand(3, 1, 4, 4).double()),
            r"T is torch.float64 on cpu and the model torch.float32",
        ),
        (lambda m: m.log_prob(image_batch(set={2: math.nan})), "T holds nan or infinity, first in row 2"),
        (lambda m: m.encode(image_batch(set={1: math.inf})), "T holds nan or infinity, first in row 1"),
        (lambda m: m.posterior(torch.rand(3, 16)), "T is expected as"),
        (
            lambda m: m.log_prob(image_batch(set={1: 200.0})),
            r"outside the domain of the flow, first in row 1.*in \[0, 1\]",
        ),
        (lambda m: m.encode(image_batch(set={2: -3.0})), "outside the domain of the flow, first in row 2"),
        (lambda m: onto_the_unit_cube().decode(torch.full((3, 2), 1e20)), "z is outside the domain .*has no finite T"),
        (lambda m: m.decode(torch.rand(3, 16)), r"z is expected as \(batch, 1, 4, 4\)"),
        (lambda m: m.log_prob(image_batch(), "b"), "this model has no knowledge type 'b'"),
        (lambda m: m.log_prob(image_batch(), "digit_7"), "'digit_7'; did you mean 'digit-7'"),
        (lambda m: m.sample(3, "digit7"), "did you mean 'digit-7'"),
        (lambda m: m.conditional("digit-8"), "did you mean 'digit-7'"),
        (lambda m: m.log_prob(image_batch(), "a", torch.rand(3, 3)), r"'a' are expected as \(3, 2\); got \(3, 3\)"),
        (lambda m: m.log_prob(image_batch(), "a", torch.rand(2, 2)), r"expected as \(3, 2\); got \(2, 2\)"),
        (lambda m: m.log_prob(image_batch(), "a", torch.full((3, 2), math.nan)), "'a' hold nan or infinity"),
        (lambda m: m.log_prob(image_batch(), characteristics=torch.rand(3, 2)), "say which, knowledge=..."),
        (lambda m: m.sample(3, characteristics=torch.rand(3, 2)), "say which, knowledge=..."),
        (lambda m: m.log_prob(image_batch(), "a", importance_samples=0), "importance samples is at least 1; got 0"),
        (lambda m: m.sample(0), "number of samples is at least 1; got 0"),
        (lambda m: m.sample(3, temperature=-1.0), "temperature is finite and at least 0; got -1.0"),
        (lambda m: m.sample(3, temperature=math.nan), "temperature is finite and at least 0; got nan"),
        (lambda m: m.sample(3, "a", [1.0, 2.0, 3.0]), r"expected as \(3, 2\); got \(3, 3\)"),
        (lambda m: m.flow.initialise(torch.full((4, 1, 4, 4), 7.0)), "outside the domain of the flow"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_computed(ask: Callable[[TzK], Any], words: str) -> None:
    model = images()
    model.add("digit-7", build_knowledge("gaussian", model.latent_shape))
    before = [value.clone() for value in model.state_dict().values()]
    with pytest.raises(TzkError, match=words):
        ask(model)
    assert all(torch.equal(x, y) for x, y in zip(before, model.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "a.b", "a\nb", "a\0b", "keys", "training", "_modules", "find"]
)
def test_names_that_cannot_be_files_or_attributes_are_refused(name: str) -> None:
    model = images()
    with pytest.raises(TzkError, match="name"):
        model.add(name, build_knowledge("gaussian", model.latent_shape))


def test_a_name_is_taken_once_and_the_latent_has_to_fit() -> None:
    model = images()
    with pytest.raises(TzkError, match="has a knowledge type 'a' already"):
        model.add("a", build_knowledge("gaussian", model.latent_shape))
    with pytest.raises(TzkError, match=r"'b' is for a latent of shape \(16,\); this model's is \(1, 4, 4\)"):
        model.add("b", build_knowledge("gaussian", (16,)))
    assert [name for name, _ in model.named_knowledge()] == ["a"]


@pytest.mark.parametrize("name", ["κ", "digit 7", "two-moons", "x" * 200, "UPPER", "1"])
def test_other_names_are_fine(name: str) -> None:
    model = images()
    model.add(name, build_knowledge("gaussian", model.latent_shape))
    assert model.find(name) is model.knowledge[name]


# where it computes


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices whose implementations a model looked for."""
    devices: list[str] = []
    monkeypatch.setattr(tzk, "use_implementations", lambda module, device: devices.append(device))
    return devices


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m.double(), []),
        (lambda m: m.float(), []),
        (lambda m: m.to(torch.float64), []),
        (lambda m: m.to(dtype=torch.float64), []),
        (lambda m: m.to("cpu"), ["cpu"]),
        (lambda m: m.to(torch.device("cpu"), torch.float64), ["cpu"]),
        (lambda m: m.to(device="cpu"), ["cpu"]),
        (lambda m: m.to(torch.zeros(())), ["cpu"]),
        (lambda m: m.to("meta"), ["meta"]),
        (lambda m: m.to("meta", torch.float64).double(), ["meta"]),
    ],
)
def test_implementations_are_looked_for_where_a_device_is_named(
    change: Callable[[TzK], Any], expected: list[str], taken: list[str]
) -> None:
    change(images())
    assert taken == expected


def test_a_move_that_names_no_device_looks_for_implementations_too(taken: list[str]) -> None:
    images()._apply(lambda tensor: tensor.to("meta"))
    assert taken == ["meta"]


def test_like_is_of_the_models_type_and_device(model: TzK) -> None:
    assert (model.like.dtype, model.flow.like.dtype) == (torch.float64, torch.float64)
    assert model.to("meta", torch.float32).like.device.type == "meta"
    empty = SharedFlow((2,), IdentityTransform(), StandardLogistic((2,)))
    assert empty.like.dtype == torch.float32 and empty.like.shape == ()
    knowledge = build_knowledge("gaussian", (2,)).double()
    assert TzK(empty, {"k": knowledge}).like.dtype == torch.float64, "of the knowledge where the flow has no tensor"
