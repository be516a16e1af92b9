"""A batch in z: encoded where T was observed, and drawn from the model where it is missing (paper, Training)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow, TzK
from tzk_core.modes import evaluating
from tzk_core.observations import Observations

LatentNoise = Callable[[str, int], tuple[Tensor, Tensor]]
"""Noise that a missing T is drawn by: (n, c) for the C of the named knowledge type and (n, *latent_shape) for its z.
The name of the prior is the empty text, and its C has no dimensions."""


@dataclass(frozen=True)
class Latents:
    """z of a batch and where it came from; (batch,) each but z and C.

    z: (batch, *latent_shape). logabsdet: log|det dz/dT|, 0 where T was drawn: it cancels there.
    drawn: where T was missing; None where none was. log_q: the density of what was drawn instead, 0 elsewhere.
    characteristics: as observed, and the C that missing T were drawn from; by knowledge, (batch, c), nan elsewhere.
    """

    z: Tensor
    logabsdet: Tensor
    drawn: Tensor | None
    log_q: Tensor
    characteristics: Mapping[str, Tensor]


def latents(
    model: TzK,
    observations: Observations,
    presence: Mapping[str, Tensor],
    latent_noise: LatentNoise | None = None,
    fixed_flow: bool = False,
    with_jacobian: bool = False,
) -> Latents:
    """Encodes what was observed and draws what was not.

    A missing T is drawn from the most specific knowledge type that is present (several take turns), else from the
    prior, with C from its own prior where that is missing too. q is then p(C) p(T given C, κ=1), whose Jacobian is
    that of p(T) in the objective: T itself is never needed, and f_T has no part in what is dreamed. Only the paper's
    literal wording, without log q, wants that Jacobian: `with_jacobian`.

    presence: by knowledge, (batch,) in {0, 1, nan}. fixed_flow: no gradient reaches the shared flow.
    """
    drawn = observations.missing()
    if drawn is None:
        return encoded(model.flow, observations, fixed_flow)
    with torch.no_grad() if fixed_flow else nullcontext():
        z, logabsdet = _encode(model, observations.T[~drawn])
    if latent_noise is None:
        raise TzkError(f"T is missing in {int(drawn.sum())} samples, and no latent_noise to draw them by was given")
    characteristics = dict(observations.characteristics)
    places, parts, log_qs = [torch.nonzero(~drawn).squeeze(1)], [z], [torch.zeros_like(logabsdet)]
    jacobians = [logabsdet]
    for name, rows in _sources(model, presence, torch.nonzero(drawn).squeeze(1)).items():
        C_noise, z_noise = (each.to(z) for each in latent_noise(name, len(rows)))
        if name:
            kind = model.find(name)
            missing = torch.full((len(observations), kind.characteristics), torch.nan).to(z)
            given = characteristics.get(name, missing).to(z)
            imagined = given[rows].isnan().any(1)
            C = torch.where(imagined[:, None], kind.imagine(C_noise), given[rows])
            part = kind.decode(C, z_noise)
            log_q = kind.log_prob_latent(part, C) + torch.where(imagined, kind.log_prob_characteristics(C), 0.0)
            characteristics[name] = given.index_copy(0, rows, C)
        else:
            part = model.flow.base.from_noise(z_noise)
            log_q = model.flow.base.log_prob(part)
        places.append(rows)
        parts.append(part)
        log_qs.append(log_q)
        jacobians.append(-_inverse_logabsdet(model.flow, part) if with_jacobian else torch.zeros_like(log_q))
    order = torch.cat(places).argsort()
    z, logabsdet, log_q = (torch.cat(each)[order] for each in (parts, jacobians, log_qs))
    return Latents(z, logabsdet, drawn, log_q, characteristics)


def encoded(flow: SharedFlow, observations: Observations, fixed_flow: bool = False) -> Latents:
    """A batch of which every T was observed."""
    with torch.no_grad() if fixed_flow else nullcontext():
        z, logabsdet = flow.encode(observations.T)
    return Latents(z, logabsdet, None, torch.zeros_like(logabsdet), observations.characteristics)


def _encode(model: TzK, T: Tensor) -> tuple[Tensor, Tensor]:
    """The flow's z and log-determinant; of no sample too, which many a transform does not take."""
    return model.flow.encode(T) if len(T) else (T.new_empty(0, *model.latent_shape), T.new_empty(0))


def _inverse_logabsdet(flow: SharedFlow, z: Tensor) -> Tensor:
    """log|det dT/dz|, (batch,), in evaluation mode: batch normalisation has no inverse while it trains."""
    with evaluating(flow):
        return flow.transform.inverse(z)[1]


def _sources(model: TzK, presence: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Knowledge type -> those of `rows` that are drawn from it."""
    if not presence:
        return {"": rows}
    table = torch.stack([column[rows] == 1 for column in presence.values()], 1).tolist()
    sources: dict[str, list[int]] = {}
    for turn, (row, present) in enumerate(zip(rows.tolist(), table, strict=True)):
        names = [name for name, here in zip(presence, present, strict=True) if here]
        choice = model.knowledge.most_specific(names) or [""]
        sources.setdefault(choice[turn % len(choice)], []).append(row)
    return {name: torch.tensor(chosen, device=rows.device) for name, chosen in sources.items()}
