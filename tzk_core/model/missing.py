"""log p of a partly missing T under a model.

Proposals are made of the model's own samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.inputs import check_observations
from tzk_core.model.composition import Names
from tzk_core.model.densities import Densities
from tzk_core.model.marginal import Marginal, Proposal, marginal
from tzk_core.observations import partly_missing
from tzk_core.random_streams import stream
from tzk_core.tensors import mapped

PROPOSAL_DRAWS = 512
"""Samples of the model that propose what is missing of T."""

SAMPLES_OF_C = 16
"""The most samples of C for one proposal of T, of which there are many: the estimate is unbiased with any number."""


def is_partly_missing(T: Any) -> bool:
    """Whether T is a tensor, (batch, *shape), with a partly missing row.

    Such a row has some but not all values nan.

    Within `torch.func.vmap`, where no value can decide anything, it is none.
    """
    shaped = isinstance(T, Tensor) and T.is_floating_point() and T.dim() > 1
    return shaped and not mapped() and bool(partly_missing(T).any())


def marginal_of(
    model: Densities,
    T: Tensor,
    knowledge: Names,
    *,
    characteristics: Tensor | Mapping[str, Tensor] | None,
    importance_samples: int,
    seed: int,
    without: Names,
    entrance: Transform | None,
) -> Marginal:
    """As `TzK.marginal`, of a tensor.

    Proposals come from `PROPOSAL_DRAWS` samples of the model, of the knowledge type where there is one.

    Args:
        entrance: of the model's flow, an element-wise transform of the domain of T to the real line; None for none.
    """
    check_whole_or_missing(model, T)
    single = knowledge if isinstance(knowledge, str) else None
    proposal = Proposal(model.sample(PROPOSAL_DRAWS, single, seed=seed), entrance)

    def log_prob(whole: Tensor, rows: Tensor) -> Tensor:
        return model.log_prob(
            whole,
            knowledge,
            _rows_of(characteristics, rows),
            importance_samples=min(importance_samples, SAMPLES_OF_C),
            seed=seed,
            without=without,
        )

    return marginal(log_prob, T, proposal, samples=importance_samples, generator=stream(seed, "missing"))


def check_whole_or_missing(model: Densities, T: Tensor) -> None:
    """Check T, (batch, *shape), in which single values may be nan.

    Raises:
        TzkError: as `check_observations`, and for a row of which nothing was seen.
    """
    known = T.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf) if T.is_floating_point() else T
    check_observations(known, model.shape, like=model.like)
    if (nothing := T.flatten(1).isnan().all(1)).any():
        raise TzkError(f"T holds nan or infinity, first in row {int(nothing.nonzero()[0])}, and nothing else")


def _rows_of(
    characteristics: Tensor | Mapping[str, Tensor] | None, rows: Tensor
) -> Tensor | Mapping[str, Tensor] | None:
    """C of these rows, where it is one a row."""
    if characteristics is None:
        return None
    if isinstance(characteristics, Mapping):
        return {name: _of(values, rows) for name, values in characteristics.items()}
    return _of(characteristics, rows)


def _of(values: Tensor, rows: Tensor) -> Tensor:
    C = torch.as_tensor(values)
    return C[rows.to(C.device)] if C.dim() > 1 else C
