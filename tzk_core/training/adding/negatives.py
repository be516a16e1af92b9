"""The negatives of added knowledge: balanced batches, with samples of the model's own among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tzk_core.data.joint import JointBatches
from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.random_streams import stream
from tzk_core.settings import Keywords, NegativesTable

OWN = "own samples"
"""What the model's own samples are called in the log, beside the data sets."""


class Negatives(Keywords, NegativesTable):
    """The composition of batches while knowledge is added: `NegativesTable` as keywords.

    Raises:
        TzkError: for a share or a number out of bounds.
    """


@dataclass(frozen=True)
class Source:
    """Samples to add knowledge from.

    presence: (n, new knowledge) in {0, 1, nan}. characteristics: by new knowledge, (n, c), nan where not observed.
    containing: by older knowledge that the new implies, (n,) in {0, 1, nan}.
    groups: by new knowledge, (n,) integers, the class of each sample, below 0 where it is not known. A closed-form
    start that asks what samples of one class have in common reads it.
    levels: grey levels, None where values are real. weight: the data set's, to scale; None for the number of its
        samples.
    """

    samples: Samples
    presence: Tensor
    characteristics: Mapping[str, Tensor] = field(default_factory=dict)
    containing: Mapping[str, Tensor] = field(default_factory=dict)
    groups: Mapping[str, Tensor] = field(default_factory=dict)
    levels: int | None = None
    weight: float | None = None


@torch.no_grad()
def own_samples(
    model: TzK,
    negatives: Negatives,
    seed: int,
    *,
    levels: int | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    chunk: int = 256,
) -> Tensor:
    """T sampled from the prior and from older knowledge types.

    Returns:
        (at most `own_samples`, *shape), on the CPU.

    They have the type of the data, so that only what they show tells them apart. With `levels` they are grey levels,
    uint8; without, float32 and within `bounds`, those of the data. What is not finite, or not in the domain of the
    shared flow, is left out. Depends on the model, what the data is like, and `seed`.
    """
    older = [name for name, _ in model.named_knowledge()]
    order = torch.randperm(len(older), generator=stream(seed, "own types")).tolist()
    chosen = sorted(older[i] for i in order[: negatives.own_types])
    counts = _divided(negatives.own_samples, chosen)
    samples = [torch.empty(0, *model.shape, dtype=torch.uint8 if levels else torch.float32)]
    for name, count in counts.items():
        source = stream(seed, OWN, name or "")
        for start in range(0, count, chunk):
            number = int(torch.randint(2**62, (), generator=source))
            T = model.sample(min(chunk, count - start), name, seed=number)
            T = T[T.flatten(1).isfinite().all(1)]
            if levels:
                samples.append((T * levels).floor().clamp(0, levels - 1).to(torch.uint8).cpu())
                continue
            T = T.clamp(*bounds)
            z, logabsdet = model.flow.encode(T)
            samples.append(T[z.flatten(1).isfinite().all(1) & logabsdet.isfinite()].float().cpu())
    return torch.cat(samples)


def balanced(
    sources: Mapping[str, Source],
    own: Tensor,
    knowledge: Sequence[str],
    *,
    negatives: Negatives,
    batch_size: int,
    seed: int,
    own_levels: int | None = None,
    exclusive: Sequence[Sequence[str]] = (),
) -> JointBatches:
    """Batches of the sources and the model's own samples, in the shares of `negatives`.

    Args:
        own_levels: the grey levels of `own`.
        exclusive: see `JointBatches`.

    Raises `TzkError` where there is nothing to tell the new knowledge from.
    """
    samples: dict[str, Samples] = {}
    presence: dict[str, Tensor] = {}
    characteristics: dict[str, dict[str, Tensor]] = {}
    levels: dict[str, int | None] = {}
    present: dict[str, float] = {}
    absent: dict[str, float] = {}
    for dataset, source in sources.items():
        some = (source.presence == 1).any(1)
        for title, chosen, weights in ((dataset, some, present), (f"{dataset}, absent", ~some, absent)):
            rows = torch.nonzero(chosen).squeeze(1)
            if not len(rows):
                continue
            samples[title] = source.samples.take(rows)
            presence[title] = source.presence[rows]
            characteristics[title] = {name: C[rows] for name, C in source.characteristics.items()}
            levels[title] = source.levels
            weights[title] = (source.weight or len(some)) * len(rows) / len(some)
    if not absent and not len(own):
        raise TzkError(
            f"nothing to tell {', '.join(knowledge)} from: it is present in every sample that is given, and the model "
            "draws none of its own. Give samples in which it is absent, or own_samples above 0"
        )
    rest = 1 - negatives.present_share
    if len(own):
        samples[OWN], presence[OWN] = Samples(own), torch.zeros(len(own), len(knowledge))
        characteristics[OWN], levels[OWN] = {}, own_levels
    of_own = {OWN: 0.5 * rest if absent else rest} if len(own) else {}
    shares = _scaled(present, negatives.present_share) | _scaled(absent, rest - sum(of_own.values())) | of_own
    return JointBatches(
        samples=samples,
        presence=presence,
        characteristics=characteristics,
        knowledge=knowledge,
        weights=shares,
        batch_size=batch_size,
        seed=seed,
        levels=levels,
        exclusive=exclusive,
    )


def _divided(total: int, names: Sequence[str]) -> dict[str | None, int]:
    """The counts of samples from the prior, which is None, and from each name.

    The prior has half, and the names share the other half equally.
    """
    if not names:
        return {None: total}
    share = total // 2 // len(names)
    return {None: total - share * len(names), **dict.fromkeys(names, share)}


def _scaled(weights: Mapping[str, float], total: float) -> dict[str, float]:
    whole = math.fsum(weights.values())
    return {name: total * weight / whole for name, weight in weights.items()}
