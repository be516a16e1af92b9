"""A flow in several processes trains as in one: the same steps to rounding, and errors that reach the trainer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import pytest
import torch
from models import small
from nflows.transforms.base import CompositeTransform, Transform
from nflows.transforms.normalization import BatchNorm
from torch import Tensor, nn

from tzk_core import Observations, SharedFlow, TzK, TzkError
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.random_streams import stream
from tzk_core.training.processes import Spread
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer


class Few:
    """Batches of so many samples of three dimensions, half of them with k0; of a `missing` share T is not observed."""

    def __init__(self, size: int = 7, missing: int = 0) -> None:
        self.size, self.missing = size, missing

    def batch(self, step: int) -> Observations:
        T = torch.randn(self.size, 3, generator=stream(step, "few")).double()
        T[: self.missing] = math.nan
        presence = (torch.arange(self.size) % 2).unsqueeze(1).double()
        return Observations(T, presence, ("k0",))

    def sources(self, step: int) -> Mapping[str, slice]:
        return {"all": slice(0, self.size)}


class Awkward(Transform):
    """x to x exp(s); raises in another process, where it has been pickled, for a batch with a value above 100."""

    def __init__(self, *, unused: bool = False) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.idle = nn.Parameter(torch.zeros(3, dtype=torch.float64)) if unused else None
        self.here = True

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"here": False}

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not self.here and bool((inputs > 100).any()):
            raise ArithmeticError("too much")
        return inputs * self.log_scale.exp(), self.log_scale.sum().expand(len(inputs))


def trainer(processes: int, batches: Few, trained: list[str] | None = None, **settings: object) -> Trainer:
    made = Settings(steps=10, processes=processes, compile=False, **settings)  # type: ignore[arg-type]
    return Trainer(small(), batches, made, levels=None, trained=trained)


def spread(transform: Transform) -> Spread:
    return Spread(transform, 2)


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Awkward, Spread]]:
    """A flow and the process that it shares with several tests: starting one takes seconds."""
    transform = Awkward(unused=True)
    flow = spread(transform)
    yield transform, flow
    flow.close()


@pytest.fixture
def shared(started: tuple[Awkward, Spread]) -> tuple[Awkward, Spread]:
    """That flow as the identity, with no gradients."""
    transform, flow = started
    transform.zero_grad(set_to_none=True)
    with torch.no_grad():
        transform.log_scale.zero_()
    return transform, flow


def samples(count: int = 6) -> Tensor:
    return torch.randn(count, 3, generator=stream(0, "samples")).double()


@pytest.mark.parametrize(
    ("processes", "missing", "trained"),
    [(2, 2, None), (2, 0, ["k0"]), pytest.param(3, 0, None, marks=pytest.mark.slow)],
)
def test_steps_are_those_of_one_process(processes: int, missing: int, trained: list[str] | None) -> None:
    several, one = (trainer(number, Few(missing=missing), trained) for number in (processes, 1))
    try:
        for _ in range(4):
            found, expected = several.advance(), one.advance()
            torch.testing.assert_close(found.value, expected.value, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(found.log_prob_T, expected.log_prob_T, rtol=1e-10, atol=1e-10, equal_nan=True)
    finally:
        several.close()
    for (name, a), b in zip(several.model.named_parameters(), one.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


def test_a_run_ends_its_processes_and_gives_threads_back() -> None:
    before = torch.get_num_threads()
    made = trainer(2, Few())
    made.advance()
    assert made._spread is not None
    (worker,) = made._spread.spread._workers
    assert worker._process.is_alive()
    made.run()
    assert made.step == 10
    assert worker._process.exitcode == 0
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_fewer_samples_than_processes() -> None:
    transform = small().flow.transform
    flow = Spread(transform, 3)
    try:
        flow(samples(6))
        found, expected = flow(samples(1)), transform(samples(1))
        gradients = torch.autograd.grad(found[0].sum() + found[1].sum(), list(transform.parameters()))
        wanted = torch.autograd.grad(expected[0].sum() + expected[1].sum(), list(transform.parameters()))
    finally:
        flow.close()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients, wanted)


def test_what_no_process_reaches_gets_no_gradient(shared: tuple[Awkward, Spread]) -> None:
    transform, flow = shared
    z, logabsdet = flow(samples())
    (z.sum() + logabsdet.sum()).backward()
    assert transform.idle is not None and transform.idle.grad is None
    torch.testing.assert_close(transform.log_scale.grad, samples().sum(0) + 6)


def test_the_processes_see_what_parameters_have_become(shared: tuple[Awkward, Spread]) -> None:
    transform, flow = shared
    flow(samples())
    with torch.no_grad():
        transform.log_scale.fill_(1.0)
    z, _ = flow(samples())
    torch.testing.assert_close(z, samples() * math.e)


def test_an_error_in_a_process_is_one_here() -> None:
    flow = spread(Awkward())
    try:
        flow(samples())
        with pytest.raises(TzkError, match="process of the shared flow failed: ArithmeticError: too much"):
            flow(samples() + 1000)
        flow(samples())  # it goes on
        flow._workers[0]._process.kill()
        with pytest.raises(TzkError, match="process of the shared flow ended: exit code -9"):
            flow(samples())
    finally:
        flow.close()


@pytest.mark.slow
def test_after_an_error_here_no_answer_is_left_for_the_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    transform = Awkward()
    flow = spread(transform)
    try:
        flow(samples())
        monkeypatch.setattr(transform, "here", False)
        with pytest.raises(ArithmeticError, match="too much"):
            flow(torch.cat([samples(3) + 1000, samples(3)]))
        z, _ = flow(samples() - 1)
        torch.testing.assert_close(z, samples() - 1)
        flow.close()
        with pytest.raises(TzkError, match="the last batch only"):
            z.sum().backward()
    finally:
        flow.close()


def test_going_back_through_an_earlier_batch_is_refused(shared: tuple[Awkward, Spread]) -> None:
    _, flow = shared
    z, _ = flow(samples())
    flow(samples())
    with pytest.raises(TzkError, match="the last batch only"):
        z.sum().backward()


def test_a_flow_whose_samples_depend_on_each_other_is_refused() -> None:
    transform = CompositeTransform([Awkward(), BatchNorm(3).double()])
    flow = spread(transform)
    with pytest.raises(TzkError, match="who else is in its batch"):
        flow(samples())
    assert not flow._workers


def test_a_flow_that_cannot_be_sent_is_refused() -> None:
    transform = Awkward()
    transform.extra = lambda: None
    with pytest.raises(TzkError, match="cannot be sent to other processes.*processes = 1"):
        spread(transform)(samples())


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(TzkError, match="compile: true is for one process, so expected processes = 1, got 2"):
        Settings(steps=1, compile=True, processes=2)
    assert not Settings(steps=10**6, processes=2).compiles("cuda", 1)
    with pytest.raises(TzkError, match="processes: expected a number above 0, got 0"):
        Settings(steps=1, processes=0)
    mixed = nn.ModuleList([Awkward(), Awkward().float()])
    with pytest.raises(TzkError, match="one floating-point type; got float32, float64"):
        spread(CompositeTransform(list(mixed)))(samples())
    model = TzK(SharedFlow((3,), Awkward(), StandardGaussian((3,)))).to("meta")
    with pytest.raises(TzkError, match="processes = 2 is for CPUs"):
        Trainer(model, Few(), Settings(steps=1, processes=2))
