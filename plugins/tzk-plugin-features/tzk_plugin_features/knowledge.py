"""The knowledge type `features`: a class in closed form from its own samples.

It is for adding one class at a time.
"""

from __future__ import annotations

import torch
from nflows.transforms.base import Transform
from torch import Tensor, nn

from tzk_core.distributions.base import Reparametrised
from tzk_core.errors import TzkError
from tzk_core.knowledge.base import Knowledge, Presence
from tzk_core.random_streams import stream
from tzk_core.transforms.bounds import soft_bound
from tzk_plugin_features.features import Features, PatchFeatures
from tzk_plugin_features.mixture import Categorical, quantile, select
from tzk_plugin_features.scattering import ScatteringFeatures
from tzk_plugin_features.tilted import Tilted

LEAST_WEIGHT = 1e-4
"""Of a sample that a class is fitted to, as a share of the largest."""

DREAMS = 4096
"""Samples of the shared flow that the features are fitted to where nobody gives others."""


class FeatureKnowledge(Knowledge):
    """p(T given K)/p(T) as a ratio of Gaussians in features y of T.

    The features are fixed, and the ratio is a mixture over C.

    The features are fitted to a reference without labels and shared by all types of a model. By default the reference
    are samples of the shared flow, so that no data are kept. A class is a mixture of Gaussians in y, fitted to its own
    samples alone, in closed form. Hence adding a class changes no older one, not by a bit, and their order is of no
    matter.

    C is the component, one number of finitely many. Exact are the ratio, p(C given κ=1), p(C given z, κ=1) and the sum
    over C. Classification by Bayes among types with the same features does not depend on the reference, as N(y; 0, I)
    cancels. Not exact is the scale of p(T given K): see `Tilted`. The discriminator is calibrated apart, by two
    Gaussians of the log ratio, of the class and of the reference; its slope and offset are all that training changes.

    Args:
        image_features: "patches" or "scattering"; observations that are no images are their own features.
        filters, patch, channels, grid: of patches, see `PatchFeatures`.
        octaves, orientations, dims: of scattering, see `ScatteringFeatures`.
        components: of a class; fewer where it has fewer than 20 samples for each.
        shrinkage, trust: of their covariances, see `Components.fit`.
        candidates: samples of p(z) of which one sample is chosen.
    """

    latent: Tilted
    characteristics_prior: Categorical

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        characteristics: int = 1,
        *,
        filters: int = 48,
        patch: int = 7,
        channels: int = 12,
        grid: int = 4,
        image_features: str = "patches",
        octaves: int = 3,
        orientations: int = 6,
        dims: int = 200,
        components: int = 12,
        shrinkage: float = 0.2,
        trust: float = 20.0,
        candidates: int = 32,
    ) -> None:
        if characteristics != 1 or components < 1 or candidates < 1:
            raise TzkError(
                "features: C is a component, so expected characteristics = 1, components and candidates of at least 1; "
                f"got {characteristics}, {components} and {candidates}"
            )
        if not 0 <= shrinkage <= 1 or trust <= 0:
            raise TzkError(f"features expects shrinkage in [0, 1] and trust above 0; got {shrinkage} and {trust}")
        shape = tuple(latent_shape)
        if image_features not in ("patches", "scattering"):
            raise TzkError(f'features expects image_features "patches" or "scattering"; got {image_features!r}')
        seen = Features(shape)
        if len(shape) == 3 and image_features == "patches":
            seen = PatchFeatures(shape, filters=filters, patch=patch, channels=channels, grid=grid)
        elif len(shape) == 3:
            seen = ScatteringFeatures(shape, octaves=octaves, orientations=orientations, dims=dims)
        super().__init__(
            shape, Tilted(shape, seen, components, candidates=candidates), 1, hidden=1, layers=1, features=seen.dims
        )
        del self.discriminator, self.characteristics_encoder  # both are in closed form here
        self.characteristics_prior = Categorical(components)
        self.shrinkage, self.trust = shrinkage, trust
        self.slope = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.zeros(()))

    def attach(self, transform: Transform, base: Reparametrised) -> None:
        self.latent.attach(transform, base)

    def initialise(self, generator: torch.Generator) -> None:
        self.latent.seen.initialise(generator)

    @torch.no_grad()
    def start(self, z: Tensor, reference: Tensor, groups: Tensor | None = None) -> None:
        """Fit features to samples of the shared flow, and the class to z.

        The reference and groups are not used.

        So types that are added one after the other have the same features.
        """
        dreams = self.dream()
        self.latent.seen.fit(dreams, stream(0, "features", "reference"))
        self.condition(torch.cat([self.latent.observe(part) for part in z.split(512)]), dreams)

    @torch.no_grad()
    def dream(self, count: int = DREAMS) -> Tensor:
        """Samples of the shared flow, (count, *shape): the same ones at every call."""
        noise = self.latent.base.noise((count,), stream(0, "features", "dreams")).to(self.slope)
        dreams = [self.latent.observe(self.latent.base.from_noise(part)) for part in noise.split(512)]
        return torch.cat(dreams)

    def share(self, features: Features) -> None:
        """Take over fitted features, which many types can share.

        Raises:
            TzkError: if they have other sizes.
        """
        own = self.latent.seen
        if {key: value.shape for key, value in own.state_dict().items()} != {
            key: value.shape for key, value in features.state_dict().items()
        }:
            raise TzkError("features to share are expected of the same sort, sizes and shape")
        own.load_state_dict(features.state_dict())

    @torch.no_grad()
    def condition(self, images: Tensor, reference: Tensor, *, weights: Tensor | None = None) -> None:
        """Fit the class to its images, and calibrate its discriminator.

        Args:
            images: of the class, (n, *shape), in the scale of the model.
            reference: what it is told from, (m, *shape).
            weights: how much of every image is of the class, see `condition_on`.

        Raises:
            TzkError: if there are none.
        """
        _check_some(images, reference)
        seen = self.latent.seen
        y, other = (torch.cat([seen(part) for part in each.split(512)]) for each in (images, reference))
        self.condition_on(y, other, weights=weights)

    @torch.no_grad()
    def condition_on(self, y: Tensor, reference: Tensor, *, weights: Tensor | None = None) -> None:
        """Fit the class to features of its images, as `condition` does.

        Args:
            y: of its images, (n, dims). reference: of what it is told from, (m, dims).
            weights: (n,), in [0, 1], such as p(κ=1 given T) where labels are missing; 1 by default. A step of EM is
                to weigh by Bayes and to fit again.

        Raises:
            TzkError: if there are none, or the weights are none.
        """
        _check_some(y, reference)
        weights = torch.ones_like(y[:, 0]) if weights is None else weights.to(y)
        if weights.shape != y.shape[:1] or weights.min() < 0 or not weights.sum() > 0:
            raise TzkError(f"features expects {len(y)} weights of at least 0, and some above; got {weights}")
        enough = weights > LEAST_WEIGHT * weights.max()
        y, weights = y[enough], weights[enough]
        mixture = self.latent.components.fit(
            y,
            shrinkage=self.shrinkage,
            trust=self.trust,
            generator=stream(0, "features", "components"),
            weights=weights,
            scales=self.latent.seen.scales(),
        )
        self.characteristics_prior.weights.copy_(mixture)
        self._calibrate(self.log_ratio_of(y), self.log_ratio_of(reference), weights=weights)

    def log_ratio_of(self, y: Tensor) -> Tensor:
        """log p(T given κ=1) - log p(T), (batch,), in nats, of features y.

        y is (batch, dims). The sum over C is exact.
        """
        ratios = torch.cat([self.latent.components(part) for part in y.split(512)])
        return (ratios + self.characteristics_prior.weights.log()).logsumexp(1)

    def log_ratio(self, z: Tensor) -> Tensor:
        """log p(z given κ=1) - log p(z), (batch,), in nats."""
        return (self.latent.log_ratios(z) + self.characteristics_prior.weights.log()).logsumexp(1)

    def support(self) -> Tensor:
        count = len(self.characteristics_prior.weights)
        return torch.arange(count, dtype=self.log_odds.dtype, device=self.log_odds.device)[:, None]

    def log_prob_presence_given(self, z: Tensor) -> Presence:
        logits = soft_bound(self.log_odds + self.slope * self.log_ratio(z) + self.offset, self.logit_bound)
        return Presence(nn.functional.logsigmoid(-logits), nn.functional.logsigmoid(logits))

    def log_prob_characteristics_given(self, C: Tensor, z: Tensor) -> Tensor:
        log_prob = self._log_components(z)
        return select(log_prob.unsqueeze(1) if C.dim() > log_prob.dim() else log_prob, C)

    def characteristics_given(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable component, and the standard deviation of its number; (batch, 1) each."""
        probabilities, numbers = self._log_components(z).exp(), self.support().squeeze(1)
        mean = (probabilities * numbers).sum(1, keepdim=True)
        deviation = (probabilities * (numbers - mean).square()).sum(1, keepdim=True).sqrt()
        return probabilities.argmax(1, keepdim=True).to(z), deviation

    def encode(self, z: Tensor, noise: Tensor) -> Tensor:
        probabilities = self._log_components(z).exp()
        return quantile(noise, probabilities.unsqueeze(1) if noise.dim() > probabilities.dim() else probabilities)

    def _log_components(self, z: Tensor) -> Tensor:
        """log p(C given z, κ=1) of all components, (batch, components): Bayes."""
        return (self.latent.log_ratios(z) + self.characteristics_prior.weights.log()).log_softmax(-1)

    def _calibrate(self, own: Tensor, other: Tensor, *, weights: Tensor) -> None:
        """Set slope and offset of the discriminator.

        The log ratio is taken as Gaussian in the class and in the reference, of one variance.
        """
        mean = (weights * own).sum() / weights.sum()
        spread = (weights * (own - mean).square()).sum() / weights.sum()
        variance = 0.5 * (spread + other.var(correction=0)).clamp_min(1e-3)
        slope = ((mean - other.mean()) / variance).clamp_min(0)
        self.slope.copy_(slope)
        self.offset.copy_(-0.5 * slope * (mean + other.mean()))


def _check_some(images: Tensor, reference: Tensor) -> None:
    if not len(images) or not len(reference):
        raise TzkError(
            "features: a class is fitted to at least one of its images and one of the reference; "
            f"got {len(images)} and {len(reference)}"
        )
