"""Posterior and likelihood under many knowledge types, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.gathering import as_tensor
from tzk_core.knowledge.importance import log_prob_present
from tzk_core.knowledge.stacking import evaluate_each, in_parts
from tzk_core.model.tzk import Posterior, TzK, posterior_of
from tzk_core.random_streams import stream


@torch.no_grad()
def posteriors(model: TzK, T: Tensor) -> Iterator[tuple[str, Posterior]]:
    """Yield name and `Posterior` of every knowledge type, as `TzK.posterior` has them, without gradients.

    Those of one structure come together, 128 of which are evaluated at a time. Of a model that was opened with
    `lazy=True` no more than these, and what it keeps, are in memory.

    Args:
        T: (batch, *shape), in the scale of the model.
    """
    each = evaluate_each(model.knowledge, posterior_of, model.encode(T), not_vmappable=model.not_vmappable)
    for name, values in each:
        yield name, Posterior(*(value.clone() for value in values))  # alone, not with all that were evaluated with it


@torch.no_grad()
def log_probs(model: TzK, T: Tensor, *, importance_samples: int = 64, seed: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield name and log p(T given κ=1), (batch,), of every knowledge type.

    Each is `TzK.log_prob(T, name, importance_samples=..., seed=...)`, in nats, without gradients. T is encoded once.

    Args:
        T: (batch, *shape), in the scale of the model, nothing missing.
    """
    if importance_samples < 1:
        raise TzkError(f"the number of importance samples is at least 1; got {importance_samples}")
    z, logabsdet = model.encode_with_logabsdet(as_tensor(T, like=model.like))
    for some in in_parts(model.knowledge):
        for name, of in some.each():
            log_prob = partial(log_prob_present, generator=stream(seed, "importance", name))
            yield name, of(log_prob, z, importance_samples) + logabsdet
