"""Every rule finds what it is for, in a sentence with the figures, and is silent otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from tzk_plugin_report import findings as rules
from tzk_plugin_report.findings import Facts, Finding, findings


def row(kind: str, name: str, bits: float, **more: Any) -> dict[str, Any]:
    knowledge = name if kind == "knowledge" else None
    return {
        "kind": kind,
        "name": name,
        "knowledge": knowledge,
        "dataset": "d",
        "bits_per_dim": bits,
        "count": 100,
    } | more


def conditional(name: str, gain: float, error: float = 0.01, **more: Any) -> dict[str, Any]:
    return row("knowledge", name, 2 - gain, gain_bits_per_dim=gain, gain_standard_error=error, **more)


def of_rule(rule: Any, facts: Facts) -> list[Finding]:
    return list(rule(facts))


def test_a_prior_worse_than_the_histogram_is_a_warning_and_a_better_one_is_not() -> None:
    (found,) = of_rule(
        rules.worse_than_baseline, Facts(rows=[row("prior", "prior", 2.5), row("baseline", "histogram", 2.25)])
    )
    assert found.weight == "warning" and "2.500" in found.text and "2.250" in found.text
    better = Facts(rows=[row("prior", "prior", 2.0), row("baseline", "histogram", 2.25)])
    assert not of_rule(rules.worse_than_baseline, better)
    elsewhere = Facts(rows=[row("prior", "prior", 2.5), row("baseline", "histogram", 2.25, dataset="other")])
    assert not of_rule(rules.worse_than_baseline, elsewhere)


def test_conditionals_are_worse_level_or_better_by_two_standard_errors() -> None:
    worse, level = of_rule(
        rules.worse_than_prior,
        Facts(rows=[conditional("a", -0.5), conditional("b", 0.019), conditional("c", 0.021), conditional("e", -0.03)]),
    )
    assert (worse.weight, level.weight) == ("warning", "note")
    assert "2 conditionals (a and e) are worse" in worse.text and "knowing a costs 0.5000" in worse.text
    assert "1 conditional (b) is no different" in level.text
    (good,) = of_rule(rules.worse_than_prior, Facts(rows=[conditional("a", 0.1), conditional("b", 0.2)]))
    assert good.weight == "good" and "All 2" in good.text


def test_means_over_knowledge_and_rows_of_few_samples_are_no_conditionals() -> None:
    mean = conditional("mean digit", -1.0) | {"knowledge": "digit-0 to digit-9"}
    assert not of_rule(rules.worse_than_prior, Facts(rows=[mean, conditional("few", -1.0, count=29)]))
    assert not of_rule(rules.too_few_samples, Facts(rows=[mean | {"count": 3}]))


def test_the_constraint_is_met_up_to_its_tolerance() -> None:
    entries = [{"name": "a", "inconsistency_nats": 19.9}, {"name": "b", "inconsistency_nats": 25.0}]
    (found,) = of_rule(rules.constraint_not_met, Facts(knowledge=entries, objective={"tolerance": 20.0}))
    assert found.weight == "warning" and "not met by b:" in found.text and "25.0 nats" in found.text
    (good,) = of_rule(rules.constraint_not_met, Facts(knowledge=entries[:1], objective={"tolerance": 20.0}))
    assert good.weight == "good"
    assert not of_rule(rules.constraint_not_met, Facts(knowledge=[{"name": "a", "inconsistency_nats": None}]))


def test_an_inconsistency_without_multipliers_is_no_constraint_that_failed() -> None:
    entries = [{"name": "a", "inconsistency_nats": 25.0, "multiplier": 0.0}]
    (found,) = of_rule(rules.constraint_not_met, Facts(knowledge=entries, objective={"tolerance": 20.0}))
    assert found.weight == "note" and "25.0 nats (a)" in found.text and "not met" not in found.text
    entries.append({"name": "b", "inconsistency_nats": 1.0, "multiplier": 0.1})
    (found,) = of_rule(rules.constraint_not_met, Facts(knowledge=entries, objective={"tolerance": 20.0}))
    assert found.weight == "warning" and "not met by a:" in found.text


def test_what_knowledge_was_added_to_is_not_asked_to_train_longer() -> None:
    rows = [
        {"kind": "prior", "dataset": "d", "name": "prior", "bits_per_dim": 2.0, "count": 1000},
        {"kind": "baseline", "dataset": "d", "name": "per-pixel histogram", "bits_per_dim": 1.0, "count": 1000},
    ]
    (alone,) = of_rule(rules.worse_than_baseline, Facts(rows=rows))
    (added,) = of_rule(rules.worse_than_baseline, Facts(rows=rows, parent="before"))
    assert alone.weight == "warning" and "Train longer" in alone.advice
    assert added.weight == "note" and "before stays as it was" in added.text and "Train" not in added.advice


def test_more_than_a_consistent_model_can_gain_is_counted_from_the_prior_of_presence() -> None:
    entries = [
        {"name": "a", "gap_nats": 5.0, "presence_prior": 0.5},  # at most 0.69
        {"name": "b", "gap_nats": 1.5, "presence_prior": 0.5},
        {"name": "c", "gap_nats": None, "presence_prior": 0.5},
    ]
    (found,) = of_rule(rules.more_than_consistent, Facts(knowledge=entries))
    assert "1 conditional of 3" in found.text and "a by 4.3 nats" in found.text


@pytest.mark.parametrize(
    ("entries", "change", "silent"),
    [
        ([{"name": "a", "characteristics_kl_nats": 0.05}], {}, True),
        ([{"name": "a", "characteristics_kl_nats": 2.0}], {"a": 0.5}, False),
        ([{"name": "a", "characteristics_kl_nats": None}], {"a": 0.01}, True),
    ],
)
def test_c_says_nothing_by_its_information_or_by_its_plane(
    entries: list[dict[str, Any]], change: dict[str, float], silent: bool
) -> None:
    found = of_rule(rules.silent_characteristics, Facts(knowledge=entries, plane_change=change))
    assert bool(found) == silent
    assert all("C says nothing in a" in finding.text for finding in found)


def test_blown_samples_are_named_with_their_share() -> None:
    (found,) = of_rule(rules.blown_samples, Facts(blown={"prior": 0.25, "digit-3": 0.0}))
    assert found.weight == "warning" and "in prior:" in found.text and "25 %" in found.text
    (good,) = of_rule(rules.blown_samples, Facts(blown={"prior": 0.0}))
    assert good.weight == "good"
    assert not of_rule(rules.blown_samples, Facts())


def test_types_of_few_test_samples_are_summed_over_data_sets_and_few_training_samples_are_another_thing() -> None:
    rows = [conditional("a", 1, count=20), conditional("a", 1, count=20, dataset="e"), conditional("b", 1, count=5)]
    tested, learnt = of_rule(rules.too_few_samples, Facts(rows=rows, trained_on={"a": 3, "b": 400}))
    assert tested.weight == "warning" and "1 knowledge type with fewer" in tested.text and "b: 5" in tested.text
    assert learnt.weight == "note" and "a: 3" in learnt.text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([3.0, 2.0, 1.0, 1.5], "turned up after step 300"),
        ([3.0, 2.0, 1.5, 1.2, 1.0, 0.8], "falling still"),
        ([3.0, 1.0, 1.001, 1.0, 1.0, 1.0, 1.0, 1.0], ""),
        ([3.0, 3.5, 4.0], "never got below"),
        ([3.0], ""),
    ],
)
def test_validation_that_turns_up_falls_still_or_never_fell(values: list[float], words: str) -> None:
    columns: dict[str, list[float | None]] = {"step": [], "validation/d": []}
    for number, value in enumerate(values):  # rows between validations have none
        columns["step"] += [100.0 * (number + 1), 100.0 * (number + 1) + 50]
        columns["validation/d"] += [value, None]
    found = of_rule(rules.validation_turns, Facts(columns=columns))
    assert [words in finding.text for finding in found] == ([True] if words else [])


def test_warnings_come_first_and_no_facts_have_no_findings() -> None:
    assert findings(Facts()) == []
    facts = Facts(rows=[conditional("a", 0.1)], blown={"prior": 1.0}, trained_on={"a": 1})
    assert [finding.weight for finding in findings(facts)] == ["warning", "note", "good"]
