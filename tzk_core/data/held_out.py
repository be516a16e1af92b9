"""A bounded number of held-out samples of each data set, as observations that training is validated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

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
    """At most `limit` samples of each data set, chosen by seed, dequantised once; data sets without any are left out.

    All labels are kept, whatever is hidden in training. levels: grey levels of the data; None where it is real-valued.
    """
    found = {}
    for name, each in samples.items():
        if not len(each):
            continue
        source = stream(seed, "validation", name)
        chosen = each.take(torch.randperm(len(each), generator=source)[:limit].sort().values)
        known = annotation.of({name: chosen})
        found[name] = Observations(
            dequantise(chosen.T, source, levels),
            known.presence[name],
            known.names,
            known.characteristics[name],
            tuple(tuple(group) for group in exclusive),
        )
    return found
