"""A knowledge type K = (κ, C) and its five distributions (paper, Section 2)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from nflows.transforms.base import Transform
from torch import Tensor, nn
from torch.nn import functional

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.conditional import ConditionalGaussian
from tzk_core.distributions.regressor import Regressor
from tzk_core.distributions.standard import FittedGaussian
from tzk_core.parts import Part
from tzk_core.transforms.bounds import soft_bound

LEAST_LATENTS = 64
"""The fewest latents whose leading directions C starts from: those of fewer would be those of an accident."""

ENCODER_DEVIATION = 0.3
"""The deviation of p(C given z, κ=1) at the start, of a C whose variance is 1."""


class Presence(NamedTuple):
    """A log-probability of both values of κ, in nats.

    absent: of κ = 0. present: of κ = 1, of the same shape.
    """

    absent: Tensor
    present: Tensor


class Encoder(NamedTuple):
    """p(C given z, κ=1) at some z, of which the network was evaluated.

    encode: C from standard Gaussian noise, (batch, c). log_prob: of C, (batch, c) to (batch,).
    """

    encode: Callable[[Tensor], Tensor]
    log_prob: Callable[[Tensor], Tensor]


class Knowledge(nn.Module):
    """κ, whether knowledge is present, and C in R^c, what it is like.

    Its five distributions:
    - p(κ): `log_odds`, a buffer, of the population that it was fitted on
    - p(C given κ=1): `characteristics_prior`
    - p(z given C, κ=1): `latent`, the conditional prior, which a subclass chooses
    - p(κ given z): `discriminator`, bounded log-odds
    - p(C given z, κ=1): `characteristics_encoder`

    Encoder and conditional prior see C standardised by its prior, so that observed characteristics may have any unit.
    Every method is a pure function of parameters, z, C and noise, batch in and (batch,) out. None has a branch on
    values, so that knowledge types of one structure can be evaluated stacked. C is (batch, c), or (batch, samples, c)
    to evaluate several for one z. Nothing here mentions T: the Jacobian of f_T cancels in p(T given K)/p(T). With
    absent knowledge C means nothing, and p(T given κ=0) is the Bayes complement, so it has no distribution of its own.

    Subclasses MUST pass `latent`, a `Reparametrised` over z given C. They CAN override `initialise` and `start`.
    Where discriminator and encoder look at less than all of z, they override `features` and pass their number. When
    the names or meanings of their parameters change, they raise `state_version` and override `upgrade`.

    Where C has finitely many values, such as a class, `support` lists them; densities of C are then probabilities.

    `describe_as` sets what no constructor does: `implies`, names of knowledge that contains this one, and `part`.
    """

    state_version = 1

    log_odds: Tensor

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        latent: Reparametrised,
        characteristics: int = 2,
        *,
        hidden: int = 70,
        layers: int = 4,
        logit_bound: float = 20.0,
        features: int | None = None,
    ) -> None:
        super().__init__()
        dims = int(torch.Size(latent_shape).numel()) if features is None else features
        self.latent_shape = tuple(latent_shape)
        self.characteristics = characteristics
        self.logit_bound = logit_bound
        self._part: Part | None = None
        self._implies: tuple[str, ...] = ()
        self.latent = latent
        self.discriminator: nn.Module = Regressor(dims, 1, hidden=hidden, layers=layers)
        self.characteristics_prior = FittedGaussian((characteristics,))
        self.characteristics_encoder = ConditionalGaussian(
            (characteristics,), dims, hidden=hidden, layers=layers, mean_bound=6.0
        )
        self.register_buffer("log_odds", torch.zeros(()))

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return function(self, *arguments): in a call, `torch.func` can replace the parameters."""
        return function(self, *arguments)

    def describe_as(self, *, part: Part | None = None, implies: Iterable[str] | None = None) -> None:
        """Set what other knowledge and checkpoints need; None leaves it as it is.

        Args:
            part: what a checkpoint builds it from again; knowledge without it was built in Python, and cannot be.
            implies: names of knowledge that contains this one (a digit is in "mnist").
        """
        if part is not None:
            self._part = part
        if implies is not None:
            self._implies = tuple(implies)

    @property
    def part(self) -> Part | None:
        """What a checkpoint builds it from again; `describe_as` sets it."""
        return self._part

    @part.setter
    def part(self, part: Part | None) -> None:
        _warn_of_assignment("part")
        self._part = part

    @property
    def implies(self) -> tuple[str, ...]:
        """Names of knowledge that contains this one; `describe_as` sets them."""
        return self._implies

    @implies.setter
    def implies(self, names: Iterable[str]) -> None:
        _warn_of_assignment("implies")
        self._implies = tuple(names)

    def initialise(self, generator: torch.Generator) -> None:
        """Sample every random starting value from `generator`; flows start at the identity."""
        for module in self.modules():
            if isinstance(module, Regressor):
                module.initialise(generator)
        self.start_characteristics(None, generator)

    @torch.no_grad()
    def fit_characteristics(self, observed: Tensor) -> None:
        """Fit p(C given κ=1) to observed C, and start its encoder at p(C).

        Args:
            observed: (n, c); rows with nan are left out.
        """
        self.characteristics_prior.fit(observed)
        encoder = getattr(self, "characteristics_encoder", None)
        if isinstance(encoder, ConditionalGaussian):
            encoder.start_linear(torch.zeros(self.characteristics, encoder.regressor.inputs), 1.0)

    @torch.no_grad()
    def start_characteristics(self, z: Tensor | None, generator: torch.Generator) -> None:
        """Start p(C given z, κ=1) as informative about z, for an unobserved C.

        Where encoder and conditional prior both start neutral, C is independent of z in both. Neither then has a
        gradient: a saddle for ever. So C starts as the leading directions of `features` of z, with unit variance and
        the deviation `ENCODER_DEVIATION`. An encoder that is no `ConditionalGaussian` is left as it is.

        Args:
            z: latents in which the knowledge is present, (n, *latent_shape). With fewer than `LEAST_LATENTS`, or None,
                the directions are random.
        """
        encoder = getattr(self, "characteristics_encoder", None)
        if isinstance(encoder, ConditionalGaussian):
            dims = encoder.regressor.inputs
            features = None if z is None or len(z) < LEAST_LATENTS else self.features(z)
            encoder.start_linear(
                leading_directions(features, self.characteristics, dims, generator=generator), ENCODER_DEVIATION
            )

    def attach(self, transform: Transform, base: Reparametrised) -> None:
        """Take notice of the shared flow of the model; by default do nothing.

        `TzK.add` calls it. A type that looks at T keeps the flow here, outside of its own parameters and buffers, as
        it is frozen and belongs to the model. p(T given K)/p(T) stays a function of z, as T is.

        Args:
            transform: f_T^{-1}, whose inverse takes z to T.
            base: p(z).
        """

    def start(self, z: Tensor, reference: Tensor, groups: Tensor | None = None) -> None:
        """Start in closed form when added to a trained model; by default not at all.

        Args:
            z: latents in which the knowledge is present, (n, *latent_shape).
            reference: latents of what contains it, (m, *latent_shape). There may be none, m = 0: then only the shared
                prior is known to contain it.
            groups: the class of each reference latent, (m,) integers, where it is known.
        """

    def features(self, z: Tensor) -> Tensor:
        """What discriminator and encoder see of z, here all of it.

        Args:
            z: (batch, *latent_shape).

        Returns:
            (batch, features).
        """
        return z.flatten(1)

    @staticmethod
    def upgrade(state: dict[str, Tensor], version: int) -> dict[str, Tensor]:
        """Translate the state dict of an older `version` to the current one."""
        return state

    def support(self) -> Tensor | None:
        """All values that C can take, (m, c); None where C is anywhere in R^c.

        Integrals over C are exact sums where there are finitely many.
        """
        return None

    def log_prob_presence(self) -> Presence:
        """log p(κ=0) and log p(κ=1), scalars in nats."""
        return Presence(functional.logsigmoid(-self.log_odds), functional.logsigmoid(self.log_odds))

    def log_prob_presence_given(self, z: Tensor) -> Presence:
        """log p(κ=0 given z) and log p(κ=1 given z), (batch,) each, in nats."""
        logits = soft_bound(self.discriminator(self.features(z)).squeeze(-1), self.logit_bound)
        return Presence(functional.logsigmoid(-logits), functional.logsigmoid(logits))

    def log_prob_characteristics(self, C: Tensor) -> Tensor:
        """log p(C given κ=1), (batch,) or (batch, samples)."""
        return self.characteristics_prior.log_prob(C)

    def log_prob_characteristics_given(self, C: Tensor, z: Tensor) -> Tensor:
        """log p(C given z, κ=1), (batch,) or (batch, samples)."""
        prior = self.characteristics_prior
        return self.characteristics_encoder.log_prob(prior.standardise(C), self.features(z)) - prior.scale.log().sum()

    def encoder_at(self, z: Tensor) -> Encoder:
        """`encode` and `log_prob_characteristics_given` at z, whose network is evaluated once.

        Subclasses that override one of the two are asked for each.
        """
        cls, encoder = type(self), getattr(self, "characteristics_encoder", None)
        own = cls.encode, cls.log_prob_characteristics_given
        if (
            own != (Knowledge.encode, Knowledge.log_prob_characteristics_given)
            or type(encoder) is not ConditionalGaussian
        ):
            return Encoder(lambda noise: self.encode(z, noise), lambda C: self.log_prob_characteristics_given(C, z))
        prior, of_z = self.characteristics_prior, encoder.parameters_of(self.features(z))
        return Encoder(
            lambda noise: self.imagine(encoder.from_noise_at(noise, *of_z)),
            lambda C: encoder.log_prob_at(prior.standardise(C), *of_z) - prior.scale.log().sum(),
        )

    def characteristics_given(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of p(C given z, κ=1), (batch, c) each."""
        mean, log_scale = self.characteristics_encoder.parameters_of(self.features(z))
        return self.imagine(mean), self.characteristics_prior.scale * log_scale.exp()

    def log_prob_latent(self, z: Tensor, C: Tensor) -> Tensor:
        """log p(z given C, κ=1), (batch,) or (batch, samples)."""
        return self.latent.log_prob(z, self.characteristics_prior.standardise(C))

    def encode(self, z: Tensor, noise: Tensor) -> Tensor:
        """C from Gaussian noise under p(C given z, κ=1).

        Args:
            noise: (batch, c) or (batch, samples, c), the shape of the C returned.
        """
        return self.imagine(self.characteristics_encoder.from_noise(noise, self.features(z)))

    def imagine(self, noise: Tensor) -> Tensor:
        """C from standard Gaussian noise, (…, c), under the prior p(C given κ=1)."""
        return self.characteristics_prior.from_noise(noise)

    def decode(self, C: Tensor, noise: Tensor) -> Tensor:
        """z from noise under p(z given C, κ=1).

        Args:
            C: (batch, c).
            noise: (batch, *latent_shape), the shape of the z returned.
        """
        return self.latent.from_noise(noise, self.characteristics_prior.standardise(C))


def _warn_of_assignment(name: str) -> None:
    warnings.warn(f"assigning to {name} is now describe_as({name}=...): call that", FutureWarning, stacklevel=4)


def discriminate(knowledge: Knowledge, z: Tensor) -> Presence:
    """`log_prob_presence_given` as a `Presence`, also of a class that returns a plain tuple."""
    return Presence(*knowledge.log_prob_presence_given(z))


def leading_directions(x: Tensor | None, number: int, dims: int, *, generator: torch.Generator) -> Tensor:
    """Directions of the largest variance, scaled so that x has variance 1 along them.

    Args:
        x: (n, dims). None stands for independent dimensions; the directions are then random, as are those beyond the
            rank of x.

    Returns:
        (number, dims).
    """
    random = torch.randn(number, dims, generator=generator) / dims**0.5
    if x is None:
        return random
    centred = (x - x.mean(0))[:512].double()
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    rank = min(number, int((values > 1e-6 * values[0]).sum()))
    scales = values[:rank] / len(centred) ** 0.5
    return torch.cat([(axes[:rank] / scales[:, None]).to(random), random[rank:]])
