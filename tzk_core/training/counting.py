"""What a step measures, as numbers for the log."""

from __future__ import annotations

from collections.abc import Mapping

from tzk_core.objective import Capacity
from tzk_core.objective.routing import anywhere, presence
from tzk_core.observations import Observations
from tzk_core.units import bits_per_dim


def counted(
    capacity: Capacity, observations: Observations, sources: Mapping[str, slice], *, dims: int, levels: int | None
) -> dict[str, float]:
    """What a step measures of its batch, by the names of metrics.csv.

    Args:
        sources: rows of the batch by data set.
        dims: of an observation. levels: its grey levels, for bits; None for real-valued data.
    """
    values: dict[str, float] = {"objective": capacity.value.item()}
    if not capacity.prior_weight.isnan():  # as it is in a batch without any T
        values["prior_weight"] = capacity.prior_weight.item()
    for name, rows in sources.items():
        log_prob_T = capacity.log_prob_T[rows]
        if len(log_prob_T := log_prob_T[~log_prob_T.isnan()]):
            values[f"bits_per_dim/{name}"] = bits_per_dim(log_prob_T.mean().item(), dims, levels)
    for title, means in (("inconsistency", capacity.inconsistency), ("conditional", capacity.conditional)):
        values |= {f"{title}/{name}": nats.item() for name, nats in means.items()}
    values |= {f"term/{name}": value.item() for name, value in capacity.terms.items()}
    for name, log_prob in _log_prob_of_present(capacity, observations).items():
        values[f"bits_per_dim_given/{name}"] = bits_per_dim(log_prob, dims, levels)
    return values


def _log_prob_of_present(capacity: Capacity, observations: Observations) -> dict[str, float]:
    """By knowledge, the mean of log p(T given C, κ=1) over its observed samples.

    These are the samples in which it is present and T was observed. C is as observed, or else from its encoder.
    """
    seen, columns = ~capacity.log_prob_T.isnan(), anywhere(observations)
    present = ((presence(observations, columns) == 1) & seen).to(capacity.log_prob_T)
    prior = (present @ capacity.log_prob_T.detach().nan_to_num()).cpu() / present.sum(1).cpu()
    names = [observations.knowledge[column] for column in columns.tolist()]
    means = dict(zip(names, prior.tolist(), strict=True))  # a tensor for each of a hundred takes its time
    return {name: means[name] + ratio.item() for name, ratio in capacity.conditional.items()}
