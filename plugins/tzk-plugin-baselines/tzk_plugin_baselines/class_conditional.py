"""The knowledge type `class-conditional`: one network for all classes, the class being its context."""

from __future__ import annotations

import math

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.regressor import Regressor
from tzk_core.distributions.standard import StandardGaussian, StandardLogistic
from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_plugin_baselines.architectures import ARCHITECTURES, build
from tzk_plugin_baselines.contextual import ContextFlow


class ClassConditional(Knowledge):
    """Knowledge whose C is a class, one number 0 … classes - 1.

    It is that of Papamakarios et al. (2017, Section 4.3).

    p(z given C, κ=1) is an architecture of this plugin with the class, one-hot, as the context of all its networks.
    The classes have equal priors, as in the paper. They are finitely many, so that p(z given κ=1) is an exact sum over
    them, and p(C given z) is a softmax. C should be observed: missing C is sampled from p(C given z), and the sample of
    a class has no gradient.

    Args:
        architecture: nice, real-nvp and maf use `steps`, `hidden` and `blocks`; made-mog `hidden`, `blocks` and
            `components`; maf-mog all of these; glow `levels`, `steps`, `hidden` and `blocks`. The rest is ignored.
        base: "gaussian" or "logistic".
        encoder, layers: width and length of discriminator and classifier.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        characteristics: int = 1,
        *,
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
        for key, value, choices in (("architecture", architecture, ARCHITECTURES), ("base", base, bases)):
            if value not in choices:
                raise TzkError(f"class-conditional: {key} is one of {', '.join(choices)}; got {value!r}")
        sizes = dict(steps=steps, hidden=hidden, blocks=blocks, components=components, levels=levels)
        transform = build(architecture, shape, sizes=sizes, context=classes)
        latent = ClassFlow(shape, transform, bases[base]((math.prod(shape),)), classes=classes)
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
        one_hot = _one_hot(C, self.classes)
        return (one_hot * (log_prob.unsqueeze(1) if one_hot.dim() > log_prob.dim() else log_prob)).sum(-1)

    def characteristics_given(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable class, and the standard deviation of its number; (batch, 1) each."""
        probabilities, numbers = self._log_classes(z).exp(), self.support().squeeze(1)
        mean = (probabilities * numbers).sum(1, keepdim=True)
        deviation = (probabilities * (numbers - mean).square()).sum(1, keepdim=True).sqrt()
        return probabilities.argmax(1, keepdim=True).to(z), deviation

    def encode(self, z: Tensor, noise: Tensor) -> Tensor:
        probabilities = self._log_classes(z).exp()
        by_sample = probabilities.unsqueeze(1) if noise.dim() > probabilities.dim() else probabilities
        return _class_at(noise, by_sample)

    def _log_classes(self, z: Tensor) -> Tensor:
        """log p(C given z, κ=1) of all classes, (batch, classes)."""
        return self.characteristics_encoder(self.features(z)).log_softmax(-1)


class EqualClasses(Reparametrised):
    """The uniform distribution over the classes 0 … classes - 1; a class is (…, 1)."""

    def __init__(self, classes: int) -> None:
        super().__init__((1,))
        self.classes = classes

    def fit(self, values: Tensor) -> None:
        """Check the observed classes, (n, 1), and fit nothing.

        Raises:
            TzkError: if there are others than `classes`.
        """
        observed = values[~values.isnan()]
        if len(observed) and (observed.max() >= self.classes or observed.min() < 0 or (observed % 1).any()):
            raise TzkError(
                f"class-conditional: classes = {self.classes}, so C is expected in 0 … {self.classes - 1}; "
                f"observed are {observed.min():g} to {observed.max():g}"
            )

    def standardise(self, values: Tensor) -> Tensor:
        """The classes as they are."""
        return values

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return (_one_hot(inputs, self.classes) * -torch.tensor(float(self.classes)).log()).sum(-1)

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return _class_at(noise, noise.new_full((self.classes,), 1 / self.classes))


class ClassFlow(ContextFlow):
    """A density over events of `shape` by a transform with the class as context."""

    def __init__(self, shape: tuple[int, ...], transform: Transform, base: Reparametrised, *, classes: int) -> None:
        super().__init__(shape, transform, base)
        self.classes = classes

    def embed(self, context: Tensor) -> Tensor:
        return _one_hot(context, self.classes)


def _one_hot(C: Tensor, classes: int) -> Tensor:
    """(…, 1) to (…, classes)."""
    return (C.round() == torch.arange(classes, dtype=C.dtype, device=C.device)).to(C.dtype)


def _class_at(noise: Tensor, probabilities: Tensor) -> Tensor:
    """The class, (…, 1), at the quantile of standard Gaussian noise, (…, 1); `probabilities` are (…, classes)."""
    below = probabilities.cumsum(-1)[..., :-1]
    return (torch.special.ndtr(noise) > below).to(noise.dtype).sum(-1, keepdim=True)
