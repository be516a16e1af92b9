"""Statistics of what a model makes of observations, of which `dose` takes the density."""

from __future__ import annotations

import torch
from torch import Tensor

from tzk_core.inputs import check_domain, check_observations
from tzk_core.knowledge.base import discriminate
from tzk_core.model import TzK
from tzk_core.random_streams import stream

OF_FLOW = ("log p(T)", "log p(z)", "log|det|", "gradient")
OF_KNOWLEDGE = (
    "largest ratio",
    "mean ratio",
    "sum of ratios",
    "largest presence",
    "sum of presences",
    "reconstruction",
)


def state_names(model: TzK) -> tuple[str, ...]:
    """The columns of `states`: those of knowledge are absent where the model has none."""
    return OF_FLOW + (OF_KNOWLEDGE if len(model.knowledge) else ())


def states(model: TzK, T: Tensor, *, chunk: int = 256) -> Tensor:
    """Statistics of single observations, (n, len(state_names(model))), of float64 on the CPU.

    The ratios log p(z given C, κ=1) - log p(z) are at the mean of p(C given z), one evaluation for each knowledge type.
    `gradient` is the log norm of the gradient of log p(T) by T. `reconstruction` is the log of 1 + the squared distance
    of T from its image through the C of the type of the largest ratio.

    Args:
        T: (n, *shape), in the scale of the model.

    Raises:
        TzkError: if T has another shape, is not finite, or lies outside the domain of the flow.
    """
    check_observations(T, model.shape)
    return torch.cat([_states(model, part.to(model.like)).double().cpu() for part in T.split(chunk)])


def _states(model: TzK, T: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = T.detach().clone().requires_grad_()
        z, logabsdet = model.flow.encode(leaf)
        log_prob_z = model.flow.base.log_prob(z)
        (gradient,) = torch.autograd.grad((log_prob_z + logabsdet).sum(), leaf)
    check_domain(logabsdet.detach())
    z, logabsdet, log_prob_z = z.detach(), logabsdet.detach(), log_prob_z.detach()
    columns = [log_prob_z + logabsdet, log_prob_z, logabsdet, gradient.flatten(1).norm(dim=1).clamp_min(1e-12).log()]
    with torch.no_grad():
        return torch.stack(columns + (_of_knowledge(model, T, z) if len(model.knowledge) else []), 1)


def _of_knowledge(model: TzK, T: Tensor, z: Tensor) -> list[Tensor]:
    """The columns `OF_KNOWLEDGE`, (batch,) each."""
    members = [member for _, member in model.named_knowledge()]
    C = [member.characteristics_given(z)[0] for member in members]
    given = torch.stack([member.log_prob_latent(z, c) for member, c in zip(members, C, strict=True)], 1)
    ratio = given - model.flow.base.log_prob(z)[:, None]
    presence = torch.stack([discriminate(member, z).present for member in members], 1)
    best, away = ratio.argmax(1), torch.zeros_like(ratio[:, 0])
    for number in best.unique().tolist():
        rows, member = best == number, members[number]
        neutral = member.latent.noise((int(rows.sum()),), stream(0, "neutral")).to(z).zero_()
        seen = model.flow.transform.inverse(member.decode(C[number][rows], neutral))[0]
        away[rows] = (seen - T[rows]).square().flatten(1).sum(1)
    sums = [ratio.max(1).values, ratio.mean(1), ratio.logsumexp(1)]
    return [*sums, presence.max(1).values, presence.logsumexp(1), away.log1p()]
