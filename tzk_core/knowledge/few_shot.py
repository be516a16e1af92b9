"""The knowledge type `few-shot`: a Gaussian in closed form from 1 to 20 samples, C being its factors."""

from __future__ import annotations

import torch
from nflows.transforms.base import Transform
from torch import Tensor, nn

from tzk_core.distributions.conditional import ConditionalFlow
from tzk_core.distributions.factors import FactorGaussian
from tzk_core.distributions.standard import LOG_2PI
from tzk_core.errors import TzkError
from tzk_core.knowledge.base import Knowledge
from tzk_core.knowledge.hierarchy import Hierarchy, estimate, predict
from tzk_core.recipes.paper import flow_steps, upgrade_arguments
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.symlog import SymLog
from tzk_core.transforms.whitening import Whitening


class FewShotKnowledge(Knowledge):
    """p(z given κ=1) is the posterior predictive of a Gaussian hierarchy of classes, shrunk towards the reference.

    `start` finds it in closed form; training can go on from there and need not. C is what samples of one class differ
    in most: the `characteristics` directions of the largest variance in z, of which C explains all but `unexplained`.
    As C is linear, p(C given z, κ=1) is exact, and so is the integral over C, `log_prob_present`.

    directions, trust: see `hierarchy.estimate` and `hierarchy.predict`. share: of the variance, between classes, where
    one sample and a reference without groups cannot say it. The type keeps one d×d matrix, which is not trained.

    steps, tile, knee: of the flow steps that it stands on, 0 steps for none. `build_on` takes those of a `flow` that it
    is part of, and the Gaussian is then one of what these make of z, which is closer to a Gaussian than z.
    """

    latent: ConditionalFlow
    state_version = 2
    upgrade_arguments = staticmethod(upgrade_arguments)

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        characteristics: int = 2,
        *,
        directions: int = 20,
        trust: float = 100.0,
        share: float = 0.1,
        unexplained: float = 0.1,
        hidden: int = 70,
        layers: int = 4,
        steps: int = 0,
        tile: int = 16,
        knee: float = 1.0,
    ) -> None:
        if directions < 1 or trust <= 0 or not 0 < share < 1 or not 0 < unexplained <= 1:
            raise TzkError(
                "few-shot expects directions of at least 1, trust above 0, share in (0, 1) and unexplained in (0, 1]; "
                f"got {directions}, {trust}, {share} and {unexplained}"
            )
        whitening = Whitening(latent_shape)
        transform = Composite([flow_steps(latent_shape, steps, tile, knee=knee), whitening]) if steps else whitening
        latent = ConditionalFlow(transform, FactorGaussian(latent_shape, characteristics), latent_shape)
        super().__init__(latent_shape, latent, characteristics, hidden=hidden, layers=layers)
        del self.characteristics_encoder  # the exact posterior of the factors is in its place
        self.directions, self.trust = directions, trust
        self.share, self.unexplained = share, unexplained

    @torch.no_grad()
    def build_on(self, other: Knowledge) -> None:
        """Takes the flow steps of `other`, a trained `flow` that this knowledge is part of, as its own, which are not
        trained on: a few samples would spoil in twenty gradient steps what thousands have made.

        Raises `TzkError` if the steps of the two are not alike.
        """
        own, given = self._steps(), getattr(other.latent, "transform", None)
        if own is None or given is None or _outline(own) != _outline(given):
            said = {} if other.part is None else other.part.arguments
            wanted = ", ".join(f"{key} = {said[key]}" for key in ("steps", "tile", "knee") if key in said)
            has = "none" if given is None else "others"
            raise TzkError(
                "few-shot builds on a flow type with the same flow steps"
                + (f": give it {wanted}" if wanted else f"; got {type(other).__name__}, which has {has}")
            )
        own.load_state_dict(given.state_dict())
        own.requires_grad_(False)

    @torch.no_grad()
    def start(self, z: Tensor, reference: Tensor, groups: Tensor | None = None) -> None:
        hierarchy = estimate(self._stepped(reference), groups, directions=self.directions, trust=self.trust)
        self.condition(hierarchy, self._stepped(z))

    @torch.no_grad()
    def condition(self, hierarchy: Hierarchy, z: Tensor) -> None:
        """The start from z, (n, *latent_shape), with a hierarchy that `hierarchy.estimate` found: once for many types.

        Both are of z as the flow steps leave it, where there are some. Raises `TzkError` if z is empty.
        """
        if not len(z):
            raise TzkError("few-shot starts from at least one latent in which the knowledge is present; got none")
        mean, variance = predict(hierarchy, hierarchy.whiten(z), trust=self.trust, share=self.share)
        reach = variance * hierarchy.inverse.square().sum(0)
        factors = torch.arange(min(self.characteristics, len(reach)), device=reach.device)
        chosen = reach.argsort(descending=True, stable=True)[: len(factors)]
        loading = variance.new_zeros(len(variance), self.characteristics)
        loading[chosen, factors] = ((1 - self.unexplained) * variance[chosen]).sqrt()
        noise = variance.index_fill(0, chosen, 0.0).index_add(0, chosen, self.unexplained * variance[chosen])
        transform = self.latent.transform
        whitening = transform if isinstance(transform, Whitening) else transform._transforms[-1]
        whitening.set(hierarchy.centre, hierarchy.matrix)
        self.latent.base.set(mean, noise, loading)

    def log_prob_present(self, z: Tensor) -> Tensor:
        """log p(z given κ=1), the integral over C, (batch,), in nats, exactly for C ~ N(0, I)."""
        y, logabsdet = self.latent.transform(z)
        return self.latent.base.log_prob_marginal(y) + logabsdet

    def log_prob_characteristics_given(self, C: Tensor, z: Tensor) -> Tensor:
        prior = self.characteristics_prior
        mean, root = self._posterior(z)
        standard = prior.standardise(C)
        standard = (standard - (mean.unsqueeze(1) if standard.dim() > mean.dim() else mean)) @ root
        log_volume = root.diagonal().log().sum() - prior.scale.log().sum()
        return -0.5 * (standard.square() + LOG_2PI).sum(-1) + log_volume

    def characteristics_given(self, z: Tensor) -> tuple[Tensor, Tensor]:
        mean, root = self._posterior(z)
        identity = torch.eye(len(root), dtype=root.dtype, device=root.device)
        deviation = torch.linalg.solve_triangular(root, identity, upper=False).square().sum(0).sqrt()
        return self.imagine(mean), self.characteristics_prior.scale * deviation.expand_as(mean)

    def encode(self, z: Tensor, noise: Tensor) -> Tensor:
        mean, root = self._posterior(z)
        rows = torch.linalg.solve_triangular(root, noise.reshape(-1, noise.shape[-1]), upper=False, left=False)
        scaled = rows.view(noise.shape)
        return self.imagine((mean.unsqueeze(1) if scaled.dim() > mean.dim() else mean) + scaled)

    def _steps(self) -> Transform | None:
        """The flow steps that it stands on."""
        transform = self.latent.transform
        return None if isinstance(transform, Whitening) else transform._transforms[0]

    def _stepped(self, z: Tensor) -> Tensor:
        """z as the flow steps leave it."""
        steps = self._steps()
        return z if steps is None or not len(z) else torch.cat([steps(part)[0] for part in z.split(512)])

    def _posterior(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of the standardised C given z, (batch, c), and the Cholesky factor of its precision, (c, c)."""
        return self.latent.base.posterior(self.latent.transform(z)[0])


def _outline(steps: nn.Module) -> tuple[dict[str, torch.Size], list[float]]:
    """What has to be alike where flow steps take the weights of others: their shapes, and the knees, which no tensor
    has."""
    shapes = {key: value.shape for key, value in steps.state_dict().items()}
    return shapes, [part.knee for part in steps.modules() if isinstance(part, SymLog)]
