"""Validation in training: bits per dim on held-out samples, and the best model so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from tzk_core.knowledge.stacking import MODULES, Stacks
from tzk_core.model import TzK
from tzk_core.modes import evaluating
from tzk_core.objective import Objective, Wording, mental_capacity, sampled_absences
from tzk_core.objective.filling import Filling
from tzk_core.objective.owned import Owners
from tzk_core.objective.shard import Shard
from tzk_core.observations import Observations
from tzk_core.random_streams import seeded, stream
from tzk_core.training.gathering import present
from tzk_core.units import bits_per_dim
from tzk_core.world import ALONE, World

CHUNK = 512
"""So many samples are evaluated at once."""


@dataclass(frozen=True)
class Validated:
    """What a validation found after `step` steps; all in bits per dim, by data set.

    prior: -log p(T). capacity: -log M, the mental capacity of T and all that is known of it (Eq. 3). criterion: the
    mean of `capacity`, the data sets in the shares that they have in training. The lower the better: p(T) alone would
    not see what knowledge learns, and Eq. 5 as it is trained changes with its multipliers.
    """

    step: int
    prior: Mapping[str, float]
    capacity: Mapping[str, float]
    criterion: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.criterion)

    def read_only(self) -> Validated:
        """The same, of which nothing can be changed."""
        return replace(self, prior=MappingProxyType(self.prior), capacity=MappingProxyType(self.capacity))


@dataclass(frozen=True)
class Validation:
    """Held-out samples, and how they are evaluated.

    sets: by data set; T observed everywhere, dequantised once and for all. weights: the shares of the data sets in
    training. levels: grey levels of the data; None where it is real-valued.

    All noise is drawn from streams of its own, and is the same in every validation. Training has the same random
    numbers, and so the same weights, as without.
    """

    sets: Mapping[str, Observations]
    weights: Mapping[str, float]
    levels: int | None
    seed: int = 0

    @property
    def partly_missing(self) -> bool:
        """Whether some sample has a T that is partly missing."""
        return any(observations.partly_missing() is not None for observations in self.sets.values())

    @torch.no_grad()
    def measure(
        self,
        model: TzK,
        step: int,
        wording: Wording,
        *,
        negatives: int = 16,
        stacks: Stacks = MODULES,
        world: World = ALONE,
        owners: Owners | None = None,
    ) -> Validated:
        """Evaluates the model, in evaluation mode, on all sets. `wording` and `negatives` as in training.

        The processes of `world` take chunks of samples in turn, and all have the same sums. With owners of knowledge
        types they evaluate every chunk together.

        What is filled in is always bounded (`fill_in = "bound"`): the literal wording grows without limit.
        """
        wording = replace(wording, fill_in="bound")
        dims = torch.Size(model.shape).numel()
        with evaluating(model), seeded(self.seed, "validation"):
            sums = [
                self._nats(model, name, wording=wording, negatives=negatives, stacks=stacks, world=world, owners=owners)
                for name in self.sets
            ]
        totals = torch.tensor(sums, dtype=torch.float64)
        world.sum(totals)
        prior, capacity = (
            {
                name: bits_per_dim(total / len(self.sets[name]), dims, self.levels)
                for name, total in zip(self.sets, column, strict=True)
            }
            for column in totals.T.tolist()
        )
        total = sum(self.weights[name] for name in self.sets)
        criterion = sum(self.weights[name] * value for name, value in capacity.items()) / total
        return Validated(step, prior, capacity, criterion)

    def _nats(
        self,
        model: TzK,
        dataset: str,
        *,
        wording: Wording,
        negatives: int,
        stacks: Stacks,
        world: World,
        owners: Owners | None,
    ) -> tuple[float, float]:
        """Sums of log p(T) and log M over this process's samples of a data set."""
        observations, like = self.sets[dataset], model.like
        filling = None
        if observations.partly_missing() is not None:
            filling = Filling(model, observations.T, stream(self.seed, "validation reference", dataset))
        log_prob, log_capacity = 0.0, 0.0
        for number, rows in enumerate(torch.arange(len(observations)).split(CHUNK)):
            if owners is None and number % world.size != world.rank:
                continue

            def noise(name: str, count: int, number: int = number) -> Tensor:
                source = stream(self.seed, "validation noise", dataset, number, name)
                return torch.randn(count, model.find(name).characteristics, generator=source)

            generator = stream(self.seed, "validation absences", dataset, number)
            absences = partial(sampled_absences, most=negatives, generator=generator)
            part = observations.take(rows).to(like.device, like.dtype)
            if filling is not None:
                part = filling.complete(part, stream(self.seed, "validation missing", dataset, number))
            shard = None if owners is None else Shard.of(len(rows), world.rank, world.size)
            terms = mental_capacity(
                model,
                part,
                noise,
                objective=Objective(wording=wording, absences=absences, stacks=stacks, shard=shard, owners=owners),
            )
            if terms.owned is not None:
                log_capacity += terms.owned.double().sum().item()
            log_prob += terms.log_prob_T.double().sum().item()
            log_capacity += terms.log_capacity.double().sum().item()
        return log_prob, log_capacity


@dataclass
class Best:
    """The best model so far: what validation found of it, its weights and its multipliers."""

    validated: Validated
    weights: dict[str, Tensor]
    multipliers: dict[str, float]

    @property
    def step(self) -> int:
        return self.validated.step


@dataclass
class Watch:
    """All validations of a training, and the best model among them.

    best: the one with the lowest criterion; None before any was finite.
    """

    validation: Validation | None
    every: int
    history: list[Validated] = field(default_factory=list)
    best: Best | None = None

    @property
    def last(self) -> Validated | None:
        return self.history[-1] if self.history else None

    @property
    def on(self) -> bool:
        return self.validation is not None and bool(self.validation.sets) and self.every > 0

    def due(self, step: int, *, end: bool) -> bool:
        """Whether to validate after this step; the end of the training is always."""
        return self.on and (end or step % self.every == 0)

    def better(self, validated: Validated) -> bool:
        """Whether a validation is better than the best one so far."""
        best = math.inf if self.best is None else self.best.validated.criterion
        return validated.finite and validated.criterion < best

    def take(self, validated: Validated, model: TzK, multipliers: Mapping[str, float]) -> bool:
        """Note a validation, and keep the model if it is the best so far.

        Returns:
            Whether it is.
        """
        better = self.better(validated)
        self.history.append(validated)
        if not better:
            return False
        weights = {key: value.detach().clone() for key, value in present(model.state_dict()).items()}
        self.best = Best(validated, weights, dict(multipliers))
        return True

    def exploded(self) -> bool:
        """Whether the last validation is out of all bounds, and an earlier one was not.

        Out of bounds is not finite, or, for grey levels, worse than the uniform density.
        """
        if self.last is None or self.best is None or self.validation is None:
            return False
        levels = self.validation.levels
        bound = math.inf if levels is None else math.log2(levels)
        return not self.last.criterion < bound and self.best.validated.criterion < bound

    def columns(self) -> list[str]:
        """Those of metrics.csv."""
        if not self.on or self.validation is None:
            return []
        names = list(self.validation.sets)
        return [*(f"validation/{name}" for name in names), *(f"validation_capacity/{name}" for name in names)]

    def row(self, step: int) -> dict[str, float]:
        """What the last validation says in metrics.csv, if it was after this very step."""
        if self.last is None or self.last.step != step:
            return {}
        row = {f"validation/{name}": value for name, value in self.last.prior.items()}
        return row | {f"validation_capacity/{name}": value for name, value in self.last.capacity.items()}

    def state_dict(self) -> list[dict[str, Any]]:
        return [{**vars(validated)} for validated in self.history]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        self.history = [Validated(**validated) for validated in state]
