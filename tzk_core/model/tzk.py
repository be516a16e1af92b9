"""TzK: one shared flow and the knowledge in it (paper, Eq. 1 and 2)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from nflows.transforms.base import InverseTransform, Transform
from torch import Tensor, nn

from tzk_core import names as naming
from tzk_core.distributions.base import Batched
from tzk_core.errors import TzkError
from tzk_core.implementations import use_implementations
from tzk_core.inputs import characteristics_rows, check_domain, check_observations
from tzk_core.knowledge.base import Knowledge, discriminate
from tzk_core.knowledge.collection import KnowledgeDict
from tzk_core.knowledge.importance import log_prob_present
from tzk_core.knowledge.stacking import of_each
from tzk_core.model.composition import Composition, Names, Side, listed, members
from tzk_core.model.flow import SharedFlow
from tzk_core.modes import without_caches
from tzk_core.random_streams import stream
from tzk_core.tensors import like_of


@dataclass(frozen=True)
class Posterior:
    """What one knowledge type says of a batch: p(κ=1 given T), (batch,), and the mean and standard deviation of
    p(C given T, κ=1), (batch, c) each."""

    presence: Tensor
    mean: Tensor
    deviation: Tensor


class TzK(nn.Module):
    """A shared flow and any number of knowledge types, by name.

    With no knowledge it is the plain flow. All methods take T in the scale of the model, (batch, *shape): images
    dequantised, in [0, 1]. Log-probabilities are in nats.

    A model is in evaluation mode, however it was made, so that scores and samples depend on nothing but their input and
    the seed. A step of training takes the shared flow into training mode and back; knowledge types, which are pure
    functions, know no other mode.
    """

    def __init__(self, flow: SharedFlow, knowledge: Mapping[str, Knowledge] | None = None) -> None:
        super().__init__()
        self.flow = flow
        self.knowledge = KnowledgeDict()
        self.not_vmappable: set[type[Knowledge]] = set()  # classes that cannot be evaluated stacked, see `Stack`
        for name, each in (knowledge or {}).items():
            self.add(name, each)
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
        """Knowledge that cannot be used here, by name; it is saved back as it came."""
        return self.knowledge.opaque_types

    def add(self, name: str, knowledge: Knowledge) -> None:
        """Adds a knowledge type, in evaluation mode; raises `TzkError` if the name is taken or unusable, or the latent
        shapes differ."""
        self.check_addition(name, knowledge)
        without_caches(knowledge)
        self.knowledge[name] = knowledge.eval()

    def check_addition(self, name: str, knowledge: Knowledge) -> None:
        """Raises the `TzkError` that `add` would."""
        if not isinstance(name, str):
            raise TzkError(f"the name of a knowledge type is expected as a string; got {type(name).__name__}")
        taken = {naming.key(each): each for each in (*self.knowledge, *self.opaque)}
        if other := taken.get(naming.key(name)):
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
        """The knowledge type of that name; `TzkError` with the nearest names if there is none."""
        return self.knowledge.find(name)

    def compose(
        self,
        *knowledge: str,
        without: Names = (),
        characteristics: Tensor | Mapping[str, Tensor] | None = None,
        side: Side = "encoder",
        temperature: float = 1.0,
    ) -> Composition:
        """p(T given all of `knowledge` present and all of `without` absent), to score and to sample from.

            model.compose("digit-3", "thick", without="slanted").sample(64)

        Arguments are those of `Composition`. Raises `TzkError` for unknown names and contradictions.
        """
        return Composition(
            self.flow,
            self.knowledge,
            knowledge,
            without=without,
            characteristics=characteristics,
            side=side,
            temperature=temperature,
        )

    def encode(self, T: Tensor) -> Tensor:
        """z = f_T^{-1}(T), (batch, *latent_shape); computed in float64 and rounded to the model's type, as `decode` is.

        A deep flow amplifies rounding: ten steps of the paper's in float32 alone bring an image back to within a few
        hundredths of a grey level, this way to a few thousandths.
        """
        check_observations(T, self.shape, like=self.like)
        return _in_double(self.flow.transform, T)

    def decode(self, z: Tensor) -> Tensor:
        """T = f_T(z), (batch, *shape). Where SymLog's inverse would overflow, T is where it saturates."""
        check_observations(z, self.latent_shape, "z", self.like)
        return _in_double(InverseTransform(self.flow.transform), z, "z")

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
        """log p(T); log p(T given C, κ=1) of one knowledge type; without C the integral over it.

        `characteristics` is (c,) or (batch, c). The integral is the importance-weighted lower bound with
        `importance_samples` samples from the encoder mixed with the prior; its noise derives from `seed`. Returns
        (batch,), in nats. Several names of knowledge, or names of knowledge `without` which, are a `Composition`, with
        characteristics by name: its normaliser is estimated at every call, which a `Composition` can spare.
        """
        if importance_samples < 1:
            raise TzkError(f"the number of importance samples is at least 1; got {importance_samples}")
        composition = self._composition(knowledge, without, characteristics)
        if composition is not None:
            return composition.score(T, importance_samples=importance_samples, seed=seed).log_prob
        name, C = self._single(knowledge, characteristics)
        z, logabsdet = self.encode_with_logabsdet(T)
        if name is None:
            return self.flow.base.log_prob(z) + logabsdet
        kind = self.find(name)
        if C is not None:
            C = characteristics_rows(C, T.shape[0], kind.characteristics, name, z)
            return kind.log_prob_latent(z, C) + logabsdet
        generator = stream(seed, "importance", name)
        return log_prob_present(kind, z, importance_samples, generator=generator) + logabsdet

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
        """(n, *shape) from p(T), or from p(T given κ=1) of one knowledge type.

        `characteristics`, (c,) or (n, c), fixes C; otherwise it is drawn from its prior. `temperature` scales the
        noise of z. Without `seed` every call differs. Several names of knowledge, or names of knowledge `without`
        which, are a `Composition`, with characteristics by name; it says more of how good its samples are.
        """
        if n < 1:
            raise TzkError(f"the number of samples is at least 1; got {n}")
        if not 0 <= temperature < math.inf:
            raise TzkError(f"the temperature is finite and at least 0; got {temperature}")
        composition = self._composition(knowledge, without, characteristics, temperature=temperature)
        if composition is not None:
            return composition.sample(n, seed=int(torch.randint(2**62, ())) if seed is None else seed)
        name, C = self._single(knowledge, characteristics)
        like = self.like
        source = stream(int(torch.randint(2**62, ()))) if seed is None else stream(seed, "sample", name or "")
        if name is None:
            noise = self.flow.base.noise((n,), source).to(like)
            return self.flow.transform.inverse(self.flow.base.from_noise(temperature * noise))[0]
        kind = self.find(name)
        if C is None:
            C = kind.imagine(kind.characteristics_prior.noise((n,), source).to(like))
        else:
            C = characteristics_rows(C, n, kind.characteristics, name, like)
        z = kind.decode(C, temperature * kind.latent.noise((n,), source).to(like))
        return self.flow.transform.inverse(z)[0]

    def posterior(self, T: Tensor) -> dict[str, Posterior]:
        """p(κ given T) and p(C given T, κ=1) of every knowledge type, after encoding T once."""
        kinds = dict(self.named_knowledge())
        found = of_each(kinds, _posterior, self.encode(T), not_vmappable=self.not_vmappable)
        return {name: Posterior(*each) for name, each in found.items()}

    def conditional(self, name: str) -> Conditional:
        """p(T given κ=1[, C]) of one knowledge type as an nflows `Distribution`."""
        self.find(name)
        return Conditional(self, name)

    def encode_with_logabsdet(self, T: Tensor) -> tuple[Tensor, Tensor]:
        """z, (batch, *latent_shape), and log|det dz/dT|, (batch,), in the model's own type: what densities are of."""
        return self.flow.encode_checked(T, self.like)

    def _composition(
        self,
        knowledge: Names,
        without: Names,
        characteristics: Tensor | Mapping[str, Tensor] | None,
        *,
        temperature: float = 1.0,
    ) -> Composition | None:
        """The composition that is asked for; None where one knowledge type counts, or none. C of none is an error."""
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
        """The one knowledge type that counts, None for the prior, and its C if that is fixed."""
        present = (*self.knowledge.most_specific(listed(knowledge)), None)
        if isinstance(characteristics, Mapping):
            checked = self.compose(*listed(knowledge), characteristics=characteristics).characteristics
            characteristics = next((C[0] for C in checked.values()), None)
        return present[0], characteristics

    def to(self, *arguments: Any, **named: Any) -> Self:
        """As of any module; where a device is named, layers take what plugins bring for it."""
        before = self.like.device
        super().to(*arguments, **named)
        if self.like.device == before and _names_device(arguments, named):
            use_implementations(self, before.type)  # to another device, `_apply` has done so
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Whatever moves a model to another device goes through here; layers then take what plugins bring for it."""
        before = self.like.device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.like.device != before:
            use_implementations(self, self.like.device.type)
        return self


class Conditional(Batched):
    """p(T given κ=1) of one knowledge type; with C as `context`, p(T given C, κ=1). Used as any of nflows'."""

    def __init__(self, model: TzK, name: str) -> None:
        super().__init__()
        self.model = model
        self.name = name

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return self.model.log_prob(inputs, self.name, context)

    def _sample(self, num_samples: int, context: Tensor | None) -> Tensor:
        if context is None:
            return self.model.sample(num_samples, self.name)
        samples = self.model.sample(
            num_samples * context.shape[0], self.name, context.repeat_interleave(num_samples, 0)
        )
        return samples.view(context.shape[0], num_samples, *self.model.shape)


def _posterior(kind: Knowledge, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return discriminate(kind, z).present.exp(), *kind.characteristics_given(z)


def _names_device(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    """Whether these arguments of `torch.nn.Module.to` say a device, rather than a type or a memory format alone."""
    first = arguments[0] if arguments else named.get("device")
    return isinstance(first, str | int | torch.device | Tensor)


def _in_double(transform: Transform, inputs: Tensor, what: str = "T") -> Tensor:
    """The outputs of a transform computed in float64, in the type of `inputs`; `what` names them in errors."""
    if inputs.device.type == "mps":  # which has no float64
        return transform(inputs)[0]
    state = itertools.chain(transform.named_parameters(), transform.named_buffers())
    double = {name: each.double() if each.is_floating_point() else each for name, each in state}
    outputs, logabsdet = torch.func.functional_call(transform, double, (inputs.double(),))
    check_domain(logabsdet, what)
    return outputs.to(inputs.dtype)
