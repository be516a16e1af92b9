"""The parts of the plugin `parts`, as a stranger would write them, and a fixture that installs it."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable

import parts_plugin
import pytest
import torch
from torch import Tensor, nn

from tzk_core.distributions.base import Reparametrised
from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.base import discriminate
from tzk_core.model.samplers import Target
from tzk_core.model.smc import Population, systematic
from tzk_core.objective import TermBatch
from tzk_core.plugins import PluginRecord, Registry
from tzk_core.plugins.builtin import BUILTIN
from tzk_core.plugins.loader import Loaded, load_all
from tzk_core.plugins.validation import specs_of
from tzk_core.training.optimizers import Trained
from tzk_core.training.schedules import Shares


def laplace(noise: Tensor) -> Tensor:
    """Standard Laplace samples from Gaussian noise, by its CDF on either side of 0."""
    return -noise.sign() * (torch.special.log_ndtr(-noise.abs()) + math.log(2))


class Laplace(Reparametrised):
    """A product of Laplace densities."""

    def __init__(self, shape: tuple[int, ...], *, scale: float = 1.0) -> None:
        super().__init__(shape)
        self.scale = scale

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return (-inputs.abs() / self.scale - math.log(2 * self.scale)).flatten(1).sum(1)

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return self.scale * laplace(noise)


class LaplaceGiven(Reparametrised):
    """A product of Laplace densities, about a centre that is linear in C."""

    def __init__(self, shape: tuple[int, ...], characteristics: int) -> None:
        super().__init__(shape)
        self.centre = nn.Linear(characteristics, math.prod(shape))

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        z = inputs.flatten(1)
        distance = (z[:, None] if context.ndim == 3 else z) - self.centre(context)
        return (-distance.abs() - math.log(2)).sum(-1)

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return laplace(noise) + self.centre(context).view_as(noise)


class LaplaceKnowledge(Knowledge):
    """Knowledge whose z given C is Laplace."""

    def __init__(self, latent_shape: tuple[int, ...], characteristics: int = 1, *, hidden: int = 20) -> None:
        super().__init__(latent_shape, LaplaceGiven(latent_shape, characteristics), characteristics, hidden=hidden)


class Descent(torch.optim.SGD):
    """Plain gradient descent with momentum."""

    def __init__(self, trained: Trained, *, momentum: float = 0.0) -> None:
        super().__init__(list(trained.groups), lr=trained.learning_rate, momentum=momentum)


def linear(steps: int, *, end: float = 0.0) -> Shares:
    """From 1 to `end` in a straight line."""
    return lambda step: 1 - (1 - end) * step / steps


class SmallZ:
    """Keep z close to a centre."""

    def __init__(self, *, centre: float = 0.0) -> None:
        self.centre = centre

    def __call__(self, batch: TermBatch) -> Tensor:
        return -0.5 * (batch.z - self.centre).square().flatten(1).sum(1)


class Labels:
    """Classify by p(κ given z) where κ was observed."""

    def __call__(self, batch: TermBatch) -> Tensor:
        total = torch.zeros_like(batch.z.flatten(1)[:, 0])
        for name, kappa in batch.presence.items():
            presence = discriminate(batch.model.find(name), batch.z)
            total = total + torch.where(kappa == 1, presence.present, 0) + torch.where(kappa == 0, presence.absent, 0)
        return total


class Resampling:
    """Importance sampling from the Gaussian noise, resampled."""

    def __init__(self, *, tries: int = 64) -> None:
        self.tries = tries

    def __call__(self, target: Target, n: int, generator: torch.Generator) -> Population:
        noise = torch.randn(self.tries * n, target.dims, generator=generator).to(target.like)
        log_weight = target.log_weight(noise).double()
        if not (log_weight > -math.inf).any():
            raise TzkError("no try has any weight: take another composition")
        share = torch.softmax(log_weight, 0)
        ess = 1 / share.square().sum().item()
        chosen = systematic(share, n, generator)[torch.randperm(n, generator=generator)]
        return Population(
            noise=noise[chosen],
            log_normaliser=(torch.logsumexp(log_weight, 0) - math.log(len(noise))).item(),
            standard_error=math.sqrt(max(1 / ess - 1 / len(noise), 0.0)),
            ess=min(ess, float(n)),
            ancestors=len(chosen.unique()),
            importance_ess=ess,
            acceptance=1.0,
            steps=1,
        )


def _installed(monkeypatch: pytest.MonkeyPatch, loaded: list[Loaded]) -> None:
    """Let the process have the core's plugins and these."""
    made = Registry([*load_all(BUILTIN, []), *loaded])
    monkeypatch.setattr(sys.modules["tzk_core.plugins.registry"], "_registry", lambda listed, strict: made)


@pytest.fixture
def core_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plugin is installed."""
    _installed(monkeypatch, [])


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The plugin `parts` of tzk-plugin-parts 1.0 is installed; a call of this uninstalls it."""
    hooks = specs_of(parts_plugin, "parts")
    record = PluginRecord("parts", "tzk-plugin-parts", "1.0", "parts_plugin", hooks=tuple(hooks))
    _installed(monkeypatch, [Loaded(record, tuple(spec for offered in hooks.values() for spec in offered))])
    return functools.partial(_installed, monkeypatch, [])
