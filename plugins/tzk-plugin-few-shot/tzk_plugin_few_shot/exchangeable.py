"""The knowledge types `exchangeable` and `exchangeable-classes`.

They are a class from few samples, and what all classes have in common.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.standard import LOG_2PI, StandardGaussian
from tzk_core.errors import TzkError
from tzk_core.knowledge.base import Knowledge, Presence
from tzk_core.transforms.bounds import soft_bound
from tzk_plugin_few_shot.factor_knowledge import FactorKnowledge
from tzk_plugin_few_shot.factors import FactorGaussian
from tzk_plugin_few_shot.predictive import predictive

FEATURES = 64
"""How many features there are by default; all dimensions of a latent that has fewer."""

LEAST_SHARE = 0.01
"""The least share of a feature's variance that is estimated to be between classes, and within them."""


class LeadingGaussian(Reparametrised):
    """A Gaussian with factors of the first dimensions, N(0, I) of all others.

    shape: of one event; its dimensions count as flattened. leading: the number of the first. factors: of the context.
    """

    def __init__(self, shape: tuple[int, ...], leading: int, factors: int) -> None:
        super().__init__(shape)
        if not 0 < leading <= math.prod(shape):
            raise TzkError(
                f"features are expected as the first dimensions of a latent of {shape}, at least one; got {leading}"
            )
        self.leading = leading
        self.gaussian = FactorGaussian((leading,), factors)
        self.rest = StandardGaussian((math.prod(shape) - leading,))

    def split(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The first dimensions, (batch, leading), and the others."""
        flat = inputs.flatten(1)
        return flat[:, : self.leading], flat[:, self.leading :]

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        first, others = self.split(inputs)
        log_prob, rest = self.gaussian.log_prob(first, context), self.rest.log_prob(others)
        return log_prob + (rest.unsqueeze(1) if log_prob.dim() > rest.dim() else rest)

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        first, others = self.split(noise)
        return torch.cat([self.gaussian.from_noise(first, context), others], 1).view(noise.shape)


class ExchangeableKnowledge(FactorKnowledge):
    """One class of an exchangeable Gaussian model of features, the first dimensions of z.

    In every feature the mean of a class is N(0, b) and a sample of it has the variance 1 - b. So z of an unknown class
    is N(0, I), the shared prior. `start` takes the posterior predictive of some samples of the class; their order does
    not matter. All else in z is N(0, I). So p(T given K)/p(T) is the predictive likelihood ratio of the features,
    exactly, where the shared flow's base is Gaussian.

    Where the class is absent, T is of a class that is not known, and p(T) that of the shared prior. Then p(κ=1 given T)
    has the log-odds log p(κ=1)/p(κ=0) + log p(T given K)/p(T). A discriminator adds a correction, which is 0 until it
    is trained.

    C are the `characteristics` features that are least certain, of whose variance it explains all but `unexplained`;
    all with C is in closed form.

    features: how many dimensions. share: b, where neither `build_on` nor groups of a reference say otherwise.
    hidden, layers: of the discriminator.
    """

    latent: LeadingGaussian
    between: Tensor

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        characteristics: int = 2,
        *,
        features: int | None = None,
        share: float = 0.8,
        unexplained: float = 0.1,
        hidden: int = 16,
        layers: int = 2,
    ) -> None:
        if not 0 < share < 1 or not 0 < unexplained <= 1:
            raise TzkError(
                f"exchangeable expects share in (0, 1) and unexplained in (0, 1]; got {share} and {unexplained}"
            )
        features = min(FEATURES, math.prod(latent_shape)) if features is None else features
        latent = LeadingGaussian(latent_shape, features, characteristics)
        super().__init__(latent_shape, latent, characteristics, hidden=hidden, layers=layers, features=features)
        del self.characteristics_encoder  # the exact posterior of the factors is in its place
        self.unexplained = unexplained
        self.register_buffer("between", torch.full((features,), share))

    @torch.no_grad()
    def build_on(self, other: Knowledge) -> None:
        """Take b from `exchangeable-classes`.

        Raises:
            TzkError: if the other is of another type, or has another number of features.
        """
        theirs = getattr(other, "between", None)
        if theirs is None or theirs.shape != self.between.shape:
            got = "no features" if theirs is None else f"{len(theirs)} features"
            raise TzkError(
                f"exchangeable builds on exchangeable-classes with {len(self.between)} features; got "
                f"{type(other).__name__} with {got}: give both the same `features`"
            )
        self.between.copy_(theirs)

    @torch.no_grad()
    def start(self, z: Tensor, reference: Tensor, groups: Tensor | None = None) -> None:
        """Start from samples of the class, (n, *latent_shape).

        Where the reference has groups, b is estimated from it first.

        Raises:
            TzkError: if there are no samples.
        """
        if not len(z):
            raise TzkError("exchangeable starts from at least one latent in which the knowledge is present; got none")
        if groups is not None and len(groups) > len(groups.unique()):
            self.between.copy_(shares_between(self.features(reference), groups))
        self.condition(self.features(z).sum(0), len(z))

    @torch.no_grad()
    def condition(self, total: Tensor, count: int) -> None:
        """Set p(z given κ=1) to the posterior predictive of `count` samples.

        Args:
            total: the sum of their features, (features,).
        """
        mean, variance = predictive(total.double(), count, self.between.double())
        chosen = variance.argsort(descending=True, stable=True)[: self.characteristics]
        loading = variance.new_zeros(len(variance), self.characteristics)
        loading[chosen, torch.arange(len(chosen), device=chosen.device)] = (
            (1 - self.unexplained) * variance[chosen]
        ).sqrt()
        noise = variance.index_copy(0, chosen, self.unexplained * variance[chosen])
        self.gaussian.set(mean, noise, loading)

    def features(self, z: Tensor) -> Tensor:
        return self.latent.split(z)[0]

    def factors(self, z: Tensor) -> tuple[Tensor, Tensor]:
        features, others = self.latent.split(z)
        return features, self.latent.rest.log_prob(others)

    @property
    def gaussian(self) -> FactorGaussian:
        return self.latent.gaussian

    def log_ratio(self, z: Tensor) -> Tensor:
        """log p(T given K) - log p(T), (batch,), in nats, where p(z) is N(0, I)."""
        features = self.features(z)
        log_prior = -0.5 * (features.square() + LOG_2PI).sum(1)
        return self.gaussian.log_prob_marginal(features) - log_prior

    def log_prob_presence_given(self, z: Tensor) -> Presence:
        correction = soft_bound(self.discriminator(self.features(z)).squeeze(-1), self.logit_bound)
        logits = self.log_odds + self.log_ratio(z) + correction
        return Presence(functional.logsigmoid(-logits), functional.logsigmoid(logits))


class ClassesKnowledge(ExchangeableKnowledge):
    """What the classes of an exchangeable Gaussian model have in common.

    That is b, and that any of them is N(0, I).

    New classes start from it: `start = NAME`. It says no more of T than the shared prior until it is trained.
    """

    @torch.no_grad()
    def start(self, z: Tensor, reference: Tensor, groups: Tensor | None = None) -> None:
        """Estimate b, where the reference has groups."""
        if groups is not None and len(groups) > len(groups.unique()):
            self.between.copy_(shares_between(self.features(reference), groups))
        self.condition(torch.zeros_like(self.between), 0)


def shares_between(features: Tensor, groups: Tensor) -> Tensor:
    """b of every feature, (d,): 1 less the pooled variance within groups.

    It is held within `LEAST_SHARE` of 0 and 1.

    Args:
        features: (n, d), of variance 1 over all groups.
        groups: (n,) integers; at least one of them has two samples.
    """
    _, index = torch.unique(groups, return_inverse=True)
    sizes = torch.bincount(index).to(features)
    means = features.new_zeros(len(sizes), features.shape[1]).index_add_(0, index, features) / sizes[:, None]
    within = (features - means[index]).square().sum(0) / (len(features) - len(sizes))
    return (1 - within).clamp(LEAST_SHARE, 1 - LEAST_SHARE)
