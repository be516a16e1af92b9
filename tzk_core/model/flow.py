"""The shared flow: p(T) by an invertible map to a latent z (paper, Eq. 1)."""

from __future__ import annotations

from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.distributions.base import Batched, Reparametrised
from tzk_core.inputs import check_domain, check_observations
from tzk_core.modes import training, without_caches
from tzk_core.parts import FlowParts
from tzk_core.random_streams import seeded
from tzk_core.tensors import like_of
from tzk_core.transforms.composite import initialise


class SharedFlow(Batched):
    """p(T) by z = f_T^{-1}(T): `transform` takes T to z, `base` is p(z).

    It is built in evaluation mode, and nflows' caches in it are turned off (`modes.without_caches`). A checkpoint
    rebuilds it from `parts`; without them it was built in Python, and has to be built there again.
    """

    def __init__(
        self, shape: tuple[int, ...], transform: Transform, base: Reparametrised, *, parts: FlowParts | None = None
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.transform = transform
        self.base = base
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

    def encode(self, T: Tensor) -> tuple[Tensor, Tensor]:
        """z, (batch, *latent_shape), and log|det dz/dT|, (batch,)."""
        return self.transform(T)

    def encode_checked(self, T: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """As `encode`, of a checked T.

        Raises:
            TzkError: unless T is (batch, *shape), of the type and device of `like`, and in the domain of the flow.
        """
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

        It belongs to training: nflows' layers that start from data do so in training mode alone.

        Raises:
            TzkError: if T is outside the domain of a layer, before anything is set from it.
        """
        with training(self), seeded(0, "initialise"):
            initialise(self.transform, T)
