"""The checks of optimisers, schedules, terms, bases and samplers pass right parts, and catch each law broken."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from parts_offered import Descent, Labels, Laplace, LaplaceKnowledge, Resampling, SmallZ, linear
from torch import Tensor

from tzk_core.build import build_flow, build_knowledge
from tzk_core.distributions.standard import StandardGaussian, StandardLogistic
from tzk_core.model import TzK
from tzk_core.model.samplers import Rejection, SequentialMonteCarlo, Target
from tzk_core.model.smc import Population
from tzk_core.objective import TermBatch
from tzk_core.testing import (
    NotConforming,
    check_base,
    check_knowledge,
    check_objective_term,
    check_optimizer,
    check_plugin,
    check_sampler,
    check_schedule,
)
from tzk_core.training.optimizers import Adam, Trained
from tzk_core.training.schedules import Shares, constant, cosine


def test_the_plugin_registers_lightly_and_its_targets_are_what_they_say() -> None:
    assert len(check_plugin("parts_plugin")) == 7


def test_its_knowledge_type_conforms() -> None:
    check_knowledge(LaplaceKnowledge((2,)), torch.randn(3, 2))


# optimisers


@pytest.mark.parametrize("build", [Adam, Descent, partial(Descent, momentum=0.9)])
def test_right_optimisers_pass(build: Callable[[Trained], Any]) -> None:
    check_optimizer(build, learning_rate=1e-2)


class Partial(Descent):
    def __init__(self, trained: Trained) -> None:
        super().__init__(Trained(trained.groups[:1], trained.flows, trained.learning_rate, trained.betas))


class Deaf(Descent):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["lr"] = 1e-2
        super().step()


class Forgetful(torch.optim.SGD):
    def __init__(self, trained: Trained) -> None:
        super().__init__(list(trained.groups), lr=1.0)
        self.steps = 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.steps += 1
        for group in self.param_groups:
            group["lr"] /= self.steps
        super().step()


class Restless(Descent):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(1 - group["lr"])
        super().step()


class Uphill(Descent):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["lr"] *= -1
        super().step()


class Unrated(Descent):
    def __init__(self, trained: Trained) -> None:
        super().__init__(trained)
        for group in self.param_groups:
            del group["rate"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Partial, "should hold all parameters"),
        (Deaf, "with lr = 0 parameters move"),
        (Forgetful, "goes on from its saved state is off"),
        (Restless, "whose gradient is None should stay"),
        (Uphill, "should lower the loss"),
        (Unrated, 'should have the "rate"'),
    ],
)
def test_wrong_optimisers_are_refused(build: Callable[[Trained], Any], message: str) -> None:
    with pytest.raises(NotConforming, match=message):
        check_optimizer(build, learning_rate=1e-2)


# schedules


@pytest.mark.parametrize("build", [cosine, constant, linear, partial(linear, end=0.5)])
def test_right_schedules_pass(build: Callable[[int], Shares]) -> None:
    check_schedule(build)


def counting(steps: int) -> Shares:
    seen: list[int] = []

    def shares(step: int) -> float:
        seen.append(step)
        return 1 / len(seen)

    return shares


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda steps: lambda step: 0.5 - step / steps, "a number from 0 on"),
        (lambda steps: lambda step: math.inf, "a number from 0 on"),
        (lambda steps: lambda step: 0.0, "all have 0"),
        (counting, "depend on the step alone"),
    ],
)
def test_wrong_schedules_are_refused(build: Callable[[int], Shares], message: str) -> None:
    with pytest.raises(NotConforming, match=message):
        check_schedule(build)


# terms


def batch() -> TermBatch:
    model = TzK(build_flow((2,), layers=[{"type": "affine"}]))
    model.add("a", build_knowledge("gaussian", (2,), name="a", hidden=8, layers=2))
    T = torch.randn(4, 2)
    T[1] = math.nan
    log_prob_T = torch.tensor([-1.0, math.nan, -2.0, -3.0])
    kappa = torch.tensor([1.0, 0.0, math.nan, 1.0])
    return TermBatch(T, torch.randn(4, 2), log_prob_T, {"a": kappa}, {}, model)


@pytest.mark.parametrize("term", [SmallZ(), SmallZ(centre=1.0), Labels()])
def test_right_terms_pass(term: Any) -> None:
    check_objective_term(term, batch())


def in_place(batch: TermBatch) -> Tensor:
    batch.log_prob_T.nan_to_num_(0.0)
    return batch.z.sum(1)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (lambda batch: batch.z.sum(), "should have the shape"),
        (lambda batch: batch.log_prob_T + batch.z.sum(1), "should be finite"),
        (lambda batch: (batch.z - batch.z.mean(0)).sum(1), "first sample by itself"),
        (lambda batch: (batch.z * torch.randn(2)).sum(1), "random numbers"),
        (lambda batch: batch.z.detach().sum(1), "should have a gradient"),
        (in_place, "it changes log_prob_T"),
    ],
)
def test_wrong_terms_are_refused(term: Any, message: str) -> None:
    with pytest.raises(NotConforming, match=message):
        check_objective_term(term, batch())


# bases


@pytest.mark.parametrize("build", [StandardGaussian, StandardLogistic, Laplace, partial(Laplace, scale=3.0)])
def test_right_bases_pass(build: Any) -> None:
    check_base(build)


class Unnormalised(Laplace):
    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return -inputs.abs().flatten(1).sum(1)


class OfAnother(Laplace):
    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return noise


class WrongTail(StandardLogistic):
    def from_gaussian(self, noise: Tensor) -> Tensor:
        return noise


class Joint(StandardGaussian):
    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        mean = inputs.flatten(1).mean(0) if self.shape != (1,) else 0.0
        return super()._log_prob(inputs, context) + (inputs.flatten(1) * mean).sum(1)


class Fixed(StandardGaussian):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__((1,))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Unnormalised, "should integrate to 1; got 2"),
        (OfAnother, "the CDF of samples by noise should be uniform"),
        (WrongTail, "the CDF of samples by from_gaussian should be uniform"),
        (Joint, "first sample by itself"),
        (Fixed, r"shape should be \(3,\)"),
    ],
)
def test_wrong_bases_are_refused(build: Any, message: str) -> None:
    with pytest.raises(NotConforming, match=message):
        check_base(build)


# samplers


@pytest.mark.parametrize("sampler", [SequentialMonteCarlo(), Rejection(), Resampling()])
def test_right_samplers_pass(sampler: Any) -> None:
    check_sampler(sampler)


class Unweighted(Resampling):
    def __call__(self, target: Target, n: int, generator: torch.Generator) -> Population:
        flat = Target(lambda x: 0 * target.log_weight(x), target.dims, 0.0, target.like)
        return super().__call__(flat, n, generator)


class Few(Resampling):
    def __call__(self, target: Target, n: int, generator: torch.Generator) -> Population:
        return super().__call__(target, n // 2, generator)


class OwnRandomness(Resampling):
    def __call__(self, target: Target, n: int, generator: torch.Generator) -> Population:
        generator.seed()
        return super().__call__(target, n, generator)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Unweighted(), "the mean is off"),
        (Few(), "at least 2048 particles"),
        (OwnRandomness(), "particles of the same generator is off"),
    ],
)
def test_wrong_samplers_are_refused(sampler: Any, message: str) -> None:
    with pytest.raises(NotConforming, match=message):
        check_sampler(sampler)
