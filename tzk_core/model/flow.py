"""The shared flow: p(T) by an invertible map to a latent z (paper, Eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch
from nflows.distributions.base import Distribution
from nflows.transforms.base import Transform
from torch import Tensor, nn

from tzk_core.distributions.base import Batched, Reparametrised
from tzk_core.distributions.of_nflows import reparametrised
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.errors import TzkError
from tzk_core.inputs import check_domain, check_observations
from tzk_core.modes import training, without_caches
from tzk_core.parts import FlowParts
from tzk_core.random_streams import seeded
from tzk_core.tensors import like_of, mapped
from tzk_core.transforms.composite import initialise
from tzk_core.transforms.shapes import input_shape, output_shape


class SharedFlow(Batched):
    """p(T) by z = f_T^{-1}(T): `transform` takes T to z, `base` is p(z).

    From transforms and bases of nflows, or of this package:

        SharedFlow(CompositeTransform([...]))                      # a standard Gaussian, the shape inferred
        SharedFlow(CompositeTransform([...]), DiagonalNormal([8]))
        SharedFlow((3, 32, 32), CompositeTransform([...]))         # the shape comes first where it has to be written

    It is built in evaluation mode, and nflows' caches in it are turned off (`modes.without_caches`). A checkpoint
    rebuilds it from `parts`; without them it was built in Python, and has to be built there again.

    Raises:
        TzkError: if the shape cannot be inferred, the base is of another shape than the latent, or has no form here.
    """

    @overload
    def __init__(
        self, transform: Transform, base: Distribution | None = None, /, *, parts: FlowParts | None = None
    ) -> None: ...

    @overload
    def __init__(
        self,
        shape: Sequence[int],
        transform: Transform,
        base: Distribution | None = None,
        /,
        *,
        parts: FlowParts | None = None,
    ) -> None: ...

    def __init__(self, *of: Any, parts: FlowParts | None = None) -> None:
        super().__init__()
        shape, transform, base = _arguments(of)
        density = None if base is None else reparametrised(base)
        if shape is None:
            shape = input_shape(transform, None if density is None else density.shape)
            if density is not None:
                _check_latent(transform, shape, density)
        self.shape = tuple(shape)
        self.transform = transform
        self.base = StandardGaussian(output_shape(transform, self.shape)) if density is None else density
        self.parts = parts
        without_caches(self)
        self.eval()

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def like(self) -> Tensor:
        """A tensor of the flow's type, on its device."""
        return like_of(self)

    @property
    def log_det_estimate(self) -> str:
        """How layers estimate log|det|, in the words of their `log_det_estimate`; "" where none has it."""
        words = [getattr(part, "log_det_estimate", "") for part in self.transform.modules()]
        return ", ".join(dict.fromkeys(filter(None, words)))

    def encode(self, T: Tensor) -> tuple[Tensor, Tensor]:
        """z, (batch, *latent_shape), and log|det dz/dT|, (batch,)."""
        return self.transform(T)

    def encode_checked(self, T: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """As `encode`, of a checked T.

        Raises:
            TzkError: unless T is (batch, *shape), of the type and device of `like`, and in the domain of the flow.
                Within `torch.func.vmap` values are not checked: outside the domain it is nan or infinite.
        """
        if mapped():  # values are not to be had, the form is
            check_observations(torch.zeros(T.shape, dtype=T.dtype, device=T.device), self.shape, like=like)
            return self.encode(T)
        check_observations(T, self.shape, like=like)
        z, logabsdet = self.encode(T)
        check_domain(logabsdet)
        return z, logabsdet

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        z, logabsdet = self.encode(inputs)
        return self.base.log_prob(z) + logabsdet

    def _sample(self, num_samples: int, context: Tensor | None) -> Tensor:
        noise = self.base.noise((num_samples,)).to(self.like)
        return self.transform.inverse(self.base.from_noise(noise))[0]

    def initialise(self, T: Tensor) -> None:
        """Initialise from data, one large batch T, (batch, *shape); every layer does so once.

        It belongs to training: nflows' layers that start from data do so in training mode alone. `tzk_core.fit` calls
        it with its setting `initialisation`; a training loop of your own calls it before its first step.

        Raises:
            TzkError: if T is outside the domain of a layer, before anything is set from it.
        """
        with training(self), seeded(0, "initialise"):
            initialise(self.transform, T)


def _arguments(of: tuple[Any, ...]) -> tuple[Sequence[int] | None, Transform, Distribution | None]:
    """Shape, transform and base from the positional arguments of `SharedFlow`."""
    rest = list(of)
    shape = None if not rest or isinstance(rest[0], nn.Module) else rest.pop(0)
    if not 1 <= len(rest) <= 2 or not isinstance(rest[0], Transform):
        got = ", ".join(type(value).__name__ for value in of) or "nothing"
        raise TzkError(f"a SharedFlow is expected of (shape,) transform (, base), an nflows Transform; got {got}")
    return shape, rest[0], rest[1] if len(rest) == 2 else None


def _check_latent(transform: Transform, shape: tuple[int, ...], base: Reparametrised) -> None:
    """Raise `TzkError` unless the base is a density of what the transform returns."""
    latent_shape = output_shape(transform, shape)
    if latent_shape != base.shape:
        raise TzkError(
            f"the transform takes {shape} to {latent_shape}, and the base is over {base.shape}: make them equal"
        )
