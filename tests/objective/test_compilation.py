"""A compiled step is one graph, the same one whatever a batch brings together, and gives what the plain step gives."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch._inductor.config

from tzk_core import Observations, TzK, TzkError, build_flow, build_knowledge
from tzk_core.objective.compiled import CompiledSteps, CompiledTerms
from tzk_core.random_streams import stream
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

of_any_size = pytest.mark.skipif(
    torch.__version__ < "2.8", reason="torch before 2.8 takes how many samples show a knowledge type for a constant"
)


class Uneven:
    """Batches of made-up images in which a knowledge type is present in other numbers each time, at times in none.

    missing: in every batch some labels, characteristics and T are not observed, and some sample is one of b and c.
    """

    def __init__(
        self, shape: tuple[int, ...], size: int, *, missing: bool = False, names: tuple[str, ...] = ("a", "b", "c")
    ) -> None:
        self.shape, self.size, self.missing, self.names = shape, size, missing, names

    def batch(self, step: int) -> Observations:
        source = stream(step, "uneven")
        T = torch.rand(self.size, *self.shape, generator=source).double()
        small = (3 * step) % 11  # in so many samples b is present
        presence = torch.zeros(self.size, 3)
        presence[small : self.size - 4 - step % 4, 0] = 1
        presence[:small, 1] = 1
        presence[-5:, 2] = 1
        if not self.missing:
            return Observations(T, presence[:, : len(self.names)], self.names)
        presence[30:32, 0] = math.nan
        presence[20 : 21 + step % 3, 1:] = math.nan
        T[10 : 12 + step % 2] = math.nan
        C = torch.randn(self.size, 2, generator=source).double()
        C[presence[:, 0] != 1] = math.nan
        C[15:18] = math.nan
        return Observations(T, presence, self.names, {"a": C}, (("b", "c"),))

    def sources(self, step: int) -> Mapping[str, slice]:
        return {"all": slice(0, self.size)}


def trainer(
    batches: Uneven,
    flow: Mapping[str, Any],
    *,
    knowledge_type: str,
    backend: str | None,
    emphasis: float = 0.0,
    **knowledge: Any,
) -> Trainer:
    """A trainer of the same model each time; its step compiled by `backend` if given."""
    model = TzK(build_flow(batches.shape, **flow))
    for name in batches.names:
        model.add(name, build_knowledge(knowledge_type, model.latent_shape, name=name, hidden=6, layers=2, **knowledge))
    model = model.double()
    model.flow.initialise(torch.rand(64, *batches.shape, generator=stream(0, "start")).double())
    made = Trainer(model, batches, Settings(steps=100, compile=False, emphasis=emphasis), levels=None)
    if backend is not None:
        made._compiled = CompiledTerms(required=True, backend=backend)
    return made


def assert_same(compiled: Trainer, plain: Trainer, steps: int) -> None:
    """Both take `steps` steps, the first of which may compile, and say the same of each."""
    for step in range(steps):
        with torch._dynamo.config.patch(error_on_recompile=step > 0):  # type: ignore[no-untyped-call]
            actual = compiled.advance()
        expected = plain.advance()
        for key in ("value", "log_prob_T", "log_capacity", "prior_weight", "inconsistency", "conditional"):
            pair = getattr(actual, key), getattr(expected, key)
            torch.testing.assert_close(*pair, rtol=1e-8, atol=1e-8, equal_nan=True)
    for a, b in zip(compiled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


IN_ORDER = torch._inductor.config.patch(compile_threads=1)  # type: ignore[attr-defined]
"""One piece of C++ after another: processes for several at once would import torch each."""

PAPER = {"recipe": "paper", "steps": 2, "tile": 4}


@pytest.mark.slow
@of_any_size
def test_the_paper_s_step_is_one_graph_that_is_made_once() -> None:
    batches = Uneven((1, 8, 8), 28)
    compiled, plain = (
        trainer(batches, PAPER, knowledge_type="flow", backend=backend, steps=1, tile=4)
        for backend in ("aot_eager", None)
    )
    assert_same(compiled, plain, 20)


@of_any_size
def test_so_it_is_where_something_is_missing_and_where_one_type_has_most() -> None:
    batches = Uneven((3,), 40, missing=True)
    flow = {"layers": [{"type": "tiled-convolution"}, {"type": "affine"}, {"type": "symlog"}]}
    compiled, plain = (
        trainer(batches, flow, knowledge_type="gaussian", backend=backend, emphasis=5.0) for backend in ("eager", None)
    )
    assert_same(compiled, plain, 6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler writes C++, and no g++ is here")
@of_any_size
def test_machine_code_gives_what_the_plain_step_gives() -> None:
    batches = Uneven((3,), 12, names=("a",))
    flow = {"layers": [{"type": "affine"}]}
    compiled, plain = (
        trainer(batches, flow, knowledge_type="gaussian", backend=backend, emphasis=5.0)
        for backend in ("inductor", None)
    )
    with IN_ORDER:
        assert_same(compiled, plain, 4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler writes C++, and no g++ is here")
def test_machine_code_around_matrix_products_gives_what_the_plain_step_gives() -> None:
    with IN_ORDER:
        _assert_steps_compiled("inductor", 4)


def test_what_is_around_matrix_products_is_compiled_once_for_every_step_and_batch() -> None:
    _assert_steps_compiled("eager", 4)  # in the fifth a type has one sample, which is another graph


def _assert_steps_compiled(backend: str, steps: int) -> None:
    batches = Uneven((1, 4, 4), 28)
    compiled, plain = (
        trainer(batches, PAPER | {"tile": 2}, knowledge_type="flow", backend=None, steps=2, tile=2) for _ in range(2)
    )
    compiled._compiled = CompiledSteps(backend=backend)
    assert_same(compiled, plain, steps)


def test_steps_are_compiled_on_a_cpu_as_the_settings_ask() -> None:
    batches = Uneven((3,), 12, names=())
    model = TzK(build_flow((3,), layers=[{"type": "affine"}])).double()
    settings = Settings(steps=10**6, compile="steps")
    assert not settings.compiles("cuda", 12), "the whole step is not"
    assert isinstance(Trainer(model, batches, settings)._compiled, CompiledSteps)
    with pytest.raises(TzkError, match='compile = "steps" is for a CPU, got meta'):
        Trainer(model.to("meta"), batches, settings)


def test_what_cannot_be_compiled_goes_on_without_unless_it_is_asked_for() -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    flow = {"layers": [{"type": "affine"}]}
    batches = Uneven((3,), 12, names=())
    compiled, plain = (trainer(batches, flow, knowledge_type="gaussian", backend=None) for _ in range(2))
    compiled._compiled = CompiledTerms(backend=broken)
    assert torch.equal(compiled.advance().value, plain.advance().value)
    assert compiled.compilation is not None and "no compiler here" in compiled.compilation["failure"]
    compiled._compiled = CompiledTerms(required=True, backend=broken)
    with pytest.raises(TzkError, match="cannot be compiled here.*no compiler here.*compile = false"):
        compiled.advance()


def test_auto_compiles_where_the_steps_win_it_back() -> None:
    long, short = Settings(steps=10**6), Settings(steps=10)
    assert long.compiles("cuda", 12) and not short.compiles("cuda", 12)
    assert not long.compiles("cpu", 12) and not long.compiles("mps", 12)
    assert Settings(steps=1, compile=True).compiles("mps", 12)
    assert not Settings(steps=10**6, compile=False).compiles("cuda", 12)
    with pytest.raises(TzkError, match="compile: expected true or false or 'auto' or 'steps', got \"always\""):
        Settings(steps=1, compile="always")


def test_with_many_types_each_step_is_of_others_and_is_not_compiled() -> None:
    assert not Settings(steps=10**6).compiles("cuda", 17)
    assert Settings(steps=10**6, negatives=100).compiles("cuda", 32)
    assert not Settings(steps=10**6, negatives=100).compiles("cuda", 33), "they share a table"
    with pytest.raises(TzkError, match="up to 16 knowledge types here, and the model has 17"):
        Settings(steps=10, compile=True).compiles("cpu", 17)
