"""The start of a training: priors fitted to the data, and one large batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.elsewhere import Elsewhere
from tzk_core.model import TzK
from tzk_core.random_streams import stream

LEAST_SHARE = 1e-6
"""No p(κ=1) is fitted nearer to 0 or 1 than this."""


@torch.no_grad()
def initialise(
    model: TzK,
    shares: Mapping[str, Tensor],
    characteristics: Mapping[str, Tensor],
    *,
    T: Tensor | None,
    presence: Mapping[str, Tensor],
    seed: int,
) -> None:
    """Fit the priors of knowledge, then start the model from one large batch.

    The shared flow and the encoders of C start from that batch. What another process has is started there.

    Args:
        shares: by knowledge type, p(κ=1); nan where nothing says it.
        characteristics: by knowledge type, observed C, (n, c), rows of nan being unobserved.
        T: the batch, (n, *shape), dequantised; None for no such start.
        presence: by knowledge type, (n,) in {0, 1, nan}, in the samples of T.
    """
    elsewhere = {name for name, kind in model.named_knowledge() if isinstance(kind, Elsewhere)}
    for name, share in shares.items():
        if name not in elsewhere:
            fit_priors(model.find(name), share, characteristics.get(name))
    if T is not None:
        model.flow.initialise(T.to(model.like))
        presence = {name: kappa for name, kappa in presence.items() if name not in elsewhere}
        start_characteristics(model, T.to(model.like), presence, observed=characteristics.keys(), seed=seed)


@torch.no_grad()
def fit_priors(knowledge: Knowledge, share: Tensor, observed: Tensor | None) -> None:
    """Fit p(κ=1) and p(C given κ=1) of a knowledge type.

    p(κ=1) becomes `share`, and p(C given κ=1) takes the moments of `observed`.

    Args:
        share: one half is taken where it is nan.
        observed: (n, c), rows of nan being unobserved; None leaves p(C) as it is.
    """
    odds = share.clamp_min(LEAST_SHARE) / (1 - share).clamp_min(LEAST_SHARE)
    knowledge.log_odds.copy_(odds.log().nan_to_num(0.0))
    if observed is not None:
        knowledge.fit_characteristics(observed.to(knowledge.log_odds))


@torch.no_grad()
def start_characteristics(
    model: TzK, T: Tensor, presence: Mapping[str, Tensor], *, observed: Collection[str], seed: int, chunk: int = 512
) -> None:
    """Start the encoders of every unobserved C.

    They start from the latents in which their knowledge is present.

    Args:
        T: (n, *shape), dequantised.
        presence: by knowledge type, (n,) in {0, 1, nan}.
        observed: the knowledge types whose C is observed.
    """
    unobserved = [name for name in presence if name not in observed]
    if not unobserved:
        return  # a pass through the flow can take minutes
    z = torch.cat([model.flow.encode(part)[0] for part in T.split(chunk)])
    for name in unobserved:
        rows = torch.nonzero(presence[name] == 1).squeeze(1).to(z.device)
        model.find(name).start_characteristics(z[rows], stream(seed, "characteristics", name))
