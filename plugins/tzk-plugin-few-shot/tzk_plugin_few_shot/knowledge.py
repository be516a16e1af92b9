"""The knowledge type `few-shot`: a Gaussian in closed form from 1 to 20 samples."""

from __future__ import annotations

import torch
from nflows.transforms.base import Transform
from torch import Tensor, nn

from tzk_core.distributions.conditional import ConditionalFlow
from tzk_core.errors import TzkError
from tzk_core.knowledge.base import Knowledge
from tzk_core.recipes.paper import flow_steps, upgrade_arguments
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.symlog import SymLog
from tzk_plugin_few_shot.factor_knowledge import FactorKnowledge
from tzk_plugin_few_shot.factors import FactorGaussian
from tzk_plugin_few_shot.hierarchy import Hierarchy, estimate, predict
from tzk_plugin_few_shot.whitening import Whitening


class FewShotKnowledge(FactorKnowledge):
    """p(z given κ=1) as the posterior predictive of a Gaussian hierarchy of classes.

    `start` computes it in closed form, shrunk towards the reference; training can continue from there and need not. C
    are the factors, in which samples of one class differ most: the `characteristics` directions of the largest variance
    in z, of which C explains all but `unexplained`. As C is linear, p(C given z, κ=1) is exact, and so is the integral
    over C, `log_prob_present`. The type holds one d×d matrix, which is not trained.

    Flow steps may come first. `build_on` takes those of a `flow` that this knowledge is part of. The Gaussian is then
    one of their outputs, which are closer to a Gaussian than z.

    directions, trust: see `hierarchy.estimate` and `hierarchy.predict`.
    share: of the variance, between classes, where one sample and a reference without groups cannot determine it.
    steps, tile, knee: of the flow steps, 0 steps for none.
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
        """Copy the flow steps of a trained `flow` that this knowledge is part of.

        They are not trained on: a few samples would spoil in twenty gradient steps what thousands have made.

        Raises:
            TzkError: if the steps of the two are not alike.
        """
        own, theirs = self._steps(), getattr(other.latent, "transform", None)
        if own is None or theirs is None or _outline(own) != _outline(theirs):
            arguments = {} if other.part is None else other.part.arguments
            wanted = ", ".join(f"{key} = {arguments[key]}" for key in ("steps", "tile", "knee") if key in arguments)
            has = "none" if theirs is None else "others"
            raise TzkError(
                "few-shot builds on a flow type with the same flow steps"
                + (f": give it {wanted}" if wanted else f"; got {type(other).__name__}, which has {has}")
            )
        own.load_state_dict(theirs.state_dict())
        own.requires_grad_(requires_grad=False)

    @torch.no_grad()
    def start(self, z: Tensor, reference: Tensor, groups: Tensor | None = None) -> None:
        hierarchy = estimate(self._stepped(reference), groups, directions=self.directions, trust=self.trust)
        self.condition(hierarchy, self._stepped(z))

    @torch.no_grad()
    def condition(self, hierarchy: Hierarchy, z: Tensor) -> None:
        """Start from a hierarchy, which many types can share.

        Args:
            hierarchy: of `hierarchy.estimate`, on outputs of the flow steps where there are some.
            z: outputs of the flow steps too, (n, *latent_shape).

        Raises:
            TzkError: if z is empty.
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

    def factors(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.latent.transform(z)

    @property
    def gaussian(self) -> FactorGaussian:
        return self.latent.base

    def _steps(self) -> Transform | None:
        """The flow steps before the Gaussian; None where there are none."""
        transform = self.latent.transform
        return None if isinstance(transform, Whitening) else transform._transforms[0]

    def _stepped(self, z: Tensor) -> Tensor:
        """The outputs of the flow steps; z itself where there are none."""
        steps = self._steps()
        return z if steps is None or not len(z) else torch.cat([steps(part)[0] for part in z.split(512)])


def _outline(steps: nn.Module) -> tuple[dict[str, torch.Size], list[float]]:
    """Shapes and knees, which two stacks of flow steps with the same weights share."""
    shapes = {key: value.shape for key, value in steps.state_dict().items()}
    return shapes, [part.knee for part in steps.modules() if isinstance(part, SymLog)]
