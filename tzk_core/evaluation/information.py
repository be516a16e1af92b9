"""Information of knowledge types about held-out data: terms of Eq. 4, consistency, discriminators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tzk_core.evaluation.likelihood import EvaluationSplit
from tzk_core.knowledge import Knowledge, Presence, discriminate
from tzk_core.knowledge.stacking import evaluate_all
from tzk_core.model import TzK
from tzk_core.objective.sides import characteristics_terms
from tzk_core.random_streams import stream


@dataclass
class _Mean:
    """A weighted mean, gathered by chunks."""

    total: float = 0.0
    weight: float = 0.0

    def add(self, values: Tensor, weight: float) -> None:
        self.total += weight * values.double().sum().item()
        self.weight += weight * len(values)

    @property
    def value(self) -> float | None:
        return self.total / self.weight if self.weight else None


@dataclass
class Information:
    """Eq. 4's terms of one knowledge type, in nats, over samples whose κ is observed.

    K = (κ, C); C is as observed, or one sample of its encoder.

    mutual_information: I(z; K) = E log p(z given K)/p(z), which for κ = 0 is log p(κ=0 given z)/p(κ=0).
    entropy: H(K) = -E log p(K).
    conditional_entropy: H(K given T) = -E log p(K given z).
    inconsistency: g, E |log p_enc - log p_dec| over samples in which the knowledge is present, both less
        log p(C given z) where C was filled in.
    characteristics_kl: of p(C given z) from p(C), where C was filled in: the information of C about z.
    accuracy, accuracy_present, accuracy_absent: of the discriminator.
    inconsistency_of: `inconsistency` by data set.
    """

    mutual_information: _Mean = field(default_factory=_Mean)
    entropy: _Mean = field(default_factory=_Mean)
    conditional_entropy: _Mean = field(default_factory=_Mean)
    inconsistency: _Mean = field(default_factory=_Mean)
    characteristics_kl: _Mean = field(default_factory=_Mean)
    accuracy: _Mean = field(default_factory=_Mean)
    accuracy_present: _Mean = field(default_factory=_Mean)
    accuracy_absent: _Mean = field(default_factory=_Mean)
    inconsistency_of: dict[str, _Mean] = field(default_factory=dict)

    def to_json(self, name: str) -> dict[str, Any]:
        present, absent = self.accuracy_present.value, self.accuracy_absent.value
        balanced = (present + absent) / 2 if present is not None and absent is not None else None
        return {
            "name": name,
            "mutual_information": self.mutual_information.value,
            "entropy": self.entropy.value,
            "conditional_entropy": self.conditional_entropy.value,
            "inconsistency_nats": self.inconsistency.value,
            "characteristics_kl_nats": self.characteristics_kl.value,
            "discriminator_accuracy": self.accuracy.value,
            "discriminator_balanced_accuracy": balanced,
        }


class _Chunk(NamedTuple):
    """Samples of a split, encoded: z, log p(z), (rows,), and their weight."""

    split: EvaluationSplit
    rows: slice
    z: Tensor
    log_prob_z: Tensor
    weight: float

    def presence(self, name: str) -> Tensor:
        """κ of a knowledge type, (rows,)."""
        return self.split.presence[self.rows, self.split.knowledge.index(name)].to(self.z.device)

    def characteristics(self, name: str) -> Tensor | None:
        """Observed C of a knowledge type, (rows, c); None where there is none."""
        observed = self.split.characteristics.get(name)
        return None if observed is None else observed[self.rows].to(self.z)


@torch.no_grad()
def information(
    model: TzK, held_out: Sequence[EvaluationSplit], *, seed: int = 0, chunk: int = 512
) -> dict[str, Information]:
    """`Information` of every knowledge type that any split has presence of.

    Data sets have the weights of the training population.
    """
    known = {name for split in held_out for name in split.knowledge}
    gathered: dict[str, Information] = {name: Information() for name, _ in model.named_knowledge() if name in known}
    like = model.like
    for split in held_out:
        weight = split.share / len(split.T)
        names = [name for name in gathered if name in split.knowledge]
        for number, start in enumerate(range(0, len(split.T), chunk)):
            rows = slice(start, start + chunk)
            z, _ = model.flow.encode(split.T[rows].to(like))
            samples = _Chunk(split, rows, z, model.flow.base.log_prob(z), weight)
            for name, log_presence in presence_given(model, names, z).items():
                knowledge, generator = model.find(name), stream(seed, "information", name, number)
                _gather_presence(gathered[name], samples.presence(name), log_presence, weight=weight)
                _gather_absent(gathered[name], samples, name, knowledge=knowledge, log_presence=log_presence)
                _gather_present(
                    gathered[name], samples, name, knowledge=knowledge, log_presence=log_presence, generator=generator
                )
    return gathered


def presence_given(model: TzK, names: Sequence[str], z: Tensor) -> dict[str, Presence]:
    """By name, log p(κ=0 given z) and log p(κ=1 given z), (batch,) each.

    Types of one structure are evaluated together.
    """
    knowledge = {name: model.find(name) for name in names}
    presences = evaluate_all(knowledge, discriminate, z, not_vmappable=model.not_vmappable)
    return {name: Presence(*values) for name, values in presences.items()}


def _gather_presence(info: Information, presence: Tensor, log_presence: Presence, *, weight: float) -> None:
    """Add the accuracy of the discriminator where κ, (rows,), is known."""
    log_absent, log_present = log_presence
    is_absent, is_present = presence == 0, presence == 1
    right_absent = log_absent[is_absent] > log_present[is_absent]
    right_present = (log_present > log_absent)[is_present]
    info.accuracy_absent.add(right_absent, weight)
    info.accuracy.add(right_absent, weight)
    info.accuracy_present.add(right_present, weight)
    info.accuracy.add(right_present, weight)


def _gather_absent(
    info: Information, chunk: _Chunk, name: str, *, knowledge: Knowledge, log_presence: Presence
) -> None:
    """Add the terms of samples without the knowledge."""
    is_absent = chunk.presence(name) == 0
    log_absent, log_prior = log_presence.absent[is_absent], knowledge.log_prob_presence()[0]
    info.mutual_information.add(log_absent - log_prior, chunk.weight)
    info.entropy.add(-log_prior.expand(int(is_absent.sum())), chunk.weight)
    info.conditional_entropy.add(-log_absent, chunk.weight)


def _gather_present(
    info: Information,
    chunk: _Chunk,
    name: str,
    *,
    knowledge: Knowledge,
    log_presence: Presence,
    generator: torch.Generator,
) -> None:
    """Add the terms of samples with the knowledge, and its consistency."""
    is_present, weight = chunk.presence(name) == 1, chunk.weight
    if not is_present.any():
        return
    z, log_prob_z, log_present = chunk.z[is_present], chunk.log_prob_z[is_present], log_presence.present[is_present]
    log_prior = knowledge.log_prob_presence()[1]
    noise = torch.randn(len(z), knowledge.characteristics, generator=generator).to(z)
    characteristics = chunk.characteristics(name)
    observed = None if characteristics is None else characteristics[is_present]
    C = characteristics_terms(knowledge, z, log_prob_z, noise=noise, observed=observed)
    info.characteristics_kl.add((C.log_encoded - C.log_prior)[C.filled_in], weight)
    info.mutual_information.add(C.log_ratio, weight)
    info.entropy.add(-(log_prior + C.log_prior), weight)
    info.conditional_entropy.add(-(log_present + C.log_encoded), weight)
    # log q of a filled-in C goes from both sides, so that the gap is the same with or without it
    gap = (log_prior + C.log_prior + C.log_ratio) - (log_present + C.log_encoded)
    info.inconsistency.add(gap.abs(), weight)
    info.inconsistency_of.setdefault(chunk.split.dataset, _Mean()).add(gap.abs(), 1.0)
