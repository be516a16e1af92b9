"""Several knowledge types at once, "and" and "not": a product of ratios, normalised."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.inputs import characteristics_rows
from tzk_core.knowledge.base import Knowledge, discriminate
from tzk_core.knowledge.collection import KnowledgeDict
from tzk_core.knowledge.importance import log_prob_present_from
from tzk_core.model.flow import SharedFlow
from tzk_core.model.leads import Lead, MemberLead, MixtureLead, PriorLead
from tzk_core.model.samplers import Sampler, SequentialMonteCarlo, Target, sampler_of
from tzk_core.model.smc import Population, Tempering, systematic
from tzk_core.random_streams import stream
from tzk_core.tensors import like_of

Names = str | Sequence[str] | None
Side = Literal["decoder", "encoder"]

CHUNK = 256  # particles that are evaluated together, which bounds the memory


@dataclass(frozen=True)
class Scores:
    """Log-densities of a batch under a composition, in nats.

    log_prob: log p(T given the composition), (batch,).
    log_ratio: log of its unnormalised ratio to p(T), (batch,), without error but for the integrals over C.
    log_normaliser: of the composition, which all of `log_prob` share.
    standard_error: of `log_normaliser`.
    """

    log_prob: Tensor
    log_ratio: Tensor
    log_normaliser: float
    standard_error: float


class Composition:
    """p(T given all of `present` knowledge and none of `without`).

    It is proportional to p(T) times a ratio for each member, at most 1/p(κ). That is p(κ=1 given z)/p(κ=1) of what is
    present and p(κ=0 given z)/p(κ=0) of what is absent. C that is passed brings p(C given z, κ=1)/p(C). The member that
    is the rarest leads: it enters as p(z given K)/p(z), and the particles start as its own samples. All other ratios
    being bounded, there is always a normaliser.

    `among` names knowledge types of which exactly one is present. Then their mixture leads. It is taken for p(z), and
    every member enters by its ratio. In a consistent model that is the same. In another it is better where each of
    these draws well, and what all of them share does not.

    With side = "decoder" all present members enter as p(z given K)/p(z). In a consistent model that is the same. In any
    other nothing bounds it: where two conditionals are wider than p(z), the product of their ratios has no normaliser,
    and particles run away to where p(z) is least.

    Of knowledge that implies other knowledge the most specific members count, and the least specific of `without`:
    these are `present`, the leader first, and `absent`.

    Args:
        flow: the shared flow.
        knowledge: the knowledge about its latent.
        characteristics: C, (c,), of some present members, by name; of the others it is integrated out.
        side: "encoder", or "decoder" for ratios of conditional priors.
        temperature: scales the noise of z of the leader; scores need 1.
        guidance: power of all ratios, as of classifier guidance (Dhariwal & Nichol 2021). The leader enters once as
            p(z given K)/p(z), and beyond that as its encoder. Above 1 samples are clearer, and less varied than the
            composition; scores need 1.
        among: names of two knowledge types or more, none of them among `present`.

    Raises:
        TzkError: for unknown names, with the nearest, for members that contradict one another, and for a guidance of
            ratios that have no bound.
    """

    def __init__(
        self,
        flow: SharedFlow,
        knowledge: KnowledgeDict,
        present: Names,
        *,
        without: Names = (),
        characteristics: Tensor | Mapping[str, Tensor] | None = None,
        side: Side = "encoder",
        temperature: float = 1.0,
        guidance: float = 1.0,
        among: Names = (),
    ) -> None:
        if side not in ("decoder", "encoder"):
            raise TzkError(f"a composition takes the ratios of the 'decoder' or the 'encoder'; got {side!r}")
        _check_guidance(guidance, side)
        self.flow = flow
        self.knowledge = knowledge
        self.side = side
        self.temperature = temperature
        self.guidance = guidance
        counted, self.absent = members(knowledge, present, without)
        fixed = _by_name(characteristics, counted)
        self.characteristics = {name: self._fixed(name, C, asked=present, counted=counted) for name, C in fixed.items()}
        # the narrowest leaves the least to the weights; on the side of the decoder the limit is the same whatever leads
        self.present = tuple(
            sorted(counted, key=lambda name: (name not in fixed, knowledge.find(name).log_odds.item(), name))
        )
        self.among = _alternatives(knowledge, among, self.present)
        if self.among and side == "decoder":
            raise TzkError('with among all members enter by the ratios of encoders: leave out side = "decoder"')
        self.lead = self._lead()

    def _lead(self) -> Lead:
        """What the particles start from."""
        if self.among:
            return MixtureLead([MemberLead(name, self.knowledge.find(name)) for name in self.among])
        if not self.present:
            return PriorLead(self.flow)
        name = self.present[0]
        return MemberLead(name, self.knowledge.find(name), self.characteristics.get(name))

    @property
    def like(self) -> Tensor:
        """A tensor of the type of flow and knowledge, on their device."""
        return like_of(self.flow, self.knowledge)

    def log_ratio(self, z: Tensor, importance_samples: int = 64, seed: int = 0) -> Tensor:
        """log of the product of all ratios at z, (batch, *latent_shape): (batch,), in nats."""
        log_prior, sizes = self.flow.base.log_prob(z), {"samples": importance_samples, "seed": seed}
        total = self.lead.log_ratio(z, log_prior, **sizes)
        for name in self.present[self._leading :]:
            knowledge, C = self.knowledge.find(name), self.characteristics.get(name)
            if self.side == "encoder":
                total = total + self._encoder(knowledge, C, z)
            else:
                total = total + MemberLead(name, knowledge, C).log_ratio(z, log_prior, **sizes)
        return total + self._absence(z)

    @property
    def _leading(self) -> int:
        """How many of the present members lead, 0 or 1; they come first."""
        return 0 if self.among else min(1, len(self.present))

    def score(
        self, T: Tensor, population: Population | None = None, *, importance_samples: int = 64, seed: int = 0
    ) -> Scores:
        """log p(T given the composition), with the standard error of its normaliser.

        No gradient goes through the normaliser. The integrals over C are importance-weighted bounds as in
        `TzK.log_prob`.

        Args:
            T: (batch, *shape).
            population: of `populate`, whose normaliser many batches can share; None makes one from `seed`.
        """
        for setting in ("temperature", "guidance"):
            if (value := getattr(self, setting)) != 1:
                raise TzkError(f"scores are those of {setting} 1; this composition is of {value}")
        z, logabsdet = self.flow.encode_checked(T, self.like)
        log_ratio = self.log_ratio(z, importance_samples, seed)
        if population is None:
            population = self.populate(seed=seed)
        log_prob = self.flow.base.log_prob(z) + log_ratio + logabsdet - population.log_normaliser
        return Scores(log_prob, log_ratio, population.log_normaliser, population.standard_error)

    @torch.no_grad()
    def populate(
        self,
        seed: int = 0,
        settings: Tempering | None = None,
        importance_samples: int = 8,
        *,
        n: int = 1024,
        sampler: str | Mapping[str, Any] | Sampler = "smc",
    ) -> Population:
        """Sample particles of the composition, in the noise of the leader.

        A particle has the noise of `importance_samples` samples for every integral over C too. These integrals enter
        the weights by unbiased estimates whose noise moves with the particles. So they cost no exactness (a
        pseudo-marginal chain; Andrieu & Roberts 2009).

        Args:
            settings: of the sampler "smc", which has them as its arguments too; `n` is then theirs.
            n: the least number of particles.
            sampler: a registered name, a table with it as `type` and its arguments beside it, or a `Sampler`.

        Raises:
            TzkError: as the sampler does; "smc" if too few ancestors are effective.
        """
        if settings is not None:
            if sampler != "smc":
                raise TzkError(
                    f"settings are of the sampler 'smc'; got sampler = {sampler!r}: write its arguments there"
                )
            n, sampler = settings.particles, {"type": "smc", **asdict(settings)}
        generator = stream(seed, "composition", *self.present, "without", *self.absent)
        sizes = self._sizes(importance_samples)

        def log_weight(noise: Tensor) -> Tensor:
            parts = [self._log_weight(rows, sizes) for rows in noise.split(CHUNK)]
            return torch.cat(parts)

        sample, target = sampler_of(sampler), Target(log_weight, sum(sizes), self._log_bound(), self.like)
        try:
            return sample(target, n, generator)
        except TzkError as error:
            if not isinstance(sample, SequentialMonteCarlo):
                raise TzkError(f"{self}: {error}") from error
            bounded = 'take side = "encoder", whose ratios are bounded, ' if self.side == "decoder" else ""
            raise TzkError(
                f"{self}: {error}. {bounded}take more particles than {n}, leave out a member, or, if "
                "these exclude one another, expect no such sample".replace(". take", ". Take")
            ) from error

    @torch.no_grad()
    def sample(
        self,
        n: int,
        population: Population | None = None,
        seed: int = 0,
        *,
        sampler: str | Mapping[str, Any] | Sampler = "smc",
    ) -> Tensor:
        """Decode n particles, (n, *shape), without repetition where there are enough.

        Args:
            population: of `populate`; None makes one from `seed`, of n particles or more.
            sampler: what makes it, as of `populate`.
        """
        if population is None:
            population = self.populate(seed, n=n, sampler=sampler)
        count = len(population.noise)
        generator = stream(seed, "choice", *self.present, "without", *self.absent)
        chosen = systematic(torch.full((count,), 1 / count), n, generator)
        chosen = chosen[torch.randperm(n, generator=generator)].to(population.noise.device)
        z = self._latent(population.noise[chosen])
        return self.flow.transform.inverse(z)[0]

    @torch.no_grad()
    def agreement(self, population: Population) -> dict[str, float]:
        """Mean probability, by member, of its presence or absence in the particles.

        It is p(κ=1 given z), or p(κ=0 given z), of the discriminators. With side = "decoder" these have no part in the
        density of present members.
        """
        parts = [self._latent(rows) for rows in population.noise.split(CHUNK)]
        shares: dict[str, float] = {}
        for name in (*self.present, *self.absent):
            presences = [discriminate(self.knowledge.find(name), z) for z in parts]
            logs = [presence.absent if name in self.absent else presence.present for presence in presences]
            shares[name] = torch.cat([log_prob.exp() for log_prob in logs]).mean().item()
        return shares

    def __str__(self) -> str:
        absent = [f"not {name}" for name in self.absent]
        return " and ".join([*self.present, *absent])

    def _fixed(self, name: str, C: Tensor, *, asked: Names, counted: Sequence[str]) -> Tensor:
        """C of a member, (1, c), of the model's type.

        Args:
            asked: the names that the composition was asked for.
            counted: the most specific of them.
        """
        knowledge = self.knowledge.find(name)
        if name not in counted:
            implied = name in listed(asked)
            why = "which others imply" if implied else "which is not among the knowledge"
            raise TzkError(f"characteristics have no use for {name!r}, {why}: leave them out")
        return characteristics_rows(C, 1, knowledge.characteristics, name=name, like=self.like)

    def _encoder(self, knowledge: Knowledge, C: Tensor | None, z: Tensor) -> Tensor:
        """log p(κ=1[, C] given z)/p(κ=1[, C]), (batch,)."""
        ratio = discriminate(knowledge, z).present - knowledge.log_prob_presence().present
        if C is None:
            return ratio
        rows = C.expand(len(z), -1)
        return ratio + knowledge.log_prob_characteristics_given(rows, z) - knowledge.log_prob_characteristics(rows)

    def _absence(self, z: Tensor) -> Tensor:
        """Σ log p(κ=0 given z)/p(κ=0) of the absent members, (batch,)."""
        total = torch.zeros(len(z)).to(z)
        for name in self.absent:
            knowledge = self.knowledge.find(name)
            total = total + discriminate(knowledge, z).absent - knowledge.log_prob_presence().absent
        return total

    def _log_bound(self) -> float:
        """A bound from above on the log of the weight: Σ -log p(κ), by `_powers`."""
        powers = self._powers()
        if powers and (self.side == "decoder" or any(name in self.characteristics for name in powers)):
            return math.inf
        total = 0.0
        for name, power in powers.items():
            total -= power * self.knowledge.find(name).log_prob_presence().present.item()
        for name in self.absent:
            total -= self.guidance * self.knowledge.find(name).log_prob_presence().absent.item()
        return total

    def _powers(self) -> dict[str, float]:
        """Powers of the present members' ratios in the weight, where not 0.

        That of the leader is 1 less, since the particles start as its samples.
        """
        powers = {name: self.guidance - (at < self._leading) for at, name in enumerate(self.present)}
        return {name: power for name, power in powers.items() if power != 0}

    def _sizes(self, samples: int) -> list[int]:
        """Dimensions of a particle's noise: of z, of what leads beside it, and every integral."""
        sizes = [math.prod(self.flow.latent_shape), self.lead.dims]
        if self.side == "decoder":
            for name in self.present[self._leading :]:
                free = name not in self.characteristics
                sizes.append(samples * self.knowledge.find(name).characteristics if free else 0)
        return sizes

    def _latent(self, noise: Tensor) -> Tensor:
        """z of particles, (n, *latent_shape), from the first dimensions of their noise."""
        dims = math.prod(self.flow.latent_shape)
        gaussian = noise[:, :dims].reshape(-1, *self.flow.latent_shape)
        return self.lead.latent(gaussian, noise[:, dims : dims + self.lead.dims], self.temperature)

    def _log_weight(self, noise: Tensor, sizes: Sequence[int]) -> Tensor:
        """log of the ratios of all members by `_powers`, (n,); -inf where not finite."""
        z = self._latent(noise)
        log_prior = self.flow.base.log_prob(z)
        total = self.guidance * self._absence(z)
        parts: Iterator[Tensor] = iter(noise.split(list(sizes), 1)[2:])
        for name, power in self._powers().items():
            knowledge, C = self.knowledge.find(name), self.characteristics.get(name)
            if self.side == "encoder":
                total = total + power * self._encoder(knowledge, C, z)
                continue
            C_noise = next(parts)
            if C is not None:
                total = total + knowledge.log_prob_latent(z, C.expand(len(z), -1)) - log_prior
            else:
                samples = C_noise.view(len(z), -1, knowledge.characteristics)
                total = total + log_prob_present_from(knowledge, z, samples) - log_prior
        usable = torch.isfinite(total) & torch.isfinite(log_prior)
        return torch.where(usable, total, -math.inf)


def _check_guidance(guidance: float, side: Side) -> None:
    """Raise `TzkError` unless every ratio stays bounded at this power."""
    if not (math.isfinite(guidance) and guidance >= 1):
        raise TzkError(f"guidance is the power of all ratios, expected as 1 or more; got {guidance}")
    if guidance != 1 and side == "decoder":
        raise TzkError('guidance needs ratios that have a bound: leave out side = "decoder", or take guidance = 1')


def _alternatives(knowledge: KnowledgeDict, among: Names, present: Sequence[str]) -> tuple[str, ...]:
    """The names of `among`, checked, without duplicates, in their order."""
    names = tuple(dict.fromkeys(listed(among)))
    for name in names:
        knowledge.find(name)
        if name in present:
            raise TzkError(f"{name!r} is present, which leaves no choice among {', '.join(names)}: leave one out")
    if len(names) == 1:
        raise TzkError(f"among takes two knowledge types or more, of which one is present; got {names[0]!r} alone")
    return names


def _by_name(characteristics: Tensor | Mapping[str, Tensor] | None, present: Sequence[str]) -> Mapping[str, Tensor]:
    if characteristics is None or isinstance(characteristics, Mapping):
        return characteristics or {}
    if len(present) != 1:
        raise TzkError(
            "characteristics of one of several knowledge types are expected by its name, as in "
            f"characteristics={{{(*present, 'name')[0]!r}: ...}}; got {type(characteristics).__name__}"
        )
    return {present[0]: characteristics}


def listed(names: Names) -> tuple[str, ...]:
    """One name, several or none, as a tuple."""
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


def members(knowledge: KnowledgeDict, present: Names, without: Names) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Present and absent knowledge that counts, without duplicates and what others imply.

    Raises:
        TzkError: for unknown names and for contradictions: absent knowledge that is asked for too, or implied.
    """
    specific, absent = knowledge.most_specific(listed(present)), knowledge.least_specific(listed(without))
    for name in listed(present):
        for other in listed(without):
            if other == name:
                raise TzkError(f"{name!r} is asked for and excluded at once: leave out one of the two")
            if other in knowledge.implied_by(name):
                raise TzkError(f"{name!r} implies {other!r}, so that nothing is {name!r} without {other!r}")
    return tuple(specific), tuple(sorted(absent))
