"""A bounded number of held-out samples of each data set, to validate training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tzk_core.data.annotation import Annotation
from tzk_core.data.dequantise import dequantise
from tzk_core.data.protocol import Samples
from tzk_core.observations import Observations
from tzk_core.random_streams import stream


def held_out(
    samples: Mapping[str, Samples],
    annotation: Annotation,
    *,
    limit: int,
    seed: int,
    levels: int | None,
    exclusive: Sequence[Sequence[str]] = (),
) -> dict[str, Observations]:
    """At most `limit` samples of each data set, chosen by seed and dequantised once.

    Data sets without samples are left out, and samples of which no part of T was observed. All labels are there,
    whatever is hidden in training.

    Args:
        levels: the number of grey levels of the data; None where these are real-valued.
    """
    observations = {}
    for name, split in samples.items():
        if not len(split):
            continue
        if not (seen := seen_at_all(split.T)).all():
            split = split.take(torch.nonzero(seen).squeeze(1))
        source = stream(seed, "validation", name)
        chosen = split.take(torch.randperm(len(split), generator=source)[:limit].sort().values)
        annotated = annotation.of({name: chosen})
        observations[name] = Observations(
            dequantise(chosen.T, source, levels),
            annotated.presence[name],
            annotated.names,
            annotated.characteristics[name],
            tuple(tuple(group) for group in exclusive),
        )
    return observations


def seen_at_all(T: Tensor) -> Tensor:
    """Where some part of T, (n, *shape), was observed, (n,) bool."""
    return ~T.flatten(1).isnan().all(1)
