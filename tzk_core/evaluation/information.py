"""What a knowledge type knows of held-out data: the terms of Eq. 4, consistency, its discriminator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tzk_core.evaluation.likelihood import EvaluationSplit
from tzk_core.knowledge import Presence, discriminate
from tzk_core.knowledge.stacking import evaluate_all
from tzk_core.model import TzK
from tzk_core.objective.sides import characteristics_terms
from tzk_core.random_streams import stream


@dataclass
class _Mean:
    """A weighted mean that is gathered chunk by chunk."""

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
    """Eq. 4's terms of one knowledge type, in nats, gathered over samples whose κ is observed.

    With K = (κ, C): I(z; K) = E log p(z given K)/p(z), which for κ = 0 is log p(κ=0 given z)/p(κ=0);
    H(K) = -E log p(K); H(K given T) = -E log p(K given z). C is as observed, or one sample of its encoder.
    inconsistency: g, E |log p_enc - log p_dec| over samples in which the knowledge is present, both less
    log p(C given z) where C was filled in. characteristics_kl: of p(C given z) from p(C), where C was filled in: how
    many nats C says of z.
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


@torch.no_grad()
def information(model: TzK, held: Sequence[EvaluationSplit], seed: int = 0, chunk: int = 512) -> dict[str, Information]:
    """`Information` of every knowledge type that any of `held` knows of; data sets weigh as they do in the training
    population."""
    known = {name for each in held for name in each.knowledge}
    gathered: dict[str, Information] = {name: Information() for name, _ in model.named_knowledge() if name in known}
    like = model.like
    for each in held:
        weight = each.share / len(each.T)
        for number, start in enumerate(range(0, len(each.T), chunk)):
            rows = slice(start, start + chunk)
            z, _ = model.flow.encode(each.T[rows].to(like))
            log_prob_z = model.flow.base.log_prob(z)
            told = [name for name in gathered if name in each.knowledge]
            for name, log_presence in presence_given(model, told, z).items():
                generator = stream(seed, "information", name, number)
                _gather(model, each, rows, name, gathered[name], z, log_prob_z, log_presence, weight, generator)
    return gathered


def presence_given(model: TzK, names: Sequence[str], z: Tensor) -> dict[str, Presence]:
    """By name, log p(κ=0 given z) and log p(κ=1 given z), (batch,) each; types of one structure are evaluated
    together."""
    knowledge = {name: model.find(name) for name in names}
    found = evaluate_all(knowledge, discriminate, z, not_vmappable=model.not_vmappable)
    return {name: Presence(*each) for name, each in found.items()}


def _gather(
    model: TzK,
    held: EvaluationSplit,
    rows: slice,
    name: str,
    info: Information,
    z: Tensor,
    log_prob_z: Tensor,
    log_presence: Presence,
    weight: float,
    generator: torch.Generator,
) -> None:
    kind = model.find(name)
    presence = held.presence[rows, held.knowledge.index(name)].to(z.device)
    log_absent, log_present = log_presence
    log_prior_absent, log_prior_present = kind.log_prob_presence()

    is_absent, is_present = presence == 0, presence == 1
    info.mutual_information.add(log_absent[is_absent] - log_prior_absent, weight)
    info.entropy.add(-log_prior_absent.expand(int(is_absent.sum())), weight)
    info.conditional_entropy.add(-log_absent[is_absent], weight)
    right_absent, right_present = log_absent[is_absent] > log_present[is_absent], log_present > log_absent
    info.accuracy_absent.add(right_absent, weight)
    info.accuracy.add(right_absent, weight)
    if not is_present.any():
        return

    z, log_prob_z, log_present = z[is_present], log_prob_z[is_present], log_present[is_present]
    info.accuracy_present.add(right_present[is_present], weight)
    info.accuracy.add(right_present[is_present], weight)
    noise = torch.randn(len(z), kind.characteristics, generator=generator).to(z)
    observed = held.characteristics[name][rows].to(z)[is_present] if name in held.characteristics else None
    C = characteristics_terms(kind, z, log_prob_z, noise=noise, observed=observed)
    info.characteristics_kl.add((C.log_encoded - C.log_prior)[C.filled_in], weight)
    info.mutual_information.add(C.log_ratio, weight)
    info.entropy.add(-(log_prior_present + C.log_prior), weight)
    info.conditional_entropy.add(-(log_present + C.log_encoded), weight)
    # log q of a filled-in C goes from both sides, so that the gap is the same with or without it
    gap = (log_prior_present + C.log_prior + C.log_ratio) - (log_present + C.log_encoded)
    info.inconsistency.add(gap.abs(), weight)
    info.inconsistency_of.setdefault(held.dataset, _Mean()).add(gap.abs(), 1.0)
