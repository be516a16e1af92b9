"""The model of `examples/joint.toml` as a user of nflows would write it.

It has stock parts where there are any, and a plain loop over knowledge types. `train_step.py` compares with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from nflows.distributions.normal import ConditionalDiagonalNormal, StandardNormal
from nflows.flows.base import Flow
from nflows.transforms.base import CompositeTransform, InverseTransform, Transform
from nflows.transforms.lu import LULinear
from nflows.transforms.nonlinearities import Logit
from nflows.transforms.reshape import SqueezeTransform
from nflows.transforms.standard import PointwiseAffineTransform
from nflows.utils.torchutils import sum_except_batch
from torch import Tensor, nn
from torch.nn import functional

from tzk_core import Observations, TzK
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.squeeze import Unsqueeze
from tzk_core.transforms.symlog import SymLog as OurSymLog
from tzk_core.transforms.tiled_convolution import TiledConvolution

ALPHA, TILE, STEPS, KNOWLEDGE_STEPS, HIDDEN = 1e-6, 16, 10, 4, 70


class SymLog(Transform):
    """sign(x) log(|x| + 1), linear beyond |x| = `knee`, 0 for none."""

    def __init__(self, knee: float) -> None:
        super().__init__()
        self.knee = knee or math.inf

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        magnitude = torch.abs(inputs)
        inside = torch.clamp(magnitude, max=self.knee)
        log_shrink = torch.log1p(inside)
        outputs = log_shrink + (magnitude - inside) / (1 + self.knee)
        return torch.sign(inputs) * outputs, -sum_except_batch(log_shrink)


class ElementwiseAffine(Transform):
    """x exp(s) + t, with s and t of all dimensions."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(*shape))
        self.shift = nn.Parameter(torch.zeros(*shape))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs = inputs * torch.exp(self.log_scale) + self.shift
        return outputs, self.log_scale.sum() * inputs.new_ones(inputs.shape[0])


class Tiled(Transform):
    """One LULinear for every 16×16 tile of every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = LULinear(TILE * TILE)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch, channels, height, width = inputs.shape
        cut = inputs.view(batch, channels, height // TILE, TILE, width // TILE, TILE).permute(0, 1, 2, 4, 3, 5)
        outputs, logabsdet = self.linear(cut.reshape(-1, TILE * TILE))
        joined = outputs.view(cut.shape).permute(0, 1, 2, 4, 3, 5).reshape(inputs.shape)
        return joined, logabsdet.view(batch, -1).sum(1)


class Bounded(nn.Module):
    """Four linear layers with PReLU, which emit mean and log-scale within bounds."""

    def __init__(self, inputs: int, outputs: int, mean_bound: float) -> None:
        super().__init__()
        self.net = regressor(inputs, 2 * outputs)
        self.mean_bound = mean_bound

    def forward(self, context: Tensor) -> Tensor:
        mean, log_scale = self.net(context).chunk(2, -1)
        return torch.cat([bound(mean, self.mean_bound), bound(log_scale, 5.0)], -1)


def bound(values: Tensor, limit: float) -> Tensor:
    return limit * torch.tanh(values / limit)


def regressor(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN),
        nn.PReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.PReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.PReLU(),
        nn.Linear(HIDDEN, outputs),
    )


def flow_steps(shape: Sequence[int], steps: int, knee: float) -> list[Transform]:
    channels, height, width = shape
    parts: list[Transform] = []
    for step in range(steps):
        if step % 2:
            inner = (4 * channels, height // 2, width // 2)
            parts += [SqueezeTransform(2), Tiled(), ElementwiseAffine(inner), SymLog(knee)]
            parts.append(InverseTransform(SqueezeTransform(2)))
        else:
            parts += [Tiled(), ElementwiseAffine(shape), SymLog(knee)]
    return [*parts, ElementwiseAffine(shape)]


class KnowledgeType(nn.Module):
    """Presence, two characteristics, and a flow over z given these."""

    latent: Flow
    prior: StandardNormal
    encoder: Bounded
    discriminator: nn.Sequential

    def __init__(self, shape: Sequence[int], log_odds: float, knee: float) -> None:
        super().__init__()
        dims = math.prod(shape)
        self.log_odds = log_odds
        conditional = ConditionalDiagonalNormal(shape, Bounded(2, dims, 20.0))
        self.latent = Flow(CompositeTransform(flow_steps(shape, KNOWLEDGE_STEPS, knee)), conditional)
        self.prior = StandardNormal([2])
        self.encoder = Bounded(dims, 2, 6.0)
        self.discriminator = regressor(dims, 1)


class StockTzK(nn.Module):
    """The model of joint.toml in stock parts, with the architecture and weights of `model`."""

    def __init__(self, model: TzK, shape: Sequence[int], names: Sequence[str]) -> None:
        super().__init__()
        shift, scale = torch.tensor([ALPHA, 1 - 2 * ALPHA], dtype=torch.float64)
        scaled = PointwiseAffineTransform(shift, scale)
        self.transform = CompositeTransform([scaled, Logit(eps=ALPHA), *flow_steps(shape, STEPS, _knee(model.flow))])
        self.base = StandardNormal(shape)
        self.knowledge = nn.ModuleDict(
            {name: KnowledgeType(shape, model.find(name).log_odds.item(), _knee(model.find(name))) for name in names}
        )
        self.to(model.like.dtype)
        with torch.no_grad():
            self._take(model)

    def objective(
        self, observations: Observations, multipliers: Mapping[str, float], noise: Callable[[str, int], Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 5, C filled in within the bound, and the inconsistencies of this batch.

        The inconsistencies are by knowledge type.
        """
        presence = observations.presence
        z, logabsdet = self.transform(observations.T)
        log_prob_T = self.base.log_prob(z) + logabsdet
        divisor = log_prob_T.detach() - logabsdet
        flat = z.flatten(1)
        capacity, gaps = log_prob_T, {}
        for column, (name, knowledge) in enumerate(self.named_knowledge()):
            rows = torch.nonzero(presence[:, column] == 1).squeeze(1)
            absent = torch.nonzero(presence[:, column] == 0).squeeze(1)
            if len(absent):
                log_absent = functional.logsigmoid(-bound(knowledge.discriminator(flat[absent]).squeeze(-1), 20.0))
                # the mean of encoder's and decoder's, and the decoder's has no gradient
                capacity = capacity.index_add(0, absent, 0.5 * (log_absent + log_absent.detach()))
            if len(rows):
                here = flat[rows]
                mean, log_scale = knowledge.encoder(here).chunk(2, -1)
                C = mean + torch.exp(log_scale) * noise(name, len(rows))
                standard = (C - mean) * torch.exp(-log_scale)
                log_q = (-0.5 * standard**2 - log_scale).sum(1) - math.log(2 * math.pi)
                encoder = functional.logsigmoid(bound(knowledge.discriminator(here).squeeze(-1), 20.0))
                decoder = knowledge.prior.log_prob(C) + knowledge.latent.log_prob(z[rows], C) - divisor[rows] - log_q
                decoder = decoder - math.log1p(math.exp(-knowledge.log_odds))
                gap = torch.abs(decoder - encoder)
                gaps[name] = gap.detach().mean()
                capacity = capacity.index_add(0, rows, 0.5 * (encoder + decoder) - multipliers[name] * gap)
        return capacity.mean(), gaps

    def named_knowledge(self) -> Iterator[tuple[str, KnowledgeType]]:
        return iter(self.knowledge.items())  # type: ignore[arg-type]

    def alike(self, model: TzK) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """Pairs of parameters with the same meaning in both models, by part."""
        pairs: dict[str, list[tuple[Tensor, Tensor]]] = {"shared flow": [], "knowledge": []}
        pairs["shared flow"] = list(zip(_shifts(model.flow), _shifts(self.transform), strict=True))
        for name, knowledge in self.named_knowledge():
            theirs: Any = model.find(name)
            pairs["knowledge"] += list(zip(_shifts(theirs.latent), _shifts(knowledge.latent), strict=True))
            for ours, stock in self._regressors(theirs, knowledge):
                pairs["knowledge"] += list(zip(ours.parameters(), stock.parameters(), strict=True))
        return pairs

    def _take(self, model: TzK) -> None:
        _take_transform(self.transform, model.flow)
        for name, knowledge in self.named_knowledge():
            theirs: Any = model.find(name)
            _take_transform(knowledge.latent, theirs.latent)
            for source, target in self._regressors(theirs, knowledge):
                for weights, parameter in zip(source.parameters(), target.parameters(), strict=True):
                    parameter.copy_(weights)

    @staticmethod
    def _regressors(theirs: Any, knowledge: KnowledgeType) -> Iterator[tuple[nn.Module, nn.Module]]:
        yield theirs.latent.base.regressor, knowledge.latent._distribution._context_encoder.net
        yield theirs.characteristics_encoder.regressor, knowledge.encoder.net
        yield theirs.discriminator, knowledge.discriminator


def _knee(module: nn.Module) -> float:
    """The knee that all SymLogs of the model have."""
    (knee,) = {part.knee for part in module.modules() if isinstance(part, OurSymLog)}
    return knee


def _shifts(module: nn.Module) -> list[Tensor]:
    return [part.shift for part in module.modules() if isinstance(part, Affine | ElementwiseAffine)]


def _take_transform(target: nn.Module, source: nn.Module) -> None:
    """Weights of the tiled convolutions and affine maps, in order of occurrence."""
    tiled = [part.linear for part in target.modules() if isinstance(part, Tiled)]
    convolutions = [part for part in source.modules() if isinstance(part, TiledConvolution)]
    for linear, convolution in zip(tiled, convolutions, strict=True):
        linear.lower_entries.copy_(convolution.triangles[linear.lower_indices])
        linear.upper_entries.copy_(convolution.triangles[linear.upper_indices])
        diagonal = convolution.log_diagonal.exp() - linear.eps
        linear.unconstrained_upper_diag.copy_(diagonal + torch.log(-torch.expm1(-diagonal)))  # inverse of softplus
    maps = [part for part in target.modules() if isinstance(part, ElementwiseAffine)]
    affine = [part for part in source.modules() if isinstance(part, Affine)]
    for one, other in zip(maps, affine, strict=True):
        one.log_scale.copy_(as_image(other.log_scale, one.shift.shape))
        one.shift.copy_(as_image(other.shift, one.shift.shape))


def as_image(values: Tensor, shape: torch.Size) -> Tensor:
    """`values` at their places in the image.

    They are moved if they are those of its tiles, one a channel.
    """
    return values if values.shape == shape else Unsqueeze(tuple(values.shape), 2, "blocks")(values[None])[0][0]
