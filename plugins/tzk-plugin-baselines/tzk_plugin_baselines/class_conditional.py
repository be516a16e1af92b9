"""The knowledge type `class-conditional`: one network for all classes, the class being its context."""

from __future__ import annotations

import math

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.conditional import required
from tzk_core.distributions.regressor import Regressor
from tzk_core.distributions.standard import StandardGaussian, StandardLogistic
from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_plugin_baselines.architectures import ARCHITECTURES, built


class ClassConditional(Knowledge):
    """C is a class, one number 0 … classes - 1, and p(z given C, κ=1) an architecture of this plugin with the class,
    one-hot, as context of each of its networks (Papamakarios et al. 2017, Section 4.3).

    The classes have equal priors, as there. They are finitely many, so that p(z given κ=1) is an exact sum over them,
    and p(C given z) a softmax. C is meant to be observed: where it is missing it is drawn from p(C given z), and a draw
    of a class has no gradient. Of the sizes every architecture takes those that it has: nice, real-nvp and maf steps,
    hidden and blocks; made-mog hidden, blocks and components; maf-mog all of these; glow levels, steps, hidden, blocks.
    `encoder` and `layers` are width and length of discriminator and classifier.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        characteristics: int = 1,
        classes: int = 10,
        architecture: str = "maf",
        steps: int = 5,
        hidden: int = 512,
        blocks: int = 0,
        components: int = 10,
        levels: int = 2,
        base: str = "gaussian",
        encoder: int = 70,
        layers: int = 3,
    ) -> None:
        if characteristics != 1 or classes < 2:
            raise TzkError(
                "class-conditional: a class is one number, so expected characteristics = 1 and classes of at least 2; "
                f"got {characteristics} and {classes}"
            )
        shape = tuple(latent_shape)
        bases = {"gaussian": StandardGaussian, "logistic": StandardLogistic}
        for what, got, known in (("architecture", architecture, ARCHITECTURES), ("base", base, bases)):
            if got not in known:
                raise TzkError(f"class-conditional: {what} is one of {', '.join(known)}; got {got!r}")
        sizes = dict(steps=steps, hidden=hidden, blocks=blocks, components=components, levels=levels)
        transform = built(architecture, shape, sizes, classes)
        latent = ClassFlow(shape, transform, bases[base]((math.prod(shape),)), classes)
        super().__init__(shape, latent, characteristics, hidden=encoder, layers=layers)
        self.classes = classes
        self.characteristics_prior = EqualClasses(classes)
        self.characteristics_encoder = Regressor(  # type: ignore[assignment]
            latent.dims, classes, hidden=encoder, layers=layers
        )

    def support(self) -> Tensor:
        return torch.arange(self.classes, dtype=self.log_odds.dtype, device=self.log_odds.device)[:, None]

    def log_prob_characteristics_given(self, C: Tensor, z: Tensor) -> Tensor:
        log_prob = self._log_classes(z)
        chosen = _one_hot(C, self.classes)
        return (chosen * (log_prob.unsqueeze(1) if chosen.dim() > log_prob.dim() else log_prob)).sum(-1)

    def characteristics_given(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable class, and the standard deviation of the number of the class; (batch, 1) each."""
        share, numbers = self._log_classes(z).exp(), self.support().squeeze(1)
        mean = (share * numbers).sum(1, keepdim=True)
        deviation = (share * (numbers - mean).square()).sum(1, keepdim=True).sqrt()
        return share.argmax(1, keepdim=True).to(z), deviation

    def encode(self, z: Tensor, noise: Tensor) -> Tensor:
        share = self._log_classes(z).exp()
        return _drawn(share.unsqueeze(1) if noise.dim() > share.dim() else share, noise)

    def _log_classes(self, z: Tensor) -> Tensor:
        """log p(C given z, κ=1) of every class, (batch, classes)."""
        return self.characteristics_encoder(self.features(z)).log_softmax(-1)


class EqualClasses(Reparametrised):
    """Every class 0 … classes - 1 with the same probability; a class is (…, 1)."""

    def __init__(self, classes: int) -> None:
        super().__init__((1,))
        self.classes = classes

    def fit(self, values: Tensor) -> None:
        """Nothing is fitted to the classes observed, (n, 1); raises `TzkError` if there are others than `classes`."""
        observed = values[~values.isnan()]
        if len(observed) and (observed.max() >= self.classes or observed.min() < 0 or (observed % 1).any()):
            raise TzkError(
                f"class-conditional: classes = {self.classes}, so C is expected in 0 … {self.classes - 1}; "
                f"observed are {observed.min():g} to {observed.max():g}"
            )

    def standardise(self, values: Tensor) -> Tensor:
        """A class is what it is."""
        return values

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return (_one_hot(inputs, self.classes) * -torch.tensor(float(self.classes)).log()).sum(-1)

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return _drawn(noise.new_full((self.classes,), 1 / self.classes), noise)


class ClassFlow(Reparametrised):
    """A density over events of shape `shape` by a transform that takes the class as context."""

    def __init__(self, shape: tuple[int, ...], transform: Transform, base: Reparametrised, classes: int) -> None:
        super().__init__(shape)
        self.transform, self.base, self.classes = transform, base, classes

    @property
    def dims(self) -> int:
        return int(torch.Size(self.shape).numel())

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        chosen = _one_hot(required(context), self.classes)
        if several := chosen.dim() == 3:
            inputs = inputs.unsqueeze(1).expand(*chosen.shape[:2], *self.shape).flatten(0, 1)
        z, logabsdet = self.transform(inputs, chosen.flatten(0, 1) if several else chosen)
        log_prob = self.base.log_prob(z) + logabsdet
        return log_prob.view(chosen.shape[:2]) if several else log_prob

    def noise(self, size: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return self.base.noise(size, generator).view(*size, *self.shape)

    def from_gaussian(self, noise: Tensor) -> Tensor:
        return self.base.from_gaussian(noise)  # element by element, whatever the shape

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        latent = self.base.from_noise(noise.reshape(-1, *self.base.shape))
        return self.transform.inverse(latent, _one_hot(required(context), self.classes))[0]


def _one_hot(C: Tensor, classes: int) -> Tensor:
    """(…, 1) to (…, classes)."""
    return (C.round() == torch.arange(classes, dtype=C.dtype, device=C.device)).to(C.dtype)


def _drawn(share: Tensor, noise: Tensor) -> Tensor:
    """The class, (…, 1), that standard Gaussian noise, (…, 1), stands for under probabilities (…, classes)."""
    below = share.cumsum(-1)[..., :-1]
    return (torch.special.ndtr(noise) > below).to(noise.dtype).sum(-1, keepdim=True)
