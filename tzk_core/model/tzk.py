"""TzK: one shared flow and the knowledge in it (paper, Eq. 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from nflows.transforms.base import InverseTransform
from torch import Tensor, nn

from tzk_core import names as naming
from tzk_core.errors import TzkError
from tzk_core.gathering import as_tensor
from tzk_core.implementations import use_implementations
from tzk_core.inputs import check_observations
from tzk_core.knowledge.base import Knowledge, discriminate
from tzk_core.knowledge.collection import KnowledgeDict
from tzk_core.knowledge.importance import log_prob_present
from tzk_core.knowledge.stacking import evaluate_all
from tzk_core.model.composition import Composition, Names, Side, listed, members
from tzk_core.model.conditional import Conditional, ConditionalDistribution
from tzk_core.model.double import in_double
from tzk_core.model.flow import SharedFlow
from tzk_core.model.marginal import Marginal
from tzk_core.model.missing import is_partly_missing, marginal_of
from tzk_core.model.sampling import SampleFromNoise, check_sampling, fixed_rows
from tzk_core.modes import without_caches
from tzk_core.random_streams import stream
from tzk_core.recipes.entrance import entrance_of
from tzk_core.tensors import like_of


@dataclass(frozen=True)
class Posterior:
    """The encoder of one knowledge type on a batch.

    presence: p(κ=1 given T), (batch,).
    mean, deviation: mean and standard deviation of p(C given T, κ=1), (batch, c).
    """

    presence: Tensor
    mean: Tensor
    deviation: Tensor


class TzK(nn.Module):
    """A shared flow and any number of knowledge types, by name.

    With no knowledge it is the plain flow. All methods take T in the scale of the model, (batch, *shape): images
    dequantised, in [0, 1]. Log-probabilities are in nats.

    A model is always in evaluation mode, so that scores and samples depend on nothing but their input and the seed. A
    step of training takes the shared flow into training mode and back; knowledge types, which are pure functions, have
    no other mode.
    """

    def __init__(self, flow: SharedFlow, knowledge: Mapping[str, Knowledge] | None = None) -> None:
        super().__init__()
        self.flow = flow
        self.knowledge = KnowledgeDict()
        self.not_vmappable: set[type[Knowledge]] = set()  # classes that cannot be evaluated stacked, see `Stack`
        for name, member in (knowledge or {}).items():
            self.add(name, member)
        self.eval()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.flow.shape

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.flow.latent_shape

    @property
    def like(self) -> Tensor:
        """A tensor of the model's type, on its device."""
        return like_of(self)

    @property
    def opaque(self) -> dict[str, Any]:
        """Knowledge that cannot be used here, by name; it is saved back unchanged."""
        return self.knowledge.opaque_types

    def add(self, name: str, knowledge: Knowledge) -> None:
        """Add a knowledge type, in evaluation mode.

        Raises:
            TzkError: if the name is taken or unusable, or the latent shapes differ.
        """
        self.check_addition(name, knowledge)
        without_caches(knowledge)
        knowledge.attach(self.flow.transform, self.flow.base)
        self.knowledge[name] = knowledge.eval()

    def check_addition(self, name: str, knowledge: Knowledge) -> None:
        """Check a knowledge type as `add` does, without adding it.

        Raises:
            TzkError: as `add`.
        """
        if not isinstance(name, str):
            raise TzkError(f"the name of a knowledge type is expected as a string; got {type(name).__name__}")
        if other := self.knowledge.name_taken(name):
            also = "" if other == name else f", as {other!r} (names must differ by more than case)"
            raise TzkError(f"this model has a knowledge type {name!r} already{also}: choose another name")
        if message := naming.problem(name):
            raise TzkError(f"{name!r} cannot name a knowledge type: {message}")
        if knowledge.latent_shape != self.latent_shape:
            raise TzkError(
                f"knowledge type {name!r} is for a latent of shape {knowledge.latent_shape}; "
                f"this model's is {self.latent_shape}"
            )
        try:
            KnowledgeDict({name: knowledge})
        except KeyError as error:
            raise TzkError(f"{name!r} cannot name a knowledge type ({error.args[0]})") from error

    def named_knowledge(self) -> Iterator[tuple[str, Knowledge]]:
        return iter(self.knowledge.items())

    def find(self, name: str) -> Knowledge:
        """The knowledge type of that name.

        Raises:
            TzkError: with the nearest names, if there is none.
        """
        return self.knowledge.find(name)

    def compose(
        self,
        *knowledge: str,
        without: Names = (),
        characteristics: Tensor | Mapping[str, Tensor] | None = None,
        side: Side = "encoder",
        temperature: float = 1.0,
        guidance: float = 1.0,
        among: Names = (),
    ) -> Composition:
        """p(T given all of `knowledge` present and all of `without` absent).

        It scores and samples; arguments are those of `Composition`:

            model.compose("digit-3", "thick", without="slanted").sample(64)

        Raises `TzkError` for unknown names and contradictions.
        """
        return Composition(
            self.flow,
            self.knowledge,
            knowledge,
            without=without,
            characteristics=characteristics,
            side=side,
            temperature=temperature,
            guidance=guidance,
            among=among,
        )

    def encode(self, T: Tensor) -> Tensor:
        """z = f_T^{-1}(T), (batch, *latent_shape).

        It is computed in float64 and rounded to the model's type, as `decode` is. A deep flow amplifies rounding: ten
        steps of the paper's in float32 bring an image back to within a few hundredths of a grey level. In float64 these
        are a few thousandths.
        """
        T = as_tensor(T, like=self.like)
        check_observations(T, self.shape, like=self.like)
        return in_double(self.flow.transform, T)

    def decode(self, z: Tensor) -> Tensor:
        """T = f_T(z), (batch, *shape). Where SymLog's inverse would overflow, T is where it saturates."""
        check_observations(z, self.latent_shape, "z", like=self.like)
        return in_double(InverseTransform(self.flow.transform), z, "z")

    def log_prob(
        self,
        T: Tensor,
        knowledge: Names = None,
        characteristics: Tensor | Mapping[str, Tensor] | None = None,
        *,
        importance_samples: int = 64,
        seed: int = 0,
        without: Names = (),
    ) -> Tensor:
        """log p(T), or log p(T given κ=1[, C]) of one knowledge type or several.

        Without C it is the integral over it: the importance-weighted lower bound. Several names are a `Composition`,
        whose normaliser is estimated at every call; `compose` spares that.

        Args:
            T: (batch, *shape), of torch, numpy or pandas. What is nan, in a row that is not all so, is integrated out
                by importance sampling; `marginal` says how well.
            knowledge: a name, several, or None for the prior.
            characteristics: C, (c,) or (batch, c); by name where there are several knowledge types.
            importance_samples: how many, from the encoder mixed with the prior; their noise derives from `seed`.
            without: names of absent knowledge, which make a `Composition` too.

        Returns:
            (batch,), in nats.
        """
        if importance_samples < 1:
            raise TzkError(f"the number of importance samples is at least 1; got {importance_samples}")
        T = as_tensor(T, like=self.like)
        if is_partly_missing(T):
            k, C = importance_samples, characteristics
            return self.marginal(T, knowledge, C, importance_samples=k, seed=seed, without=without).log_prob
        composition = self._composition(knowledge, without, characteristics)
        if composition is not None:
            return composition.score(T, importance_samples=importance_samples, seed=seed).log_prob
        name, C = self._single(knowledge, characteristics)
        z, logabsdet = self.encode_with_logabsdet(T)
        if name is None:
            return self.flow.base.log_prob(z) + logabsdet
        member = self.find(name)
        if C is not None:
            C = fixed_rows(C, T.shape[0], member, name=name, like=z)
            return member.log_prob_latent(z, C) + logabsdet
        generator = stream(seed, "importance", name)
        return log_prob_present(member, z, importance_samples, generator=generator) + logabsdet

    def marginal(
        self,
        T: Tensor,
        knowledge: Names = None,
        characteristics: Tensor | Mapping[str, Tensor] | None = None,
        *,
        importance_samples: int = 64,
        seed: int = 0,
        without: Names = (),
    ) -> Marginal:
        """`log_prob` of what was seen of T, with its effective number of importance samples.

        nan is missing.
        """
        return marginal_of(
            self,
            as_tensor(T, like=self.like),
            knowledge,
            characteristics=characteristics,
            importance_samples=importance_samples,
            seed=seed,
            without=without,
            entrance=entrance_of(self.flow.transform),
        )

    @torch.no_grad()
    def sample(
        self,
        n: int,
        knowledge: Names = None,
        characteristics: Tensor | Mapping[str, Tensor] | None = None,
        *,
        temperature: float = 1.0,
        seed: int | None = None,
        without: Names = (),
    ) -> Tensor:
        """Sample from p(T), or from p(T given κ=1[, C]) of one knowledge type or several.

        Several names are a `Composition`; the population of `compose(...).populate()` shows how good its samples are.

        Args:
            knowledge: a name, several, or None for the prior.
            characteristics: C, (c,) or (n, c); by name where there are several knowledge types. None samples it from
                its prior.
            temperature: scales the noise of z.
            seed: without one every call differs.
            without: names of absent knowledge, which make a `Composition` too.

        Returns:
            (n, *shape).
        """
        composition = self._composition(knowledge, without, characteristics, temperature=temperature)
        check_sampling(n, temperature)
        if composition is None:
            return self.rsample(n, knowledge, characteristics, temperature=temperature, seed=seed)
        return composition.sample(n, seed=int(torch.randint(2**62, ())) if seed is None else seed)

    def rsample(
        self,
        n: int,
        knowledge: Names = None,
        characteristics: Tensor | Mapping[str, Tensor] | None = None,
        *,
        temperature: float = 1.0,
        seed: int | None = None,
    ) -> Tensor:
        """The same samples as those of `sample`, with gradients in all parameters and in C.

        It is for one knowledge type or none; particles of a composition are chosen, without a gradient.
        """
        check_sampling(n, temperature)
        sample = self.sample_from_noise(knowledge, characteristics, temperature=temperature)
        samples: Tensor = sample(sample.noise(n, seed))
        return samples

    def sample_from_noise(
        self,
        knowledge: Names = None,
        characteristics: Tensor | Mapping[str, Tensor] | None = None,
        *,
        temperature: float = 1.0,
    ) -> SampleFromNoise:
        """`rsample` in two parts: noise, and T from it as one graph."""
        if self._composition(knowledge, (), characteristics) is not None:
            raise TzkError("samples of a composition have no gradient: `rsample` is for one knowledge type, or none")
        name, C = self._single(knowledge, characteristics)
        known = None if name is None else (name, self.find(name))
        return SampleFromNoise(self.flow, known, C, temperature=temperature)

    def posterior(self, T: Tensor) -> dict[str, Posterior]:
        """p(κ given T) and p(C given T, κ=1) of every knowledge type."""
        posteriors = evaluate_all(self.knowledge, posterior_of, self.encode(T), not_vmappable=self.not_vmappable)
        return {name: Posterior(*values) for name, values in posteriors.items()}

    def conditional(self, name: str) -> Conditional:
        """p(T given κ=1[, C]) of one knowledge type as an nflows `Distribution`."""
        self.find(name)
        return Conditional(self, name)

    def distribution(
        self,
        knowledge: Names = None,
        characteristics: Tensor | None = None,
        *,
        importance_samples: int = 64,
        seed: int = 0,
        without: Names = (),
    ) -> ConditionalDistribution:
        """p(T), or p(T given K), as a torch distribution.

        Arguments are as of `log_prob`, where C, (*batch, c), sets the batch shape.
        """
        present, absent = members(self.knowledge, knowledge, without)
        more = {"importance_samples": importance_samples, "seed": seed}
        return ConditionalDistribution(self, present, characteristics, without=absent, **more)

    def encode_with_logabsdet(self, T: Tensor) -> tuple[Tensor, Tensor]:
        """z and log|det dz/dT|, (batch,), in the model's own type, as densities need them."""
        return self.flow.encode_checked(T, self.like)

    def _composition(
        self,
        knowledge: Names,
        without: Names,
        characteristics: Tensor | Mapping[str, Tensor] | None,
        *,
        temperature: float = 1.0,
    ) -> Composition | None:
        """The composition that is asked for; None where one knowledge type counts, or none.

        Raises:
            TzkError: for characteristics without knowledge.
        """
        present, absent = members(self.knowledge, knowledge, without)
        if characteristics is not None and not present:
            raise TzkError("characteristics are those of a knowledge type: say which, knowledge=...")
        if not absent and len(present) < 2:
            return None
        return self.compose(
            *listed(knowledge), without=without, characteristics=characteristics, temperature=temperature
        )

    def _single(
        self, knowledge: Names, characteristics: Tensor | Mapping[str, Tensor] | None
    ) -> tuple[str | None, Tensor | None]:
        """The knowledge type that counts, None for the prior, and its C if fixed."""
        present = (*self.knowledge.most_specific(listed(knowledge)), None)
        if isinstance(characteristics, Mapping):
            checked = self.compose(*listed(knowledge), characteristics=characteristics).characteristics
            characteristics = next((C[0] for C in checked.values()), None)
        return present[0], characteristics

    def to(self, *arguments: Any, **named: Any) -> Self:
        """As `Module.to`; layers take implementations of plugins for a named device."""
        before = self.like.device
        super().to(*arguments, **named)
        if self.like.device == before and _names_device(arguments, named):
            use_implementations(self, before.type)  # to another device, `_apply` has done so
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's
        """As `Module._apply`; on another device layers take implementations of plugins for it."""
        before = self.like.device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.like.device != before:
            use_implementations(self, self.like.device.type)
        return self


def posterior_of(knowledge: Knowledge, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return discriminate(knowledge, z).present.exp(), *knowledge.characteristics_given(z)


def _names_device(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    """Whether these arguments of `Module.to` name a device, not only a type or memory format."""
    first = arguments[0] if arguments else named.get("device")
    return isinstance(first, str | int | torch.device | Tensor)
