"""A batch in z: encoded where T was observed, else sampled (paper, Training)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow, TzK
from tzk_core.modes import evaluating
from tzk_core.objective.shard import Shard
from tzk_core.observations import Observations

LatentNoise = Callable[[str, int], tuple[Tensor, Tensor]]
"""Noise that a missing T is sampled with: (n, c) for C of the named knowledge type, (n, *latent_shape) for z.

The name of the prior is the empty text, and its C has no dimensions."""


class Encodable(Protocol):
    """A batch that has a z, or that the shared flow gives one."""

    @property
    def characteristics(self) -> Mapping[str, Tensor]:
        """C by knowledge type, (batch, c), nan where it was neither observed nor sampled."""
        ...

    def encoded(self, flow: SharedFlow) -> Latents:
        """The batch in z."""
        ...


@dataclass(frozen=True)
class Latents:
    """z of a batch and where it came from; (batch,) each but z and C.

    z: (batch, *latent_shape).
    logabsdet: log|det dz/dT|, 0 where T was sampled, since it cancels there.
    sampled: where T was missing; None where none was.
    log_q: the log-density of the samples that take the place of T, 0 elsewhere.
    characteristics: C as observed, or as a missing T was sampled from it; by knowledge, (batch, c), nan elsewhere.
    """

    z: Tensor
    logabsdet: Tensor
    sampled: Tensor | None
    log_q: Tensor
    characteristics: Mapping[str, Tensor]

    def encoded(self, flow: SharedFlow) -> Latents:
        return self


@dataclass(frozen=True)
class Unencoded:
    """A batch of which every T was observed, for the objective to encode.

    T: (batch, *shape). characteristics: C as observed. fixed_flow: whether no gradient reaches the shared flow.
    log_q: (batch,), of what took the place of single missing values; None for none.
    """

    T: Tensor
    characteristics: Mapping[str, Tensor]
    fixed_flow: bool = False
    log_q: Tensor | None = None

    def encoded(self, flow: SharedFlow) -> Latents:
        with torch.no_grad() if self.fixed_flow else nullcontext():
            z, logabsdet = _encoded(flow, self.T)
        log_q = torch.zeros_like(logabsdet) if self.log_q is None else self.log_q
        return Latents(z, logabsdet, None, log_q, self.characteristics)


def _encoded(flow: SharedFlow, T: Tensor) -> tuple[Tensor, Tensor]:
    """z and log|det dz/dT| of T, of which there may be none.

    They are of the type of T, also under `torch.autocast`.
    """
    if len(T):
        z, logabsdet = flow.encode(T)
        return z.to(T), logabsdet.to(T)
    return T.new_empty(0, *flow.latent_shape), T.new_empty(0)  # many a transform does not take a batch of none


def encodable(
    model: TzK,
    observations: Observations,
    presence: Mapping[str, Tensor],
    *,
    latent_noise: LatentNoise | None = None,
    fixed_flow: bool = False,
    with_jacobian: bool = False,
    shard: Shard | None = None,
) -> Encodable:
    """The batch as the objective takes it: `Unencoded`, or `Latents` where some T is missing.

    A missing T is sampled from the most specific knowledge type that is present (several take turns), else from the
    prior. C comes from its own prior where it is missing too. q is then p(C) p(T given C, κ=1). Its Jacobian is that
    of p(T) in the objective, so T itself is never needed, and f_T has no part in the sample. Only the paper's literal
    wording, which has no log q, needs the Jacobian.

    Args:
        presence: by knowledge type, (batch,) in {0, 1, nan}.
        latent_noise: the noise of the samples; may be None where no T is missing.
        fixed_flow: whether no gradient reaches the shared flow.
        with_jacobian: whether sampled T have their log|det dz/dT| too.
        shard: of the batch, which is all that is encoded or sampled; None for the whole batch.

    Raises:
        TzkError: if some T is missing, and `latent_noise` too.
    """
    missing = observations.missing()
    if missing is None:
        here = observations if shard is None else observations.take(shard.positions(observations.T.device))
        return Unencoded(here.T, here.characteristics, fixed_flow, here.log_q)
    if latent_noise is None:
        raise TzkError(
            f"T is missing in {int(missing.sum())} samples, and there is no latent_noise to sample them with: pass it"
        )
    sources = _sources(model, presence, torch.nonzero(missing).squeeze(1))
    if shard is not None:
        sources, latent_noise = _within(shard, sources, latent_noise)
        observations, missing = observations.take(shard.positions(missing.device)), missing[shard.rows]
    parts = [_observed(model, observations, ~missing, fixed_flow=fixed_flow)]
    characteristics = dict(observations.characteristics)
    for name, rows in sources.items():
        noise = [values.to(parts[0].z) for values in latent_noise(name, len(rows))]
        sample = _sampled(model, name, characteristics, rows=rows, noise=noise, size=len(observations))
        jacobian = -_inverse_logabsdet(model.flow, sample.z) if with_jacobian else torch.zeros_like(sample.log_q)
        parts.append(_Part(rows, sample.z, jacobian, sample.log_q))
    order = torch.cat([part.rows for part in parts]).argsort()
    _, z, logabsdet, log_q = (torch.cat(values)[order] for values in zip(*parts, strict=True))
    return Latents(z, logabsdet, missing, log_q, characteristics)


def _inverse_logabsdet(flow: SharedFlow, z: Tensor) -> Tensor:
    """log|det dT/dz|, (batch,), in evaluation mode: batch normalisation has no inverse while it trains."""
    with evaluating(flow):
        return flow.transform.inverse(z)[1]


class _Part(NamedTuple):
    """The samples of a batch that have one source.

    Their positions, (n,), z, log|det dz/dT| and log q.
    """

    rows: Tensor
    z: Tensor
    logabsdet: Tensor
    log_q: Tensor


class _Sample(NamedTuple):
    """Samples of z, (n, *latent_shape), and log q of what was sampled, (n,)."""

    z: Tensor
    log_q: Tensor


def _observed(model: TzK, observations: Observations, observed: Tensor, *, fixed_flow: bool) -> _Part:
    """Encode the samples whose T was observed, of which there may be none."""
    T = observations.T[observed]
    with torch.no_grad() if fixed_flow else nullcontext():
        z, logabsdet = _encoded(model.flow, T)
    log_q = torch.zeros_like(logabsdet) if observations.log_q is None else observations.log_q[observed]
    return _Part(torch.nonzero(observed).squeeze(1), z, logabsdet, log_q)


def _sampled(
    model: TzK, name: str, characteristics: dict[str, Tensor], *, rows: Tensor, noise: Sequence[Tensor], size: int
) -> _Sample:
    """Sample z from the named knowledge type, or from the prior.

    C is as in `characteristics` or, where it is missing, from its own prior; samples of it are put in there.

    Args:
        noise: as of `LatentNoise`.
        size: how many samples the batch has.
    """
    C_noise, z_noise = noise
    if not name:
        z = model.flow.base.from_noise(z_noise)
        return _Sample(z, model.flow.base.log_prob(z))
    knowledge = model.find(name)
    unknown = torch.full((size, knowledge.characteristics), torch.nan)
    observed = characteristics.get(name, unknown).to(z_noise)
    is_missing = observed[rows].isnan().any(1)
    C = torch.where(is_missing[:, None], knowledge.imagine(C_noise), observed[rows])
    z = knowledge.decode(C, z_noise)
    log_q = knowledge.log_prob_latent(z, C) + torch.where(is_missing, knowledge.log_prob_characteristics(C), 0.0)
    characteristics[name] = observed.index_copy(0, rows, C)
    return _Sample(z, log_q)


def _within(
    shard: Shard, sources: Mapping[str, Tensor], latent_noise: LatentNoise
) -> tuple[dict[str, Tensor], LatentNoise]:
    """The rows of a shard by their source, counted from its start, and their noise."""
    among = {name: shard.among(rows) for name, rows in sources.items()}

    def noise(name: str, count: int) -> tuple[Tensor, Tensor]:
        C_noise, z_noise = latent_noise(name, len(sources[name]))
        return C_noise[among[name]], z_noise[among[name]]

    own = {name: rows[among[name]] - shard.start for name, rows in sources.items()}
    return {name: rows for name, rows in own.items() if len(rows)}, noise


def _sources(model: TzK, presence: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The rows that are sampled from each knowledge type; "" is the prior."""
    if not presence:
        return {"": rows}
    table = torch.stack([column[rows] == 1 for column in presence.values()], 1).tolist()
    sources: dict[str, list[int]] = {}
    for turn, (row, present) in enumerate(zip(rows.tolist(), table, strict=True)):
        names = [name for name, here in zip(presence, present, strict=True) if here]
        choice = model.knowledge.most_specific(names) or [""]
        sources.setdefault(choice[turn % len(choice)], []).append(row)
    return {name: torch.tensor(chosen, device=rows.device) for name, chosen in sources.items()}
