"""What is worth knowing about a run, as sentences, found by rules.

A rule is a function of `Facts` that yields findings; `RULES` lists them in the order of a page. A new rule is one more
function in that list, with a test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tzk_core.report.table import FEWEST
from tzk_core.report.words import listed, percent
from tzk_plugin_report.phrases import are, are_all, cost, count, is_real, ordered, their
from tzk_plugin_report.reading import Columns

Weight = Literal["warning", "note", "good"]

ERRORS = 2.0
"""Standard errors that a difference takes to be called one."""

SILENT_NATS = 0.1
"""Nats of C about T, below which C says nothing."""

SILENT_CHANGE = 0.05
"""The share of the spread of test samples that the plane of C has to change, to show something."""

BLOWN = 0.01
"""The share of samples that may be blown without a word."""

TURNED = 0.02
"""The share of its fall that a validation curve has to rise again, to be called turned up."""

FALLING = 0.02
"""The share of its fall that a validation curve gains in its last fifth, to be called falling."""


@dataclass(frozen=True)
class Finding:
    """A sentence, how much it weighs, and what to do about it.

    Attributes:
        rule: the name of the rule that found it.
    """

    rule: str
    weight: Weight
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Facts:
    """What rules look at.

    Attributes:
        rows, knowledge: of results.json.
        columns: of metrics.csv.
        objective: the table [objective] of the config.
        trained_on: by knowledge type, the training samples in which it is present; empty where data are gone.
        blown: by set of samples ("prior", or a knowledge type), the share that looks like no data at all.
        plane_change: by knowledge type, how much the plane of C changes, as a share of the spread of test samples.
        parent: of `tzk add`, the run that knowledge was added to; "" in other runs.
    """

    rows: Sequence[Mapping[str, Any]] = ()
    knowledge: Sequence[Mapping[str, Any]] = ()
    columns: Columns = field(default_factory=dict)
    objective: Mapping[str, Any] = field(default_factory=dict)
    trained_on: Mapping[str, int] = field(default_factory=dict)
    blown: Mapping[str, float] = field(default_factory=dict)
    plane_change: Mapping[str, float] = field(default_factory=dict)
    parent: str = ""


def findings(facts: Facts) -> list[Finding]:
    """What all rules find, warnings first, in the order of the rules."""
    found = [finding for rule in RULES for finding in rule(facts)]
    order: tuple[Weight, ...] = ("warning", "note", "good")
    return sorted(found, key=lambda finding: order.index(finding.weight))


def worse_than_baseline(facts: Facts) -> Iterator[Finding]:
    """A prior that needs more bits than a histogram of each pixel."""
    for prior in _of_kind(facts, "prior"):
        for row in _of_kind(facts, "baseline"):
            if row["dataset"] != prior["dataset"] or _bits(prior) <= _bits(row):
                continue
            needs = f"{cost(prior)}, {'less' if is_real(prior) else 'more'} than a {row['name']}"
            needs += f" ({cost(row)})"
            if facts.parent:
                yield Finding(
                    "worse_than_baseline",
                    "note",
                    f"The shared flow of {facts.parent} stays as it was. On {prior['dataset']} it has {needs}.",
                    "What the new knowledge types give beyond it is the gain of their rows.",
                )
            else:
                yield Finding(
                    "worse_than_baseline",
                    "warning",
                    f"On {prior['dataset']} the flow has {needs}, a far simpler model.",
                    "Train longer, or with another learning rate or recipe.",
                )


def worse_than_prior(facts: Facts) -> Iterator[Finding]:
    """Conditionals that give their own samples no more than the prior does."""
    rows = [row for row in _of_kind(facts, "knowledge") if row["name"] == row.get("knowledge") and _decided(row)]
    worse = {row["name"]: row for row in rows if row["gain_bits_per_dim"] < -ERRORS * row["gain_standard_error"]}
    level = [row["name"] for row in rows if abs(row["gain_bits_per_dim"]) <= ERRORS * row["gain_standard_error"]]
    if worse:
        least = min(worse.values(), key=lambda row: row["gain_bits_per_dim"])
        yield Finding(
            "worse_than_prior",
            "warning",
            f"{are(list(worse), 'conditional')} worse than the prior on {their(worse)} own samples: knowing "
            f"{least['name']} costs {-least['gain_bits_per_dim']:.4f} bits/dim.",
            "Knowledge learns more slowly than the flow: train longer, or raise training.knowledge_learning_rate.",
        )
    if level:
        yield Finding(
            "worse_than_prior",
            "note",
            f"{are(level, 'conditional')} no different from the prior, within {ERRORS:g} standard errors.",
        )
    if rows and not worse and not level:
        yield Finding(
            "worse_than_prior",
            "good",
            f"{'All ' if len(rows) > 1 else ''}{are_all(rows, 'conditional')} better than the prior on samples "
            "that have this knowledge.",
        )


def constraint_not_met(facts: Facts) -> Iterator[Finding]:
    """Knowledge whose inconsistency g lies above the tolerance of Eq. 5."""
    tolerance = float(facts.objective.get("tolerance", 0.0))
    above = {
        str(entry["name"]): float(entry["inconsistency_nats"])
        for entry in facts.knowledge
        if entry.get("inconsistency_nats") is not None and entry["inconsistency_nats"] > tolerance
    }
    known = [entry for entry in facts.knowledge if entry.get("inconsistency_nats") is not None]
    if above and all(entry.get("multiplier") == 0 for entry in facts.knowledge):
        worst = max(above, key=lambda name: above[name])
        yield Finding(
            "constraint_not_met",
            "note",
            f"Encoder and decoder disagree by up to {above[worst]:.1f} nats ({worst}): all multipliers of Eq. 5 ended "
            "at 0.",
            "Where both have to agree, train with objective.multiplier or objective.multiplier_rate above 0.",
        )
    elif above:
        worst = max(above, key=lambda name: above[name])
        yield Finding(
            "constraint_not_met",
            "warning",
            f"The constraint of Eq. 5 is not met by {listed(ordered(above))}: encoder and decoder disagree by up to "
            f"{above[worst]:.1f} nats ({worst}), where {tolerance:g} are allowed.",
            "Train longer, raise objective.multiplier_max, or allow more by objective.tolerance.",
        )
    elif known:
        yield Finding(
            "constraint_not_met",
            "good",
            f"The constraint of Eq. 5 is met by all {len(known)} knowledge types, within {tolerance:g} nats.",
        )


def more_than_consistent(facts: Facts) -> Iterator[Finding]:
    """Conditionals that gain more over the prior than a consistent model can."""
    beyond = {
        str(entry["name"]): entry["gap_nats"] + math.log(entry["presence_prior"])
        for entry in facts.knowledge
        if entry.get("gap_nats") is not None and entry.get("presence_prior")
    }
    beyond = {name: nats for name, nats in beyond.items() if nats > 1}
    if beyond:
        most = max(beyond, key=lambda name: beyond[name])
        yield Finding(
            "more_than_consistent",
            "note",
            f"{count(beyond, 'conditional')} of {len(facts.knowledge)} gain more than −log p(κ=1), the most that a "
            f"consistent model can: {most} by {beyond[most]:.1f} nats. The shared flow fits these samples badly.",
            "A stronger shared flow (more steps, or another recipe) would leave conditionals less to repair.",
        )


def silent_characteristics(facts: Facts) -> Iterator[Finding]:
    """Knowledge whose C says nothing, by its information or by the plane that it spans."""
    silent = {
        str(entry["name"]): f"{entry['characteristics_kl_nats']:.2f} nats"
        for entry in facts.knowledge
        if entry.get("characteristics_kl_nats") is not None and entry["characteristics_kl_nats"] < SILENT_NATS
    }
    silent |= {
        name: f"its plane changes {percent(change)} of what test samples differ by"
        for name, change in facts.plane_change.items()
        if change < SILENT_CHANGE and name not in silent
    }
    if silent:
        names = list(silent)
        yield Finding(
            "silent_characteristics",
            "warning",
            f"C says nothing in {listed(names)} ({names[0]}: {silent[names[0]]}).",
            "Train longer, or give C something to say: observed characteristics, or a later objective.kl_warmup.",
        )


def blown_samples(facts: Facts) -> Iterator[Finding]:
    """Sets of samples among which some look like no data at all."""
    blown = {name: share for name, share in facts.blown.items() if share > BLOWN}
    if blown:
        worst = max(blown, key=lambda name: blown[name])
        yield Finding(
            "blown_samples",
            "warning",
            f"Samples are blown in {listed(list(blown))}: {percent(blown[worst])} of those of {worst} look nothing "
            "like test samples.",
            "Sample at a lower temperature (pictures.temperature, --temperature), or train with a smaller knee.",
        )
    elif facts.blown:
        yield Finding("blown_samples", "good", "At the chosen temperature no samples are blown: all look like data.")


def too_few_samples(facts: Facts) -> Iterator[Finding]:
    """Knowledge of so few samples that its figures say little."""
    tested: dict[str, int] = {}
    for row in _of_kind(facts, "knowledge"):
        if row["name"] != row.get("knowledge"):
            continue  # a mean over several
        tested[row["name"]] = tested.get(row["name"], 0) + (row.get("count") or 0)
    few = {name: count for name, count in tested.items() if count < FEWEST}
    learnt = {name: count for name, count in facts.trained_on.items() if count < FEWEST}
    if few:
        least = min(few, key=lambda name: few[name])
        yield Finding(
            "too_few_samples",
            "warning",
            f"{count(few, 'knowledge type')} with fewer than {FEWEST} test samples ({least}: {few[least]}): "
            f"figures of {listed(list(few))} are too uncertain to compare.",
        )
    if learnt:
        least = min(learnt, key=lambda name: learnt[name])
        yield Finding(
            "too_few_samples",
            "note",
            f"{count(learnt, 'knowledge type')} learnt from fewer than {FEWEST} training samples ({least}: "
            f"{learnt[least]}).",
            "From so few, `few-shot` knowledge is closer in closed form than training is.",
        )


def validation_turns(facts: Facts) -> Iterator[Finding]:
    """Validation that turned up, or was falling still, at the end of training."""
    falling = []
    for name, (steps, values) in _validation(facts.columns).items():
        best = values.index(min(values))
        fall = values[0] - values[best]
        if fall <= 0 and len(values) > 1:
            yield Finding(
                "validation_turns",
                "warning",
                f"Validation on {name} never got below its first value, {values[0]:.3f} bits/dim at step {steps[0]:,}.",
                "Lower training.learning_rate.",
            )
        elif values[-1] - values[best] > TURNED * fall:
            yield Finding(
                "validation_turns",
                "warning",
                f"Validation on {name} turned up after step {steps[best]:,}: from {values[best]:.3f} to "
                f"{values[-1]:.3f} bits/dim. What is evaluated is the best step by validation.",
                "Stop earlier (training.patience), take more data, or a smaller model.",
            )
        elif len(values) > 4 and values[-1 - len(values) // 5] - values[-1] > FALLING * fall:
            falling.append(name)
    if falling:
        yield Finding(
            "validation_turns",
            "note",
            f"Validation on {listed(falling)} was falling still at the end.",
            "Longer training would go on: tzk run RUN --resume training.steps=...",
        )


Rule = Callable[[Facts], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    worse_than_baseline,
    worse_than_prior,
    constraint_not_met,
    silent_characteristics,
    blown_samples,
    too_few_samples,
    validation_turns,
    more_than_consistent,
)


def _of_kind(facts: Facts, kind: str) -> list[Mapping[str, Any]]:
    return [row for row in facts.rows if row["kind"] == kind and row.get("bits_per_dim") is not None]


def _bits(row: Mapping[str, Any]) -> float:
    return float(row["bits_per_dim"])


def _decided(row: Mapping[str, Any]) -> bool:
    """Whether a row can be compared with the prior's."""
    gain, error = row.get("gain_bits_per_dim"), row.get("gain_standard_error")
    return gain is not None and error is not None and (row.get("count") or 0) >= FEWEST


def _validation(columns: Columns) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and bits/dim of every validation, by data set."""
    series = {}
    for name, values in columns.items():
        if name.startswith("validation/"):
            logged = [(step, value) for step, value in zip(columns["step"], values, strict=True) if value is not None]
            if logged:
                steps, bits = zip(*logged, strict=True)
                series[name.removeprefix("validation/")] = ([step or 0.0 for step in steps], list(bits))
    return series
